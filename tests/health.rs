//! Which endpoints take requests: active probes, ejection, backups.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use rustix::process::{Pid, kill_process};

use crate::support::gateway::{Signal, before};
use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2_worker::{H2Worker, answer};
use crate::support::tls_worker::{After, Ca, TlsWorker};
use crate::support::uwsgi::Program;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, Response, Uwsgi, Worker};

const PROBES: &str = "health: { path: /up, interval: 50ms, timeout: 40ms, fall: 2, rise: 2 }";

/// What a worker answers to probes; everything else gets its name and 200. The status 0 is silence.
#[derive(Clone)]
struct Health(Arc<AtomicU16>);

impl Health {
    fn set(&self, status: u16) {
        self.0.store(status, Ordering::SeqCst);
    }
}

fn worker(name: &'static str) -> (Worker, Health) {
    let health = Health(Arc::new(AtomicU16::new(200)));
    let status = Arc::clone(&health.0);
    let worker = Worker::unix(move |visit| {
        while let Some(request) = visit.request() {
            let status = match request.line() {
                "GET /up HTTP/1.1" => status.load(Ordering::SeqCst),
                _ => 200,
            };
            if status == 0 {
                return visit.wait_closed();
            }
            visit.send(format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
        }
    });
    (worker, health)
}

fn up(gateway: &Gateway, endpoint: &str, wanted: f64) {
    gateway.wait_metric(&format!("hostler_endpoint_up{{endpoint=\"{endpoint}\",upstream=\"app\"}}"), wanted);
}

fn probes(endpoint: &str, result: &str) -> String {
    format!("hostler_probes_total{{endpoint=\"{endpoint}\",result=\"{result}\",upstream=\"app\"}}")
}

/// Waits until this series has grown by so much.
fn grown(gateway: &Gateway, series: &str, by: f64) {
    let before = gateway.metric(series);
    let found = crate::support::look_until(|| (gateway.metric(series) >= before + by).then_some(()));
    assert!(found.is_some(), "{series} does not grow");
}

/// Who answers, a few times.
fn answers(gateway: &Gateway) -> Vec<String> {
    let ask = |_| gateway.client().get("/page");
    let check = |response: Response| {
        assert_eq!(response.status, 200, "{response:?}");
        response.text().to_owned()
    };
    (0..8).map(ask).map(check).collect()
}

/// A page of the example shop, which knows its own name.
fn from_shop(client: &mut Client) -> Response {
    client.send("GET /bytes/10 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.response("GET")
}

/// Runs `weather` while four clients ask one thing after the other. Each of their answers has to be 200.
fn under_load<T>(gateway: &Gateway, ask: impl Fn(&mut Client) -> Response + Sync, weather: impl FnOnce() -> T) -> T {
    /// Ends the load, even when the weather has failed the test.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !is_over.load(Ordering::Relaxed) {
                    let response = ask(&mut client);
                    assert_eq!(response.status, 200, "{response:?}");
                }
            });
        }
        let _over = Over(&is_over);
        weather()
    })
}

fn event(gateway: &Gateway, words: &str) -> serde_json::Value {
    gateway.log_event(words, |event| event["message"].as_str().is_some_and(|message| message.contains(words)))
}

#[test]
fn an_endpoint_that_fails_probes_gets_no_requests_and_comes_back() {
    let ((a, health), (b, _)) = (worker("a"), worker("b"));
    let endpoints = format!("endpoints: [\"{}\", \"{}\"], workers: 4", a.endpoint(), b.endpoint());
    let gateway = Gateway::before(&format!("{endpoints}, {PROBES}"));
    health.set(503);
    up(&gateway, &a.endpoint(), 0.0);
    let told = event(&gateway, "2 probes in a row failed");
    assert_eq!(told["endpoint"], a.endpoint());
    assert!(told["message"].as_str().unwrap().contains("/up: status 503"), "{told}");
    assert_eq!(answers(&gateway), ["b"; 8]);
    health.set(204);
    up(&gateway, &a.endpoint(), 1.0);
    assert!(answers(&gateway).contains(&"a".to_owned()));
    event(&gateway, "probes succeed again");
    gateway.wait_metric(&format!("hostler_endpoint_in_flight{{endpoint=\"{}\",upstream=\"app\"}}", b.endpoint()), 0.0);
    // Taken out of the configuration, an endpoint is nothing to report any more.
    gateway.reload(&before(&format!("endpoints: [\"{}\"], workers: 4", b.endpoint())));
    let metrics = gateway.admin_get("/metrics");
    assert!(!metrics.text().contains(&a.endpoint()) && metrics.text().contains(&b.endpoint()), "{}", metrics.text());
}

