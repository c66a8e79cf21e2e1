//! A browser's view: Chromium loads a page of the shop whose style, script and images are static files.

use std::path::{Path, PathBuf};

use crate::support::chromium::key_digest;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::shop;
use crate::support::worker::Transport;
use crate::support::{Chromium, Gateway, Gunicorn, H2, Response};

/// The shop, its collected files, and the gateway before both.
struct Stage {
    gateway: Gateway,
    folder: tempfile::TempDir,
    _gunicorn: Gunicorn,
}

impl Stage {
    fn new(static_route: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("static");
        shop::collect_static(&files);
        let plan = Plan::new(Kind::Sync, 2, Transport::Unix).variable("SHOP_STATIC", files.to_str().unwrap());
        let gunicorn = plan.start();
        let gateway = Gateway::start(&format!(
            "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n\
             upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
             sites:\n  - routes:\n      - {{ path: /static/, {} }}\n      - {{ path: /, proxy: app }}\n",
            gunicorn.endpoint(),
            static_route.replace("@files@", files.to_str().unwrap()),
        ));
        Self { gateway, folder, _gunicorn: gunicorn }
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("static")
    }

    /// The collected name of a file.
    fn collected(&self, name: &str) -> String {
        let manifest = std::fs::read(self.files().join("staticfiles.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["paths"][name].as_str().unwrap_or_else(|| panic!("{name} in {manifest:#}")).to_owned()
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.gateway.address().port())
    }

    /// A browser that trusts the gateway.
    fn browser(&self) -> Chromium {
        Chromium::start(self.folder.path(), &key_digest(&self.gateway, self.folder.path()))
    }

    fn get(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        let request = http::Request::get(format!("{}{path}", self.origin()));
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let h2 = H2::tls(self.gateway.address(), "localhost", &self.gateway.root());
        h2.send(request.body(()).unwrap(), b"")
    }
}

/// A brotli stream (RFC 7932, 9.2) that holds these bytes as they are.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).unwrap();
    assert!(length < 1 << 16);
    // A window of 64 KiB, one block that is not the last, of so many bytes, not compressed.
    let head = length << 4 | 1 << 20;
    // Behind it an empty last one.
    [&head.to_le_bytes()[..3], bytes, &[3]].concat()
}

/// Puts something that is shorter than a file beside it, as its form in brotli.
fn compress(path: &Path, short: &[u8]) {
    let mut sibling = path.to_path_buf().into_os_string();
    sibling.push(".br");
    std::fs::write(sibling, brotli(short)).unwrap();
}

/// Ready when the page's own script has done its work: what the document is like then.
const DONE: &str = "new Promise((done) => {
  const look = () => document.body.dataset.image ? done(document.documentElement.outerHTML) : setTimeout(look, 10);
  look();
})";

#[test]
fn a_browser_loads_the_page_and_its_static_files_over_http2_and_complains_of_nothing() {
    let stage = Stage::new("files: { root: \"@files@\", immutable: manifest }");
    let names = ["tour/assets.css", "tour/assets.js", "tour/icon.svg", "tour/horse.svg"];
    let [style, script, icon, image] = names.map(|name| stage.collected(name));
    // What browsers take, they get; this one is told from the original by its color.
    compress(&stage.files().join(&style), b"body{color:rgb(1,2,3)}");
    let mut browser = stage.browser();
    browser.load(&format!("{}/assets", stage.origin()));
    let document = browser.evaluate(DONE).as_str().unwrap().to_owned();
    assert_eq!(browser.complaints(), [""; 0]);
    let loaded = browser.loaded();
    for path in [&style, &script, &image].map(|name| format!("/static/{name}")).iter().chain([&"/assets".to_owned()]) {
        let url = format!("{}{path}", stage.origin());
        let answer = loaded.iter().find(|answer| answer.url == url).unwrap_or_else(|| panic!("{url} in {loaded:#?}"));
        assert_eq!((answer.status, &*answer.protocol), (200, "h2"), "{answer:?}");
        let line = stage.gateway.access_of_path(path);
        assert_eq!((&line["status"], &line["protocol"]), (&200.into(), &"HTTP/2".into()), "{line}");
        assert_eq!(answer.encoding.as_deref(), path.ends_with(".css").then_some("br"), "{answer:?}");
        // As the page's script has found it in the browser's own timeline.
        assert!(document.contains(&format!("<li>{path} by h2</li>")), "{path}: {document}");
    }
    assert!(document.contains("data-color=\"rgb(1, 2, 3)\"") && document.contains("data-image=\"96\""), "{document}");
    assert!(document.contains(&format!("href=\"/static/{icon}\"")), "{document}");
}

