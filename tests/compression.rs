//! Answers are compressed as their clients take them, and are the same answers.

use std::io::Write;
use std::net::TcpStream;

use crate::support::coding::{Decoder, decoded};
use crate::support::gunicorn::Gunicorn;
use crate::support::h2::request;
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Latch, Response, Worker};

/// Rows of a table, as long as is wanted: what repeats itself a little, as pages do.
fn rows(length: usize) -> Vec<u8> {
    let row = |n: u32| format!("<tr><td>{n}</td><td>{:08x}</td></tr>\n", n.wrapping_mul(2_654_435_761)).into_bytes();
    (0..).flat_map(row).take(length).collect()
}

/// An answer with its length.
fn answer(status: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const HTML: &str = "Content-Type: text/html; charset=utf-8";

/// An app with some pages.
fn app() -> Worker {
    Worker::start(Transport::Unix, |visit| {
        while let Some(request) = visit.request() {
            let path = request.line().split(' ').nth(1).unwrap_or_default().to_owned();
            let answer = match path.trim_start_matches("/off").trim_start_matches("/gzip") {
                "/page" => answer("200 OK", &[HTML], &rows(30_000)),
                "/small" => answer("200 OK", &[HTML, "ETag: \"small\"", "Accept-Ranges: bytes"], &rows(3_000)),
                "/tiny" => answer("200 OK", &[HTML], &rows(1_000)),
                "/json" => answer("200 OK", &["Content-Type: application/json", "Vary: Cookie"], &rows(30_000)),
                "/varies" => answer("200 OK", &[HTML, "Vary: Cookie, accept-Encoding"], &rows(30_000)),
                "/missing" => answer("404 Not Found", &[HTML], &rows(30_000)),
                "/broken" => answer("500 Internal Server Error", &[HTML], &rows(30_000)),
                "/image" => answer("200 OK", &["Content-Type: image/png"], &rows(30_000)),
                "/encoded" => answer("200 OK", &[HTML, "Content-Encoding: gzip", "ETag: \"e\""], &rows(30_000)),
                "/fixed" => {
                    answer("200 OK", &[HTML, "Cache-Control: no-transform, public", "ETag: \"e\""], &rows(30_000))
                }
                "/summed" => answer("200 OK", &[HTML, "Content-Digest: sha-256=:AA==:"], &rows(30_000)),
                "/part" => answer("206 Partial Content", &[HTML, "Content-Range: bytes 0-29999/90000"], &rows(30_000)),
                _ => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            };
            let is_head = request.line().starts_with("HEAD");
            let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
            visit.send(if is_head { &answer[..end] } else { &answer[..] });
        }
    })
}

fn start(worker: &Worker) -> Gateway {
    Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\n\
         sites:\n  - routes:\n      - {{ path: /off/, proxy: app, compress: false }}\n\
         \x20     - {{ path: /gzip/, proxy: app, compress: {{ codings: [gzip], min_size: 100, types: [image/*] }} }}\n\
         \x20     - {{ path: /, proxy: app }}\n",
        worker.endpoint()
    ))
}

/// Asks with these fields, written `name: value`.
fn ask(gateway: &Gateway, method: &str, path: &str, fields: &[&str]) -> Response {
    let mut client = gateway.client();
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"));
    client.response(method)
}

/// All values of a field.
fn all<'a>(response: &'a Response, name: &str) -> Vec<&'a str> {
    response.headers.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn a_client_gets_what_it_likes_best_of_what_the_route_has() {
    let worker = app();
    let gateway = start(&worker);
    for (path, accept, coding) in [
        ("/page", "gzip, deflate, br, zstd", Some("zstd")),
        ("/page", "gzip, br", Some("br")),
        ("/page", "gzip", Some("gzip")),
        ("/page", "zstd;q=0.5, gzip;q=0.8, br;q=0.1", Some("gzip")),
        ("/page", "br;q=1.0, zstd;q=0.9", Some("br")),
        ("/page", "gzip;q=0, *", Some("zstd")),
        ("/page", "x-gzip", Some("gzip")),
        ("/page", "identity", None),
        ("/page", "deflate", None),
        ("/page", "gzip;q=0", None),
        ("/page", "*;q=0", None),
        ("/page", "gzip;q=nonsense", None),
        ("/page", "", None),
        ("/json", "br", Some("br")),
        ("/varies", "br", Some("br")),
        ("/missing", "br", Some("br")),
        ("/broken", "zstd", Some("zstd")),
        ("/small", "gzip", Some("gzip")),
        ("/tiny", "gzip", None),
        ("/gzip/page", "br, zstd", None),
        ("/gzip/page", "br, gzip;q=0.1", Some("gzip")),
        ("/gzip/tiny", "gzip", Some("gzip")),
        ("/gzip/image", "gzip", Some("gzip")),
        ("/off/page", "gzip", None),
    ] {
        let response = ask(&gateway, "GET", path, &[&format!("Accept-Encoding: {accept}")]);
        assert_eq!(response.header("content-encoding"), coding, "{path} {accept}");
        let length = if path.ends_with("/small") {
            3_000
        } else if path.ends_with("/tiny") {
            1_000
        } else {
            30_000
        };
        assert!(decoded(&response) == rows(length), "{path} {accept}: the same page");
        assert!(coding.is_none() || response.body.len() < length / 2, "{path} {accept}: {}", response.body.len());
        let vary = all(&response, "vary").join(", ").to_ascii_lowercase();
        let times = vary.matches("accept-encoding").count();
        assert_eq!(times, usize::from(!path.starts_with("/off")), "{path} {accept}: vary: {vary}");
        assert!(!["/json", "/varies"].contains(&path) || vary.contains("cookie"), "{vary}");
        let over_h2 = gateway.h2().open(request("GET", path, &[("accept-encoding", accept)]), true).response();
        assert_eq!(over_h2.header("content-encoding"), coding, "{path} {accept}");
        assert!(decoded(&over_h2) == rows(length), "{path} {accept}");
    }
    let nothing = ask(&gateway, "GET", "/page", &[]);
    assert_eq!((nothing.header("content-encoding"), nothing.header("content-length")), (None, Some("30000")));
    assert_eq!(all(&nothing, "vary"), ["Accept-Encoding"]);
}

#[test]
fn the_app_is_asked_for_a_coding_only_where_the_edge_does_not_compress() {
    let worker = app();
    let gateway = start(&worker);
    for (path, expected) in [("/page", None), ("/off/page", Some("br, x-own")), ("/gzip/page", None)] {
        let before = worker.requests().len();
        ask(&gateway, "GET", path, &["Accept-Encoding: br, x-own"]);
        assert_eq!(worker.wait_requests(before + 1).header("accept-encoding").as_deref(), expected, "{path}");
    }
}

#[test]
fn what_the_app_has_seen_to_passes_to_the_byte() {
    let worker = app();
    let gateway = start(&worker);
    for (path, tag, vary) in [
        ("/encoded", Some("\"e\""), None),
        ("/fixed", Some("\"e\""), None),
        ("/summed", None, None),
        ("/image", None, None),
        ("/part", None, Some("Accept-Encoding")),
    ] {
        let response = ask(&gateway, "GET", path, &["Accept-Encoding: gzip, br, zstd"]);
        assert_eq!(response.header("content-length"), Some("30000"), "{path}");
        assert_eq!((response.header("etag"), response.header("vary")), (tag, vary), "{path}");
        assert_eq!(response.header("content-encoding"), (path == "/encoded").then_some("gzip"), "{path}");
        assert!(response.body == rows(30_000), "{path}");
    }
    assert_eq!(ask(&gateway, "GET", "/nothing", &["Accept-Encoding: gzip"]).status, 204);
}

#[test]
fn a_head_has_the_fields_of_its_get() {
    let worker = app();
    let gateway = start(&worker);
    let own = ["date", "x-request-id", "content-length", "transfer-encoding"];
    let fields = |response: &Response| -> Vec<(String, String)> {
        response.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect()
    };
    for path in ["/page", "/small", "/tiny", "/encoded", "/fixed", "/image", "/missing", "/off/page"] {
        for accept in ["Accept-Encoding: br", "Accept-Encoding: identity"] {
            let (get, head) = (ask(&gateway, "GET", path, &[accept]), ask(&gateway, "HEAD", path, &[accept]));
            assert_eq!(fields(&head), fields(&get), "{path} {accept}");
            let length = head.header("content-length");
            // A length that is told is that of the GET; a compressed body has none before it is made.
            assert!(length.is_none_or(|length| Some(length) == get.header("content-length")), "{path} {accept}");
            assert_eq!(length.is_some(), get.header("content-encoding") != Some("br"), "{path} {accept}");
        }
    }
}

#[test]
fn a_small_answer_has_its_length_and_a_large_one_comes_in_chunks() {
    let worker = app();
    let gateway = start(&worker);
    let small = ask(&gateway, "GET", "/small", &["Accept-Encoding: br"]);
    assert_eq!(small.header("content-length"), Some(small.body.len().to_string().as_str()));
    assert_eq!((small.header("accept-ranges"), small.header("etag")), (None, Some("W/\"small-hostler\"")));
    let large = ask(&gateway, "GET", "/page", &["Accept-Encoding: br"]);
    assert_eq!((large.header("content-length"), large.header("transfer-encoding")), (None, Some("chunked")));
}

/// An app that knows `If-None-Match`, `If-Match` and `If-Range` to the letter, and no weak tags.
fn tagged() -> Worker {
    Worker::start(Transport::Unix, |visit| {
        while let Some(request) = visit.request() {
            let tag = "\"v1\"";
            let is = |name: &str| request.header(name).is_some_and(|value| value == tag);
            let fields = [HTML, "ETag: \"v1\"", "Accept-Ranges: bytes"];
            let answer = match () {
                () if request.line().contains("/weak")
                    && request.header("if-none-match").is_some_and(|v| v == "W/\"v1\"") =>
                {
                    b"HTTP/1.1 304 Not Modified\r\nETag: W/\"v1\"\r\n\r\n".to_vec()
                }
                () if request.line().contains("/weak") => answer("200 OK", &[HTML, "ETag: W/\"v1\""], &rows(5_000)),
                () if is("if-none-match") => b"HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".to_vec(),
                () if request.header("if-match").is_some() && !is("if-match") => {
                    answer("412 Precondition Failed", &[], b"")
                }
                () if request.line().starts_with("PUT") => answer("200 OK", &["ETag: \"v2\""], b""),
                () if request.header("range").is_some() && request.header("if-range").is_none_or(|v| v == tag) => {
                    answer(
                        "206 Partial Content",
                        &[HTML, "ETag: \"v1\"", "Content-Range: bytes 10-19/5000"],
                        &rows(20)[10..],
                    )
                }
                () => answer("200 OK", &fields, &rows(5_000)),
            };
            visit.send(answer);
        }
    })
}

#[test]
fn a_compressed_answer_is_asked_for_again_by_the_tag_that_it_had() {
    let worker = tagged();
    let gateway = start(&worker);
    let accept = "Accept-Encoding: gzip";
    let first = ask(&gateway, "GET", "/", &[accept]);
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!((first.header("content-encoding"), tag.as_str()), (Some("gzip"), "W/\"v1-hostler\""));
    let plain = ask(&gateway, "GET", "/", &[]);
    assert_eq!((plain.header("etag"), plain.header("accept-ranges")), (Some("\"v1\""), Some("bytes")));
    for (method, field, status, etag, vary) in [
        ("GET", format!("If-None-Match: {tag}"), 304, Some(tag.as_str()), Some("Accept-Encoding")),
        ("GET", "If-None-Match: \"v1\"".into(), 304, Some("\"v1\""), Some("Accept-Encoding")),
        ("GET", "If-None-Match: W/\"v0-hostler\"".into(), 200, Some(tag.as_str()), Some("Accept-Encoding")),
        ("HEAD", format!("If-None-Match: {tag}"), 304, Some(tag.as_str()), Some("Accept-Encoding")),
        ("PUT", format!("If-Match: {tag}\r\nContent-Length: 0"), 200, Some("\"v2\""), None),
        ("PUT", "If-Match: \"v1\"\r\nContent-Length: 0".into(), 200, Some("\"v2\""), None),
        ("PUT", "If-Match: W/\"v0-hostler\"\r\nContent-Length: 0".into(), 412, None, None),
        // A weak tag that is not ours is the app's business.
        ("PUT", "If-Match: W/\"v1\"\r\nContent-Length: 0".into(), 412, None, None),
    ] {
        let response = ask(&gateway, method, "/", &[accept, &field]);
        assert_eq!((response.status, response.header("etag")), (status, etag), "{method} {field}");
        assert_eq!(response.header("vary"), vary, "{method} {field}");
    }
    let weak = ask(&gateway, "GET", "/weak", &[accept]);
    assert_eq!((weak.header("content-encoding"), weak.header("etag")), (Some("gzip"), Some("W/\"v1\"")));
    let again = ask(&gateway, "GET", "/weak", &[accept, "If-None-Match: W/\"v1\""]);
    assert_eq!((again.status, again.header("etag")), (304, Some("W/\"v1\"")));
}

#[test]
fn a_part_is_of_the_plain_answer_and_never_continues_a_compressed_one() {
    let worker = tagged();
    let gateway = start(&worker);
    let (accept, range) = ("Accept-Encoding: br", "Range: bytes=10-19");
    for fields in [&[accept, range][..], &[accept, range, "If-Range: \"v1\""]] {
        let part = ask(&gateway, "GET", "/", fields);
        assert_eq!((part.status, part.header("content-encoding"), part.body.len()), (206, None, 10), "{fields:?}");
    }
    let whole = ask(&gateway, "GET", "/", &[accept, range, "If-Range: W/\"v1-hostler\""]);
    assert_eq!((whole.status, whole.header("content-encoding")), (200, Some("br")));
    assert!(decoded(&whole) == rows(5_000));
    // An app that knows no ranges: all of it, as it is.
    let worker = app();
    let gateway = start(&worker);
    let plain = ask(&gateway, "GET", "/page", &[accept, range]);
    assert_eq!((plain.status, plain.header("content-encoding"), plain.body.len()), (200, None, 30_000));
}

/// Writes a piece, and the next one each time it is let.
fn bit_by_bit(content_type: &'static str, latches: Vec<Latch>) -> Worker {
    Worker::start(Transport::Unix, move |visit| {
        while visit.request().is_some() {
            visit
                .send(format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"));
            for (n, latch) in latches.iter().enumerate() {
                let piece = format!("data: event {n}\n\n");
                visit.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
                latch.wait();
            }
            visit.send("0\r\n\r\n");
        }
    })
}

#[test]
fn what_an_app_writes_bit_by_bit_arrives_bit_by_bit() {
    for content_type in ["text/event-stream", "application/x-ndjson"] {
        for coding in ["br", "zstd", "gzip"] {
            let latches: Vec<Latch> = (0..3).map(|_| Latch::default()).collect();
            let worker = bit_by_bit(content_type, latches.clone());
            let gateway = Gateway::start(&format!(
                "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\n\
                 sites:\n  - routes:\n      - {{ path: /, proxy: app, compress: {{ types: [text/event-stream] }} }}\n",
                worker.endpoint()
            ));
            let mut client = gateway.client();
            client.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\nAccept-Encoding: {coding}\r\n\r\n"));
            let (status, headers) = client.head().unwrap();
            assert_eq!(status, 200);
            assert!(headers.contains(&("content-encoding".to_owned(), coding.to_owned())), "{headers:?}");
            let mut decoder = Decoder::new(coding);
            for (n, latch) in latches.iter().enumerate() {
                let (mut came, expected) = (Vec::new(), format!("data: event {n}\n\n"));
                // The worker holds the next one back until this one is here.
                while came.len() < expected.len() {
                    came.extend(decoder.push(&client.chunk().expect("a chunk")));
                }
                assert_eq!(came, expected.into_bytes(), "{content_type} {coding}");
                latch.open();
            }
            while let Some(chunk) = client.chunk() {
                assert!(decoder.push(&chunk).is_empty());
            }
            assert!(decoder.is_whole(), "{content_type} {coding}");
        }
    }
}

#[test]
fn an_event_arrives_at_once_over_http2_as_well() {
    let latch = Latch::default();
    let worker = bit_by_bit("text/html", vec![latch.clone()]);
    let gateway = start(&worker);
    let h2 = gateway.h2();
    let (status, piece, _body) = h2.open(request("GET", "/", &[("accept-encoding", "zstd")]), true).first_piece();
    assert_eq!((status, Decoder::new("zstd").push(&piece)), (200, b"data: event 0\n\n".to_vec()));
    latch.open();
}

#[test]
fn event_streams_go_out_as_they_are_unless_the_route_says_otherwise() {
    let latch = Latch::default();
    latch.open();
    let worker = bit_by_bit("text/event-stream", vec![latch]);
    let gateway = start(&worker);
    let response = ask(&gateway, "GET", "/", &["Accept-Encoding: gzip"]);
    assert_eq!((response.header("content-encoding"), response.text()), (None, "data: event 0\n\n"));
    assert_eq!(response.header("vary"), None);
}

#[test]
fn an_answer_that_is_cut_is_cut() {
    let page = rows(200_000);
    let head = format!("HTTP/1.1 200 OK\r\n{HTML}\r\nContent-Length: 300000\r\n\r\n");
    let cut = [head.as_bytes(), &page].concat();
    let worker = Worker::start(Transport::Unix, move |visit| {
        visit.request();
        visit.send(&cut);
    });
    let gateway = start(&worker);
    for coding in ["br", "zstd", "gzip"] {
        let accept = format!("Accept-Encoding: {coding}");
        let response = ask(&gateway, "GET", "/", &[&accept]);
        assert!(response.cut.is_some(), "{coding}");
        let mut decoder = Decoder::new(coding);
        // A reset takes with it what has not left yet.
        assert!(page.starts_with(&decoder.push(&response.body)), "{coding}: the beginning of the page");
        assert!(!decoder.is_whole(), "{coding}: and no end");
        let over_h2 = gateway.h2().open(request("GET", "/", &[("accept-encoding", coding)]), true).response();
        assert!(over_h2.cut.is_some_and(|cut| cut.contains("internal error")), "{coding}: a reset");
        assert_eq!(gateway.access_of(&response)["reason"], "eof_in_body");
        // HTTP/1.0 has nothing but the end of the connection: a reset tells that it is not the end of the body.
        let mut old = gateway.client();
        old.send(format!("GET / HTTP/1.0\r\nHost: shop.example\r\n{accept}\r\n\r\n"));
        assert!(old.response("GET").cut.is_some(), "{coding}");
    }
}

#[test]
fn a_client_of_http_1_0_gets_it_to_the_end_of_the_connection() {
    let worker = app();
    let gateway = start(&worker);
    for coding in ["br", "zstd", "gzip"] {
        for path in ["/page", "/small"] {
            let mut client = gateway.client();
            let fields = format!("Host: shop.example\r\nAccept-Encoding: {coding}\r\nConnection: keep-alive");
            client.send(format!("GET {path} HTTP/1.0\r\n{fields}\r\n\r\n"));
            let response = client.response("GET");
            assert_eq!(response.header("transfer-encoding"), None);
            assert_eq!(response.header("content-encoding"), Some(coding));
            let is_small = path == "/small";
            assert_eq!(response.header("connection"), Some(if is_small { "keep-alive" } else { "close" }), "{path}");
            assert!(decoded(&response) == rows(if is_small { 3_000 } else { 30_000 }), "{coding} {path}");
        }
    }
}

#[test]
fn curl_reads_every_coding() {
    let gunicorn = Gunicorn::start(2);
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ));
    let url = format!("http://{}", gateway.address().to_string().replace("127.0.0.1", "localhost"));
    for size in [2_000, 100_000, 3_000_000] {
        for coding in ["br", "zstd", "gzip"] {
            let accept = format!("Accept-Encoding: {coding}");
            let page = format!("{url}/page?size={size}");
            for protocol in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
                // `--compressed` decodes what comes; the field after it is what is asked for.
                let told = "\n%{http_code} %header{content-encoding}";
                let output = curl(&[protocol, "--compressed", "--header", &accept, "--write-out", told, &page]);
                let (body, told) = output.stdout.rsplit_once('\n').unwrap();
                assert_eq!(told, format!("200 {coding}"), "{size} {protocol}: {}", output.stderr);
                let expected = "hostler\n".repeat(size / 8);
                assert!(
                    body == expected.trim_end_matches('\n') || body == expected,
                    "{size} {coding} {protocol}: {}",
                    body.len()
                );
            }
        }
    }
    let stream = curl(&["--compressed", &format!("{url}/stream?chunks=5&delay=0")]);
    assert_eq!(stream.stdout.lines().count(), 5, "{stream:?}");
    let environ = curl(&["--compressed", &format!("{url}/environ")]);
    assert!(environ.stdout.contains("HTTP_HOST") && !environ.stdout.contains("HTTP_ACCEPT_ENCODING"), "{environ:?}");
}

#[test]
fn a_large_answer_costs_no_more_memory_than_a_part_of_it() {
    let gunicorn = Gunicorn::start(2);
    let gateway = Gateway::start(&format!(
        "spool: {{ dir: \"@folder@\", memory: 8MiB }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ));
    for coding in ["br", "zstd", "gzip"] {
        let accept = format!("Accept-Encoding: {coding}");
        let mut client = gateway.client();
        client.send(format!("GET /page?size=104857600 HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n\r\n"));
        let page = decoded(&client.response("GET"));
        assert_eq!(page.len(), 100 << 20, "{coding}");
        assert!(page.chunks(8).all(|row| row == b"hostler\n"), "{coding}");
    }
    assert!(gateway.peak_rss_kib() < 80 << 10, "{} KiB", gateway.peak_rss_kib());
}

#[test]
fn clients_who_do_not_read_hold_no_worker_and_little_memory() {
    const CLIENTS: usize = 40;
    let page = rows(8 << 20);
    let whole = answer("200 OK", &[HTML], &page);
    let worker = Worker::start(Transport::Unix, move |visit| {
        while visit.request().is_some() {
            if !visit.send(&whole) {
                return;
            }
        }
    });
    let gateway = Gateway::start(&format!(
        "spool: {{ dir: \"@folder@\", memory: 8MiB }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let mut readers: Vec<Client> = (0..CLIENTS).map(|_| gateway.client()).collect();
    for reader in &mut readers {
        reader.send("GET / HTTP/1.1\r\nHost: shop.example\r\nAccept-Encoding: gzip\r\n\r\n");
        assert_eq!(reader.head().expect("a head").0, 200);
    }
    gateway.wait_idle();
    // The pages are 320 MiB.
    assert!(gateway.rss_kib() < 180 << 10, "{} KiB", gateway.rss_kib());
    // And whoever reads after all gets all of it.
    let mut last = readers.pop().unwrap();
    let mut decoder = Decoder::new("gzip");
    let mut all = Vec::new();
    while let Some(chunk) = last.chunk() {
        all.extend(chunk);
    }
    assert!(decoder.push(&all) == page && decoder.is_whole());
    drop(readers);
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
}

#[test]
fn what_the_edge_answers_itself_is_compressed_where_it_is_large() {
    let body = String::from_utf8(rows(5_000)).unwrap().replace('\n', " ");
    let gateway = Gateway::start(&format!(
        "sites:\n  - routes:\n      - {{ path_exact: /up, respond: {{ body: ok }} }}\n      - {{ path: /, respond: {{ body: \"{body}\" }} }}\n"
    ));
    let large = ask(&gateway, "GET", "/", &["Accept-Encoding: gzip"]);
    assert_eq!((large.header("content-encoding"), large.header("vary")), (Some("gzip"), Some("Accept-Encoding")));
    assert!(decoded(&large) == body.as_bytes());
    let head = ask(&gateway, "HEAD", "/", &["Accept-Encoding: gzip"]);
    assert_eq!((head.header("content-encoding"), head.header("content-length")), (Some("gzip"), None));
    let small = ask(&gateway, "GET", "/up", &["Accept-Encoding: gzip"]);
    assert_eq!((small.text(), small.header("vary")), ("ok", None));
}

#[test]
fn what_was_compressed_is_counted() {
    let worker = app();
    let gateway = start(&worker);
    let sent = ask(&gateway, "GET", "/page", &["Accept-Encoding: gzip"]).body.len();
    let metric = |name: &str| gateway.metric(&format!("hostler_{name}{{coding=\"gzip\"}}"));
    assert_eq!(metric("compressed_total"), 1.0);
    assert_eq!(metric("compressed_in_bytes_total"), 30_000.0);
    assert_eq!(metric("compressed_out_bytes_total"), sent as f64);
    assert_eq!(gateway.metric("hostler_compression_skipped_total"), 0.0);
    let line = gateway.access_of_path("/page");
    assert_eq!(line["bytes_out"], sent, "{line}");
}

#[test]
fn uwsgi_is_compressed_as_well() {
    let page = rows(30_000);
    let whole = [format!("HTTP/1.1 200 OK\r\n{HTML}\r\n\r\n").as_bytes(), &page].concat();
    let worker = Worker::start(Transport::Unix, move |visit| {
        if let Some(vars) = visit.packet() {
            assert!(!vars.contains_key("HTTP_ACCEPT_ENCODING"), "{vars:?}");
            visit.send(&whole);
        }
    });
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.uwsgi_endpoint()
    ));
    let response = ask(&gateway, "GET", "/", &["Accept-Encoding: br"]);
    assert_eq!(response.header("content-encoding"), Some("br"));
    assert!(decoded(&response) == page);
}

#[test]
fn the_same_page_is_not_always_as_long() {
    let worker = app();
    let gateway = start(&worker);
    for coding in ["br", "zstd", "gzip"] {
        let accept = format!("Accept-Encoding: {coding}");
        let mut lengths: Vec<usize> = (0..20).map(|_| ask(&gateway, "GET", "/small", &[&accept]).body.len()).collect();
        lengths.dedup();
        assert!(lengths.len() > 5, "{coding}: {lengths:?}");
    }
}

/// The gateway itself does not stop answering others while it compresses a large answer.
#[test]
fn others_are_answered_while_large_answers_are_compressed() {
    let gunicorn = Gunicorn::start(4);
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\n\
         sites:\n  - routes:\n      - {{ path_exact: /up, respond: {{ body: ok }} }}\n      - {{ path: /, proxy: app }}\n",
        gunicorn.endpoint()
    ));
    let Address::Tcp(address) = *gateway.address() else { panic!("TCP") };
    let mut large: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut large {
        let ask =
            "GET /page?size=50000000 HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: br\r\nConnection: close\r\n\r\n";
        stream.write_all(ask.as_bytes()).unwrap();
    }
    let readers = large
        .into_iter()
        .map(|mut stream| std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()).unwrap()));
    let readers: Vec<_> = readers.collect();
    let mut others = gateway.client();
    let mut answered = 0;
    while !readers.iter().all(std::thread::JoinHandle::is_finished) {
        assert_eq!(others.get("/up").text(), "ok");
        answered += 1;
    }
    assert!(answered > 10, "{answered}");
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
}