#[test]
fn a_probe_says_who_asks_for_what() {
    let (worker, _) = worker("a");
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2, {PROBES} }}\n\
         sites:\n  - hosts: [\"*.shop.example\", shop.example]\n    routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    ));
    let probe = worker.wait_requests(1);
    assert_eq!(probe.line(), "GET /up HTTP/1.1");
    for (name, value) in [
        ("host", "shop.example"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-proto", "http"),
        ("user-agent", "hostler-health"),
        ("connection", "close"),
    ] {
        assert_eq!(probe.header(name).as_deref(), Some(value), "{}", probe.head);
    }
    gateway.wait_idle();
}

#[test]
fn no_probe_takes_the_only_worker_from_users() {
    let (worker, latch) = Worker::held("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\"], workers: 1, health: {{ path: /up, interval: 1h, timeout: 1s }}",
        worker.endpoint()
    ));
    let mut client = gateway.client();
    client.send("GET /page HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    worker.wait_requests(1);
    // The worker is busy: from now on a probe every 50 ms is due.
    gateway.reload(&before(&format!("endpoints: [\"{}\"], workers: 1, {PROBES}", worker.endpoint())));
    grown(&gateway, &probes(&worker.endpoint(), "skipped"), 5.0);
    assert_eq!(worker.requests().len(), 1);
    up(&gateway, &worker.endpoint(), 1.0);
    latch.open();
    assert_eq!(client.response("GET").status, 200);
    grown(&gateway, &probes(&worker.endpoint(), "good"), 1.0);
}

#[test]
fn a_busy_endpoint_is_not_called_down_for_want_of_probes() {
    let gunicorn = Gunicorn::start(1);
    let endpoint = gunicorn.endpoint();
    let upstream = format!("endpoints: [\"{endpoint}\"], workers: 1");
    let gateway = Gateway::before(&upstream);
    let is_told = under_load(&gateway, from_shop, || {
        gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 3.0);
        // A probe, should there ever be a worker to spare, would fail.
        gateway.reload(&before(&format!("{upstream}, health: {{ path: /status/503, interval: 50ms, fall: 5 }}")));
        grown(&gateway, &probes(&endpoint, "served"), 10.0);
        gateway.log().iter().any(|line| line.contains("probes in a row failed"))
    });
    assert!(!is_told, "it was called down under load: {:#?}", gateway.log());
}

#[test]
fn a_hung_endpoint_is_left_out_until_it_answers() {
    let ((a, health), (b, _)) = (worker("a"), worker("b"));
    let endpoints = format!("endpoints: [\"{}\", \"{}\"], workers: 8", a.endpoint(), b.endpoint());
    let gateway = Gateway::before(&format!("{endpoints}, {PROBES}"));
    health.set(0);
    up(&gateway, &a.endpoint(), 0.0);
    let told = event(&gateway, "2 probes in a row failed");
    assert_eq!(told["endpoint"], a.endpoint());
    assert_eq!(answers(&gateway), ["b"; 8]);
    // However long it hangs, no more than one of its workers is asked.
    grown(&gateway, &probes(&a.endpoint(), "failed"), 5.0);
    assert!(gateway.metric("hostler_in_flight{upstream=\"app\"}") <= 2.0, "one probe of each");
    health.set(200);
    up(&gateway, &a.endpoint(), 1.0);
    assert!(answers(&gateway).contains(&"a".to_owned()));
}

