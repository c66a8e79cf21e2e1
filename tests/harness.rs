//! The harness itself: what the other tests stand on.

use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, H2, Worker};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn every_client_reaches_a_scripted_worker_over_either_transport() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let worker = Worker::answering(transport, HELLO);
        let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()));
        for response in [gateway.client().get("/h1"), gateway.h2().get("/h2")] {
            assert_eq!((response.status, response.text()), (200, "hello"), "{response:?}");
            assert_eq!(gateway.access_of(&response)["status"], 200);
        }
        gateway.wait_idle();
        assert_eq!(worker.requests().len(), 2);
        let ended = gateway.stop();
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.access.len(), 2);
    }
}

#[test]
fn real_gunicorn_answers_over_tls_and_both_protocols() {
    let gunicorn = Gunicorn::start(1);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ));
    let root = gateway.root();
    let mut client = Client::tls(gateway.address(), "localhost", &root);
    client.send("GET /bytes/10 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response("GET").body.len(), 10);
    let h2 = H2::tls(gateway.address(), "localhost", &root);
    let request = http::Request::get("https://localhost/bytes/10").body(()).unwrap();
    assert_eq!(h2.send(request, b"").body.len(), 10);
    let url = format!("https://localhost:{}/environ", gateway.address().port());
    let output = curl(&["--http2", "--cacert", root.to_str().unwrap(), "--write-out", "%{http_version}", &url]);
    assert!(output.code == Some(0) && output.stdout.ends_with('2'), "{output:?}");
}
