//! A refusal in the middle of an upload reaches the client: it is answered, and what it still sends is read for a while
//! before the connection closes, so that no reset takes the answer with it (RFC 9112, 9.6; RFC 9113, 8.1).

use std::path::Path;
use std::time::Duration;

use crate::support::h2::{H2, request};
use crate::support::shop::python;
use crate::support::tool::Tool;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Worker};

/// Each way of asking is tried this often.
const TRIES: usize = 20;
/// Far more than every buffer on the way, and than what is read after the answer.
const SIZE: usize = 24 << 20;
const PLAIN: &str = "127.0.0.2:0";
const SECURE: &str = "127.0.0.1:0";

/// Bodies of more than a mebibyte are refused by the route, wherever they are said to end.
fn served(worker: &Worker, more: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"{SECURE}\", tls: {{ local: true }} }}\n  - {{ bind: \"{PLAIN}\" }}\n{more}\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
         sites:\n  - routes:\n      - {{ path: /, proxy: app, body_limit: 1MiB }}\n",
        worker.endpoint()
    ))
}

fn worker() -> Worker {
    Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// The statuses that curl read; it writes and reads at once.
fn curl(gateway: &Gateway, file: &Path, url: &str, options: &[&str]) -> Vec<String> {
    let root = gateway.root();
    let mut arguments = vec!["--silent", "--show-error", "--max-time", "100", "--request", "POST"];
    arguments.extend(["--header", "Expect:", "--cacert", root.to_str().unwrap(), "--write-out", "%{http_code}\n"]);
    arguments.extend(options);
    for _ in 0..TRIES {
        arguments.extend(["--output", "/dev/null", "--upload-file", file.to_str().unwrap(), url]);
    }
    let output = Tool::start("curl", &arguments).output_within(Duration::from_secs(100));
    output.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn curl_reads_every_413_in_the_middle_of_its_upload() {
    let worker = worker();
    let gateway = served(&worker, "");
    let file = gateway.folder().join("large");
    std::fs::File::create(&file).unwrap().set_len(SIZE as u64).unwrap();
    let plain = format!("http://127.0.0.2:{}/upload", gateway.listener(PLAIN).port());
    let secure = format!("https://localhost:{}/upload", gateway.listener(SECURE).port());
    for (url, protocol) in [(&plain, "--http1.1"), (&secure, "--http1.1"), (&secure, "--http2")] {
        for framing in ["X-Framing: length", "Transfer-Encoding: chunked"] {
            let statuses = curl(&gateway, &file, url, &[protocol, "--header", framing]);
            assert_eq!(statuses, vec!["413"; TRIES], "{url} {protocol} {framing}");
        }
    }
    assert_eq!(worker.connections(), 0);
    gateway.wait_idle();
}

#[test]
fn a_client_that_reads_only_when_it_cannot_write_any_more_reads_every_413() {
    let worker = worker();
    let gateway = served(&worker, "");
    let root = gateway.root();
    for (scheme, listener) in [("http", PLAIN), ("https", SECURE)] {
        let port = gateway.listener(listener).port().to_string();
        let host = if scheme == "http" { "127.0.0.2" } else { "localhost" };
        for framing in ["length", "chunked"] {
            let (size, tries) = (SIZE.to_string(), TRIES.to_string());
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/stubborn_upload.py");
            let arguments = [script, scheme, host, &port, root.to_str().unwrap(), framing, &size, &tries];
            let output = Tool::start(python().to_str().unwrap(), &arguments).output_within(Duration::from_secs(100));
            let answers: Vec<serde_json::Value> =
                output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(answers.len(), TRIES, "{scheme} {framing}: {output:?}");
            for answer in answers {
                assert_eq!((&answer["status"], &answer["whole"]), (&413.into(), &true.into()), "{answer}");
                assert!(answer["detail"].as_str().unwrap().ends_with("details=\"body_too_large\""), "{answer}");
            }
        }
    }
    assert_eq!(worker.connections(), 0);
    gateway.wait_idle();
}

#[test]
fn many_uploads_at_once_on_one_http2_connection_are_each_refused_and_the_connection_lives() {
    let worker = worker();
    let gateway = served(&worker, "");
    let root = gateway.root();
    for h2 in [H2::connect(gateway.listener(PLAIN)), H2::tls(gateway.listener(SECURE), "localhost", &root)] {
        let mut streams: Vec<_> = (0..TRIES).map(|_| h2.open(request("POST", "/upload", &[]), false)).collect();
        // A window's worth each, in turn: all of them are in mid-body when the first is refused.
        for _ in 0..40 {
            for stream in &mut streams {
                stream.send(&[b'x'; 64 << 10], false);
            }
        }
        for stream in streams {
            let response = stream.response();
            assert_eq!((response.status, response.cut), (413, None));
        }
        assert_eq!(h2.get("/").text(), "ok");
    }
    gateway.wait_idle();
}

#[test]
fn a_spool_that_fills_up_and_a_malformed_chunk_in_mid_upload_are_told_as_well() {
    let worker = worker();
    let gateway = served(&worker, "spool: { dir: \"@folder@\", memory: 64KiB, disk: 64KiB }\n");
    let chunked = b"POST / HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
    let attempt = |piece: &[u8], status: u16, reason: &str| {
        let mut client = Client::connect(gateway.listener(PLAIN));
        client.send(chunked);
        let mut left = SIZE;
        // Writes until the gateway takes no more, then reads.
        while left > 0 && client.try_send(piece).is_ok() {
            left = left.saturating_sub(chunk.len());
        }
        let response = client.response("POST");
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], reason);
    };
    for (piece, status, reason) in [(&chunk[..], 503, "spool_full"), (b"zz\r\n", 400, "bad_chunk")] {
        std::thread::scope(|scope| {
            for _ in 0..TRIES {
                scope.spawn(|| attempt(piece, status, reason));
            }
        });
    }
    gateway.wait_idle();
    for place in ["memory", "disk"] {
        gateway.wait_metric(&format!("hostler_spool_bytes{{where=\"{place}\"}}"), 0.0);
    }
}
