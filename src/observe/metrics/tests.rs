use std::collections::{BTreeMap, HashMap};

use http::Method;

use super::*;

/// A strict reader of the text format: samples by name and sorted labels.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut types = HashMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(types.contains_key(name) || types.contains_key(family), "no type for {line}");
        assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} twice");
    }
    samples
}

/// The samples that `act` has changed or made, with their growth.
fn growth(metrics: &Metrics, act: impl FnOnce()) -> Vec<(String, f64)> {
    let ours = |metrics: &Metrics| {
        let mut samples = parse(&metrics.render());
        samples.retain(|name, _| name.starts_with("hostler_"));
        samples
    };
    let before = ours(metrics);
    act();
    let after = ours(metrics);
    let grown = |(name, value): (String, f64)| {
        let growth = value - before.get(&name).copied().unwrap_or(0.0);
        (growth != 0.0 || !before.contains_key(&name)).then_some((name, growth))
    };
    after.into_iter().filter_map(grown).collect()
}

fn one(name: &str) -> Vec<(String, f64)> {
    vec![(name.to_owned(), 1.0)]
}

#[test]
fn a_request_is_counted_under_its_names_and_its_time() {
    let metrics = Metrics::new();
    let route = metrics.route("shop.example", "/api/");
    let grown = growth(&metrics, || route.request(&Method::POST, 201, 0.3));
    let of = |name: &str| grown.iter().find(|(series, _)| series == name).map(|(_, value)| *value);
    let requests = r#"hostler_requests_total{method="POST",route="/api/",site="shop.example",status="201"}"#;
    assert_eq!(of(requests), Some(1.0), "{grown:?}");
    assert_eq!(of(r#"hostler_request_seconds_sum{route="/api/"}"#), Some(0.3));
    assert_eq!(of(r#"hostler_request_seconds_bucket{route="/api/",le="0.5"}"#), Some(1.0));
    assert_eq!(of(r#"hostler_request_seconds_bucket{route="/api/",le="0.25"}"#), None);
}

#[test]
fn a_reload_keeps_counting_on_the_same_handles() {
    let metrics = Metrics::new();
    metrics.route("a", "/").request(&Method::GET, 200, 0.0);
    metrics.route("a", "/").request(&Method::GET, 200, 0.0);
    assert!(Arc::ptr_eq(&metrics.route("a", "/"), &metrics.route("a", "/")));
    assert!(!Arc::ptr_eq(&metrics.route("a", "/"), &metrics.route("b", "/")));
    assert!(Arc::ptr_eq(&metrics.upstream("app"), &metrics.upstream("app")));
    assert!(Arc::ptr_eq(&metrics.listener("443"), &metrics.listener("443")));
    let samples = parse(&metrics.render());
    assert_eq!(samples[r#"hostler_requests_total{method="GET",route="/",site="a",status="200"}"#], 2.0);
}

#[test]
fn what_clients_make_up_makes_no_series() {
    let metrics = Metrics::new();
    let route = metrics.route("any", "/");
    for name in ["BREW", "get", "TRACE", "PROPFIND"] {
        route.request(&Method::from_bytes(name.as_bytes()).unwrap(), 200, 0.0);
    }
    for status in [0, 99, 600, 999, u16::MAX] {
        route.request(&Method::GET, status, 0.0);
    }
    let mut samples = parse(&metrics.render());
    samples.retain(|name, _| name.starts_with("hostler_requests_total"));
    let expected = [
        (r#"hostler_requests_total{method="GET",route="/",site="any",status="other"}"#.to_owned(), 5.0),
        (r#"hostler_requests_total{method="other",route="/",site="any",status="200"}"#.to_owned(), 4.0),
    ];
    assert_eq!(samples.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn every_method_and_status_has_its_own_counter() {
    let metrics = Metrics::new();
    let route = metrics.route("any", "/");
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::CONNECT] {
        (100..600).for_each(|status| route.request(&method, status, 0.0));
    }
    let mut samples = parse(&metrics.render());
    samples.retain(|name, _| name.starts_with("hostler_requests_total"));
    assert_eq!(samples.len(), 4 * 500);
    assert!(samples.values().all(|value| *value == 1.0));
}

#[test]
fn failures_and_retries_are_counted_by_reason() {
    let metrics = Metrics::new();
    let app = metrics.upstream("app");
    assert_eq!(
        growth(&metrics, || app.failure(Reason::HeadTimeout)),
        one(r#"hostler_failures_total{reason="head_timeout",upstream="app"}"#)
    );
    assert_eq!(
        growth(&metrics, || app.retry(Reason::ConnectRefused)),
        one(r#"hostler_retries_total{reason="connect_refused",upstream="app"}"#)
    );
    assert_eq!(
        growth(&metrics, || metrics.failure(Reason::BadHost)),
        one(r#"hostler_failures_total{reason="bad_host",upstream=""}"#)
    );
}

#[test]
fn an_upstream_shows_its_room_and_its_workers() {
    let metrics = Metrics::new();
    let app = metrics.upstream("app");
    assert_eq!(growth(&metrics, || app.waiting.inc()), one(r#"hostler_waiting{upstream="app"}"#));
    assert_eq!(growth(&metrics, || app.in_flight.inc()), one(r#"hostler_in_flight{upstream="app"}"#));
    assert_eq!(growth(&metrics, || app.informational.inc()), one(r#"hostler_informational_total{upstream="app"}"#));
    assert_eq!(growth(&metrics, || app.set_workers(Some(1))), one(r#"hostler_workers{upstream="app"}"#));
    app.set_workers(None);
    app.set_workers(None);
    assert!(!metrics.render().contains("hostler_workers{"), "unlimited has no number");
    app.waiting_seconds.observe(0.1);
    app.worker_seconds.observe(0.1);
    let samples = parse(&metrics.render());
    assert_eq!(samples[r#"hostler_waiting_seconds_count{upstream="app"}"#], 1.0);
    assert_eq!(samples[r#"hostler_worker_seconds_count{upstream="app"}"#], 1.0);
}

#[test]
fn a_connection_is_counted_once_under_what_it_speaks() {
    let metrics = Metrics::new();
    let listener = metrics.listener("443");
    let open = |protocol: &str| {
        parse(&metrics.render())[&format!(r#"hostler_connections{{listener="443",protocol="{protocol}"}}"#)]
    };
    let mut connection = listener.opened(Protocol::Tls);
    let other = listener.opened(Protocol::H2);
    assert_eq!((open("tls"), open("h2"), open("h1"), open("new")), (1.0, 1.0, 0.0, 0.0));
    connection.becomes(Protocol::H2);
    assert_eq!((open("tls"), open("h2")), (0.0, 2.0));
    drop((connection, other));
    assert_eq!(open("h2"), 0.0);
}

#[test]
fn the_rest_is_named_as_documented() {
    let metrics = Metrics::new();
    metrics.config_in_force(0);
    let cases: [(&str, &dyn Fn()); 11] = [
        (r#"hostler_tls_handshakes_total{result="resumed",version="1.3"}"#, &|| {
            metrics.tls_handshake(HandshakeVersion::V1_3, HandshakeResult::Resumed);
        }),
        (r#"hostler_tls_handshakes_total{result="timeout",version="unknown"}"#, &|| {
            metrics.tls_handshake(HandshakeVersion::Unknown, HandshakeResult::Timeout);
        }),
        (r#"hostler_spool_bytes{where="memory"}"#, &|| metrics.spool_memory.inc()),
        (r#"hostler_spool_bytes{where="disk"}"#, &|| metrics.spool_disk.inc()),
        ("hostler_access_log_dropped_total", &|| metrics.access_log_dropped.inc()),
        ("hostler_password_checks_total", &|| metrics.password_checks.inc()),
        ("hostler_auth_sources_failing", &|| metrics.auth_sources_failing.inc()),
        (r#"hostler_config_reloads_total{result="ok"}"#, &|| metrics.config_reloaded(true)),
        (r#"hostler_config_reloads_total{result="failed"}"#, &|| metrics.config_reloaded(false)),
        ("hostler_config_generation", &|| metrics.config_in_force(1)),
        (r#"hostler_headers_dropped_total{kind="underscore"}"#, &|| metrics.header_dropped(HeaderKind::Underscore)),
    ];
    for (name, act) in cases {
        assert_eq!(growth(&metrics, act), one(name));
    }
    for kind in HeaderKind::ALL {
        let name = format!(r#"hostler_headers_dropped_total{{kind="{}"}}"#, kind.as_str());
        assert_eq!(growth(&metrics, || metrics.header_dropped(*kind)), one(&name));
    }
    let build = format!(r#"hostler_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!(parse(&metrics.render())[&build], 1.0);
}

#[test]
fn every_refusal_of_http2_has_a_name_of_its_own() {
    let metrics = Metrics::new();
    for refusal in Http2Refusal::ALL {
        let (scope, kind) = (refusal.scope(), refusal.kind());
        let name = format!(r#"hostler_http2_refused_total{{kind="{kind}",scope="{scope}"}}"#);
        assert_eq!(growth(&metrics, || metrics.http2_refused(*refusal)), one(&name));
    }
    assert!((0..20).all(|code| Http2Refusal::of_stream(code).is_none_or(|refusal| refusal.scope() == "stream")));
    assert!(
        (0..20).all(|code| Http2Refusal::of_connection(code).is_none_or(|refusal| refusal.scope() == "connection"))
    );
}

#[test]
fn the_process_is_shown_under_the_standard_names() {
    let text = Metrics::new().render();
    let samples = parse(&text);
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_start_time_seconds"] {
        assert!(samples[name] > 0.0, "{name}");
    }
    assert!(samples["process_cpu_seconds_total"] >= 0.0);
    assert!(text.contains("# TYPE process_cpu_seconds_total counter"));
}

#[test]
fn label_values_that_need_escaping_do_not_break_the_format() {
    let metrics = Metrics::new();
    metrics.route("any", "/a\"b\\c\nd").request(&Method::GET, 200, 0.0);
    let text = metrics.render();
    assert!(text.contains(r#"route="/a\"b\\c\nd""#), "{text}");
    parse(&text);
}

#[test]
fn threads_count_together() {
    let metrics = Metrics::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let route = metrics.route("any", "/");
                (0..10_000).for_each(|_| route.request(&Method::GET, 200, 0.001));
            });
        }
    });
    let samples = parse(&metrics.render());
    assert_eq!(samples[r#"hostler_requests_total{method="GET",route="/",site="any",status="200"}"#], 40_000.0);
    assert_eq!(samples[r#"hostler_request_seconds_count{route="/"}"#], 40_000.0);
}

#[test]
fn counters_of_the_cache_go_on_when_another_store_takes_its_place() {
    let metrics = Metrics::new();
    let purged = |now: u64| {
        let totals = CacheTotals { purged: now, ..CacheTotals::default() };
        metrics.cache_store(CacheUse::default(), CacheUse::default(), true, &totals);
        metrics.families.cache_purged.get()
    };
    let of = |purged| CacheTotals { purged, ..CacheTotals::default() };
    assert_eq!(purged(3), 3);
    // It has counted two more that nobody has looked at; a look at the other one may come first.
    assert_eq!(purged(0), 3);
    metrics.cache_store_left(&of(5));
    assert_eq!((purged(0), purged(7)), (5, 12));
    metrics.cache_store_left(&of(7));
    metrics.cache_store_again(&of(5));
    assert_eq!(purged(6), 13, "the first one again, which has counted one while it was away");
}
