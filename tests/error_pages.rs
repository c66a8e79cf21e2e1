//! Pages of the operator's own for what the edge answers itself.

use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Gateway, Response, Worker};

/// The page files, and a site without any.
fn config(app: &str, pages: &str) -> String {
    format!(
        "admin: {{ bind: \"unix:@folder@/admin.sock\" }}\nupstreams:\n  app: {{ endpoints: [\"{app}\"], workers: 1 }}\n  \
         gone: {{ endpoints: [\"unix:./nobody.sock\"], workers: 1, hold: 0s }}\n\
         sites:\n  - hosts: [shop.example]\n    error_pages: {{ {pages} }}\n    routes:\n      \
         - {{ path: /app/, proxy: app, body_limit: 5B }}\n      - {{ path: /gone/, proxy: gone }}\n  \
         - hosts: [other.example]\n    routes: [{{ path: /gone/, proxy: gone }}]\n"
    )
}

fn ask(gateway: &Gateway, method: &str, path: &str, host: &str, accept: &str) -> Response {
    let mut client = gateway.client();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nContent-Length: 0\r\n\r\n"));
    client.response(method)
}

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn start(app: &str) -> (Gateway, tempfile::TempDir) {
    let pages = tempfile::tempdir().unwrap();
    for (name, text) in [("502.html", "<h1>back soon"), ("5xx.html", "<h1>sorry"), ("4xx.html", "<h1>café")] {
        std::fs::write(pages.path().join(name), text).unwrap();
    }
    let page = |name: &str| pages.path().join(name).display().to_string();
    let written = format!("5xx: {}, 502: {}, 4xx: {}", page("5xx.html"), page("502.html"), page("4xx.html"));
    (Gateway::start(&config(app, &written)), pages)
}

#[test]
fn a_browser_gets_the_page_and_everybody_else_the_reason() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (gateway, _pages) = start(&worker.endpoint());
    for (path, host, status, page) in [
        ("/gone/", "shop.example", 502, "<h1>back soon"),
        ("/nothing", "shop.example", 404, "<h1>café"),
        ("/gone/", "other.example", 502, "<!doctype html>"),
        ("/gone/", "unknown.example", 421, "<!doctype html>"),
    ] {
        let seen = ask(&gateway, "GET", path, host, BROWSER);
        assert!(seen.status == status && seen.text().starts_with(page), "{path} {host}: {seen:?}");
        assert_eq!(seen.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(seen.header("cache-control"), Some("no-store"));
        assert!(seen.header("proxy-status").unwrap().starts_with("hostler; error="), "{seen:?}");
        assert_eq!(seen.header("retry-after").is_some(), status == 502, "{seen:?}");
        assert_eq!(gateway.access_of(&seen)["status"], status);
        for accept in ["application/json", "*/*", "text/plain"] {
            let read = ask(&gateway, "GET", path, host, accept);
            assert_eq!(read.header("content-type"), Some("text/plain; charset=utf-8"), "{accept}");
            assert!(read.status == status && read.text().contains("\nreason: "), "{accept}: {read:?}");
        }
        let head = ask(&gateway, "HEAD", path, host, BROWSER);
        assert_eq!((head.status, head.header("content-length")), (status, seen.header("content-length")));
    }
    // Refused on the way in: the client is curl, and says what it takes.
    let url = format!("http://{}/app/", gateway.address());
    let accept = format!("Accept: {BROWSER}");
    let output = curl(&["--header", "Host: shop.example", "--header", &accept, "--data", "too large", &url]);
    assert_eq!(output.stdout, "<h1>café", "{output:?}");
}

#[test]
fn what_the_app_answers_itself_is_left_alone() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\napp");
    let (gateway, _pages) = start(&worker.endpoint());
    let seen = ask(&gateway, "GET", "/app/", "shop.example", BROWSER);
    assert_eq!((seen.status, seen.text()), (502, "app"));
}

#[test]
fn a_page_that_is_gone_at_a_reload_changes_nothing() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (gateway, pages) = start(&worker.endpoint());
    std::fs::remove_file(pages.path().join("502.html")).unwrap();
    let reload = gateway.cli(&["reload"]);
    assert!(reload.code == Some(2) && reload.stderr.contains("cannot read the page"), "{reload:?}");
    assert!(reload.stderr.contains("502.html: No such file"), "{reload:?}");
    let seen = ask(&gateway, "GET", "/gone/", "shop.example", BROWSER);
    assert_eq!((seen.status, seen.text()), (502, "<h1>back soon"));
    std::fs::write(pages.path().join("502.html"), "<h1>other words").unwrap();
    assert_eq!(gateway.cli(&["reload"]).code, Some(0));
    assert_eq!(ask(&gateway, "GET", "/gone/", "shop.example", BROWSER).text(), "<h1>other words");
    let start = Gateway::refuse(&config(&worker.endpoint(), "502: ./missing.html"));
    assert!(start.0 == Some(2) && start.1.contains("missing.html: No such file"), "{start:?}");
}
