//! Slow clients never hold a worker: neither in nor out.

use crate::support::client::get;
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, Worker};

const CLIENTS: usize = 50;
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Says a byte more on each connection: what a client that sends a byte a second does, without the wait.
fn dribble(clients: &mut [Client], byte: &str) {
    clients.iter_mut().for_each(|client| client.send(byte));
}

/// Answers `/large` with 8 MiB, and everything else with a word.
fn worker() -> Worker {
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 8 << 20, "x".repeat(8 << 20));
    Worker::start(Transport::Unix, move |visit| {
        while let Some(request) = visit.request() {
            if !visit.send(if request.line().contains("/large") { &large } else { OK }) {
                return;
            }
        }
    })
}

#[test]
fn slow_senders_and_slow_readers_leave_the_workers_free() {
    let gunicorn = Gunicorn::start(2);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"127.0.0.2:0\", tls: {{ local: true }} }}\n\
         spool: {{ dir: \"@folder@\" }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    ));
    let connect = |_| gateway.client();
    let mut heads: Vec<Client> = (0..CLIENTS).map(connect).collect();
    dribble(&mut heads, "GET /slow-head HTTP/1.1\r\nHost: shop.exam");
    let mut bodies: Vec<Client> = (0..CLIENTS).map(connect).collect();
    dribble(&mut bodies, "POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nslow");
    let h2 = gateway.h2();
    let open = |_| h2.open(request("POST", "/upload", &[("host", "localhost"), ("content-length", "1000")]), false);
    let mut streams: Vec<_> = (0..CLIENTS).map(open).collect();
    streams.iter_mut().for_each(|stream| stream.send(b"slow", false));
    let mut readers: Vec<Client> = (0..CLIENTS).map(connect).collect();
    dribble(&mut readers, &get("/page?size=10485760").replace("shop.example", "localhost"));
    readers.iter_mut().for_each(|reader| assert_eq!(reader.head().expect("a head").0, 200));
    // Every reader has its head and takes no more; the workers have written all of it and are free.
    gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", 0.0);
    for byte in ["a", "b", "c"] {
        dribble(&mut heads, byte);
        dribble(&mut bodies, byte);
        streams.iter_mut().for_each(|stream| stream.send(byte.as_bytes(), false));
        readers.iter_mut().for_each(|reader| assert!(reader.take(1).is_some()));
        let mut honest = gateway.client();
        honest.send(get("/bytes/10").replace("shop.example", "localhost"));
        let response = honest.response("GET");
        assert_eq!((response.status, response.body.len()), (200, 10));
        gateway.wait_idle();
    }
    assert_eq!(gateway.failures("", "client_gone"), 0.0, "the slow ones are still there");
    // What was spooled is what the worker wrote.
    let mut last = readers.pop().expect("a reader");
    let rest = last.take((10 << 20) - 3).expect("all of it");
    assert!(rest.iter().eq(b"hostler\n".iter().cycle().skip(3).take(rest.len())), "in order and whole");
    drop((heads, bodies, streams, readers, last));
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
}

#[test]
fn a_client_that_keeps_its_part_of_the_spool_full_holds_no_worker() {
    let worker = worker();
    let gateway = Gateway::start(&format!(
        "spool: {{ dir: \"@folder@\", memory: 64KiB, disk: 4MiB }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let slow = [127, 0, 0, 2];
    let ask = |path: &str| {
        let mut client = Client::connect_from(slow, gateway.address());
        client.send(get(path));
        client
    };
    // One after the other, until there is no room for another: each takes what it can get, and nothing is read.
    let mut readers = Vec::new();
    let refused = loop {
        let mut client = ask("/large");
        let (status, headers) = client.head().unwrap();
        if status != 200 {
            break (status, headers);
        }
        readers.push(client);
        assert!(readers.len() < 20, "the room is endless");
    };
    let status = refused.1.iter().find(|(name, _)| name == "proxy-status").map(|(_, value)| value.as_str());
    assert_eq!(refused.0, 503);
    assert!(status.is_some_and(|status| status.ends_with("details=\"spool_full\"")), "{status:?}");
    // Whoever is somebody else is served: no worker waits for those readers for long.
    assert_eq!(gateway.client().get("/").text(), "ok");
    gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", 0.0);
    drop(readers);
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
    let mut client = ask("/");
    assert_eq!(client.response("GET").text(), "ok", "and the client itself, once it has gone on");
    gateway.wait_idle();
}

#[test]
fn answers_that_find_no_room_wait_at_half_of_the_workers_and_the_others_serve() {
    let worker = worker();
    let gateway = Gateway::start(&format!(
        "spool: {{ dir: \"@folder@\", memory: 64KiB, disk: 1MiB }}\nupstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let reader = |last: u8| {
        let mut client = Client::connect_from([127, 0, 0, last], gateway.address());
        client.send(get("/large"));
        client
    };
    let readers: Vec<Client> = (2..12).map(reader).collect();
    gateway.wait_metric("hostler_streams{upstream=\"app\"}", 2.0);
    let mut honest = gateway.client();
    for _ in 0..100 {
        assert_eq!(honest.get("/").text(), "ok");
    }
    gateway.wait_failures("app", "spool_full", 10.0);
    gateway.wait_metric("hostler_in_flight{upstream=\"app\"}", 0.0);
    assert_eq!(gateway.metric("hostler_streams{upstream=\"app\"}"), 0.0);
    drop(readers);
    gateway.wait_idle();
}
