//! How many connections there may be, how slow their clients, and what happens when there is no room for more.

use std::net::TcpStream;

use crate::support::client::{End, get, post};
use crate::support::tool::Tool;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, LIMIT, Response, Worker, look_until};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// In front of this worker, with these limits.
fn limited(worker: &Worker, limits: &str) -> String {
    with_listeners(worker, limits, "  - { bind: \"127.0.0.1:0\" }\n")
}

fn with_listeners(worker: &Worker, limits: &str, listeners: &str) -> String {
    format!(
        "listeners:\n{listeners}limits: {{ {limits} }}\nspool: {{ dir: \"@folder@\" }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 8 }}\n\
         sites:\n  - routes: [{{ path: /, proxy: app, buffer: {{ memory: 4KiB }} }}]\n",
        worker.endpoint()
    )
}

fn refused(reason: &str) -> String {
    format!("hostler_connections_refused_total{{listener=\"127.0.0.1:0\",reason=\"{reason}\"}}")
}

fn is_of(response: &Response, status: u16, reason: &str) -> bool {
    let details = format!("details=\"{reason}\"");
    response.status == status && response.header("proxy-status").is_some_and(|value| value.contains(&details))
}

/// A client that has been served once, and stays.
fn settled(gateway: &Gateway) -> Client {
    let mut client = gateway.client();
    assert_eq!(client.get("/").status, 200);
    client
}

/// Open connections of clients, whatever they speak.
fn connections(gateway: &Gateway) -> f64 {
    let of =
        |protocol| gateway.metric(&format!("hostler_connections{{listener=\"127.0.0.1:0\",protocol=\"{protocol}\"}}"));
    ["new", "tls", "h1", "h2"].into_iter().map(of).sum()
}

fn wait_no_connections(gateway: &Gateway) {
    let gone = look_until(|| (connections(gateway) == 0.0).then_some(()));
    assert!(gone.is_some(), "{} connections are still counted", connections(gateway));
}

#[test]
fn a_client_over_its_limit_is_turned_away_with_the_reason_and_others_are_not() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&limited(&worker, "connections_per_client: 3"));
    let mut clients: Vec<_> = (0..3).map(|_| settled(&gateway)).collect();
    let refusal = gateway.client().response("GET");
    assert!(is_of(&refusal, 429, "too_many_connections_of_client"), "{refusal:?}");
    let mut other = Client::connect_from([127, 0, 0, 9], gateway.address());
    assert_eq!(other.get("/").text(), "hello");
    gateway.log_event("that it was turned away, and what to do", |event| {
        event["reason"] == "too_many_connections_of_client"
            && event["message"].as_str().is_some_and(|text| text.contains("trusted_proxies"))
    });
    assert!(clients.iter_mut().all(|client| client.get("/").status == 200), "who is in stays in");
    drop(clients.pop());
    let again = look_until(|| (gateway.client().get("/").status == 200).then_some(()));
    assert!(again.is_some(), "a place that is left can be taken");
    assert!(gateway.metric(&refused("too_many_connections_of_client")) >= 1.0);
    assert_eq!(gateway.metric(&refused("too_many_connections")), 0.0);
    drop((clients, other));
    wait_no_connections(&gateway);
}

#[test]
fn a_unix_socket_has_no_limit_per_client() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let listeners = "  - { bind: \"unix:@folder@/edge.sock\" }\n";
    let gateway = Gateway::start(&with_listeners(&worker, "connections_per_client: 1", listeners));
    let clients: Vec<_> = (0..5).map(|_| settled(&gateway)).collect();
    assert_eq!(clients.len(), 5);
}

#[test]
fn over_tls_a_connection_too_many_is_closed() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let listeners = "  - { bind: \"127.0.0.1:0\", tls: { local: true } }\n";
    let gateway = Gateway::start(&with_listeners(&worker, "connections_per_client: 1", listeners));
    let mut first = Client::tls(gateway.address(), "localhost", &gateway.root());
    assert_eq!(first.get("/").status, 200);
    gateway.client().end();
    gateway.wait_metric(&refused("too_many_connections_of_client"), 1.0);
    assert_eq!(first.get("/").status, 200);
}

