//! Slow clients never hold a worker: neither in nor out.

use crate::support::client::get;
use crate::support::h2::request;
use crate::support::{Client, Gateway, Gunicorn};

const CLIENTS: usize = 50;

/// Says a byte more on each connection: what a client that sends a byte a second does, without the wait.
fn dribble(clients: &mut [Client], byte: &str) {
    clients.iter_mut().for_each(|client| client.send(byte));
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
