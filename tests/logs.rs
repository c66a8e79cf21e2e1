//! The logs: what a line says, what it never says, and that nobody waits for them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::client::get;
use crate::support::gateway::{Signal, before};
use crate::support::h2::request;
use crate::support::lines::Lines;
use crate::support::tool::Tool;
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Worker, look_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const SITE: &str = "sites: [{ routes: [{ path_exact: /, respond: { body: ok } }] }]\n";

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The lines of a file, once there are so many.
fn lines(gateway: &Gateway, path: &Path, count: usize) -> Vec<String> {
    let found = look_until(|| (text(path).lines().count() >= count).then(|| text(path)));
    let text = found.unwrap_or_else(|| gateway.fail(&format!("not {count} lines: {}", text(path))));
    text.lines().map(str::to_owned).collect()
}

/// How often the operator was told this.
fn told(gateway: &Gateway, what: &str) -> usize {
    gateway.log().iter().filter(|line| line.contains(what)).count()
}

/// SIGUSR1, until the log is open anew.
fn reopen(gateway: &Gateway) {
    const DONE: &str = "the access log was opened anew";
    let before = told(gateway, DONE);
    gateway.signal(Signal::USR1);
    assert!(look_until(|| (told(gateway, DONE) > before).then_some(())).is_some(), "{:?}", gateway.log());
}

#[test]
fn the_access_log_may_share_stderr_with_the_other() {
    let gateway = Gateway::start(&format!("logging: {{ format: json, access: {{ to: stderr }} }}\n{SITE}"));
    let response = gateway.client().get("/");
    let line = gateway.log_event("its line", |line| line["request_id"] == response.id());
    assert_eq!((&line["path"], &line["status"]), (&"/".into(), &200.into()), "{line}");
    let ended = gateway.stop();
    assert!(ended.log.iter().any(|line| line.contains("\"ready\"")), "{:?}", ended.log);
    assert_eq!(ended.access.len(), 0, "nothing on stdout: {:?}", ended.access);
}

#[test]
fn no_client_writes_more_than_its_own_line_of_the_combined_format() {
    let worker = Worker::answering(Transport::Unix, OK);
    let upstream = before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let gateway = Gateway::start(&format!(
        "logging: {{ format: json, access: {{ to: ./access.log, format: combined }} }}\n{upstream}"
    ));
    let mut client = gateway.client();
    let mut ask = |target: &str, fields: &[u8]| {
        client.send([format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n").as_bytes(), fields, b"\r\n"].concat());
        client.response("GET").status
    };
    assert_eq!(ask("/plain?a=b", b"Referer: https://shop.example/list?page=2\r\nUser-Agent: curl/8.5.0\r\n"), 200);
    assert_eq!(ask("/forged%22%0d%0a", b"User-Agent: x\" 200 5 \"-\" \"y\\\r\nReferer: \" \"\t\xc3\xa9\r\n"), 200);
    assert_eq!(ask("/none", b""), 200);
    assert_eq!(gateway.h2().get("/h2").status, 200);
    lines(&gateway, &gateway.folder().join("access.log"), 4);
    let mut broken = gateway.client();
    broken.send("GARBAGE \"\x1b[31m\r\n\r\n");
    assert_eq!(broken.response("GET").status, 400);
    let lines = lines(&gateway, &gateway.folder().join("access.log"), 5);
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let parts: Vec<Vec<&str>> = lines.iter().map(|line| line.split('"').collect()).collect();
    for (parts, line) in parts.iter().zip(&lines) {
        assert!(
            parts.len() == 7 && parts[0].starts_with("127.0.0.1 - - [") && parts[0].ends_with(" +0000] "),
            "{line}"
        );
        assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)), "{line:?}");
    }
    let told = |index: usize| [parts[index][1], parts[index][2], parts[index][3], parts[index][5]];
    assert_eq!(told(0), ["GET /plain?a=b HTTP/1.1", " 200 2 ", "https://shop.example/list?page=2", "curl/8.5.0"]);
    let forged = [
        "GET /forged%22%0d%0a HTTP/1.1",
        " 200 2 ",
        "\\x22 \\x22\\x09\\xC3\\xA9",
        "x\\x22 200 5 \\x22-\\x22 \\x22y\\x5C",
    ];
    assert_eq!(told(1), forged);
    assert_eq!(told(2), ["GET /none HTTP/1.1", " 200 2 ", "-", "-"]);
    assert_eq!(told(3)[0], "GET /h2 HTTP/2.0");
    assert_eq!((told(4)[0], &told(4)[1][..5]), ("-", " 400 "), "{}", lines[4]);
}

