//! Which route takes a request, as curl asks: hosts in all their forms, paths, conditions, probes; and what the app gets.

use crate::support::client::get;
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Worker};

const SITES: &str = r#"
listeners:
  - { bind: "127.0.0.1:0" }
  - { bind: "127.0.0.2:0", redirect: { https: 8443 } }
sites:
  - hosts: [shop.example, "*.shop.example", "[2001:db8::1]", xn--caf-dma.example, 10.0.0.1]
    routes:
      - { path_exact: /up, respond: { body: up } }
      - { path_regex: '^/item/[0-9]+$', respond: { body: item } }
      - { path_regex: '(?i)\.php$', respond: { body: php } }
      - { path: /beta/, when: { methods: [GET, HEAD], headers: { x-beta: "1" }, query: { v: "2" } }, respond: { body: beta } }
      - { path: /api/, when: { methods: [GET, HEAD] }, respond: { body: reads } }
      - { path: /api/, respond: { body: writes } }
      - { path: /, respond: { body: shop } }
  - hosts: [blog.example]
    default: true
    routes: [{ path: /, respond: { body: blog } }, { path_exact: /never, respond: {} }]
probe_paths: [/up]
"#;

/// `body status` of the answer, and where it leads if it is a redirect.
fn asked(address: &Address, target: &str, more: &[&str]) -> String {
    let url = format!("http://{address}{target}");
    let common = ["--path-as-is", "--globoff", "--write-out", " %{http_code}%header{location}", &url];
    let output = curl(&[&common[..], more].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

#[test]
fn a_host_is_the_same_in_all_its_forms() {
    let gateway = Gateway::start(SITES);
    for (host, site) in [
        ("shop.example", "shop"),
        ("SHOP.Example", "shop"),
        ("shop.example.", "shop"),
        ("shop.example:8080", "shop"),
        ("Shop.Example.:1", "shop"),
        ("www.shop.example", "shop"),
        ("a.b.SHOP.example", "shop"),
        ("notshop.example", "blog"),
        ("[2001:db8::1]", "shop"),
        ("[2001:DB8:0::0:1]:443", "shop"),
        ("[2001:db8::2]", "blog"),
        ("xn--caf-dma.example", "shop"),
        ("XN--CAF-DMA.example", "shop"),
        ("10.0.0.1:80", "shop"),
        ("10.0.0.2", "blog"),
        ("blog.example", "blog"),
        ("unknown.example", "blog"),
    ] {
        let header = format!("Host: {host}");
        assert_eq!(asked(gateway.address(), "/", &["--header", &header]), format!("{site} 200"), "{host}");
    }
}

#[test]
fn without_a_host_the_default_site_answers_http_1_0_and_http_1_1_is_refused() {
    let gateway = Gateway::start(SITES);
    let without = ["--header", "Host:"];
    assert_eq!(asked(gateway.address(), "/", &[&without[..], &["--http1.0"]].concat()), "blog 200");
    assert!(asked(gateway.address(), "/", &without).ends_with(" 400"));
    let named = Gateway::start(&SITES.replace("default: true", "default: false"));
    assert!(asked(named.address(), "/", &[&without[..], &["--http1.0"]].concat()).ends_with(" 421"));
    assert!(asked(named.address(), "/", &["--header", "Host: unknown.example"]).ends_with(" 421"));
}

#[test]
fn the_first_route_whose_path_and_conditions_fit_answers() {
    let gateway = Gateway::start(SITES);
    let beta = ["--header", "X-Beta: 1"];
    for (target, more, answer) in [
        ("/item/12", &[][..], "item 200"),
        ("/%69tem/%31", &[], "item 200"),
        ("/item/12x", &[], "shop 200"),
        ("/a/item/12", &[], "shop 200"),
        ("/x/Index.PHP", &[], "php 200"),
        ("/beta/a?v=2", &beta, "beta 200"),
        ("/beta/a?a=b&v=%32", &beta, "beta 200"),
        ("/beta?v=2", &beta, " 308/beta/?v=2"),
        ("/beta/a?v=3", &beta, "shop 200"),
        ("/beta/a?v=2", &[], "shop 200"),
        ("/beta/a?v=2", &["--header", "X-Beta: 11"], "shop 200"),
        ("/beta/a?v=2", &["--header", "X-Beta: 1", "--data", "x"], "shop 200"),
        ("/api/x", &[], "reads 200"),
        ("/api/x", &["--data", "x"], "writes 200"),
        ("/api/x", &["--request", "DELETE"], "writes 200"),
        ("/", &["--request", "OPTIONS", "--request-target", "*"], "shop 200"),
    ] {
        let host = ["--header", "Host: shop.example"];
        assert_eq!(asked(gateway.address(), target, &[&host[..], more].concat()), answer, "{target} {more:?}");
    }
}

#[test]
fn a_probe_is_answered_whatever_it_asks_for_and_wherever() {
    let named = SITES.replace("default: true", "default: false");
    for text in [SITES, named.as_str()] {
        let gateway = Gateway::start(text);
        let redirecting = gateway.listener("127.0.0.2:0");
        for address in [gateway.address(), redirecting] {
            for (host, answer) in
                [("192.0.2.7:8080", "up"), ("[::1]", "up"), ("shop.example", "up"), ("blog.example", "blog")]
            {
                let header = format!("Host: {host}");
                assert_eq!(asked(address, "/up", &["--header", &header]), format!("{answer} 200"), "{host}");
            }
            assert_eq!(asked(address, "/up", &["--header", "Host:", "--http1.0"]), "up 200");
            assert_eq!(asked(address, "/up", &["--http2-prior-knowledge"]), "up 200");
        }
        let other = asked(redirecting, "/upper", &["--header", "Host: shop.example"]);
        assert_eq!(other, " 308https://shop.example:8443/upper");
    }
}

#[test]
fn whatever_form_a_request_has_it_is_redirected_to_a_url() {
    let gateway = Gateway::start(SITES);
    let redirecting = gateway.listener("127.0.0.2:0");
    for (host, more, answer) in [
        ("shop.example", &[][..], " 308https://shop.example:8443/x?y"),
        ("Shop.Example.:80", &[], " 308https://Shop.Example:8443/x?y"),
        ("shop.example", &["--request", "OPTIONS", "--request-target", "*"], " 308https://shop.example:8443/"),
        ("[2001:db8::1]:80", &[], " 308https://[2001:db8::1]:8443/x?y"),
        ("unknown.example", &["--http1.0"], " 308https://unknown.example:8443/x?y"),
    ] {
        let host = format!("Host: {host}");
        let told = asked(redirecting, "/x?y", &[&["--header", &host][..], more].concat());
        assert_eq!(told, answer, "{host} {more:?}");
    }
    // Without a host there is nowhere to lead it.
    let mut client = Client::connect(redirecting);
    client.send("GET /x HTTP/1.0\r\n\r\n");
    let response = client.response("GET");
    assert_eq!((response.status, response.header("location")), (400, None), "{response:?}");
    assert_eq!(gateway.access_of(&response)["reason"], "missing_host");
}

#[test]
fn a_stripped_prefix_is_gone_on_the_way_to_the_app_and_stays_in_the_log() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 4 }} }}\n\
         sites: [{{ routes: [{{ path: /api, proxy: app, strip_prefix: /api/ }}, {{ path: /, proxy: app }}] }}]\n",
        worker.endpoint()
    ));
    for (count, (asked, sent)) in [
        ("/api/x?q=/api/", "/x?q=/api/"),
        ("/api", "/"),
        ("/api?q", "/?q"),
        ("/api/", "/"),
        ("/%61pi%2Fx/%20y", "/x/%20y"),
        ("/api/api/x", "/api/x"),
        ("/apix", "/apix"),
    ]
    .into_iter()
    .enumerate()
    {
        let response = gateway.client().get(asked);
        let received = worker.wait_requests(count + 1);
        assert_eq!((response.status, received.line()), (200, format!("GET {sent} HTTP/1.1").as_str()), "{asked}");
        assert!(received.all("script_name").is_empty() && received.all("x-forwarded-prefix").is_empty());
        assert_eq!(gateway.access_of(&response)["path"], asked);
    }
}

#[test]
fn a_long_path_costs_a_pattern_no_more_than_its_length() {
    let sites = r#"
limits: { header_size: 1MiB }
sites: [{ routes: [{ path_regex: '^/(a*)*b(a|aa)+$', respond: { body: found } }, { path: /, respond: { body: other } }] }]
"#;
    let gateway = Gateway::start(sites);
    // A backtracking engine would not come back from it.
    let path = format!("/{}c", "a".repeat(200_000));
    let mut client = gateway.client();
    client.send(get(&path));
    assert_eq!(client.response("GET").text(), "other");
}
