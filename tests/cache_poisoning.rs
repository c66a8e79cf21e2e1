//! Bad input: whoever chooses what a request says cannot choose what others get.
//!
//! The app lets everything that it is told into its page. A page is poisoned when somebody else gets one that has what the
//! attacker has said.

use serde_json::Value;

use crate::support::cached::{
    Asks, Cached, FRESH, Setup, bytes, cache_status, is_hit, is_stored, run_of, seen, told, with,
};
use crate::support::worker::Transport;
use crate::support::{Response, Worker};

fn page(id: &str) -> String {
    with(id, &[FRESH])
}

/// What a client gets who says nothing special, after somebody has said this.
fn after(site: &Cached, target: &str, lines: &[&str]) -> [Response; 2] {
    let attack = site.ask("GET", target, lines);
    [attack, site.get(target)]
}

#[test]
fn what_only_a_proxy_says_never_reaches_a_page() {
    let site = Cached::start("{ default_ttl: 1h }");
    for (number, line) in [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: evil",
        "X-Forwarded-Port: 66666",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil.example",
        "X-Forwarded-For: 6.6.6.6, evil",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-Ssl: evil",
        "X-Forwarded: evil",
        "Forwarded: host=evil.example;proto=evil",
        "X_Forwarded_Host: evil.example",
        "X-Real-IP: evil",
        "Script-Name: /evil",
        "Path-Info: /evil",
        "Proxy: http://evil.example",
        "Remote-User: evil",
        "X-Accel-Redirect: /evil",
    ]
    .into_iter()
    .enumerate()
    {
        let [attack, victim] = after(&site, &page(&format!("page-{number}")), &[line]);
        assert!(!attack.text().contains("evil") && !attack.text().contains("66666"), "{line}: {attack:?}");
        assert!(is_hit(&victim) && !victim.text().contains("evil"), "{line}: {victim:?}");
    }
}

#[test]
fn a_forwarded_scheme_that_is_believed_is_part_of_the_key() {
    let site = Setup { more: "trusted_proxies: [127.0.0.1/32]\n", ..Setup::default() }.start();
    let target = page("page");
    let asked =
        |proto: &str| site.ask("GET", &target, &["X-Forwarded-For: 192.0.2.1", &format!("X-Forwarded-Proto: {proto}")]);
    let (http, https) = (asked("http"), asked("https"));
    assert_eq!((&seen(&http)["scheme"], &seen(&https)["scheme"]), (&"http".into(), &"https".into()));
    assert!(is_hit(&asked("http")) && is_hit(&asked("https")));
    assert_eq!((&seen(&asked("http"))["scheme"], site.runs("page")), (&"http".into(), 2));
}

#[test]
fn hosts_are_told_apart_by_all_of_their_name_and_not_by_its_case() {
    let site = Cached::start("true");
    let target = page("page");
    let hosts = [
        "shop.example",
        "shop.example:8080",
        "shop.example:80",
        "shop.example.",
        "evil.example",
        "shop.exampl",
        "xshop.example",
        "127.0.0.1",
    ];
    for host in hosts {
        let line = format!("Host: {host}");
        let first = site.ask("GET", &target, &[&line]);
        assert_eq!((&seen(&first)["fields"]["HTTP_HOST"], is_stored(&first)), (&host.into(), true), "{first:?}");
    }
    for host in hosts {
        let upper = format!("Host: {}", host.to_uppercase());
        let again = site.ask("GET", &target, &[&upper]);
        assert!(is_hit(&again) && seen(&again)["fields"]["HTTP_HOST"] == host, "{host}: {again:?}");
    }
    assert_eq!(site.runs("page"), hosts.len());
    for refused in ["evil.example/told", "shop.example#", "shop.example@evil.example", "shop.example, evil.example"] {
        assert_eq!(site.ask("GET", &target, &[&format!("Host: {refused}")]).status, 400, "{refused}");
    }
    let several = site.ask("GET", &target, &["Host: shop.example", "Host: evil.example"]);
    assert_eq!(several.status, 400);
    // What the request line says counts, and Host says no other.
    let absolute = site.ask("GET", &format!("http://evil.example{target}"), &["Host: shop.example"]);
    assert!(absolute.status == 400 || seen(&absolute)["fields"]["HTTP_HOST"] == "evil.example", "{absolute:?}");
    assert_eq!(seen(&site.get(&target))["fields"]["HTTP_HOST"], "shop.example");
}