#[test]
fn when_all_places_are_taken_the_idlest_connection_gives_way() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&limited(&worker, "connections: 3"));
    let (mut idlest, mut second, mut busy) = (settled(&gateway), settled(&gateway), settled(&gateway));
    busy.send("POST /upload HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 10\r\n\r\nhalf.");
    let mut newcomer = settled(&gateway);
    assert_eq!(idlest.end(), End::Closed, "without a word: it had asked for nothing");
    gateway.wait_metric("hostler_connections_evicted_total", 1.0);
    busy.send("whole");
    assert_eq!(busy.response("POST").status, 200);
    assert!(second.get("/").status == 200 && newcomer.get("/").status == 200);
    assert_eq!(gateway.metric(&refused("too_many_connections")), 0.0);
    drop((second, busy, newcomer));
    wait_no_connections(&gateway);
}

#[test]
fn when_nobody_is_idle_the_newcomer_is_turned_away_and_the_admin_listener_answers() {
    let (worker, latch) = Worker::held(HELLO);
    let gateway = Gateway::start(&limited(&worker, "connections: 2"));
    let mut busy: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    busy.iter_mut().for_each(|client| client.send(get("/")));
    worker.wait_requests(2);
    for _ in 0..5 {
        let refusal = gateway.client().response("GET");
        assert!(is_of(&refusal, 503, "too_many_connections"), "{refusal:?}");
        assert!(refusal.header("retry-after").is_some(), "{refusal:?}");
    }
    gateway.wait_metric(&refused("too_many_connections"), 5.0);
    latch.open();
    assert!(busy.iter_mut().all(|client| client.response("GET").text() == "hello"), "nobody in a request is evicted");
    // Now somebody is idle.
    assert_eq!(settled(&gateway).get("/").status, 200);
}

#[test]
fn silent_connections_do_not_keep_the_operator_out() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&limited(&worker, "connections: 20"));
    for said in
        ["", "G", "POST /pause HTTP/1.1\r\nHost: localhost\r\nX-Hostler-Control: 1\r\nContent-Length: 9\r\n\r\nx"]
    {
        let mut silent: Vec<_> = (0..70).map(|_| Client::connect(gateway.admin())).collect();
        silent.iter_mut().for_each(|client| client.send(said));
        assert_eq!(gateway.admin_get("/ready").status, 200, "{said:?}");
        assert!(gateway.metric("process_open_fds") > 64.0);
        drop(silent);
    }
}

#[test]
fn silent_connections_do_not_keep_others_out() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway =
        Gateway::start(&limited(&worker, "connections: 20, header_timeout: 10m, body_rate: { min: 500, after: 10m }"));
    let stalled = "POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 9\r\n\r\nx";
    for (said, protocol) in [("", "new"), ("G", "h1"), (stalled, "h1")] {
        let mut silent: Vec<_> = (0..20).map(|_| gateway.client()).collect();
        silent.iter_mut().for_each(|client| client.send(said));
        let series = format!("hostler_connections{{listener=\"127.0.0.1:0\",protocol=\"{protocol}\"}}");
        gateway.wait_metric(&series, 20.0);
        let served = look_until(|| {
            let mut client = gateway.client();
            client.try_send(get("/")).ok()?;
            client.try_response("GET").filter(|response| response.status == 200)
        });
        assert!(served.is_some(), "who does not go on gives way: {said:?}");
        drop(silent);
        wait_no_connections(&gateway);
    }
}

