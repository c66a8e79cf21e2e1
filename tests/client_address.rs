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
