//! A Django site behind the gateway sees the truth, with no setting but gunicorn's defaults.

use serde_json::Value;

use crate::support::gunicorn::Kind;
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, H2};

fn shop(gunicorn: &Gunicorn) -> Gateway {
    Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\", tls: {{ local: true }} }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ))
}

fn check_environ(environ: &Value, host: &str) {
    let port = host.rsplit(':').next().unwrap();
    for (name, value) in [
        ("wsgi.url_scheme", "https"),
        ("HTTP_HOST", host),
        ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
        ("HTTP_X_REAL_IP", "127.0.0.1"),
        ("HTTP_X_FORWARDED_PROTO", "https"),
        ("HTTP_X_FORWARDED_HOST", host),
        ("HTTP_X_FORWARDED_PORT", port),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/environ"),
    ] {
        assert_eq!(environ[name], value, "{name} in {environ:#}");
    }
    let forged =
        environ.as_object().unwrap().values().filter(|value| value.as_str().is_some_and(|v| v.contains("forged")));
    assert_eq!(forged.count(), 0, "{environ:#}");
}

const FORGED: &[(&str, &str)] = &[
    ("x-forwarded-for", "6.6.6.6, forged"),
    ("x-forwarded-proto", "forged"),
    ("x-forwarded-ssl", "forged"),
    ("x-forwarded-prefix", "/forged"),
    ("forwarded", "for=forged"),
    ("x-real-ip", "forged"),
    ("x-request-id", "forged"),
    ("x-request-start", "t=forged"),
    ("x-accel-redirect", "/forged"),
    ("x-sendfile-type", "forged"),
    ("grip-sig", "forged"),
    ("remote-user", "forged"),
    ("x-client-cert-subject", "CN=forged"),
    ("client-cert", ":forged:"),
    ("script_name", "/forged"),
    ("script-name", "/forged"),
    ("path-info", "/forged"),
    ("proxy", "forged"),
    ("x_forwarded_for", "forged"),
];

#[test]
fn the_app_sees_scheme_host_and_client_and_nothing_forged() {
    let with_fields = |uri: String| {
        let request = http::Request::get(uri);
        FORGED.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    };
    for (kind, transport) in [(Kind::Sync, Transport::Unix), (Kind::Gthread { threads: 2 }, Transport::Tcp)] {
        let gunicorn = Gunicorn::start_as(kind, 1, transport);
        let gateway = shop(&gunicorn);
        let host = format!("localhost:{}", gateway.address().port());
        let mut client = Client::tls(gateway.address(), "localhost", &gateway.root());
        let fields: String = FORGED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        client.send(format!("GET /environ HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
        let response = client.response("GET");
        assert_eq!(response.status, 200, "{response:?}");
        check_environ(&serde_json::from_str(response.text()).unwrap(), &host);
        let h2 = H2::tls(gateway.address(), "localhost", &gateway.root());
        let response = h2.send(with_fields(format!("https://{host}/environ")), b"");
        assert_eq!(response.status, 200, "{response:?}");
        check_environ(&serde_json::from_str(response.text()).unwrap(), &host);
    }
}

#[test]
fn the_csrf_check_passes_over_https() {
    let gunicorn = Gunicorn::start(1);
    let gateway = shop(&gunicorn);
    let origin = format!("https://localhost:{}", gateway.address().port());
    let (root, jar) = (gateway.root(), gateway.folder().join("cookies"));
    let common = [
        "--http2",
        "--cacert",
        root.to_str().unwrap(),
        "--cookie",
        jar.to_str().unwrap(),
        "--cookie-jar",
        jar.to_str().unwrap(),
    ];
    let url = format!("{origin}/login");
    let form = curl(&[&common[..], &[url.as_str()]].concat());
    let token = form.stdout.split("csrfmiddlewaretoken\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let data = format!("csrfmiddlewaretoken={}&name=Ada", token.unwrap_or_else(|| panic!("no form: {form:?}")));
    let header = format!("Origin: {origin}");
    let sent =
        curl(&[&common[..], &["--data", &data, "--header", &header, "--write-out", "%{http_code}", &url]].concat());
    assert!(!sent.stdout.ends_with("403") && !sent.stdout.contains("CSRF"), "{sent:?}");
    assert!(sent.stdout.ends_with("302") || sent.stdout.ends_with("200"), "{sent:?}");
}

#[test]
fn streamed_bytes_reach_the_client_as_they_are_produced() {
    let gunicorn = Gunicorn::start(2);
    let gateway = shop(&gunicorn);
    // Both at once: one wait.
    let streams = ["/stream?chunks=2&delay=3", "/events?count=2&delay=3"].map(|path| {
        let mut client = Client::tls(gateway.address(), "localhost", &gateway.root());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        (path, client)
    });
    for (path, mut client) in streams {
        assert_eq!(client.head().expect("a head").0, 200, "{path}");
        assert!(!client.peek(1).is_empty(), "{path}");
        // The first piece is here while the workers have still to make the second.
        assert_eq!(gateway.metric("hostler_in_flight{upstream=\"app\"}"), 2.0, "{path}");
    }
    gateway.wait_idle();
}