#[test]
fn no_byte_of_a_query_looks_like_the_end_of_it() {
    let site = Cached::start("true");
    let base = format!("{}&z=z", page("page"));
    let ends = [
        "",
        "&a=1",
        "&a=1&b=2",
        "&a=1%26b=2",
        "&a=1;b=2",
        "&b=2&a=1",
        "&a=1&a=2",
        "&a=2&a=1",
        "&a",
        "&a=",
        "&A=1",
        "&a=%31",
        "&a=1#",
        "&a=1%23",
        "&a=1%00",
        "&a=1%0a",
        "&a=1+",
        "&a=1%20",
        "?a=1",
        "&&a=1",
        "&a=1&",
        "&a=%c3%a9",
        "&a=%C3%A9",
        "&utm_content=x",
        "&a=1%3fb",
        "&a[]=1",
        "&a%5b%5d=1",
    ];
    let mut queries = Vec::new();
    for end in ends {
        let response = site.get(&format!("{base}{end}"));
        if response.status == 400 {
            continue;
        }
        assert!(!is_hit(&response), "{end:?} is taken for another: {response:?}");
        queries.push((end, seen(&response)["query"].clone()));
    }
    assert!(queries.len() > 20, "{queries:?}");
    for (end, query) in &queries {
        let response = site.get(&format!("{base}{end}"));
        assert!(is_hit(&response) && seen(&response)["query"] == *query, "{end:?}: {response:?}");
    }
}

#[test]
fn paths_are_kept_apart_as_the_app_tells_them_apart() {
    let site = Cached::start("true");
    let query = page("page").split_once('?').unwrap().1.to_owned();
    let mut by_path: Vec<(String, Value)> = Vec::new();
    for path in
        ["/a", "/a/", "//a", "/A", "/a;x", "/%61", "/a%2f", "/a%20", "/a%3f", "/b/../a", "/./a", "/a.css", "/a/x.css"]
    {
        let target = format!("{path}?{query}");
        let response = site.get(&target);
        if response.status != 200 {
            continue;
        }
        let here = seen(&response)["path"].clone();
        // Whoever gets what another spelling has left gets what the app says to his as well.
        if is_hit(&response) {
            assert!(by_path.iter().any(|(_, path)| *path == here), "{path}: {response:?}");
        }
        by_path.push((target, here));
    }
    for (target, path) in by_path {
        assert_eq!(seen(&site.get(&target))["path"], path, "{target}");
    }
}

#[test]
fn a_key_that_names_its_parts_is_not_fooled_by_others() {
    let site =
        Cached::start("{ by: [host, path, 'query:id', 'query:f', 'query:page', 'header:X-Kind', 'cookie:lang'] }");
    let target = format!("{}&page=1", page("page"));
    let first = site.get(&target);
    assert!(is_stored(&first) && is_hit(&site.get(&format!("{target}&utm_source=x"))));
    for (other, lines) in [
        (target.replace("page=1", "page=2"), &[][..]),
        (format!("{target}&page=2"), &[]),
        (format!("{}&%70age=2", target.replace("&page=1", "")), &[]),
        (target.clone(), &["X-Kind: 1"]),
        (target.clone(), &["X-Kind: "]),
        (target.clone(), &["Cookie: lang=de"]),
        (target.clone(), &["Cookie: x=1; lang=de"]),
        (target.clone(), &["Cookie: lang=de; lang=en"]),
    ] {
        let response = site.ask("GET", &other, lines);
        assert!(response.body != first.body, "{other} {lines:?}: {response:?}");
    }
    assert!(site.get(&target).body == first.body);
}

