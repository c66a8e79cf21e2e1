//! The operator's hand and eye: `pause`, `resume`, `drain`, `reload` and `status`, over the command line.

use serde_json::Value;

use crate::support::client::{get, post};
use crate::support::gateway::cli;
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Worker, look_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const WAITING: &str = "hostler_waiting{upstream=\"app\"}";

/// An upstream `app` with these keys, and an admin listener that the command line finds.
fn config(upstream: &str) -> String {
    format!(
        "admin: {{ bind: \"unix:@folder@/admin.sock\" }}\n\
         upstreams:\n  app: {{ {upstream} }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n"
    )
}

/// Runs a command that is to succeed. What it said.
fn done(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.cli(arguments);
    assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{arguments:?}: {output:?}");
    output.stdout
}

/// Runs a command that is to fail. Its exit code and what it said.
fn failed(gateway: &Gateway, arguments: &[&str]) -> (i32, String) {
    let output = gateway.cli(arguments);
    assert_eq!(output.stdout, "", "{arguments:?}: {output:?}");
    (output.code.unwrap(), output.stderr)
}

/// Sends so many requests, each on a connection of its own.
fn send(gateway: &Gateway, count: usize) -> Vec<Client> {
    let send = |_| {
        let mut client = gateway.client();
        client.send(get("/"));
        client
    };
    (0..count).map(send).collect()
}

fn assert_answered(clients: Vec<Client>) {
    for mut client in clients {
        assert_eq!(client.response("GET").status, 200);
    }
}

fn app(status: &Value) -> &Value {
    &status["upstreams"][0]
}

#[test]
fn while_an_upstream_is_paused_requests_wait_and_none_fails() {
    let worker = Worker::answering(Transport::Unix, OK);
    let good = config(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()));
    let gateway = Gateway::start(&good);
    assert_eq!(done(&gateway, &["pause", "app"]), "app is paused: 0 in flight, 0 waiting");
    let mut clients = send(&gateway, 3);
    clients[0].send(get("/pipelined"));
    let mut writer = gateway.client();
    writer.send(post("/", "body"));
    let h2 = gateway.h2();
    let stream = h2.open(request("GET", "/", &[]), true);
    gateway.wait_metric(WAITING, 5.0);
    assert_eq!(done(&gateway, &["pause", "app"]), "app is already paused: 0 in flight, 5 waiting");
    assert!(done(&gateway, &["status"]).contains("PAUSED: requests wait until `hostler resume app`"));
    gateway.reload(&good.replace("workers: 2", "workers: 3"));
    gateway.log_event("the reminder", |event| {
        event["level"] == "WARN" && event["message"].as_str().is_some_and(|message| message.contains("still paused"))
    });
    let status = gateway.status();
    let facts = [&app(&status)["paused"], &app(&status)["workers"], &app(&status)["waiting"]];
    assert_eq!(facts, [&Value::from(true), &3.into(), &5.into()], "a reload lets nobody through");
    assert_eq!(worker.connections(), 0, "no worker has heard of it");
    assert!(done(&gateway, &["resume", "app"]).starts_with("app is open: "));
    assert_eq!((writer.response("POST").status, stream.response().status), (200, 200));
    assert_eq!(clients[0].response("GET").status, 200);
    assert_answered(clients);
    gateway.wait_idle();
    assert_eq!(worker.requests().len(), 6);
    assert!(done(&gateway, &["resume", "app"]).starts_with("app is already open: "));
}

