// Tells what the page has loaded and by which protocol, as the browser saw it.

await new Promise((done) => (document.readyState === "complete" ? done() : addEventListener("load", done)));

const list = document.getElementById("loaded");
const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
for (const entry of entries) {
  const item = document.createElement("li");
  item.textContent = `${new URL(entry.name).pathname} by ${entry.nextHopProtocol}`;
  list.append(item);
}
document.body.dataset.color = getComputedStyle(document.body).color;
document.body.dataset.image = String(document.querySelector("img").naturalWidth);
