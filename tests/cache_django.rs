//! Django behind the cache: pages with tokens and with users are never another's, whatever pages say of caching and whatever is
//! asked.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::cached::{Asks, Cached, Setup, app, cache_status, encoded, is_hit, is_stored};
use crate::support::gunicorn::{Kind, Plan};
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Address, Client, Gateway, Gunicorn, H2, Response};

/// A browser: it keeps cookies and sends them back, over TLS, so that Django's secure ones are sent and Origin is checked.
struct Browser<'a> {
    gateway: &'a Gateway,
    cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    fn new(gateway: &'a Gateway) -> Self {
        Self { gateway, cookies: BTreeMap::new() }
    }

    fn host(&self) -> String {
        format!("localhost:{}", self.gateway.address().port())
    }

    fn ask(&mut self, method: &str, target: &str, more: &[&str], body: &str) -> Response {
        let mut client = Client::tls(self.gateway.address(), "localhost", &self.gateway.root());
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host());
        if !self.cookies.is_empty() {
            head += &format!("Cookie: {}\r\n", self.cookie());
        }
        for line in more {
            head += &format!("{line}\r\n");
        }
        client.send(format!("{head}\r\n{body}"));
        let response = client.response(method);
        self.keep(&response);
        response
    }

    fn cookie(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep(&mut self, response: &Response) {
        for (_, value) in response.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, rest) = value.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if rest.contains("Max-Age=0") || rest.contains("1970") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target, &[], "")
    }

    fn post(&mut self, target: &str, form: &str) -> Response {
        let origin = format!("Origin: https://{}", self.host());
        let length = format!("Content-Length: {}", form.len());
        self.ask("POST", target, &[&origin, &length, "Content-Type: application/x-www-form-urlencoded"], form)
    }

    /// Loads a form, whose token is in it.
    fn load(&mut self, target: &str) -> (Response, String) {
        let page = self.get(target);
        assert_eq!(page.status, 200, "{page:?}");
        let token = page.text().split("csrfmiddlewaretoken\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let token = token.unwrap_or_else(|| panic!("no token: {page:?}")).to_owned();
        (page, token)
    }
}

/// A site with TLS on its first listener.
fn start(gunicorn: Gunicorn, cache: &str) -> Cached {
    let more = "listeners:\n  - { bind: \"127.0.0.1:0\", tls: { local: true } }\nruntime: { threads: 2 }\n";
    Setup { cache, more, upstream: ", waiting_room: { limit: 500 }", ..Setup::default() }.start_before(gunicorn)
}

fn django() -> Plan {
    app("cache_django")
}

fn shop() -> Gunicorn {
    Plan::new(Kind::Sync, 4, Transport::Unix).start()
}

/// The ways in which an app can say how its page is to be kept.
const CONTROLS: [&str; 5] = ["public, max-age=3600", "max-age=3600", "s-maxage=3600", "public, s-maxage=3600", ""];

#[test]
fn two_browsers_load_a_cached_page_with_a_token_and_both_posts_succeed() {
    for (sessions, cache) in
        [("0", "{ default_ttl: 1h }"), ("1", "{ default_ttl: 1h }"), ("0", "{ default_ttl: 1h, public: true }")]
    {
        let site = start(django().variable("CSRF_USE_SESSIONS", sessions).start(), cache);
        for control in CONTROLS {
            for vary in ["yes", "no"] {
                let target = format!("/form?cc={}&vary={vary}", encoded(control));
                let target = if control.is_empty() { format!("/form?vary={vary}") } else { target };
                let told = format!("sessions {sessions}, {cache}, {target}");
                let (mut one, mut other) = (Browser::new(&site.gateway), Browser::new(&site.gateway));
                // Each loads it twice, in turn, so that the second has every chance to get the first one's.
                let (_, first) = one.load(&target);
                let (_, second) = other.load(&target);
                assert_ne!(first, second, "{told}");
                let posts = [
                    one.post(&target, &format!("csrfmiddlewaretoken={first}&word=hello")),
                    other.post(&target, &format!("csrfmiddlewaretoken={second}&word=hello")),
                ];
                for post in posts {
                    assert_eq!((post.status, post.text()), (200, "nobody says hello\n"), "{told}");
                }
                let (_, again) = other.load(&target);
                let (_, third) = one.load(&target);
                assert_eq!(one.post(&target, &format!("csrfmiddlewaretoken={third}&word=a")).status, 200, "{told}");
                assert_eq!(other.post(&target, &format!("csrfmiddlewaretoken={again}&word=b")).status, 200, "{told}");
                // The token of another is no good: the check is on.
                assert_eq!(one.post(&target, &format!("csrfmiddlewaretoken={}&word=x", "a".repeat(64))).status, 403);
            }
        }
    }
}

