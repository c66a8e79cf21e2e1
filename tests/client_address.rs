//! `client_address: proxy_v1 | proxy_v2`: the worker's server has the client's address for its peer's.

use serde_json::Value;

use crate::support::gunicorn::{Kind, Plan};
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn gateway(endpoint: &str, version: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"unix:@folder@/edge.sock\" }}\n\
         upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 1, client_address: {version} }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n"
    ))
}

fn environ_of(gateway: &Gateway, client: &str) -> Value {
    let url = format!("http://{}/environ", gateway.address());
    let output = curl(&["--interface", client, &url]);
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn an_app_behind_gunicorn_sees_the_client_in_remote_addr() {
    for transport in [Transport::Tcp, Transport::Unix] {
        for version in ["proxy_v1", "proxy_v2"] {
            let gunicorn = Plan::new(Kind::Sync, 1, transport)
                .argument("--proxy-protocol=auto")
                .argument("--proxy-allow-from=*")
                .variable("SHOP_ALLOWED_HOSTS", "shop.example")
                .start();
            let gateway = gateway(&gunicorn.endpoint(), version);
            for client in ["127.0.0.9", "127.0.0.10"] {
                let environ = environ_of(&gateway, client);
                assert_eq!(environ["REMOTE_ADDR"], client, "{version} {environ:#}");
                assert_eq!(environ["PROXY_ADDR"], "127.0.0.1", "{version} {environ:#}");
            }
            // A client without an address is served as well, and is not somebody else.
            let edge = Address::Unix(gateway.folder().join("edge.sock"));
            let response = Client::connect(&edge).get("/environ");
            assert_eq!(response.status, 200, "{version} {response:?}");
            let environ: Value = serde_json::from_str(response.text()).unwrap();
            assert_eq!(environ["REMOTE_ADDR"], "0.0.0.0", "{version} {environ:#}");
        }
    }
}

#[test]
fn every_exchange_has_a_connection_that_begins_with_its_client() {
    for transport in [Transport::Tcp, Transport::Unix] {
        let worker = Worker::start(transport, |visit| {
            visit.request();
            visit.send(OK);
            visit.wait_closed();
        });
        let gateway = gateway(&worker.endpoint(), "proxy_v1");
        let mut client = gateway.client();
        for count in 1..=2 {
            assert_eq!(client.get("/").text(), "ok");
            assert_eq!(worker.connections(), count);
            let bytes = worker.bytes(count - 1);
            let text = String::from_utf8(bytes).unwrap();
            let (preamble, request) = text.split_once("\r\n").unwrap();
            let words: Vec<&str> = preamble.split(' ').collect();
            assert_eq!(words[..4], ["PROXY", "TCP4", "127.0.0.1", "127.0.0.1"], "{preamble}");
            assert_eq!(words[5], gateway.address().port().to_string());
            assert!(request.starts_with("GET / HTTP/1.1\r\n") && request.contains("connection: close\r\n"), "{text}");
        }
    }
}

#[test]
fn a_client_behind_a_balancer_keeps_its_address_to_the_worker() {
    let worker = Worker::start(Transport::Tcp, |visit| {
        visit.request();
        visit.send(OK);
        visit.wait_closed();
    });
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", proxy_protocol: true }}\n  - {{ bind: \"127.0.0.2:0\" }}\n\
         trusted_proxies: [private]\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1, client_address: proxy_v1 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    // Named in a PROXY header: with its port, and where it has connected to.
    let mut client = gateway.client();
    client.send("PROXY TCP4 192.0.2.7 198.51.100.80 56324 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response("GET").text(), "ok");
    // Named in a field: its port is not known.
    let mut client = Client::connect(gateway.listener("127.0.0.2:0"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.8\r\n\r\n");
    assert_eq!(client.response("GET").text(), "ok");
    let port = gateway.listener("127.0.0.2:0").port();
    for (connection, expected) in [
        (0, "PROXY TCP4 192.0.2.7 198.51.100.80 56324 443\r\n".to_owned()),
        (1, format!("PROXY TCP4 192.0.2.8 127.0.0.2 0 {port}\r\n")),
    ] {
        let text = String::from_utf8(worker.bytes(connection)).unwrap();
        assert!(text.starts_with(&expected), "{text}");
    }
}