#[test]
fn another_method_is_another_request_whatever_it_is_called() {
    let site = Cached::start("{ default_ttl: 1h }");
    let target = page("page");
    for method in ["POST", "PUT", "OPTIONS", "PATCH", "PROPFIND", "get", "GeT"] {
        let response = site.ask(method, &target, &["Content-Length: 0"]);
        assert!(response.status >= 400 || !is_stored(&response), "{method}: {response:?}");
    }
    for line in ["X-HTTP-Method-Override: POST", "X-HTTP-Method: DELETE", "X-Method-Override: PUT"] {
        // A framework that obeys such a field has to say so (Vary), or to take it from nobody.
        let varying = with("obeys", &[FRESH, "Vary: X-HTTP-Method-Override, X-HTTP-Method, X-Method-Override"]);
        let [_, victim] = after(&site, &varying, &[line]);
        let name = format!("HTTP_{}", line.split(':').next().unwrap().to_uppercase().replace('-', "_"));
        assert!(seen(&victim)["fields"][name.as_str()].is_null(), "{line}: {victim:?}");
    }
    let first = site.get(&target);
    assert_eq!(seen(&first)["method"], "GET");
}

#[test]
fn a_get_with_a_body_neither_leaves_nor_takes_anything() {
    let site = Cached::start("true");
    let target = page("page");
    let fat = |line: &str, body: &str| {
        let mut client = site.gateway.client();
        client.send(bytes("GET", &target, &[line]) + body);
        client.response("GET")
    };
    let attacks = [fat("Content-Length: 6", "id=bad"), fat("Transfer-Encoding: chunked", "6\r\nid=bad\r\n0\r\n\r\n")];
    for attack in attacks {
        assert_eq!((seen(&attack)["length"].as_u64(), is_stored(&attack)), (Some(6), false), "{attack:?}");
        assert!(cache_status(&attack).contains("fwd=bypass") && cache_status(&attack).contains("request-body"));
    }
    let victim = site.get(&target);
    assert_eq!((seen(&victim)["length"].as_u64(), is_stored(&victim)), (Some(0), true));
    assert_eq!(seen(&fat("Content-Length: 6", "id=bad"))["length"], 6, "nor is it answered from there");
    let stream = site.gateway.h2().send(crate::support::h2::request("GET", &target, &[]), b"id=bad");
    assert_eq!(seen(&stream)["length"], 6);
}

#[test]
fn cookies_count_where_the_page_says_so_and_those_of_scripts_do_not() {
    let site = Cached::start("{ ignore_cookies: [theme] }");
    let varying = with("varying", &[FRESH, "Vary: Cookie"]);
    let cookie = |value: &str| site.ask("GET", &varying, &[&format!("Cookie: {value}")]);
    let own = |response: &Response| seen(response)["fields"]["HTTP_COOKIE"].clone();
    let nobody = site.get(&varying);
    assert!(is_stored(&nobody) && own(&nobody).is_null());
    for same in ["_ga=1", "_ga=2; _gid=3", "theme=dark", "_fbp=1; theme=light; _ga_X=2"] {
        let response = cookie(same);
        assert!(is_hit(&response) && response.body == nobody.body, "{same}: {response:?}");
    }
    for other in ["evil=1", "csrftoken=abc", "csrftoken=abd", "theme=dark; a=1", "xtheme=1", "Theme=1", "_ga", "=x"] {
        let response = cookie(other);
        if is_hit(&response) {
            assert_eq!(response.body, nobody.body, "{other}: {response:?}");
        } else {
            assert!(own(&response).as_str().is_some_and(|seen| seen.contains(other.trim())), "{other}: {response:?}");
        }
    }
    assert_eq!(site.get(&varying).body, nobody.body);
    // In another order, and in two fields, they are the same.
    assert!(!is_hit(&cookie("a=1; b=2")) && is_hit(&cookie("b=2; a=1; _ga=9")));
    let crumbs = site.ask_h2("GET", &varying, &[("cookie", "b=2"), ("cookie", "a=1")]);
    assert!(is_hit(&crumbs), "{crumbs:?}");
}

#[test]
fn without_a_word_of_the_page_what_has_cookies_leaves_nothing() {
    let site = Cached::start("{ default_ttl: 1h }");
    let target = told("page", &[]);
    let attack = site.ask("GET", &target, &["Cookie: name=evil"]);
    assert!(!is_stored(&attack), "{attack:?}");
    let victim = site.get(&target);
    assert!(is_stored(&victim) && !victim.text().contains("evil"));
}