#[test]
fn a_page_without_a_token_is_kept_for_both_and_with_vary_cookie_as_well() {
    let site = start(django().start(), "{ default_ttl: 1h }");
    for target in ["/plain", "/plain?cc=max-age%3D60", "/plain?cc=public%2C%20max-age%3D60"] {
        let (mut one, mut other) = (Browser::new(&site.gateway), Browser::new(&site.gateway));
        let first = one.get(target);
        assert!(is_stored(&first), "{first:?}");
        let second = other.get(target);
        assert!(is_hit(&second) && second.body == first.body, "{second:?}");
    }
    // This one looks into the session, which Django tells as `Vary: Cookie`: those without cookies share it, and so do those with
    // what scripts have left.
    let (mut one, mut other) = (Browser::new(&site.gateway), Browser::new(&site.gateway));
    let first = one.get("/about");
    let varies = first.headers.iter().any(|(name, value)| name == "vary" && value == "Cookie");
    assert!(varies && is_stored(&first), "{first:?}");
    assert!(is_hit(&other.get("/about")));
    other.cookies.insert("_ga".into(), "GA1.2.3".into());
    assert!(is_hit(&other.get("/about")), "analytics are nobody's business");
    // Whoever has loaded a form has a token, and pages that vary by it are his own.
    other.load("/form");
    let own = other.get("/about");
    assert!(!is_hit(&own) && own.text().contains("nobody"), "{own:?}");
    assert!(is_hit(&other.get("/about")) && is_hit(&one.get("/about")));
}

#[test]
fn the_shop_keeps_its_pages_and_knows_its_users() {
    let site = start(shop(), "{ default_ttl: 1h, stale_while_revalidate: 1h, stale_if_error: 1h }");
    let log_in = |name: &str| {
        let mut browser = Browser::new(&site.gateway);
        let (_, token) = browser.load("/login");
        let answer = browser.post("/login", &format!("csrfmiddlewaretoken={token}&name={name}"));
        assert_eq!(answer.status, 302, "{answer:?}");
        assert!(browser.cookies.contains_key("sessionid"), "{:?}", browser.cookies);
        browser
    };
    let (mut ada, mut bob, mut nobody) = (log_in("Ada"), log_in("Bob"), Browser::new(&site.gateway));
    for _ in 0..3 {
        assert!(ada.get("/login").text().contains("Hello, Ada."));
        assert!(!nobody.get("/login").text().contains("Hello"));
        assert!(bob.get("/login").text().contains("Hello, Bob."));
    }
    // Out: the cookie goes.
    ada.cookies.remove("sessionid");
    assert!(!ada.get("/login").text().contains("Hello"));
    assert!(bob.get("/login").text().contains("Hello, Bob."));
    // What is the same for all is kept for those who are nobody, and users bypass it. Whoever has a token leaves nothing on a page
    // that does not say whether it depends on it, and is answered with what is there.
    assert!(!is_stored(&nobody.get("/")));
    let first = Browser::new(&site.gateway).get("/");
    assert!(is_stored(&first) && is_hit(&nobody.get("/")), "{first:?}");
    let users = bob.get("/");
    assert!(cache_status(&users).contains("fwd=bypass") && users.status == 200, "{users:?}");
    assert_eq!(site.gateway.access_of(&users)["cache"], "bypass");
}

/// Who asks, and what is his. The names are no hexadecimal digits, which boundaries of parts have.
struct Actor<'a> {
    name: &'static str,
    browser: Browser<'a>,
}

