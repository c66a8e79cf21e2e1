//! What an upstream, and a route to it, can be told.

use super::*;

/// An upstream with more keys, in a file that has no other.
pub(super) fn with_upstream(more: &str) -> Upstream {
    try_upstream(more).unwrap_or_else(|report| panic!("{report}"))
}

fn try_upstream(more: &str) -> Result<Upstream, Report> {
    let text = format!(
        "upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], {more} }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app }}] }}]\n"
    );
    load_str(&text, "hostler.yaml", Path::new("/etc/hostler"), &no_env)
        .map(|mut loaded| loaded.config.upstreams.remove(0))
}

#[test]
fn every_key_of_an_upstream_arrives_where_it_belongs() {
    let folder = folder_with_certificates();
    let text = r#"
upstreams:
  app:
    endpoints:
      - { address: "https://api.internal", weight: 100, workers: 2 }
      - { address: "uwsgi+unix:app.sock", workers: 3, backup: true }
      - { address: "uwsgi://10.0.0.6:3031", workers: "1" }
    streaming: { max: 5 }
    waiting_room: { fair_by: none }
    balance: { hash: "header:X-User" }
    slow_start: 20s
    keepalive: { max: 7 }
    hold: 0s
    retry: { attempts: 3, expect: true }
    health: { path: "/up?x=1", interval: 3s, fall: 1, rise: 4, host: "shop.example:81", scheme: https, expect: "204,300-399" }
    ejection: { failures: 0, window: 1m, for: 1h }
    client_address: proxy_v2
    uwsgi: { buffer_size: 65535, modifier1: 0 }
    tls: { server_name: 10.0.0.5, ca: ./shop.crt, verify: true }
    host: Api.internal:8443
    prefix: /stage/
    resolve: 90s
  sticky: { endpoints: ["h2c://app", { address: "http://[::1]" }], workers: 1, balance: { hash: cookie:SessionID }, resolve: ttl }
  turns: { endpoints: ["http://app:81"], workers: unlimited, balance: round_robin, client_address: proxy_v1, health: { path: / , timeout: 4s, expect: 200 } }
sites:
  - routes:
      - { path_exact: /api, proxy: sticky, mount: /api, priority: "100" }
      - { path: /api/, proxy: app, mount: /api/, priority: -100 }
      - { path: /, proxy: turns }
admin: { bind: 9180, token: "${TOKEN}" }
"#;
    let env = |name: &str| (name == "TOKEN").then(|| "0123456789abcde=".to_owned());
    let loaded = load_str(text, "hostler.yaml", folder.path(), &env).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    let [app, sticky, turns] = &config.upstreams[..] else { panic!() };
    let facts = |endpoint: &Endpoint| (endpoint.address.protocol, endpoint.weight, endpoint.workers, endpoint.backup);
    assert_eq!(facts(&app.endpoints[0]), (EndpointProtocol::Https, 100, Some(2), false));
    assert_eq!(facts(&app.endpoints[1]), (EndpointProtocol::Uwsgi, 1, Some(3), true));
    assert_eq!(app.endpoints[1].address.place, Place::Unix(folder.path().join("app.sock")));
    assert_eq!((app.workers, app.streaming_max), (Workers::Count(6), 5), "the sum of the endpoints");
    assert_eq!((app.waiting_room.limit, app.waiting_room.is_fair), (100, false));
    assert_eq!(app.balance, Balance::Hash(KeyBy::Header("x-user".into())));
    assert_eq!((app.slow_start, app.hold), (Duration::from_secs(20), Duration::ZERO));
    assert_eq!((app.keepalive.max, &app.retry), (7, &Retry { attempts: 3, expect: true }));
    let health = Health {
        path: "/up?x=1".into(),
        interval: Duration::from_secs(3),
        timeout: Duration::from_millis(1500),
        fall: 1,
        rise: 4,
        host: Some("shop.example:81".into()),
        scheme: Some(Scheme::Https),
        expect: vec![(204, 204), (300, 399)],
    };
    assert_eq!(app.health, Some(health));
    let [window, duration] = [60, 3600].map(Duration::from_secs);
    assert_eq!(app.ejection, Ejection { failures: 0, window, duration });
    assert_eq!((app.client_address, &app.uwsgi), (ClientAddress::ProxyV2, &Uwsgi { buffer_size: 65535, modifier1: 0 }));
    let ca = Authority::File(folder.path().join("shop.crt"));
    assert_eq!(app.tls, UpstreamTls { server_name: Some("10.0.0.5".into()), ca, verify: true });
    assert_eq!((app.host.as_deref(), app.prefix.as_deref()), (Some("Api.internal:8443"), Some("/stage")));
    assert_eq!(app.resolve, Resolve::After(Duration::from_secs(90)));
    assert_eq!((&sticky.balance, sticky.streaming_max), (&Balance::Hash(KeyBy::Cookie("SessionID".into())), 1));
    assert_eq!((&turns.balance, turns.client_address), (&Balance::RoundRobin, ClientAddress::ProxyV1));
    let health = turns.health.as_ref().unwrap();
    assert_eq!((health.timeout, &health.expect[..]), (Duration::from_secs(4), &[(200, 200)][..]));

    let [exact, within, plain] = &config.sites[0].routes[..] else { panic!() };
    assert_eq!((within.mount.as_deref(), within.priority), (Some("/api"), -100));
    assert_eq!((exact.mount.as_deref(), exact.priority), (Some("/api"), 100));
    assert_eq!((plain.mount.as_deref(), plain.priority), (None, 0));
    assert_eq!(config.admin, Some(Admin { bind: Bind::Any(9180), token: Some(Secret::new("0123456789abcde=")) }));
}

#[test]
fn workers_are_the_sum_of_the_endpoints_only_when_each_has_its_own() {
    let workers = |endpoints: &str, more: &str| {
        let text = format!(
            "upstreams: {{ app: {{ endpoints: [{endpoints}] {more} }} }}\nsites: [{{ routes: [{{ path: /, proxy: app }}] }}]"
        );
        load_str(&text, "f", Path::new("/"), &no_env).unwrap().config.upstreams[0].workers
    };
    let [a, b] = ["{ address: 'http://a', workers: 2 }", "{ address: 'http://b', workers: 3 }"];
    assert_eq!(workers(&format!("{a}, {b}"), ""), Workers::Count(5));
    assert_eq!(workers(&format!("{a}, 'http://b'"), ""), Workers::Unset);
    assert_eq!(workers(&format!("{a}, {b}"), ", workers: 4"), Workers::Count(4));
    assert_eq!(workers(&format!("{a}, {b}"), ", workers: unlimited"), Workers::Unlimited);
}

#[test]
fn a_probe_ends_before_the_next_begins() {
    let times = |more: &str| {
        let health = with_upstream(&format!("workers: 4, health: {{ path: /, {more} }}")).health.unwrap();
        (health.interval.as_millis(), health.timeout.as_millis())
    };
    assert_eq!(times(""), (5_000, 2_000));
    assert_eq!(times("interval: 1h"), (3_600_000, 2_000));
    assert_eq!(times("interval: 1s"), (1_000, 500));
    assert!(try_upstream("health: { path: /, interval: 1s, timeout: 1s }").is_err());
    assert!(try_upstream("health: { path: /, timeout: 5s }").is_err());
}