#[test]
fn a_gunicorn_that_stands_still_is_left_out_until_it_goes_on() {
    let (still, other) = (Gunicorn::start(1), Gunicorn::start(1));
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\", \"{}\"], workers: 4, health: {{ path: /page, interval: 1s, timeout: 500ms, fall: 1, rise: 1 }}",
        still.endpoint(),
        other.endpoint()
    ));
    up(&gateway, &still.endpoint(), 1.0);
    let signal = |signal| {
        for pid in still.worker_pids() {
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    };
    signal(Signal::STOP);
    up(&gateway, &still.endpoint(), 0.0);
    for _ in 0..8 {
        let response = from_shop(&mut gateway.client());
        assert_eq!(
            (response.status, gateway.access_of(&response)["endpoint"].as_str()),
            (200, Some(&*other.endpoint()))
        );
    }
    signal(Signal::CONT);
    up(&gateway, &still.endpoint(), 1.0);
    let response = from_shop(&mut gateway.client());
    assert_eq!(response.status, 200, "{response:?}");
    gateway.wait_idle();
}

#[test]
fn the_last_endpoint_is_held_and_not_failed() {
    let (worker, health) = worker("a");
    let config =
        |hold: &str| before(&format!("endpoints: [\"{}\"], workers: 1, hold: {hold}, {PROBES}", worker.endpoint()));
    let gateway = Gateway::start(&config("1h"));
    health.set(500);
    up(&gateway, &worker.endpoint(), 0.0);
    let mut client = gateway.client();
    client.send("GET /page HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    grown(&gateway, &probes(&worker.endpoint(), "failed"), 3.0);
    health.set(200);
    assert_eq!(client.response("GET").text(), "a", "it waited until probes succeeded");
    gateway.reload(&config("100ms"));
    health.set(500);
    up(&gateway, &worker.endpoint(), 0.0);
    let response = gateway.client().get("/page");
    assert_eq!((response.status, &gateway.access_of(&response)["reason"]), (502, &"no_endpoint".into()));
    assert!(response.header("retry-after").is_some(), "{response:?}");
    // Without probes nobody would ever call it up again.
    gateway.reload(&before(&format!("endpoints: [\"{}\"], workers: 1, hold: 100ms", worker.endpoint())));
    assert_eq!(answers(&gateway), ["a"; 8]);
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let ((a, health), (b, _)) = (worker("a"), worker("b"));
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\", {{ address: \"{}\", backup: true }}], workers: 4, {PROBES}",
        a.endpoint(),
        b.endpoint()
    ));
    assert_eq!(answers(&gateway), ["a"; 8]);
    health.set(503);
    up(&gateway, &a.endpoint(), 0.0);
    assert_eq!(answers(&gateway), ["b"; 8]);
    health.set(200);
    up(&gateway, &a.endpoint(), 1.0);
    assert_eq!(answers(&gateway), ["a"; 8]);
}

#[test]
fn an_endpoint_that_fails_under_load_is_ejected_and_no_get_fails() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    let a = Worker::start(Transport::Tcp, move |visit| {
        while visit.request().is_some() {
            if broken.load(Ordering::SeqCst) {
                return visit.leave();
            }
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
        }
    });
    let (b, _) = worker("b");
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\", \"{}\"], workers: 8, ejection: {{ failures: 3, window: 60s, for: 2s }}",
        a.endpoint(),
        b.endpoint()
    ));
    let ask = |_: &mut Client| gateway.client().get("/page");
    under_load(&gateway, ask, || {
        let told = event(&gateway, "(ejection)");
        assert_eq!((&told["endpoint"], &told["reason"]), (&a.endpoint().into(), &"eof_before_head".into()));
        is_broken.store(false, Ordering::SeqCst);
        up(&gateway, &a.endpoint(), 1.0);
        // Requests that it answers now are those of the time after its ejection.
        gateway.access_line("answered by it", |line| line["endpoint"] == a.endpoint() && line["status"] == 200);
    });
    gateway.wait_idle();
}