#[test]
fn a_reload_changes_the_limits() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = Gateway::start(&limited(&worker, "connections_per_client: 1"));
    let first = settled(&gateway);
    assert_eq!(gateway.client().response("GET").status, 429);
    gateway.reload(&limited(&worker, "connections_per_client: 9"));
    let more: Vec<_> = (0..8).map(|_| settled(&gateway)).collect();
    gateway.reload(&limited(&worker, "connections: 3"));
    let fewer = look_until(|| (connections(&gateway) <= 3.0).then_some(()));
    assert!(fewer.is_some(), "the idlest leave until as many are left as there may be");
    drop((first, more));
}

#[test]
fn a_lower_limit_costs_no_more_connections_than_are_too_many_however_many_threads_there_are() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let config = |limits: &str| format!("runtime: {{ threads: 4 }}\n{}", limited(&worker, limits));
    let gateway = Gateway::start(&config("connections: 200"));
    let clients: Vec<_> = (0..100).map(|_| settled(&gateway)).collect();
    gateway.reload(&config("connections: 60"));
    let fewer = look_until(|| (connections(&gateway) <= 60.0).then_some(()));
    assert!(fewer.is_some(), "{}", connections(&gateway));
    // A thread may be one step too far.
    let evicted = gateway.metric("hostler_connections_evicted_total");
    assert!((40.0..=43.0).contains(&evicted), "{evicted}");
    drop(clients);
}

#[test]
fn a_body_below_its_rate_is_refused_and_an_honest_one_beside_it_is_not() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let listeners = "  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n";
    let limits = "body_rate: { min: 1KiB, after: 1s }";
    let gateway = Gateway::start(&with_listeners(&worker, limits, listeners));
    let tls = gateway.listener("127.0.0.2:0").clone();
    let slow_ones = [gateway.client(), Client::tls(&tls, "localhost", &gateway.root())];
    for (before, mut slow) in slow_ones.into_iter().enumerate() {
        slow.send("POST /slow HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\n");
        let mut honest = gateway.client();
        // As slow as it can be: a byte whenever somebody else has been served.
        let refusal = look_until(|| {
            honest.send(post("/honest", "hello"));
            assert_eq!(honest.response("POST").status, 200);
            let counted = gateway.failures("", "body_timeout") > before as f64;
            (slow.try_send("x").is_err() || counted).then_some(())
        });
        assert!(refusal.is_some(), "it goes on for ever");
        let response = slow.response("POST");
        assert!(is_of(&response, 408, "body_timeout"), "{response:?}");
        gateway.wait_failures("", "body_timeout", (before + 1) as f64);
    }
    assert!(worker.requests().iter().all(|request| request.line().contains("/honest")));
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
    gateway.wait_metric("hostler_spool_files", 0.0);
    wait_no_connections(&gateway);
}

#[test]
fn who_does_not_take_the_answer_is_reset_and_an_honest_reader_gets_all() {
    const LENGTH: usize = 24 << 20;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{}", "x".repeat(LENGTH));
    let worker = Worker::answering(Transport::Unix, answer);
    let listeners = "  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n";
    let gateway = Gateway::start(&with_listeners(&worker, "read_rate: { min: 1KiB, after: 1s }", listeners));
    let tls = gateway.listener("127.0.0.2:0").clone();
    for (count, mut stalled) in
        [gateway.client(), Client::tls(&tls, "localhost", &gateway.root())].into_iter().enumerate()
    {
        stalled.send(get("/"));
        assert_eq!(stalled.head().map(|(status, _)| status), Some(200));
        let mut honest = gateway.client();
        honest.send(get("/"));
        let response = honest.response("GET");
        assert_eq!((response.body.len(), response.cut), (LENGTH, None));
        gateway.wait_failures("", "client_stalled", (count + 1) as f64);
        assert!(stalled.take(LENGTH).is_none(), "what it has is not the whole");
    }
    gateway.access_line("the stalled one", |line| line["reason"] == "client_stalled");
    gateway.wait_idle();
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
    wait_no_connections(&gateway);
}