#[test]
fn a_drained_endpoint_ends_what_it_has_and_gets_no_more() {
    let ((a, let_a_go), (b, let_b_go)) = (Worker::held(OK), Worker::held(OK));
    let good = config(&format!("endpoints: [\"{}\", \"{}\"], workers: 4", a.endpoint(), b.endpoint()));
    let gateway = Gateway::start(&good);
    let mut clients = send(&gateway, 2);
    a.wait_requests(1);
    b.wait_requests(1);
    let said = done(&gateway, &["drain", &a.endpoint()]);
    assert_eq!(said, format!("{} (upstream app) is drained: 1 in flight there", a.endpoint()));
    clients.extend(send(&gateway, 2));
    b.wait_requests(3);
    let status = gateway.status();
    let [first, second] = [0, 1].map(|index| &app(&status)["endpoints"][index]);
    assert_eq!((&first["condition"], &first["in_flight"]), (&"drained".into(), &1.into()));
    assert_eq!((&second["condition"], &second["in_flight"]), (&"up".into(), &3.into()));
    let_a_go.open();
    let_b_go.open();
    assert_answered(clients);
    gateway.wait_idle();
    assert_eq!(a.requests().len(), 1);
    gateway.reload(&good.replace("workers: 4", "workers: 3"));
    gateway.log_event("the reminder", |event| {
        event["level"] == "WARN" && event["message"].as_str().is_some_and(|message| message.contains("still drained"))
    });
    assert_eq!(app(&gateway.status())["endpoints"][0]["condition"], "drained", "a reload brings nobody back");
    let said = done(&gateway, &["resume", &a.endpoint(), "--upstream", "app"]);
    assert!(said.contains("is not drained: 0 in flight there; it is up"), "{said}");
    let mut client = gateway.client();
    let back = look_until(|| {
        assert_eq!(client.get("/").status, 200);
        (a.requests().len() > 1).then_some(())
    });
    assert!(back.is_some(), "the endpoint takes part again");
}

#[test]
fn requests_are_held_while_the_only_endpoint_is_drained() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&config(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint())));
    done(&gateway, &["drain", &worker.endpoint()]);
    let clients = send(&gateway, 3);
    gateway.wait_metric(WAITING, 3.0);
    let status = gateway.status();
    let outage = &app(&status)["outage"];
    assert_eq!((&outage["reason"], &outage["failing"]), (&"no_endpoint".into(), &false.into()), "{status}");
    assert_eq!(worker.connections(), 0);
    done(&gateway, &["resume", "app"]);
    assert_answered(clients);
    gateway.wait_idle();
    assert_eq!(app(&gateway.status())["outage"], Value::Null);
}

#[test]
fn status_tells_what_is_true_under_load_and_after_it() {
    let (worker, let_go) = Worker::held(OK);
    let gateway = Gateway::start(&config(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint())));
    let clients = send(&gateway, 5);
    worker.wait_requests(2);
    gateway.wait_metric(WAITING, 3.0);
    let numbers = |status: &Value| {
        let app = app(status);
        [&app["in_flight"], &app["waiting"], &app["endpoints"][0]["in_flight"]].map(|n| n.as_u64().unwrap())
    };
    let status = gateway.status();
    assert_eq!((numbers(&status), &app(&status)["utilisation"]), ([2, 3, 2], &1.into()));
    assert_eq!((&status["ready"], &status["generation"]), (&true.into(), &1.into()));
    assert!(done(&gateway, &["status"]).contains("app: 2 of 2 workers busy, 100 %; 3 waiting"));
    let_go.open();
    assert_answered(clients);
    gateway.wait_idle();
    let status = gateway.status();
    assert_eq!((numbers(&status), &app(&status)["utilisation"]), ([0, 0, 0], &0.into()));
    assert_eq!(app(&status)["endpoints"][0]["address"], worker.endpoint());
}

#[test]
fn workers_hint_is_what_the_last_minute_would_have_needed() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&config(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint())));
    assert_eq!(app(&gateway.status())["workers_hint"], Value::Null, "nothing is known yet");
    let mut client = gateway.client();
    let measured = look_until(|| {
        assert_eq!(client.get("/").status, 200);
        let status = gateway.status();
        app(&status)["workers_hint"].is_u64().then(|| app(&status).clone())
    });
    let measured = measured.expect("a second of requests is enough");
    let number = |name: &str| measured[name].as_f64().unwrap();
    let busy = number("arrivals_per_second") * number("service_seconds");
    assert!(busy > 0.0 && busy <= 1.2, "one client keeps at most one worker busy: {measured}");
    let hint = number("workers_hint");
    assert!((busy / 0.8 - 0.01..=busy / 0.8 + 1.01).contains(&hint), "{measured}");
}