#[test]
fn whatever_fails_has_its_line_however_few_are_sampled() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&format!(
        "logging: {{ format: json, access: {{ to: ./access.log, sample: 0 }} }}\n\
         upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 1 }}, dead: {{ endpoints: [\"unix:./none\"], workers: 1, hold: 0s }} }}\n\
         sites: [{{ routes: [{{ path_exact: /ok, respond: {{}} }}, {{ path_exact: /app, proxy: app }}, {{ path_exact: /dead, proxy: dead }}] }}]\n",
        worker.endpoint()
    ));
    let mut client = gateway.client();
    let paths = ["/ok", "/none", "/ok", "/app", "/dead", "/ok"];
    assert_eq!(paths.map(|path| client.get(path).status), [200, 404, 200, 500, 502, 200]);
    let told: Vec<String> = lines(&gateway, &gateway.folder().join("access.log"), 3)
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, ["/none", "/app", "/dead"]);
    let counted = gateway.metric("hostler_requests_total{method=\"GET\",route=\"/ok\",site=\"any\",status=\"200\"}");
    assert_eq!(counted, 3.0, "the metrics have all of them");
}

#[test]
fn without_the_query_neither_the_target_nor_the_page_before_tells_one() {
    let config = |format: &str| {
        format!("logging: {{ format: json, access: {{ to: ./access.log, query: false, format: {format} }} }}\n{SITE}")
    };
    let gateway = Gateway::start(&config("json"));
    let log = gateway.folder().join("access.log");
    let ask =
        "GET /?token=s3cr3t HTTP/1.1\r\nHost: shop.example\r\nReferer: https://shop.example/in?token=s3cr3t\r\n\r\n";
    let mut client = gateway.client();
    client.send(ask);
    assert_eq!(client.response("GET").status, 200);
    lines(&gateway, &log, 1);
    gateway.reload(&config("combined"));
    client.send(ask);
    assert_eq!(client.response("GET").status, 200);
    let lines = lines(&gateway, &log, 2);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["path"], "/");
    assert!(lines[1].contains("\"GET / HTTP/1.1\" 200 2 \"https://shop.example/in\" \"-\""), "{}", lines[1]);
    assert!(!text(&log).contains("s3cr3t"));
}