#[test]
fn pipelined_requests_that_nobody_reads_the_answers_of_come_to_an_end() {
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let worker = Worker::answering(Transport::Unix, answer);
    let gateway = Gateway::start(&limited(&worker, "read_rate: { min: 1KiB, after: 1s }"));
    let mut client = gateway.client();
    client.send(get("/").repeat(100));
    gateway.wait_failures("", "client_stalled", 1.0);
    gateway.wait_idle();
    wait_no_connections(&gateway);
    assert!(worker.requests().len() < 100, "they wait for their turn");
}

#[test]
fn every_way_of_saying_nothing_comes_to_an_end() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let listeners = "  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n";
    let limits = "header_timeout: 1s, idle_timeout: 1s, body_rate: { min: 1KiB, after: 1s }";
    let gateway = Gateway::start(&with_listeners(&worker, limits, listeners));
    let tls = gateway.listener("127.0.0.2:0").clone();
    // Connected, and nothing else; to a TLS listener too.
    let mut ends = vec![gateway.client(), Client::connect(&tls)];
    // Part of a handshake.
    let mut hello = Client::connect(&tls);
    hello.send(b"\x16\x03\x01\x02\x00\x01\x00");
    ends.push(hello);
    // After a handshake, after an answer, and after half a goodbye.
    let mut idle = Client::tls(&tls, "localhost", &gateway.root());
    assert_eq!(idle.get("/").status, 200);
    ends.extend([idle, settled(&gateway)]);
    let half = settled(&gateway);
    half.finish();
    ends.push(half);
    for client in &mut ends {
        assert_eq!(client.end(), End::Closed);
    }
    // Empty lines for ever, whole and in halves.
    for line in ["\r\n", "\r", "\n"] {
        let mut client = gateway.client();
        let ended = look_until(|| client.try_send(line).is_err().then_some(()));
        assert!(ended.is_some(), "{line:?}");
    }
    // The beginning of HTTP/2, and no more.
    let mut preface = gateway.client();
    preface.send("PRI * HTTP/2.0\r\n");
    assert_eq!(preface.end(), End::Closed);
    wait_no_connections(&gateway);
    let handshakes = "hostler_tls_handshakes_total{result=\"timeout\",version=\"unknown\"}";
    gateway.wait_metric(handshakes, 2.0);
}

/// Begins to send a body of 60,000 bytes with these, from an address of its own, and stalls.
fn stalled(gateway: &Gateway, last: u8, bytes: usize) -> Client {
    let mut client = Client::connect_from([127, 0, 0, last], gateway.address());
    let begun = "x".repeat(bytes);
    client.send(format!("POST /stalled HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 60000\r\n\r\n{begun}"));
    client
}

/// In front of a worker, with 64 KiB of memory for bodies and nothing else, and patience without end.
fn with_little_memory(worker: &Worker) -> Gateway {
    let config = limited(worker, "body_rate: { min: 1, after: 60m }");
    let config = config.replace("dir: \"@folder@\"", "dir: \"@folder@\", memory: 64KiB, disk: 0");
    Gateway::start(&config.replace("memory: 4KiB", "memory: 64KiB"))
}

const MEMORY: &str = "hostler_spool_bytes{where=\"memory\"}";

#[test]
fn one_client_cannot_fill_the_spool_for_all() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = with_little_memory(&worker);
    let greedy = stalled(&gateway, 9, 30_000);
    gateway.wait_metric(MEMORY, f64::from(32 << 10));
    let refusal = stalled(&gateway, 9, 100).response("POST");
    assert!(is_of(&refusal, 503, "spool_full"), "{refusal:?}");
    let mut other = Client::connect_from([127, 0, 0, 10], gateway.address());
    other.send(post("/other", &"x".repeat(16_000)));
    assert_eq!(other.response("POST").text(), "hello");
    drop(greedy);
    gateway.wait_metric(MEMORY, 0.0);
}