impl Actor<'_> {
    /// Whether all of this page, or part of it, is his.
    fn owns(&self, response: &Response) -> bool {
        let said = response.header("x-seen-by");
        let names = ["zoe", "bob", "nobody"].into_iter().filter(|name| *name != self.name);
        let body = String::from_utf8_lossy(&response.body).into_owned();
        said.is_none_or(|said| said == self.name) && !names.into_iter().any(|name| body.contains(name))
    }
}

/// What a request may have beside its cookies: lines, and what it spells otherwise.
const ODDITIES: [&[&str]; 14] = [
    &[],
    &["Range: bytes=0-"],
    &["Range: bytes=-30"],
    &["Range: bytes=0-9,20-"],
    &["If-None-Match: \"x\""],
    &["If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"],
    &["Cache-Control: no-cache"],
    &["Cache-Control: max-stale=99999, only-if-cached"],
    &["Pragma: no-cache"],
    &["X-Forwarded-Host: evil.example", "X-Forwarded-Proto: http"],
    &["X-HTTP-Method-Override: GET"],
    &["Accept-Encoding: gzip, br"],
    &["Connection: Cookie, close"],
    &["Connection: close", "X-Original-URL: /evil", "X-Rewrite-URL: /evil"],
];

/// The same cookies in other words. Django reads all of these as the same session, or reads none.
fn spellings(cookie: &str) -> Vec<Vec<String>> {
    let one = |line: String| vec![line];
    let (name, value) = cookie.split_once('=').unwrap_or((cookie, ""));
    vec![
        one(format!("Cookie: {cookie}")),
        one(format!("Cookie:{cookie}")),
        one(format!("cookie: {cookie};")),
        one(format!("Cookie: a=b;{cookie}")),
        one(format!("Cookie: a=b ; {name} = {value}")),
        one(format!("Cookie: _ga=1; {cookie}; _gid=2")),
        one(format!("Cookie: ;;; {cookie}")),
        one(format!("Cookie: $Version=1; {cookie}")),
        one(format!("Cookie: {name}=\"{value}\"")),
        one(format!("Cookie: \t {cookie} \t")),
        one(format!("Cookie: {name}=old; {cookie}")),
        vec!["Cookie: _ga=1".into(), format!("Cookie: {cookie}")],
        vec![format!("Cookie: {cookie}"), "Cookie: _ga=1".into()],
    ]
}

/// What pages are asked for: all that an app may say of them, and queries that look alike.
fn targets() -> Vec<String> {
    let mut targets =
        vec!["/".to_owned(), "/page".into(), "/page?a=1&a=2".into(), "/page?a=2&a=1".into(), "/page?messages=1".into()];
    for control in CONTROLS
        .iter()
        .filter(|control| !control.is_empty())
        .chain(&["no-cache", "max-age=0, stale-while-revalidate=99"])
    {
        for vary in ["yes", "no"] {
            targets.push(format!("/page?cc={}&vary={vary}", encoded(control)));
            targets.push(format!("/page.css?cc={}&vary={vary}&etag=no", encoded(control)));
        }
    }
    targets
}