#[test]
fn a_client_that_leaves_is_logged_with_its_phase_and_what_it_cost_a_worker() {
    let (worker, done) = Worker::held(OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut working = gateway.client();
    working.send(get("/working"));
    worker.wait_requests(1);
    let mut waiting = gateway.client();
    waiting.send(get("/waiting"));
    gateway.wait_metric("hostler_waiting{upstream=\"app\"}", 1.0);
    drop((working, waiting));
    let cost = |path: &str, phase: &str| {
        let line = gateway.access_of_path(path);
        assert_eq!((&line["status"], &line["phase"]), (&499.into(), &phase.into()), "{line}");
        let (worker, total) = (line["worker"].as_f64().unwrap(), line["total"].as_f64().unwrap());
        assert!(worker <= total, "{line}");
        worker
    };
    assert!(cost("/working", "working") > 0.0);
    assert_eq!(cost("/waiting", "waiting"), 0.0, "no worker ever had it");
    done.open();
    let after = gateway.client().get("/after");
    assert_eq!(gateway.access_of(&after).get("worker"), None, "of one that went well the phases tell it");
}

/// Sends secrets wherever a client, a worker or an operator can put one.
fn send_secrets(gateway: &Gateway) {
    let secrets = "Cookie: sid=s3cr3t-1; b=s3cr3t-2\r\nAuthorization: Bearer s3cr3t-3\r\n\
                   Proxy-Authorization: Basic czNjcjN0LTQ=\r\nX-Forwarded-For: 192.0.2.1\r\n";
    let ask = |start: &str, fields: &str, body: &str| {
        let mut client = gateway.client();
        client.send(format!("{start}\r\nHost: shop.example\r\n{secrets}{fields}\r\n{body}"));
        client.try_response(start.split(' ').next().unwrap()).map_or(0, |response| response.status)
    };
    assert_eq!(ask("GET /ok HTTP/1.1", "", ""), 200);
    assert_eq!(ask("POST /ok HTTP/1.1", "Content-Length: 8\r\n", "s3cr3t-5"), 200);
    assert_eq!(ask("GET /none HTTP/1.1", "", ""), 404);
    assert_eq!(ask("GET /bad HTTP/1.1", "", ""), 502);
    assert_eq!(ask("GET /cut HTTP/1.1", "", ""), 502);
    assert_eq!(ask("GET /dead HTTP/1.1", "", ""), 502);
    assert_eq!(ask("GET /uwsgi HTTP/1.1", &format!("Cookie: long=s3cr3t-6{}\r\n", "x".repeat(5_000)), ""), 431);
    assert_eq!(ask("GET /ok HTTP/1.1", &format!("Cookie: long=s3cr3t-7{}\r\n", "x".repeat(40_000)), ""), 431);
    assert_eq!(ask("GET /ok HTTP/1.1", "Authorization : s3cr3t-8\r\n", ""), 400);
    assert_eq!(ask("GET /ok HTTP/1.1", "Cookie: s3cr3t-9\u{1}\r\n", ""), 400);
    assert_eq!(ask("GET /ok HTTP/1.1", "Connection: cookie\r\n", ""), 400);
    assert_eq!(ask("GET /limited HTTP/1.1", "", ""), 200);
    assert_eq!(ask("GET /limited HTTP/1.1", "", ""), 429);
    let h2 = gateway.h2();
    let fields = [("cookie", "sid=s3cr3t-10"), ("authorization", "Bearer s3cr3t-11")];
    assert_eq!(h2.open(request("GET", "/ok", &fields), true).response().status, 200);
    for line in ["GET /metrics", "POST /pause?upstream=app"] {
        let mut admin = Client::connect(gateway.admin());
        admin.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cr3t-12-not-it\r\n\r\n"));
        assert_eq!(admin.response(line.split(' ').next().unwrap()).status, 401);
    }
}

#[test]
fn no_cookie_no_credential_and_no_token_stands_in_any_log() {
    let worker = Worker::start(Transport::Unix, |visit| {
        while let Some(request) = visit.request() {
            let is_cut = request.line().starts_with("GET /cut");
            visit.send(match request.line() {
                "GET /bad HTTP/1.1" => "HTTP/1.1 200 OK\r\nSet-Cookie: s3cr3t-20\r\nbroken s3cr3t-21\r\n\r\n",
                _ if is_cut => "HTTP/1.1 200 OK\r\nSet-Cookie: s3cr3t-22",
                _ => "HTTP/1.1 200 OK\r\nSet-Cookie: s3cr3t-23\r\nContent-Length: 9\r\n\r\ns3cr3t-24",
            });
            if is_cut {
                return;
            }
        }
    });
    for (format, access) in [("json", "json"), ("text", "combined")] {
        let config = |format: &str, token: &str| {
            format!(
                "logging: {{ level: debug, format: {format}, access: {{ to: ./access.log, format: {access} }} }}\n\
                 admin: {{ bind: \"127.0.0.254:0\", token: {token} }}\n\
                 upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1, retry: {{ attempts: 0 }} }}\n\
                 \x20 dead: {{ endpoints: [\"unix:./none\"], workers: 1, hold: 0s }}\n\
                 \x20 wsgi: {{ endpoints: [\"uwsgi+unix:./none\"], workers: 1 }}\n\
                 sites:\n  - routes:\n      - {{ path: /dead, proxy: dead }}\n      - {{ path: /uwsgi, proxy: wsgi }}\n\
                 \x20     - {{ path: /limited, respond: {{}}, rate_limit: {{ rate: 1/h, by: \"cookie:sid\" }} }}\n\
                 \x20     - {{ path_exact: /ok, proxy: app }}\n      - {{ path_exact: /bad, proxy: app }}\n      - {{ path_exact: /cut, proxy: app }}\n",
                worker.endpoint()
            )
        };
        // Started in JSON, by which the harness learns the addresses.
        let gateway = Gateway::start(&config("json", "s3cr3t-0123456789abcdef"));
        if format == "text" {
            gateway.rewrite(&config("text", "s3cr3t-0123456789abcdef"));
            gateway.signal(Signal::HUP);
            assert!(look_until(|| (told(&gateway, "reloaded") > 0).then_some(())).is_some(), "{:?}", gateway.log());
        }
        send_secrets(&gateway);
        // A file that cannot be used is quoted, but for its token.
        gateway.rewrite(&config(format, "\"s3cr3t short\""));
        gateway.signal(Signal::HUP);
        assert!(look_until(|| (told(&gateway, "not reloaded") > 0).then_some(())).is_some(), "{:?}", gateway.log());
        let log = gateway.folder().join("access.log");
        let access = lines(&gateway, &log, 14).join("\n");
        let operator = gateway.log().join("\n");
        assert!(
            operator.contains("vars_too_large") && operator.contains("bad_head"),
            "it tells what happened: {operator}"
        );
        for (name, text) in [("the access log", &access), ("the log", &operator)] {
            for secret in ["s3cr3t", "czNjcjN0"] {
                let found: Vec<&str> = text.lines().filter(|line| line.contains(secret)).collect();
                assert!(found.is_empty(), "{name} as {format} tells: {found:#?}");
            }
        }
    }
}

#[test]
fn logrotate_under_load_loses_no_line() {
    const REQUESTS: usize = 20_000;
    const ROTATIONS: usize = 4;
    let gateway = Gateway::start(&format!(
        "runtime: {{ threads: 2 }}\nlogging: {{ format: json, access: {{ to: ./access.log }} }}\n{SITE}"
    ));
    let folder = gateway.folder();
    let log = folder.join("access.log");
    // The recipe that we ship, told where the log is, whose it is, and how to reach the process without systemd.
    let recipe = include_str!("../deploy/logrotate")
        .replace("/var/log/hostler/*.log", &folder.join("*.log").display().to_string())
        .replace("create 0640 hostler hostler", "create 0640")
        .replace("systemctl kill --signal=USR1 hostler.service", &format!("kill -USR1 {}", gateway.pid()));
    assert!(
        recipe.contains("kill -USR1") && !recipe.contains("systemctl") && !recipe.contains(" hostler "),
        "{recipe}"
    );
    let (conf, state) = (folder.join("logrotate.conf"), folder.join("logrotate.state"));
    std::fs::write(&conf, recipe).unwrap();
    let url = format!("http://{}/", gateway.address());
    // At a pace that lasts for all rotations, however quick the machine is.
    let load = Tool::start("h2load", &["-n", &REQUESTS.to_string(), "-c", "8", "-m", "2", "--rps", "300", &url]);
    for rotation in 1..=ROTATIONS {
        lines(&gateway, &log, 1);
        let run = ["--force", "--state", state.to_str().unwrap(), conf.to_str().unwrap()];
        let output = Tool::start("/usr/sbin/logrotate", &run).output();
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
        let opened = || (told(&gateway, "the access log was opened anew") >= rotation).then_some(());
        assert!(look_until(opened).is_some(), "{:?}", gateway.log());
    }
    let output = load.output_within(Duration::from_secs(120));
    assert!(output.stdout.contains(&format!("{REQUESTS} done, {REQUESTS} succeeded")), "{}", output.stdout);
    let count = || {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let of_log = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("access.log"));
        let counts: Vec<usize> = of_log
            .map(|path| match path.extension().is_some_and(|extension| extension == "gz") {
                true => Tool::start("gzip", &["-dc", path.to_str().unwrap()]).output().stdout.lines().count(),
                false => text(&path).lines().count(),
            })
            .collect();
        counts
    };
    let all = look_until(|| (count().iter().sum::<usize>() == REQUESTS).then(count));
    let all = all.unwrap_or_else(|| panic!("{:?} lines of {REQUESTS} requests", count()));
    assert_eq!(all.len(), ROTATIONS + 1);
    assert!(all.iter().all(|lines| *lines > 0), "each rotation came in the middle of the load: {all:?}");
    assert_eq!(gateway.metric("hostler_access_log_dropped_total"), 0.0);
}

