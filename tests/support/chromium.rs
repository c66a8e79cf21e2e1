//! Chromium without a window, spoken to in its own protocol (CDP) over a pipe: messages of JSON, each ended by NUL.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Gateway;
use super::client::certificate_shown;
use super::tool::openssl;

/// A browser takes its time where two others build.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running browser with one page. Ends when it is dropped.
pub(crate) struct Chromium {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Value,
    count: u64,
    /// What it has told unasked.
    events: Vec<Value>,
}

/// One answer that the page has got.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) url: String,
    pub(crate) status: u64,
    /// As the browser calls it: `h2`.
    pub(crate) protocol: String,
    /// What it was sent in, if that is a coding of its own.
    pub(crate) encoding: Option<String>,
}

impl Chromium {
    /// Starts it. `key_digest` is that of the one key it trusts besides those of the system.
    pub(crate) fn start(folder: &Path, key_digest: &str) -> Self {
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let trust = format!("--ignore-certificate-errors-spki-list={key_digest}");
        let mut command = Command::new("sh");
        // It reads from its descriptor 3, and writes to 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "chromium-headless-shell"]);
        // Root, as whom tests may run, cannot have its sandbox; and containers have little /dev/shm.
        command.args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--remote-debugging-pipe"]);
        command.args([&profile, &trust, "about:blank"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (sender, messages) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                // Nobody listens any more: the browser is being ended.
                let _ = sender.send(serde_json::from_slice(&message).unwrap());
            }
        });
        let commands = child.stdin.take().unwrap();
        let mut browser = Self { child, commands, messages, session: Value::Null, count: 0, events: Vec::new() };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let session = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.ask("Target.attachToTarget", session)["sessionId"].clone();
        for domain in ["Log.enable", "Runtime.enable", "Network.enable", "Page.enable"] {
            browser.ask(domain, json!({}));
        }
        browser
    }

    /// Loads a page with all that belongs to it.
    pub(crate) fn load(&mut self, url: &str) {
        let navigated = self.ask("Page.navigate", json!({ "url": url }));
        assert_eq!(navigated.get("errorText"), None, "{url}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.take("the page is loaded");
        }
    }

    /// What an expression is in the page; of a promise, what becomes of it.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let question = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", question);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].clone()
    }

    /// What stands in the console, besides what scripts say for information.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let complaint = |event: &Value| {
            let parameters = &event["params"];
            let words = match event["method"].as_str()? {
                "Log.entryAdded" => &parameters["entry"],
                "Runtime.exceptionThrown" => &parameters["exceptionDetails"],
                "Runtime.consoleAPICalled" if matches!(parameters["type"].as_str(), Some("error" | "warning")) => {
                    parameters
                }
                _ => return None,
            };
            Some(words.to_string())
        };
        self.events.iter().filter_map(complaint).collect()
    }

    /// All that was loaded, in the order of the answers.
    pub(crate) fn loaded(&self) -> Vec<Loaded> {
        let answers = self.events.iter().filter(|event| event["method"] == "Network.responseReceived");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let loaded = |event: &Value| {
            let response = &event["params"]["response"];
            Loaded {
                url: text(&response["url"]).unwrap_or_default(),
                status: response["status"].as_u64().unwrap_or_default(),
                protocol: text(&response["protocol"]).unwrap_or_default(),
                encoding: text(&response["headers"]["content-encoding"]),
            }
        };
        answers.map(loaded).collect()
    }

    fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.count += 1;
        let mut message = json!({ "id": self.count, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        let sent = self.commands.write_all(format!("{message}\0").as_bytes());
        sent.unwrap_or_else(|error| panic!("chromium-headless-shell: {error} (tests/python/tools.sh installs it)"));
        let asked = self.count;
        loop {
            if let Some(answer) = self.take(method).filter(|message| message["id"] == asked) {
                assert_eq!(answer.get("error"), None, "{method}");
                return answer["result"].clone();
            }
        }
    }

    /// The next message; those that answer nothing are kept.
    fn take(&mut self, what: &str) -> Option<Value> {
        let message = self.messages.recv_timeout(PATIENCE);
        let missing = "chromium-headless-shell does not answer (tests/python/tools.sh installs it)";
        let message = message.unwrap_or_else(|error| panic!("{what}: {missing}: {error}"));
        if message.get("id").is_some() {
            return Some(message);
        }
        self.events.push(message);
        None
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its own end takes its processes with it; whoever does not listen is killed.
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        if super::look_until(|| self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What Chromium knows the key of a gateway with `tls: { local: true }` by: it has no file of roots to be trusted. Works in
/// `folder`.
pub(crate) fn key_digest(gateway: &Gateway, folder: &Path) -> String {
    let shown = certificate_shown(gateway.address(), "localhost", &gateway.root()).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, pem, der) = (path("leaf.der"), path("key.pem"), path("key.der"));
    std::fs::write(&certificate, shown).unwrap();
    for command in [
        &["x509", "-inform", "der", "-in", &certificate, "-noout", "-pubkey", "-out", &pem][..],
        &["pkey", "-pubin", "-in", &pem, "-outform", "der", "-out", &der],
    ] {
        let output = openssl(command);
        assert_eq!(output.code, Some(0), "{output:?}");
    }
    let key = std::fs::read(der).unwrap();
    STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &key))
}
