//! Uploads of any size: received whole before a worker is touched, in little memory, within the spool's budget.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::support::client::post;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::tool::{Output, Tool};
use crate::support::{Gateway, Gunicorn, Worker, worker::Transport};

/// SHA-256 of 2^30 zero bytes.
const GIBIBYTE_OF_ZEROS: &str = "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14";

fn shop(gunicorn: &Gunicorn, spool: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\nspool: {{ dir: \"@folder@\", {spool} }}\n\
         limits: {{ body: 2GiB }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2, waiting_room: {{ timeout: 500s }} }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app, buffer: {{ disk: 2GiB }} }}]\n",
        gunicorn.endpoint()
    ))
}

/// Workers that are not killed while they read for long: this machine may have a lot else to do.
fn patient() -> Gunicorn {
    Plan::new(Kind::Sync, 2, Transport::Unix).argument("--timeout=500").start()
}

fn upload(gateway: &Gateway, file: &Path, options: &[&str]) -> Tool {
    let (root, url) = (gateway.root(), format!("https://localhost:{}/upload", gateway.address().port()));
    let mut arguments = vec!["--silent", "--show-error", "--max-time", "500", "--request", "POST", "--upload-file"];
    arguments.extend([file.to_str().unwrap(), "--cacert", root.to_str().unwrap(), &url]);
    arguments.extend(options);
    Tool::start("curl", &arguments)
}

fn echo(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("no echo: {output:?}"))
}

#[test]
fn a_gibibyte_arrives_whole_in_little_memory() {
    let gunicorn = patient();
    let gateway = shop(&gunicorn, "disk: 2GiB");
    let path = gateway.folder().join("zeros");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    for protocol in ["--http1.1", "--http2"] {
        for framing in ["Expect:", "Transfer-Encoding: chunked"] {
            let output =
                upload(&gateway, &path, &[protocol, "--header", framing]).output_within(Duration::from_secs(500));
            let echo = echo(&output);
            assert_eq!(
                (&echo["size"], &echo["sha256"]),
                (&(1 << 30).into(), &GIBIBYTE_OF_ZEROS.into()),
                "{protocol} {framing}"
            );
            assert_eq!(
                echo["content_length"],
                (1 << 30).to_string(),
                "the app is told the length: {protocol} {framing}"
            );
        }
    }
    let peak = gateway.peak_rss_kib();
    assert!(peak < 64 << 10, "{peak} KiB");
    gateway.wait_idle();
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
}

#[test]
fn fifty_uploads_at_once_stay_within_the_spool() {
    let gunicorn = patient();
    // All of them come from one client, which may have half of it.
    let gateway = shop(&gunicorn, "memory: 8MiB, disk: 2100MiB");
    let path = gateway.folder().join("bytes");
    let bytes: Vec<u8> = (0..20u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&path, &bytes).unwrap();
    let uploads: Vec<Tool> = (0..50).map(|n| upload(&gateway, &path, &[["--http1.1", "--http2"][n % 2]])).collect();
    let mut sums = std::collections::HashSet::new();
    for upload in uploads {
        let (memory, disk) = (
            gateway.metric("hostler_spool_bytes{where=\"memory\"}"),
            gateway.metric("hostler_spool_bytes{where=\"disk\"}"),
        );
        assert!(memory <= f64::from(8 << 20) && disk <= f64::from(1050 << 20), "{memory} in memory, {disk} on disk");
        let output = upload.output_within(Duration::from_secs(500));
        let echo = echo(&output);
        assert_eq!(echo["size"], 20 << 20, "{output:?}");
        sums.insert(echo["sha256"].to_string());
    }
    assert_eq!(sums.len(), 1, "{sums:?}");
    let peak = gateway.peak_rss_kib();
    assert!(peak < 320 << 10, "{peak} KiB");
    for place in ["memory", "disk"] {
        gateway.wait_metric(&format!("hostler_spool_bytes{{where=\"{place}\"}}"), 0.0);
    }
}

#[test]
fn a_body_for_which_the_spool_has_no_room_is_refused_by_name() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&format!(
        "spool: {{ dir: \"@folder@\", memory: 4KiB, disk: 4KiB }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let mut client = gateway.client();
    client.send(post("/large", &"x".repeat(10_000)));
    let response = client.response("POST");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("5")), "{response:?}");
    assert_eq!(gateway.access_of(&response)["reason"], "spool_full");
    assert_eq!(worker.connections(), 0, "the worker was not touched");
    let mut client = gateway.client();
    client.send(post("/small", "fits"));
    assert_eq!(client.response("POST").status, 200, "the room was given back");
}