#[test]
fn a_full_disk_under_the_log_costs_lines_and_no_answer_and_is_over_when_there_is_room() {
    let gateway = Gateway::start(&format!("logging: {{ format: json, access: {{ to: ./access.log }} }}\n{SITE}"));
    let log = gateway.folder().join("access.log");
    let mut client = gateway.client();
    client.get("/");
    lines(&gateway, &log, 1);
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    reopen(&gateway);
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    gateway.wait_metric("hostler_access_log_dropped_total", 50.0);
    let event = gateway.log_event("the full disk", |event| {
        event["message"].as_str().is_some_and(|message| message.contains("No space left on device"))
    });
    assert!(event["message"].as_str().unwrap().contains("access.log"), "it says which: {event}");
    std::fs::remove_file(&log).unwrap();
    reopen(&gateway);
    client.get("/");
    assert_eq!(lines(&gateway, &log, 1).len(), 1);
    gateway.wait_metric("hostler_access_log_dropped_total", 50.0);
}

/// A gateway whose log goes into a pipe that nobody reads.
struct Unread {
    child: Child,
    folder: tempfile::TempDir,
}

impl Unread {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hostler.yaml");
        let config = "listeners: [{ bind: \"unix:./shop.sock\" }]\nadmin: { bind: \"unix:./admin.sock\" }\n\
                      logging: { level: debug, format: json, access: off }\nruntime: { threads: 1 }\n";
        std::fs::write(&file, format!("{config}{SITE}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostler"));
        command.args(["serve", "-c"]).arg(&file).env("HOSTLER_STATE_DIR", folder.path().join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap(), folder }
    }

    fn client(&self, socket: &str) -> Client {
        let address = Address::Unix(self.folder.path().join(socket));
        let is_open = look_until(|| address.connect().ok());
        assert!(is_open.is_some(), "{socket} does not open");
        Client::connect(&address)
    }

    fn dropped(&self) -> f64 {
        let mut admin = self.client("admin.sock");
        admin.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let metrics = admin.response("GET");
        let value = metrics.text().lines().find_map(|line| line.strip_prefix("hostler_log_dropped_total "));
        value.unwrap().parse().unwrap()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_and_tells_what_it_lost() {
    const AT_ONCE: usize = 100;
    let mut gateway = Unread::start();
    let mut client = gateway.client("shop.sock");
    // At this level each of them is a line.
    let requests = get("/none").repeat(AT_ONCE);
    let full = look_until(|| {
        client.send(&requests);
        (0..AT_ONCE).for_each(|_| assert_eq!(client.response("GET").status, 404));
        (gateway.dropped() > 0.0).then_some(())
    });
    assert!(full.is_some(), "a megabyte of lines is not reached");
    assert_eq!(client.get("/").text(), "ok", "it serves all the same");
    let log = Lines::of(gateway.child.stderr.take().unwrap());
    let told = log.find(|line| {
        let event: serde_json::Value = serde_json::from_str(line).expect("whole lines");
        event["message"].as_str()?.starts_with("the log has lost lines").then(|| event["lines"].as_u64())
    });
    let dropped = gateway.dropped();
    assert!(told.flatten().is_some_and(|lines| lines > 0 && lines as f64 <= dropped), "{told:?} of {dropped}");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_ending() {
    let mut gateway = Unread::start();
    let mut client = gateway.client("shop.sock");
    let requests = get("/none").repeat(100);
    let full = look_until(|| {
        client.send(&requests);
        (0..100).for_each(|_| assert_eq!(client.response("GET").status, 404));
        (gateway.dropped() > 0.0).then_some(())
    });
    assert!(full.is_some());
    drop(client);
    rustix::process::kill_process(rustix::process::Pid::from_child(&gateway.child), Signal::TERM).unwrap();
    let status = look_until(|| gateway.child.try_wait().unwrap());
    assert_eq!(status.expect("it ends").code(), Some(0));
}