#[test]
fn when_the_spool_is_nearly_full_who_stalls_goes_until_there_is_room() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let gateway = with_little_memory(&worker);
    let mut clients = Vec::new();
    for (last, bytes, used) in [(9, 30_000, 32), (10, 16_000, 48), (11, 8_000, 56), (12, 4_000, 60)] {
        clients.push(stalled(&gateway, last, bytes));
        gateway.wait_metric(MEMORY, f64::from(used << 10));
    }
    gateway.log_event("that the spool is short", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("the spool is nearly full"))
    });
    gateway.wait_failures("", "body_timeout", 1.0);
    let mut honest = Client::connect_from([127, 0, 0, 20], gateway.address());
    honest.send(post("/honest", "small"));
    assert_eq!(honest.response("POST").status, 200);
    let still_there = clients.iter_mut().filter_map(|client| client.try_send("x").ok()).count();
    assert!(still_there >= 3, "no more had to go: {still_there}");
    drop((clients, honest));
    gateway.wait_metric(MEMORY, 0.0);
    wait_no_connections(&gateway);
}

/// `hostler check` in a process that may have so many open files.
fn check_limited(files: usize, config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostler.yaml");
    std::fs::write(&file, config).unwrap();
    let script = format!("ulimit -n {files} && exec \"$0\" check -c \"$1\"");
    let output = Tool::start("sh", &["-c", &script, env!("CARGO_BIN_EXE_hostler"), file.to_str().unwrap()]).output();
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

#[test]
fn check_says_when_the_limit_of_open_files_is_too_low() {
    let config = "sites: [{ routes: [{ path: /, respond: { body: ok } }] }]\n";
    let text = check_limited(256, config);
    assert!(text.contains("the limit of open files is 256") && text.contains("LimitNOFILE"), "{text}");
    assert!(!check_limited(2048, config).contains("open files"), "nobody has asked for more");
    let text = check_limited(2048, &format!("limits: {{ connections: 5000 }}\n{config}"));
    assert!(text.contains("limits.connections") && text.contains(":1:"), "{text}");
}

/// Asks on a connection of its own, from an address of its own; `None`: not now.
fn ask(gateway: &Gateway) -> Option<u16> {
    let mut client = Client::connect_from([127, 0, 0, 77], gateway.address());
    client.try_send(get("/")).ok()?;
    client.try_response("GET").map(|response| response.status)
}

#[test]
fn with_256_descriptors_a_thousand_clients_neither_stop_it_nor_leave_a_trace() {
    const CLIENTS: usize = 1000;
    let worker = Worker::answering(Transport::Unix, HELLO);
    let limits = "connections_per_client: 5000, body_rate: { min: 1KiB, after: 15s }";
    let gateway = Gateway::start_limited(256, &limited(&worker, limits));
    gateway.log_event("how many there may be, and what to do", |event| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("the limit of open files is 256") && text.contains("LimitNOFILE"))
    });
    // With the first answer every thread has what it needs.
    drop(settled(&gateway));
    wait_no_connections(&gateway);
    let before = gateway.open_files();
    let open_files = || gateway.metric("process_open_fds");

    // One address does not take all.
    let greedy: Vec<_> = (0..200).map(|_| gateway.client()).collect();
    assert_eq!(ask(&gateway), Some(200));
    assert!(gateway.metric(&refused("too_many_connections_of_client")) > 0.0);
    drop(greedy);
    wait_no_connections(&gateway);

    // Those who ask and stay.
    let many =
        || (0..CLIENTS).map(|at| Client::connect_from([127, 0, 1, (at % 200) as u8], gateway.address())).collect();
    let mut clients: Vec<Client> = many();
    clients.iter_mut().for_each(|client| drop(client.try_send(get("/"))));
    let answers: Vec<_> = clients.iter_mut().filter_map(|client| client.try_response("GET")).collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 503)));
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(served > 100, "{served} of {CLIENTS} were served");
    assert!(open_files() <= 256.0 && open_files() > 100.0, "{}", open_files());
    assert_eq!(ask(&gateway), Some(200), "somebody idle gives way");
    drop(clients);
    wait_no_connections(&gateway);

    // Those who begin a body that goes to a file, and stall.
    let mut clients: Vec<Client> = many();
    let begun =
        format!("POST /stalled HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 900000\r\n\r\n{}", "x".repeat(20_000));
    clients.iter_mut().for_each(|client| drop(client.try_send(&begun)));
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 0.0);
    let spooling = look_until(|| (gateway.metric("hostler_spool_files") > 20.0).then_some(()));
    assert!(spooling.is_some(), "some have a file");
    assert!(open_files() <= 256.0);
    assert!(gateway.admin_get("/ready").status == 200 && !gateway.admin_get("/metrics").body.is_empty());
    let recovered = look_until(|| (ask(&gateway)? == 200).then_some(()));
    assert!(recovered.is_some(), "who stalls goes, and it serves again by itself");
    drop(clients);

    wait_no_connections(&gateway);
    gateway.wait_idle();
    gateway.wait_metric("hostler_spool_bytes{where=\"disk\"}", 0.0);
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
    gateway.wait_metric("hostler_spool_files", 0.0);
    let all_closed = look_until(|| (gateway.open_files() <= before + 3).then_some(()));
    assert!(all_closed.is_some(), "{before} open files before, {} now", gateway.open_files());
    assert!(worker.requests().iter().all(|request| !request.line().contains("stalled")));
    // A line of each kind a second, and there are few kinds.
    let told = gateway.log().iter().filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    assert!(told < 200, "{told} lines:\n{}", gateway.log().join("\n"));
}