#[test]
fn a_page_that_varies_by_very_much_is_bounded() {
    let site = Cached::start("true");
    // Too many names.
    let names: Vec<String> = (0..100).map(|number| format!("X-{number}")).collect();
    let wide = with("wide", &[FRESH, &format!("Vary: {}", names.join(", "))]);
    assert!(!is_stored(&site.get(&wide)) && !is_hit(&site.get(&wide)));
    assert_eq!(site.get(&wide).status, 200);
    // Too many variants: the first who came, with nothing special, stays.
    let deep = with("deep", &[FRESH, "Vary: Cookie"]);
    let nobody = site.get(&deep);
    assert!(is_stored(&nobody));
    for number in 0..200 {
        let response = site.ask("GET", &deep, &[&format!("Cookie: n={number}")]);
        assert_eq!(seen(&response)["fields"]["HTTP_COOKIE"], format!("n={number}"), "{response:?}");
    }
    let again = site.get(&deep);
    assert!(is_hit(&again) && again.body == nobody.body, "{again:?}");
    // Entries, not 200 of them.
    let objects = site.gateway.metric("hostler_cache_objects{where=\"memory\"}");
    assert!(objects <= 64.0, "{objects} objects");
}

#[test]
fn a_field_that_the_client_takes_back_is_not_a_variant_of_its_own() {
    let site = Cached::start("true");
    let target = with("page", &[FRESH, "Vary: X-Kind"]);
    let nobody = site.get(&target);
    // The app never sees it: Connection names it.
    let attack = site.ask("GET", &target, &["X-Kind: evil", "Connection: X-Kind"]);
    assert!(attack.status == 400 || !attack.text().contains("evil"), "{attack:?}");
    assert!(site.get(&target).body == nobody.body && !site.ask("GET", &target, &["X-Kind: evil"]).text().is_empty());
    assert_eq!(seen(&site.ask("GET", &target, &["X-Kind: evil"]))["fields"]["HTTP_X_KIND"], "evil");
}

#[test]
fn errors_that_a_client_provokes_are_nobody_elses() {
    let site = Cached::start("{ default_ttl: 1h }");
    // What the app refuses because of a header is not kept: its status says that it is about one request.
    for (number, status) in ["400", "405", "413", "429", "431", "500", "501"].into_iter().enumerate() {
        let target = told(&format!("page-{number}"), &[("plan", &format!("{status},200"))]);
        let [attack, victim] = after(&site, &target, &["X-Large: 1"]);
        assert_eq!((attack.status.to_string().as_str(), victim.status), (status, 200), "{victim:?}");
    }
    // Nor what the edge refuses.
    let target = page("page");
    for lines in [&["Content-Length: x"][..], &["Transfer-Encoding: gzip"], &["Bad Name: 1"], &["Expect: something"]] {
        let refused = site.ask("GET", &target, lines);
        assert!(refused.status >= 400, "{lines:?}: {refused:?}");
    }
    assert_eq!(run_of(&site.get(&target)), 1);
}

#[test]
fn what_a_range_or_a_condition_brings_is_not_taken_for_the_page() {
    let site = Cached::start("true");
    // An app that answers ranges itself, and one that always says 304: neither is asked so.
    let target = told("page", &[("f", FRESH), ("tag", "\"v1\"")]);
    for line in ["Range: bytes=0-0", "If-None-Match: \"v1\"", "If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT"] {
        site.ask("GET", &target, &[line]);
        site.wait_kept(1);
        let victim = site.get(&target);
        assert_eq!((run_of(&victim), is_hit(&victim)), (1, true), "{line}: {victim:?}");
    }
}

#[test]
fn framing_that_lies_is_not_kept() {
    // More than it said, less than it said, chunks that break off.
    for (head, body) in [
        ("Content-Length: 10", "01234"),
        ("Transfer-Encoding: chunked", "5\r\n01234\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n01234\r\n5\r\n01"),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\n{head}\r\n\r\n{body}");
        let worker = Worker::start(Transport::Unix, move |visit| {
            if visit.request().is_some() {
                visit.send(&response);
            }
        });
        let gateway = crate::support::Gateway::start(&format!(
            "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\n\
             sites:\n  - routes: [{{ path: /, proxy: app, cache: true }}]\n",
            worker.endpoint()
        ));
        for _ in 0..3 {
            let answer = gateway.client().ask("GET", "/", &[]);
            assert!(answer.cut.is_some() && !is_hit(&answer), "{head}: {answer:?}");
        }
        assert_eq!(worker.requests().len(), 3, "{head}");
    }
}