#[test]
fn what_ends_without_a_whole_answer_counts_towards_ejection() {
    for (does, answer, is_ejected) in [
        ("says nothing", None, true),
        ("closes", Some(""), true),
        ("closes within the head", Some("HTTP/1.1 200 OK\r\n"), true),
        ("closes within the body", Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), true),
        ("says something else", Some("SSH-2.0-OpenSSH_9.2\r\n\r\n"), true),
        (
            "cuts a stream",
            Some("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\nhalf"),
            false,
        ),
        ("fails in its own words", Some("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"), false),
    ] {
        let a = Worker::unix(move |visit| {
            visit.request();
            match answer {
                Some(answer) => drop(visit.send(answer)),
                None => visit.wait_closed(),
            }
        });
        let (b, _) = worker("b");
        let gateway = Gateway::before(&format!(
            "endpoints: [\"{}\", \"{}\"], workers: 4, timeouts: {{ head: 200ms }}, abandon: 100ms, \
             ejection: {{ failures: 1, for: 1h }}",
            a.endpoint(),
            b.endpoint()
        ));
        for _ in 0..4 {
            gateway.client().get("/page");
        }
        gateway.wait_idle();
        let (seen, is_up) =
            (a.requests().len(), format!("hostler_endpoint_up{{endpoint=\"{}\",upstream=\"app\"}}", a.endpoint()));
        assert_eq!(
            (gateway.metric(&is_up), seen),
            if is_ejected { (0.0, 1) } else { (1.0, 2) },
            "a worker that {does}"
        );
    }
}

#[test]
fn answers_of_the_app_are_never_held_against_its_endpoint() {
    let a = Worker::answering(Transport::Unix, "HTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\na");
    let (b, _) = worker("b");
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\", \"{}\"], workers: 4, ejection: {{ failures: 1, for: 1h }}",
        a.endpoint(),
        b.endpoint()
    ));
    let statuses: Vec<u16> = (0..10).map(|_| gateway.client().get("/page").status).collect();
    assert_eq!((statuses.iter().filter(|status| **status == 500).count()), 5, "{statuses:?}");
    up(&gateway, &a.endpoint(), 1.0);
}

#[test]
fn a_stale_connection_is_not_held_against_its_endpoint() {
    // Says that it would keep the connection, and closes it on the next request.
    let a = Worker::start(Transport::Tcp, |visit| {
        visit.request();
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na");
        visit.request();
    });
    let (b, _) = worker("b");
    let gateway = Gateway::before(&format!(
        "endpoints: [\"{}\", \"{}\"], workers: 4, ejection: {{ failures: 1, for: 1h }}, keepalive: {{ idle: 1h }}",
        a.endpoint(),
        b.endpoint()
    ));
    let mut client = gateway.client();
    for _ in 0..10 {
        assert_eq!(client.get("/page").status, 200);
    }
    assert!(gateway.metric("hostler_retries_total{reason=\"eof_before_head\",upstream=\"app\"}") >= 1.0);
    up(&gateway, &a.endpoint(), 1.0);
}

/// Waits for a good probe of the one endpoint.
fn is_well(upstream: &str) {
    let gateway = Gateway::before(&format!("{upstream}, workers: 2, health: {{ path: /page, interval: 100ms }}"));
    let good = |line: &str| line.starts_with("hostler_probes_total{") && line.contains("result=\"good\"");
    let found = crate::support::look_until(|| gateway.admin_get("/metrics").text().lines().any(good).then_some(()));
    if found.is_none() {
        gateway.fail(&format!("no good probe of {upstream}"));
    }
    assert_eq!(gateway.failures("app", "eof_before_head"), 0.0);
    gateway.wait_idle();
}

#[test]
fn probes_speak_what_requests_do() {
    let plan = || Plan::new(Kind::Sync, 1, Transport::Tcp);
    let proxied = plan().argument("--proxy-protocol").start();
    is_well(&format!("endpoints: [\"{}\"], client_address: proxy_v1", proxied.endpoint()));
    for (program, transport) in [(Program::Uwsgi, Transport::Unix), (Program::Gunicorn, Transport::Tcp)] {
        let app = Uwsgi::start(program, transport);
        is_well(&format!("endpoints: [\"{}\"]", app.endpoint()));
    }
    let authority = Ca::new();
    let secure = TlsWorker::start(authority.server("localhost"), After::Next);
    let trust = format!("tls: {{ ca: \"{}\" }}", authority.file().display());
    is_well(&format!("endpoints: [\"{}\"], {trust}", secure.endpoint("localhost")));
    let h2c = H2Worker::start(|received, respond| async move {
        answer(respond, received.body).await;
        false
    });
    is_well(&format!("endpoints: [\"{}\"]", h2c.endpoint()));
}
