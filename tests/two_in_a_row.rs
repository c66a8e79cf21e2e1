//! Two Hostlers in a row, the first one as a load balancer: whichever way it says who its client is, and whichever way that
//! client has come, the app sees the client and what he has asked for.

use serde_json::Value;

use crate::support::gunicorn::{Kind, Plan};
use crate::support::tls_worker::Ca;
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Gateway, Gunicorn};

/// Not what a test's client is by default.
const CLIENT: &str = "127.0.0.9";
const NAME: &str = "shop.example";

fn shop() -> Gunicorn {
    Plan::new(Kind::Sync, 1, Transport::Unix).variable("SHOP_ALLOWED_HOSTS", NAME).start()
}

/// The one before the app, and the one before that, with a plain and a TLS listener.
fn row(gunicorn: &Gunicorn, ca: &Ca, second: &str, first: &str) -> [Gateway; 2] {
    let second = Gateway::start(&format!(
        "{second}upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ));
    let (cert, key) = ca.files(NAME);
    let first = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n\
         \x20 - {{ bind: \"127.0.0.2:0\", tls: {{ certificates: [{{ cert: {}, private_key: {} }}] }} }}\n\
         upstreams:\n  next: {{ endpoints: [\"{}\"], workers: 1{first} }}\nsites:\n  - routes: [{{ path: /, proxy: next }}]\n",
        cert.display(),
        key.display(),
        second.address().endpoint()
    ));
    [first, second]
}

/// What the app says of a request to the first one.
fn environ(first: &Gateway, ca: &Ca, scheme: &str) -> Value {
    let (address, host) = match scheme {
        "http" => (first.listener("127.0.0.1:0"), "127.0.0.1"),
        _ => (first.listener("127.0.0.2:0"), "127.0.0.2"),
    };
    let port = address.port();
    let (url, to) = (format!("{scheme}://{NAME}:{port}/environ"), format!("{NAME}:{port}:{host}"));
    let file = ca.file();
    let said = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: gopher", "X-Forwarded-Port: 6", "X-Real-IP: 6.6.6.6"];
    let mut arguments = vec!["--interface", CLIENT, "--cacert", file.to_str().unwrap(), "--resolve", &to, &url];
    said.iter().for_each(|field| arguments.extend(["--header", field]));
    let output = curl(&arguments);
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn check(first: &Gateway, ca: &Ca, scheme: &str) {
    let port = first.listener(if scheme == "http" { "127.0.0.1:0" } else { "127.0.0.2:0" }).port().to_string();
    let host = format!("{NAME}:{port}");
    let environ = environ(first, ca, scheme);
    for (name, value) in [
        ("wsgi.url_scheme", scheme),
        ("HTTP_HOST", &host),
        ("HTTP_X_FORWARDED_FOR", CLIENT),
        ("HTTP_X_REAL_IP", CLIENT),
        ("HTTP_X_FORWARDED_PROTO", scheme),
        ("HTTP_X_FORWARDED_HOST", &host),
        ("HTTP_X_FORWARDED_PORT", &port),
    ] {
        assert_eq!(environ[name], value, "{name} over {scheme} in {environ:#}");
    }
}

#[test]
fn the_app_sees_the_client_by_x_forwarded_fields() {
    let (gunicorn, ca) = (shop(), Ca::new());
    let [first, _second] = row(&gunicorn, &ca, "trusted_proxies: [127.0.0.1]\n", "");
    for scheme in ["http", "https"] {
        check(&first, &ca, scheme);
    }
}

#[test]
fn the_app_sees_the_client_by_proxy_headers() {
    let (gunicorn, ca) = (shop(), Ca::new());
    let listener = "listeners:\n  - { bind: \"127.0.0.1:0\", proxy_protocol: true }\ntrusted_proxies: [127.0.0.1]\n";
    let [first, _second] = row(&gunicorn, &ca, listener, ", client_address: proxy_v2");
    for scheme in ["http", "https"] {
        check(&first, &ca, scheme);
    }
}

#[test]
fn gunicorn_takes_what_a_proxy_header_says_of_tls() {
    let plan = Plan::new(Kind::Sync, 1, Transport::Unix).variable("SHOP_ALLOWED_HOSTS", NAME);
    let plan = plan.argument("--proxy-protocol=auto").argument("--proxy-allow-from=*");
    let (gunicorn, ca) = (plan.start(), Ca::new());
    let (cert, key) = ca.files(NAME);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n\
         \x20 - {{ bind: \"127.0.0.2:0\", tls: {{ certificates: [{{ cert: {}, private_key: {} }}] }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1, client_address: proxy_v2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        cert.display(),
        key.display(),
        gunicorn.endpoint()
    ));
    for scheme in ["http", "https"] {
        check(&gateway, &ca, scheme);
        assert_eq!(environ(&gateway, &ca, scheme)["REMOTE_ADDR"], CLIENT);
    }
}
