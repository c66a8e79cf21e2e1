//! SIGHUP: build, swap, drop nothing; open connections obey the new routes on their next request.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::gateway::Signal;
use crate::support::tool::{Tool, curl};
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, H2, Worker};

const ROUND: Duration = Duration::from_millis(200);
const ROUNDS: u32 = 100;

fn config(gunicorn: &Gunicorn, generation: u32) -> String {
    format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: {} }}\n\
         sites:\n  - routes:\n      - {{ path_exact: /generation, respond: {{ body: \"{generation}\" }} }}\n      - {{ path: /, proxy: app }}\n\
         runtime: {{ threads: 2 }}\n",
        gunicorn.endpoint(),
        // The number of slots changes, too; the last one leaves all of them.
        2 + generation % 2,
    )
}

#[test]
fn a_storm_of_reloads_under_load_fails_no_request() {
    let gunicorn = Gunicorn::start(3);
    let gateway = Gateway::start(&config(&gunicorn, 0));
    let (address, root) = (gateway.address(), gateway.root());
    let url = format!("https://localhost:{}", address.port());
    let mut h1 = Client::tls(address, "localhost", &root);
    let h2 = H2::tls(address, "localhost", &root);
    let mut slow = Client::tls(address, "localhost", &root);
    slow.send("GET /slow?seconds=10 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let target = format!("{url}/bytes/100");
    let load = Tool::start("h2load", &["--duration=20", "--clients=4", "--max-concurrent-streams=4", &target]);
    let (done, curls) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let output = curl(&["--cacert", root.to_str().unwrap(), "--fail", "--output", "/dev/null", &target]);
                assert_eq!(output.code, Some(0), "{output:?}");
                curls.fetch_add(1, Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        for generation in 1..=ROUNDS {
            gateway.reload(&config(&gunicorn, generation));
            h1.send("GET /generation HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(h1.response("GET").text(), generation.to_string(), "on an HTTP/1.1 connection opened before");
            let seen = h2.send(http::Request::get("https://localhost/generation").body(()).unwrap(), b"");
            assert_eq!(seen.text(), generation.to_string(), "on an HTTP/2 connection opened before");
            // The pace of the storm, not a wait for anything.
            std::thread::sleep((ROUND * generation).saturating_sub(begun.elapsed()));
        }
        done.store(true, Ordering::Relaxed);
    });
    let response = slow.response("GET");
    assert_eq!(response.status, 200, "the request of 10 s in flight: {response:?}");
    let output = load.output_within(Duration::from_secs(40));
    let line = output.stdout.lines().find(|line| line.starts_with("requests:")).unwrap_or_else(|| panic!("{output:?}"));
    assert!(line.contains(" 0 failed, 0 errored, 0 timeout"), "{line}");
    let statuses = output.stdout.lines().find(|line| line.starts_with("status codes:")).expect("status codes");
    assert!(statuses.contains(" 0 3xx, 0 4xx, 0 5xx"), "{statuses}");
    assert!(curls.load(Ordering::Relaxed) > 10);
    gateway.wait_metric("hostler_config_reloads_total{result=\"ok\"}", f64::from(ROUNDS));
    gateway.wait_idle();
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let good = format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    );
    let gateway = Gateway::start(&good);
    gateway.rewrite(&good.replace("proxy: app", "proxy: apx"));
    gateway.signal(Signal::HUP);
    let event = gateway.log_event("not reloaded", |event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("not reloaded"))
    });
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("apx") && message.contains("app"), "it says what and proposes the right name: {message}");
    assert_eq!(gateway.client().get("/").status, 200);
    gateway.wait_metric("hostler_config_reloads_total{result=\"failed\"}", 1.0);
}

#[test]
fn listeners_come_and_go_and_the_others_keep_their_connections() {
    let respond =
        "sites:\n  - routes: [{ path: /, respond: { body: ok } }]\nupstreams: {}\n".replace("upstreams: {}\n", "");
    let with = |listeners: &str| format!("listeners:\n{listeners}{respond}");
    let one = "  - { bind: \"127.0.0.1:0\" }\n";
    let two = "  - { bind: \"unix:@folder@/edge.sock\" }\n";
    let gateway = Gateway::start(&with(one));
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    gateway.reload(&with(&format!("{one}{two}")));
    let socket = gateway.folder().join("edge.sock");
    let unix = crate::support::Address::parse(&format!("unix:{}", socket.display()));
    assert_eq!(Client::connect(&unix).get("/").status, 200);
    gateway.reload(&with(one));
    assert!(crate::support::look_until(|| unix.connect().err()).is_some());
    assert_eq!(client.get("/").status, 200, "the connection opened at first is still there");
}

#[test]
fn a_cache_whose_folder_cannot_be_used_is_told_and_the_one_before_stays() {
    let config = |cache: &str| {
        format!(
            "admin: {{ bind: \"unix:@folder@/admin.sock\" }}\ncache: {{ {cache} }}\n\
             upstreams: {{ app: {{ endpoints: [\"http://127.0.0.1:9\"], workers: 1 }} }}\n\
             sites: [{{ routes: [{{ path: /up, respond: {{}} }}, {{ path: /, proxy: app, cache: true }}] }}]\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let shared = config(&format!("disk: {{ path: {} }}", folder.path().join("cache").display()));
    let gateway = Gateway::start(&shared);
    let (code, told) = Gateway::refuse(&shared);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("cache.disk.path: the cache's folder") && told.contains("another process has it"), "{told}");
    let held = folder.path().join("cache/lock");
    let (code, told) = Gateway::refuse(&config(&format!("disk: {{ path: {} }}", held.display())));
    assert!(code == Some(1) && told.contains("is not a folder (name a folder; with systemd"), "{told}");

    gateway.rewrite(&config(&format!("memory: 8MiB, disk: {{ path: {}/none/cache }}", folder.path().display())));
    let refused = gateway.cli(&["reload"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("create it, or check the path"), "{refused:?}");
    let memory = "hostler_cache_limit_bytes{where=\"memory\"}";
    assert_eq!((gateway.metric(memory), gateway.client().get("/up").status), (f64::from(256 << 20), 200));

    gateway.rewrite(&shared.replace("cache: { ", "cache: { memory: 8MiB, "));
    assert_eq!(gateway.cli(&["reload"]).code, Some(0), "its own folder is no obstacle");
    assert_eq!(gateway.metric(memory), f64::from(8 << 20));
    assert!(gateway.stop().status.success());
}