/// One request of an actor's in whichever way `number` stands for; what came of it is his own.
fn try_once(site: &Cached, actor: &Actor<'_>, targets: &[String], number: usize) -> usize {
    let target = &targets[number % targets.len()];
    let oddity = ODDITIES[number / targets.len() % ODDITIES.len()];
    let session = actor.browser.cookies.get("sessionid").map(|value| format!("sessionid={value}"));
    let lines: Vec<String> = match &session {
        Some(session) => {
            let spellings = spellings(session);
            spellings[number % spellings.len()].clone()
        }
        None => {
            [vec![], vec!["Cookie: _ga=1".into()], vec!["Cookie: SESSIONID=x; session_id=y".into()]][number % 3].clone()
        }
    };
    let method = if number % 5 == 4 { "HEAD" } else { "GET" };
    // A fat GET now and then.
    let body = if number % 11 == 10 { "name=evil" } else { "" };
    let response = if number % 4 == 3 && body.is_empty() {
        let mut request = request(method, target, &[]);
        *request.uri_mut() = format!("https://{}{target}", actor.browser.host()).parse().unwrap();
        for line in lines
            .iter()
            .map(String::as_str)
            .chain(oddity.iter().copied())
            .filter(|line| !line.starts_with("Connection"))
        {
            let (name, value) = line.split_once(':').unwrap();
            let name: http::HeaderName = name.to_ascii_lowercase().parse().unwrap();
            request.headers_mut().append(name, value.trim().parse().unwrap());
        }
        H2::tls(site.gateway.address(), "localhost", &site.gateway.root()).send(request, b"")
    } else {
        let mut client = Client::tls(site.gateway.address(), "localhost", &site.gateway.root());
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", actor.browser.host());
        lines.iter().map(String::as_str).chain(oddity.iter().copied()).for_each(|line| head += &format!("{line}\r\n"));
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        client.send(format!("{head}\r\n{body}"));
        client.response(method)
    };
    let told = || format!("{} asks {method} {target} with {lines:?} {oddity:?}: {response:?}", actor.name);
    // A session that does not reach the app is nobody's, and a quoted or doubled one may be none to Django: then the page is
    // nobody's as well, and never that of the other user.
    let is_own =
        actor.owns(&response) || Actor { name: "nobody", browser: Browser::new(&site.gateway) }.owns(&response);
    assert!(matches!(response.status, 200 | 206 | 304 | 400 | 416 | 504) && is_own, "{}", told());
    let is_plain = session.is_some() && number.is_multiple_of(spellings("x").len());
    if is_plain && oddity.is_empty() {
        assert!(actor.owns(&response), "{}", told());
    }
    if session.is_none() {
        assert!(actor.owns(&response), "{}", told());
    }
    assert!(
        session.is_none() || !is_hit_or_stored(&response) || oddity.contains(&"Connection: Cookie, close"),
        "{}",
        told()
    );
    usize::from(is_hit(&response))
}

fn is_hit_or_stored(response: &Response) -> bool {
    is_hit(response) || is_stored(response)
}

fn enter<'a>(site: &'a Cached, name: &'static str) -> Actor<'a> {
    let mut actor = Actor { name, browser: Browser::new(&site.gateway) };
    if name != "nobody" {
        assert_eq!(actor.browser.post("/enter", &format!("name={name}")).text(), "in\n");
    }
    actor
}

#[test]
fn users_who_come_and_go_at_the_same_time_never_see_another_page() {
    let site = start(django().start(), "{ default_ttl: 1h, stale_while_revalidate: 1h, stale_if_error: 1h }");
    let (targets, hits) = (targets(), AtomicUsize::new(0));
    let (site, targets, hits) = (&site, &targets, &hits);
    let all = targets.len() * ODDITIES.len();
    let barrier = &Barrier::new(4);
    std::thread::scope(|scope| {
        for (place, name) in ["zoe", "bob", "nobody", "nobody"].into_iter().enumerate() {
            scope.spawn(move || {
                barrier.wait();
                // Each in an order of its own, so that everybody is now the first and now the last to ask for a page.
                for round in 0..3 {
                    let mut actor = enter(site, name);
                    for step in (round..all).step_by(3) {
                        let number = (step * [1, 5, 11, 13][place] + place * 7) % all;
                        hits.fetch_add(try_once(site, &actor, targets, number), Ordering::SeqCst);
                    }
                    if name != "nobody" {
                        actor.browser.post("/leave", "");
                        assert!(!actor.browser.cookies.contains_key("sessionid"), "{:?}", actor.browser.cookies);
                        let after = actor.browser.get("/page");
                        assert!(after.text().contains("nobody"), "{after:?}");
                    }
                }
            });
        }
    });
    assert!(hits.load(Ordering::SeqCst) > all / 4, "the cache was of use to those who are nobody: {hits:?}");
}

