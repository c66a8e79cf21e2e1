//! The examples of what is held for synchronous apps, as they are, in a browser: each on gunicorn's two sync workers, behind
//! its own `hostler.yaml`.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::chromium::key_digest;
use crate::support::client::get;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::worker::Transport;
use crate::support::{Chromium, Client, Gateway, Gunicorn, WebSocket, shop};

/// An example at work.
struct Example {
    gateway: Gateway,
    folder: TempDir,
    _gunicorn: Gunicorn,
}

impl Example {
    /// The one in this folder. `app` is what gunicorn is told to serve.
    fn start(name: &str, app: &'static str) -> Self {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let folder = tempfile::tempdir().unwrap();
        let written = std::fs::read_to_string(source.join("hostler.yaml")).unwrap();
        let publish = free_address();
        let mut plan = Plan::new(Kind::Sync, 2, Transport::Unix).serving(app);
        let url = format!("http://{publish}/?iss=hostler&key=only-for-trying-it-on-ones-own-machine");
        for (name, value) in
            [("PYTHONPATH", source.to_str()), ("LIVE_FOLDER", folder.path().to_str()), ("GRIP_URL", Some(&*url))]
        {
            plan = plan.variable(name, value.unwrap());
        }
        if source.join("manage.py").exists() {
            let mut migrate = Command::new(shop::python());
            migrate.args(["manage.py", "migrate", "--verbosity", "0"]).current_dir(&source);
            migrate.envs([("LIVE_FOLDER", folder.path().as_os_str()), ("PYTHONDONTWRITEBYTECODE", "1".as_ref())]);
            assert!(migrate.status().unwrap().success());
        }
        let gunicorn = plan.start();
        // How it logs is the test's own.
        let lines = written.lines().take_while(|line| !line.starts_with("logging:"));
        let lines = lines.filter(|line| !line.contains("bind: \"[::1]:"));
        let config: String = lines.map(|line| format!("{line}\n")).collect();
        let config = config.replace("127.0.0.1:8443", "127.0.0.1:0").replace("127.0.0.1:5561", &publish);
        let config = config.replace("unix:./run/gunicorn.sock", &gunicorn.endpoint());
        // All of the crowd come from one address.
        let config = config + "limits: { connections_per_client: 3000 }\n";
        Self { gateway: Gateway::start(&config), folder, _gunicorn: gunicorn }
    }

    /// One more client, over TLS and HTTP/1.1.
    fn client(&self) -> Client {
        Client::tls(self.gateway.address(), "localhost", &self.gateway.root())
    }

    /// What the page answers, beside all that is held.
    fn page(&self) {
        let mut client = self.client();
        client.send(get("/").replace("shop.example", "localhost"));
        assert_eq!(client.response("GET").status, 200);
    }

    fn origin(&self) -> String {
        format!("https://localhost:{}", self.gateway.address().port())
    }

    /// A browser that has loaded the page, and whose page says that it is connected.
    fn browser(&self, name: &str, state: &str) -> Chromium {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut browser = Chromium::start(&folder, &key_digest(&self.gateway, &folder));
        browser.load(&format!("{}/", self.origin()));
        browser.evaluate(&until(&format!("document.body.dataset.state === '{state}'")));
        browser
    }
}

/// Everybody else who listens: connections over TLS that are held meanwhile.
const CROWD: usize = 1000;

/// As many open files as this process may have: each of the crowd takes one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// A port of this machine's that is free: the app has to know it before the gateway is there.
fn free_address() -> String {
    TcpListener::bind("127.0.0.67:0").unwrap().local_addr().unwrap().to_string()
}

/// A promise that is kept once this holds in the page.
fn until(condition: &str) -> String {
    format!("new Promise((done) => {{ const look = () => {condition} ? done(true) : setTimeout(look, 10); look(); }})")
}

/// What stands in the page's list, the newest first.
fn listed(browser: &mut Chromium, list: &str) -> Vec<String> {
    let lines =
        browser.evaluate(&format!("[...document.querySelectorAll('#{list} li')].map((line) => line.textContent)"));
    lines.as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn a_chat_on_two_sync_workers_reaches_every_browser_over_http2() {
    let chat = Example::start("chat", "chat:app");
    raise_open_files();
    let origin = chat.origin();
    let host = origin.trim_start_matches("https://");
    let mut crowd: Vec<_> =
        (0..CROWD).map(|_| WebSocket::open(chat.client(), "/chat", &[("Host", host), ("Origin", &origin)])).collect();
    let [mut one, mut other] = ["one", "other"].map(|name| chat.browser(name, "open"));
    chat.gateway.wait_metric("hostler_holds{kind=\"websocket\"}", CROWD as f64 + 2.0);
    chat.page();
    for (number, text) in ["Good evening.", "Ünïcode, <b>too</b> 🐎"].iter().enumerate() {
        let say =
            format!("document.querySelector('#text').value = '{text}'; document.querySelector('#say button').click()");
        one.evaluate(&say);
        for browser in [&mut one, &mut other] {
            browser.evaluate(&until(&format!("document.querySelectorAll('#said li').length > {number}")));
            assert_eq!(listed(browser, "said")[0], *text);
        }
        for socket in &mut crowd {
            assert_eq!(socket.message(), text.as_bytes());
        }
    }
    assert_eq!(one.complaints(), [""; 0]);
    assert!(one.loaded().iter().all(|answer| answer.protocol == "h2"), "{:?}", one.loaded());
    drop((one, other, crowd));
    let line = chat.gateway.access_of_path("/chat");
    assert_eq!((&line["protocol"], &line["status"]), (&"HTTP/2".into(), &101.into()), "{line}");
    chat.gateway.wait_metric("hostler_holds{kind=\"websocket\"}", 0.0);
}

#[test]
fn a_note_that_one_browser_adds_appears_in_another_by_an_event_stream() {
    let live = Example::start("live", "live.wsgi");
    raise_open_files();
    let mut crowd: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut client = live.client();
            client.send(get("/events/").replace("shop.example", "localhost"));
            assert_eq!(client.head().unwrap().0, 200);
            client
        })
        .collect();
    let [mut one, mut other] = ["one", "other"].map(|name| live.browser(name, "live"));
    live.gateway.wait_metric("hostler_holds{kind=\"stream\"}", CROWD as f64 + 2.0);
    live.page();
    for (number, text) in ["Feed the grey mare", "Hay & oats"].iter().enumerate() {
        one.evaluate(&format!("document.querySelector('#id_text').value = '{text}'"));
        one.evaluate("document.querySelector('form button').click()");
        other.evaluate(&until(&format!("document.querySelectorAll('#notes li').length > {number}")));
        assert_eq!(listed(&mut other, "notes")[0], *text);
        for client in &mut crowd {
            let mut told = String::new();
            while !told.contains(text) {
                told.push_str(std::str::from_utf8(&client.chunk().expect("more events")).unwrap());
            }
        }
        // The form has loaded the page anew.
        one.evaluate(&until(&format!(
            "document.querySelectorAll('#notes li').length > {number} && document.body.dataset.state === 'live'"
        )));
        assert_eq!(listed(&mut one, "notes")[0], *text, "and once");
    }
    assert_eq!(listed(&mut one, "notes").len(), 2);
    assert_eq!(other.complaints(), [""; 0]);
    assert!(other.loaded().iter().all(|answer| answer.protocol == "h2"), "{:?}", other.loaded());
}