#[test]
fn a_reload_is_asked_for_and_its_report_comes_back() {
    let worker = Worker::answering(Transport::Unix, OK);
    let good = config(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let gateway = Gateway::start(&good);
    gateway.rewrite(&good.replace("workers: 1", "workers: 2"));
    assert_eq!(done(&gateway, &["reload"]), "reloaded: configuration 2 is in force");
    assert_eq!(app(&gateway.status())["workers"], 2);
    done(&gateway, &["pause", "app"]);
    let said = done(&gateway, &["reload"]);
    assert!(said.contains("still paused") && said.ends_with("configuration 3 is in force"), "{said}");
    // The way to `admin` is found in a file that is wrong elsewhere.
    gateway.rewrite(&good.replace("workers: 1", "wrokers: 1"));
    let (code, said) = failed(&gateway, &["reload"]);
    assert!(code == 2 && said.contains("did you mean `workers`?"), "{code} {said}");
    assert_eq!(gateway.status()["generation"], 3);
    done(&gateway, &["resume", "app"]);
    assert_eq!(gateway.client().get("/").status, 200);
    // A listener that cannot be opened.
    gateway.rewrite(&format!(
        "listeners: [{{ bind: \"127.0.0.1:0\" }}, {{ bind: \"unix:./no/such/folder.sock\" }}]\n{good}"
    ));
    let (code, said) = failed(&gateway, &["reload"]);
    assert!(code == 1 && said.contains("cannot listen on"), "{code} {said}");
    gateway.wait_metric("hostler_config_reloads_total{result=\"failed\"}", 2.0);
}

#[test]
fn the_command_line_says_what_keeps_it_from_the_gateway() {
    let worker = Worker::answering(Transport::Unix, OK);
    let upstream = format!("upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 1 }} }}\n", worker.endpoint());
    let site = "sites: [{ routes: [{ path: /, proxy: app }] }]\n";
    let gateway =
        Gateway::start(&format!("admin: {{ bind: \"127.0.0.254:0\", token: 0123456789abcdef }}\n{upstream}{site}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.yaml");
    let run = |text: &str, arguments: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let output = cli(arguments, &file);
        (output.code.unwrap(), if output.code == Some(0) { output.stdout } else { output.stderr })
    };
    let admin = gateway.admin();
    let right = format!("admin: {{ bind: \"{admin}\", token: 0123456789abcdef }}\n");
    let (code, said) = run(&right, &["status", "--json"]);
    let status: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &app(&status)["name"]), (0, &"app".into()));
    for (text, arguments, code, said) in [
        (&*right, &["pause", "apx"][..], 1, "there is no upstream apx; the upstreams are app"),
        (&right, &["drain", "apx"], 2, "`apx` is not an endpoint"),
        (&right, &["dance"], 2, "unrecognized subcommand"),
        (&right.replace("cdef", "cdee"), &["status"], 1, "does not take admin.token"),
        (site, &["status"], 2, "no `admin` in"),
        ("admin: { bind: \"unix:./nobody.sock\" }\n", &["status"], 1, "nobody.sock: is Hostler running?"),
        ("admin: { bind: 127.0.0.1:0 }\n", &["status"], 1, "write a port"),
        ("admin: { bnid: 9180 }\n", &["status"], 2, "did you mean `bind`?"),
        ("admin: [\n", &["status"], 2, "other.yaml"),
    ] {
        let (was, text) = run(text, arguments);
        assert!(was == code && text.contains(said), "{arguments:?}: {was} {text}");
    }
    let (listening, file) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), folder.path().join("foreign.yaml"));
    std::fs::write(&file, format!("admin: {{ bind: \"{}\" }}\n", listening.local_addr().unwrap())).unwrap();
    let foreign = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listening.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n\r\n").unwrap();
    });
    let output = cli(&["status"], &file);
    foreign.join().unwrap();
    assert!(output.code == Some(1) && output.stderr.contains("does not speak as Hostler does"), "{output:?}");
}
