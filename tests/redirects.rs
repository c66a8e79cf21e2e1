//! Redirects that a request fills in, as curl gets them.

use crate::support::Gateway;
use crate::support::tool::curl;

const SITES: &str = r#"
sites:
  - hosts: [shop.example, "*.shop.example"]
    routes:
      - { path_exact: /old, redirect: { to: "/new{query}", status: 301 } }
      - { path: /docs/, redirect: { to: "https://docs.example{path}{query}" } }
      - { path: /secure/, redirect: { to: "https://{host}:8443{path}", status: 302 } }
      - { path: /same/, redirect: { to: "{scheme}://{host}/x", status: 307 } }
      - { path_regex: '^/item/(\d+)(?:/(?P<slug>[^/]*))?$', redirect: { to: "/items/{1}?name={slug}{query}" } }
      - { path_regex: '^/out/(.*)$', redirect: { to: "/{1}" } }
      - { path_regex: '^/go/(.*)$', redirect: { to: "https://shop.example/{1}" } }
      - { path: /, redirect: { to: "{path}index.html" } }
"#;

#[test]
fn a_target_is_filled_from_the_request_and_leads_nowhere_else() {
    let gateway = Gateway::start(SITES);
    for (host, target, answer) in [
        ("shop.example", "/old", "301 /new"),
        ("shop.example", "/old?a=b&c", "301 /new?a=b&c"),
        ("shop.example", "/docs/a%20b?x=%26", "308 https://docs.example/docs/a%20b?x=%26"),
        ("WWW.shop.example:8080", "/secure/x?y", "302 https://WWW.shop.example:8443/secure/x"),
        ("shop.example.", "/same/", "307 http://shop.example/x"),
        ("shop.example", "/item/12", "308 /items/12?name="),
        ("shop.example", "/item/12/red%20hat?page=2", "308 /items/12?name=red%20hat&page=2"),
        ("shop.example", "/item/12/a%26b%3Dc%23d", "308 /items/12?name=a%26b%3Dc%23d"),
        ("shop.example", "/item/12/%0d%0aSet-Cookie%3A%20a=b", "308 /items/12?name=%0D%0ASet-Cookie%3A%20a%3Db"),
        ("shop.example", "/out/a/b", "308 /a/b"),
        ("shop.example", "/out//evil.example/", "400 "),
        ("shop.example", "/out/%2Fevil.example/", "400 "),
        ("shop.example", "/go//evil.example/", "308 https://shop.example//evil.example/"),
        ("shop.example", "/go/@evil.example/", "308 https://shop.example/@evil.example/"),
        ("shop.example", "//evil.example/", "400 "),
        ("shop.example", "/x", "308 /xindex.html"),
    ] {
        let url = format!("http://{}{target}", gateway.address());
        let header = format!("Host: {host}");
        let output = curl(&[
            "--path-as-is",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %header{location}",
            "--header",
            &header,
            &url,
        ]);
        assert_eq!((output.code, output.stdout.as_str()), (Some(0), answer), "{host}{target}");
    }
    let refused = gateway.access_of_path("/out//evil.example/");
    assert_eq!(refused["reason"], "bad_target");
}

#[test]
fn a_method_and_a_body_survive_308() {
    let gateway = Gateway::start(
        r#"
sites: [{ routes: [{ path_regex: '^/v1/(.*)$', redirect: { to: "/v2/{1}" } }, { path: /, when: { methods: [POST] }, respond: { body: posted } }] }]
"#,
    );
    let url = format!("http://{}/v1/orders", gateway.address());
    let output = curl(&["--location", "--data", "order", "--write-out", " %{url_effective}", &url]);
    assert_eq!(output.stdout, format!("posted http://{}/v2/orders", gateway.address()), "{output:?}");
}