/// Lets a process open files up to this number; `None`: as many as anybody may.
fn allow_files(gateway: &Gateway, number: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap());
    prlimit(pid, Resource::Nofile, Rlimit { current: number.or(maximum), maximum }).unwrap();
}

#[test]
fn a_request_that_finds_no_descriptor_for_its_worker_waits_for_one() {
    let worker = Worker::answering(Transport::Unix, HELLO);
    let config = limited(&worker, "connections: 100").replace("workers: 8", "workers: 8, keepalive: { idle: 0s }");
    let gateway = Gateway::start(&config);
    let mut client = settled(&gateway);
    worker.wait_ended(1);
    allow_files(&gateway, Some(3));
    client.send(post("/", "once"));
    gateway.log_event("why it waits", |event| event["reason"] == "no_descriptors");
    allow_files(&gateway, None);
    assert_eq!(client.response("POST").text(), "hello");
    assert_eq!(worker.requests().len(), 2);
    gateway.wait_idle();
}

#[test]
fn when_somebody_else_has_the_descriptors_it_waits_without_a_flood_of_lines_and_goes_on() {
    let worker = Worker::answering(Transport::Tcp, HELLO);
    let gateway = Gateway::start(&limited(&worker, "connections: 100"));
    let mut kept: Vec<_> = (0..10).map(|_| settled(&gateway)).collect();
    gateway.wait_idle();
    // None is left, as if a library had taken them all.
    let open = u64::try_from(gateway.open_files()).unwrap();
    allow_files(&gateway, Some(open.saturating_sub(2)));
    let waiting: Vec<_> = (0..8).map(|_| TcpStream::connect(gateway.address().to_string()).unwrap()).collect();
    gateway.log_event("that it cannot accept", |event| {
        event["message"].as_str().is_some_and(|text| text.starts_with("cannot accept connections"))
    });
    allow_files(&gateway, None);
    assert_eq!(settled(&gateway).get("/").status, 200);
    let stayed =
        kept.iter_mut().filter_map(|client| client.try_send(get("/")).ok().and_then(|()| client.try_response("GET")));
    assert!(stayed.count() < 10, "the idlest had to go");
    let told = gateway.log().iter().filter(|line| line.contains("cannot accept")).count();
    assert!(told as u64 <= LIMIT.as_secs(), "{told} lines: at most one a second");
    drop((waiting, kept));
    wait_no_connections(&gateway);
}
