//! dashboards/: what Prometheus and Grafana are told to ask for is what a running gateway tells, and can be asked for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::{get, post};
use crate::support::h2::request;
use crate::support::tool::{Output, Tool};
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Worker, look_until};

const DASHBOARD: &str = include_str!("../dashboards/hostler.json");
const RULES: &str = include_str!("../dashboards/rules.yaml");

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn promtool(arguments: &[&str]) -> Output {
    Tool::start("promtool", arguments).output()
}

/// The rows of the dashboard, and what each panel asks for.
fn panels() -> (Vec<String>, Vec<(String, Vec<String>)>) {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let title = |panel: &Value| panel["title"].as_str().unwrap().to_owned();
    let all = dashboard["panels"].as_array().unwrap();
    let (rows, panels): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|panel| panel["type"] == "row");
    let asks = |panel: &Value| {
        let targets = panel["targets"].as_array().unwrap();
        targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
    };
    let panels = panels.into_iter().map(|panel| (title(panel), asks(panel))).collect();
    (rows.into_iter().map(title).collect(), panels)
}

/// Every metric of ours that is named in a text, by its family.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("hostler_") || word.starts_with("process_"));
    let family = |word: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part));
        base.unwrap_or(word).to_owned()
    };
    ours.map(family).collect()
}

/// Does everything once that makes a family appear, and returns what `/metrics` says then.
fn driven() -> String {
    let worker = Worker::start(Transport::Unix, |visit| {
        while let Some(request) = visit.request() {
            if request.line().starts_with("GET /flaky") {
                return;
            }
            if request.line().starts_with("POST") {
                visit.send("HTTP/1.1 103 Early Hints\r\n\r\n");
            }
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = Gateway::start(&format!(
        "trusted_proxies: [127.0.0.9]\n\
         listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"127.0.0.2:0\", tls: {{ local: true }} }}\n\
         \x20 - {{ bind: \"127.0.0.3:0\", proxy_protocol: true }}\n\
         upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 2, health: {{ path: /up, interval: 200ms }} }}\n\
         sites:\n  - routes:\n      - {{ path: /limited, respond: {{}}, rate_limit: {{ rate: 1/h }} }}\n      - {{ path: /ws, proxy: app, websocket: over_http }}\n      - {{ path: /kept, proxy: app, cache: true }}\n      - {{ path: /, proxy: app }}\n",
        worker.endpoint()
    ));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    assert_eq!(client.response("GET").status, 200);
    client.send(post("/", "body"));
    assert_eq!(client.response("POST").status, 200);
    assert_eq!([client.get("/limited").status, client.get("/limited").status], [200, 429]);
    assert_eq!(client.get("/kept").status, 200);
    assert_eq!(gateway.client().get("/flaky").status, 502);
    let mut tls = Client::tls(gateway.listener("127.0.0.2:0"), "localhost", &gateway.root());
    assert_eq!(tls.get("/").status, 200);
    // Whoever is not trusted cannot name a client.
    let mut stranger = Client::connect(gateway.listener("127.0.0.3:0"));
    let _ = stranger.try_send(get("/"));
    assert!(stranger.try_response("GET").is_none());
    assert_eq!(gateway.h2().open(request("GET", "/", &[]), true).response().status, 200);
    let mut broken = gateway.client();
    // SETTINGS, and then the same on a stream (RFC 9113, 6.5).
    broken.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\0\0\0\0\x01");
    let whole = look_until(|| {
        let metrics = gateway.admin_get("/metrics").text().to_owned();
        let has = |family: &str| metrics.contains(&format!("\n{family}{{"));
        (has("hostler_probes_total") && has("hostler_http2_refused_total")).then_some(metrics)
    });
    whole.unwrap_or_else(|| gateway.fail("nothing is probed, or refused"))
}

#[test]
fn whatever_dashboard_and_rules_ask_for_is_told() {
    let metrics = driven();
    let told: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for (file, text) in [("hostler.json", DASHBOARD), ("rules.yaml", RULES)] {
        let asked = names(text);
        assert!(asked.len() > 10, "{file} asks for {asked:?}");
        let missing: Vec<&String> = asked.iter().filter(|name| !told.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}, which a gateway does not tell:\n{metrics}");
    }
    let labels: BTreeSet<&str> =
        ["site", "route", "status", "upstream", "endpoint", "reason", "where", "outcome"].into();
    let is_label =
        |label: &&str| metrics.contains(&format!("{{{label}=\"")) || metrics.contains(&format!(",{label}=\""));
    assert_eq!(labels.iter().copied().filter(is_label).collect::<BTreeSet<_>>(), labels);
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics");
    std::fs::write(&file, driven()).unwrap();
    let output = Tool::start("sh", &["-c", "promtool check metrics < \"$0\"", file.to_str().unwrap()]).output();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn promtool_takes_the_rules_and_each_fires_when_it_should_and_not_otherwise() {
    let file = |name: &str| repository().join("dashboards").join(name).display().to_string();
    let checked = promtool(&["check", "rules", &file("rules.yaml")]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let tested = promtool(&["test", "rules", &file("rules_test.yaml")]);
    assert_eq!(tested.code, Some(0), "{}\n{}", tested.stdout, tested.stderr);
    // Every alert is in the test, so that none is there which never fires.
    let test = std::fs::read_to_string(file("rules_test.yaml")).unwrap();
    let alerts: Vec<&str> = RULES.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(test.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tested");
    }
}

#[test]
fn the_dashboard_has_a_row_for_each_part_and_every_panel_asks_what_prometheus_understands() {
    let (rows, panels) = panels();
    let parts = [
        "Traffic",
        "Waiting room",
        "Workers and endpoints",
        "Failures",
        "Connections and TLS",
        "Spool",
        "Logs",
        "Access",
        "Process",
        "Realtime",
        "Cache",
    ];
    assert_eq!(rows, parts);
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (title, asks) in &panels {
        assert!(!title.is_empty() && !asks.is_empty(), "{title}");
        for (index, ask) in asks.iter().enumerate() {
            // What Grafana puts in.
            let ask = ask.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$upstream", ".*");
            assert!(!ask.contains('$'), "{title}: {ask}");
            let label = format!("{title} {index}");
            rules += &format!("      - record: asked\n        labels: {{ panel: {label:?} }}\n        expr: {ask:?}\n");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file: &Path = &folder.path().join("asked.yaml");
    std::fs::write(file, rules).unwrap();
    let checked = promtool(&["check", "rules", file.to_str().unwrap()]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}