#[test]
fn what_is_missing_is_in_the_browsers_console() {
    let stage = Stage::new("respond: { status: 404, body: gone }");
    let mut browser = stage.browser();
    browser.load(&format!("{}/assets", stage.origin()));
    let complaints = browser.complaints();
    let of = |name: &str| complaints.iter().any(|text| text.contains("404") && text.contains(name));
    assert!(of("assets.") && of("horse."), "{complaints:#?}");
}

#[test]
fn collected_files_have_djangos_manners() {
    let stage = Stage::new("files: { root: \"@files@\", immutable: manifest }");
    let hashed = stage.collected("tour/assets.css");
    compress(&stage.files().join(&hashed), b"body{}");
    let plain = std::fs::read(stage.files().join(&hashed)).unwrap();
    let path = format!("/static/{hashed}");
    let whole = stage.get(&path, &[]);
    assert_eq!((whole.status, &whole.body), (200, &plain));
    let cache_control = whole.header("cache-control").unwrap_or_default();
    assert!(cache_control.contains("immutable") && cache_control.contains("public"), "{whole:?}");
    assert_eq!(whole.header("content-type"), Some("text/css; charset=utf-8"));
    let compressed = stage.get(&path, &[("accept-encoding", "gzip, deflate, br, zstd")]);
    assert_eq!((compressed.status, compressed.header("content-encoding")), (200, Some("br")), "{compressed:?}");
    assert_eq!(compressed.body, brotli(b"body{}"));
    assert_ne!(compressed.header("etag"), whole.header("etag"), "each form has its own");
    let part = stage.get(&path, &[("range", "bytes=5-9"), ("if-range", whole.header("etag").unwrap())]);
    assert_eq!((part.status, &part.body[..]), (206, &plain[5..10]), "{part:?}");
    let again = stage.get(&path, &[("if-none-match", whole.header("etag").unwrap())]);
    assert_eq!(again.status, 304, "{again:?}");
    // The file under its own name may change.
    let unhashed = stage.get("/static/tour/assets.css", &[]);
    assert_eq!(unhashed.status, 200);
    assert!(!unhashed.header("cache-control").unwrap_or_default().contains("immutable"), "{unhashed:?}");
}

#[test]
fn collectstatic_is_seen_without_a_reload() {
    let stage = Stage::new("files: { root: \"@files@\", immutable: manifest }");
    let before = stage.collected("tour/assets.css");
    assert!(stage.get(&format!("/static/{before}"), &[]).header("cache-control").unwrap().contains("immutable"));
    // As another version of the file is deployed.
    let new = before.replace("assets.", "assets.0");
    std::fs::copy(stage.files().join(&before), stage.files().join(&new)).unwrap();
    let manifest = std::fs::read_to_string(stage.files().join("staticfiles.json")).unwrap();
    let beside = stage.files().join("staticfiles.json.new");
    std::fs::write(&beside, manifest.replace(&before, &new)).unwrap();
    std::fs::rename(beside, stage.files().join("staticfiles.json")).unwrap();
    let found = crate::support::look_until(|| {
        let answer = stage.get(&format!("/static/{new}"), &[]);
        answer.header("cache-control").is_some_and(|value| value.contains("immutable")).then_some(())
    });
    assert!(found.is_some(), "the new name is never immutable");
}