#[test]
fn where_the_route_shares_public_pages_only_those_are_shared() {
    let site = start(django().start(), "{ default_ttl: 1h, public: true }");
    let (ada, bob) = (enter(&site, "ada"), enter(&site, "bob"));
    let (mut ada, mut bob, mut nobody) = (ada.browser, bob.browser, Browser::new(&site.gateway));
    // A page that says that it is everybody's, and is: Django tells it apart by the cookie where it looked at it.
    let plain = "/plain?cc=public%2C%20max-age%3D60";
    assert!(is_stored(&ada.get(plain)));
    assert!(is_hit(&bob.get(plain)) && is_hit(&nobody.get(plain)));
    // The same without the word.
    let unsaid = "/plain?cc=max-age%3D60";
    assert!(!is_stored(&ada.get(unsaid)) && !is_hit(&bob.get(unsaid)));
    assert!(is_stored(&nobody.get(unsaid)) && !is_hit(&ada.get(unsaid)));
    // A user's page that says both `public` and `Vary: Cookie` is its user's variant.
    let varying = "/page?cc=public%2C%20max-age%3D60";
    for _ in 0..2 {
        assert!(ada.get(varying).text().contains("ada"));
        assert!(bob.get(varying).text().contains("bob"));
        assert!(nobody.get(varying).text().contains("nobody"));
    }
}

#[test]
fn a_message_to_one_is_not_shown_to_another() {
    let site = start(django().start(), "{ default_ttl: 1h }");
    let mut ada = enter(&site, "ada").browser;
    assert!(ada.cookies.contains_key("messages"), "{:?}", ada.cookies);
    // Out of the session, with the message still to be shown.
    ada.cookies.remove("sessionid");
    let target = "/page?messages=1&vary=no";
    let shown = ada.get(target);
    assert!(shown.text().contains("Welcome, ada!") && !is_stored(&shown), "{shown:?}");
    for _ in 0..2 {
        let other = Browser::new(&site.gateway).get(target);
        assert!(!other.text().contains("Welcome"), "{other:?}");
    }
}

#[test]
fn who_sends_credentials_is_not_answered_with_what_is_kept() {
    let site = start(django().start(), "{ default_ttl: 1h }");
    let target = "/plain?cc=max-age%3D60";
    let mut nobody = Browser::new(&site.gateway);
    assert!(is_stored(&nobody.get(target)));
    for line in ["Authorization: Basic YWRhOmFkYQ==", "Authorization: Bearer x", "authorization:"] {
        let response = nobody.ask("GET", target, &[line], "");
        assert!(!is_hit_or_stored(&response), "{line}: {response:?}");
        assert!(cache_status(&response).contains("fwd=bypass; detail=credentials"), "{line}: {response:?}");
    }
    assert!(is_hit(&nobody.get(target)));
}

#[test]
fn a_user_over_http_2_sends_his_cookies_in_pieces() {
    let site = start(django().start(), "{ default_ttl: 1h }");
    let ada = enter(&site, "ada");
    let mut nobody = Browser::new(&site.gateway);
    assert!(is_stored(&nobody.get("/page")));
    let session = format!("sessionid={}", ada.browser.cookies["sessionid"]);
    let h2 = H2::tls(site.gateway.address(), "localhost", &site.gateway.root());
    for crumbs in [&["_ga=1", session.as_str()][..], &[session.as_str(), "_ga=1"], &["a=b", session.as_str(), "c=d"]] {
        let mut request = request("GET", "/page", &[]);
        *request.uri_mut() = format!("https://{}/page", ada.browser.host()).parse().unwrap();
        for crumb in crumbs {
            request.headers_mut().append("cookie", crumb.parse().unwrap());
        }
        let response = h2.send(request, b"");
        assert!(response.text().contains("seen by ada") && !is_hit_or_stored(&response), "{crumbs:?}: {response:?}");
    }
}

#[test]
fn hosts_of_a_site_do_not_share_pages() {
    let site = Setup { cache: "{ default_ttl: 1h }", ..Setup::default() }.start_before(django().start());
    let address: &Address = site.gateway.address();
    for host in ["a.example", "b.example", "A.example:80"] {
        let line = format!("Host: {host}");
        let response = Client::connect(address).ask("GET", "/plain", &[line.as_str()]);
        assert!(is_stored(&response), "{host}: {response:?}");
        let again = Client::connect(address).ask("GET", "/plain", &[line.as_str()]);
        assert!(is_hit(&again), "{host}: {again:?}");
    }
}
