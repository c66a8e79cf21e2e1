//! Answers of workers, in HTTP or uwsgi, over either transport, to clients of either protocol. What single answers become
//! stands in `hostile/responses.txt`.

use crate::support::client::{End, get};
use crate::support::h2::request;
use crate::support::worker::{LINKS, Protocol, Transport};
use crate::support::{Client, Gateway, H2, Latch, Response, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) type Link = (Protocol, Transport);

pub(crate) fn before(link: Link, worker: &Worker) -> Gateway {
    Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint_in(link.0)))
}

/// Whether this answer means the same in either protocol, or this is HTTP: `Transfer-Encoding` is no framing in uwsgi.
fn makes_sense(protocol: Protocol, answer: impl AsRef<[u8]>) -> bool {
    const FRAMING: &[u8] = b"Transfer-Encoding";
    protocol == Protocol::Http1 || !answer.as_ref().windows(FRAMING.len()).any(|part| part == FRAMING)
}

/// A client of one protocol, for as many requests as the gateway allows on its connection.
pub(crate) enum Wire<'a> {
    H1(&'a Gateway, Option<Client>),
    H2(H2),
}

impl<'a> Wire<'a> {
    pub(crate) fn both(gateway: &'a Gateway) -> [Self; 2] {
        [Self::H1(gateway, None), Self::H2(gateway.h2())]
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::H1(..) => "HTTP/1.1",
            Self::H2(_) => "HTTP/2",
        }
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str) -> Response {
        match self {
            Self::H1(gateway, kept) => {
                let mut client = kept.take().unwrap_or_else(|| gateway.client());
                client.send(get(path).replacen("GET", method, 1));
                let response = client.response(method);
                let lives = response.cut.is_none() && response.header("connection") != Some("close");
                *kept = lives.then_some(client);
                response
            }
            Self::H2(h2) => h2.send(request(method, path, &[]), b""),
        }
    }

    /// The next exchange is not touched by the one before.
    pub(crate) fn check_next(&mut self, after: &str) {
        let next = self.ask("GET", "/next");
        assert_eq!((next.status, next.text()), (200, "ok"), "after {after} over {}", self.name());
    }
}

/// What the worker does once it has read the request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    /// Waits for more requests.
    Stay,
    Close,
    Reset,
}

impl Then {
    /// After a good answer. In uwsgi there is one request a connection, and who stays is busy.
    pub(crate) fn after_good(self, protocol: Protocol) -> Self {
        if protocol == Protocol::Uwsgi { Self::Close } else { self }
    }
}

/// A worker that answers by the path: each row has a path, what is sent, and what then. Any other path gets `ok`.
pub(crate) fn worker(
    (protocol, transport): Link,
    rows: Vec<(impl AsRef<str> + Send + Sync + 'static, Vec<u8>, Then)>,
) -> Worker {
    Worker::start(transport, move |visit| {
        while let Some(opening) = visit.whole(protocol) {
            let row = rows.iter().find(|(name, ..)| name.as_ref() == opening.target);
            let Some((_, bytes, then)) = row else {
                visit.send(OK);
                if protocol == Protocol::Uwsgi {
                    return;
                }
                continue;
            };
            visit.send(bytes);
            match then {
                Then::Stay => {}
                Then::Close => return,
                Then::Reset => return visit.reset(),
            }
        }
    })
}

#[test]
fn a_head_answer_tells_the_length_that_there_would_be() {
    for link in LINKS {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n";
        let worker = worker(link, vec![("/", answer.into(), Then::Stay.after_good(link.0))]);
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            assert_eq!(wire.ask("HEAD", "/").header("content-length"), Some("12345"), "{}", wire.name());
        }
    }
}

#[test]
fn a_reset_before_the_head_has_its_own_reason() {
    for link in LINKS {
        let worker = Worker::start(link.1, |visit| {
            visit.touch();
            visit.reset();
        });
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            let response = wire.ask("POST", "/");
            assert_eq!(response.status, 502, "{} {link:?}", wire.name());
            assert_eq!(gateway.access_of(&response)["reason"], "reset_before_head");
        }
        gateway.wait_idle();
        // On a unix socket it proves that the head was not read, so each is tried three times.
        let tries = if link.1 == Transport::Unix { 3.0 } else { 1.0 };
        gateway.wait_failures("app", "reset_before_head", 2.0 * tries);
    }
}

#[test]
fn an_http_1_0_client_sees_a_cut_body_as_a_reset() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let link = (Protocol::Http1, Transport::Unix);
    let worker = worker(link, vec![("/", answer.into(), Then::Close)]);
    let gateway = before(link, &worker);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    let response = client.response("GET");
    assert!(response.cut.is_some(), "the end of the connection would be the end of the body: {response:?}");
}

#[test]
fn an_http_1_0_client_that_has_closed_its_side_does_not_take_a_part_for_the_whole() {
    let latch = Latch::default();
    let wait = latch.clone();
    let worker = Worker::unix(move |visit| {
        visit.request();
        visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        wait.wait();
        visit.send("5\r\nworld\r\n0\r\n\r\n");
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.head().map(|head| head.0), Some(200));
    client.finish();
    // It has left, for all that can be known.
    assert_eq!(client.drain().1, End::Reset);
    latch.open();
    gateway.wait_idle();
}

#[test]
fn an_http_1_0_client_that_has_all_of_a_large_answer_sees_an_orderly_end() {
    let body = "x".repeat(3_000_000);
    let worker = Worker::unix(move |visit| {
        visit.request();
        visit.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ));
        visit.wait_closed();
    });
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n");
    let response = client.response("GET");
    assert_eq!((response.status, response.body.len(), response.cut.is_some()), (200, 3_000_000, false));
    assert_eq!(client.drain(), (0, End::Closed));
}

#[test]
fn a_large_answer_arrives_whole_over_both_protocols() {
    for link in LINKS {
        let body: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
        let mut sized = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        sized.extend_from_slice(&body);
        let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in body.chunks(99_991) {
            chunked.extend_from_slice(format!("{:X}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        let mut until_close = b"HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\n\r\n".to_vec();
        until_close.extend_from_slice(&body);
        let mut rows = vec![
            ("/sized", sized, Then::Stay.after_good(link.0)),
            ("/chunked", chunked, Then::Stay),
            ("/until-close", until_close, Then::Close),
        ];
        rows.retain(|row| makes_sense(link.0, &row.1));
        let paths: Vec<_> = rows.iter().map(|row| row.0).collect();
        let worker = worker(link, rows);
        let gateway = before(link, &worker);
        for mut wire in Wire::both(&gateway) {
            for path in &paths {
                let response = wire.ask("GET", path);
                assert!(response.body == body && response.cut.is_none(), "{path} over {}", wire.name());
                assert_eq!(gateway.access_of(&response)["bytes_out"], 3_000_000);
                wire.check_next(path);
            }
        }
        gateway.wait_idle();
        gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
        gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    }
}
