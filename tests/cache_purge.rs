//! Purging: by URL, prefix, host and tag, softly or not, by the admin listener, the command line and the method PURGE.

use crate::support::cached::{
    Asks, Cached, FRESH, Setup, cache_status, encoded, is_hit, is_stored, run_of, told, with,
};
use crate::support::{Client, Response};

const SHOP: &str = "Host: shop.example";
const BLOG: &str = "Host: blog.example";

/// A site with an admin listener that the command line finds.
fn start(cache: &str) -> Cached {
    let more = "admin: { bind: \"unix:@folder@/admin.sock\" }\n";
    Setup { cache, more, ..Setup::default() }.start()
}

/// Has this kept for these hosts.
fn keep(site: &Cached, target: &str, hosts: &[&str]) {
    for host in hosts {
        site.ask("GET", target, &[host]);
        assert!(is_hit(&site.ask("GET", target, &[host])), "{host}{target}");
    }
}

/// For which of these hosts it is kept and fresh. What is not is kept afterwards.
fn kept(site: &Cached, target: &str, hosts: &[&str]) -> Vec<bool> {
    hosts.iter().map(|host| is_hit(&site.ask("GET", target, &[host]))).collect()
}

/// Runs `hostler purge`. What it said.
fn cli(site: &Cached, arguments: &[&str]) -> String {
    let output = site.gateway.cli(&[&["purge"], arguments].concat());
    assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{arguments:?}: {output:?}");
    output.stdout
}

#[test]
fn one_url_is_struck_with_all_its_variants_and_no_other() {
    let site = start("true");
    let (page, next) = (with("a", &[FRESH, "Vary: X-Kind"]), with("a-2", &[FRESH]));
    let url = format!("url={}", encoded(&format!("https://shop.example{page}")));
    for kind in ["1", "2"] {
        let line = format!("X-Kind: {kind}");
        for _ in 0..2 {
            site.ask("GET", &page, &[&line]);
        }
        assert!(is_hit(&site.ask("GET", &page, &[&line])));
    }
    keep(&site, &page, &[BLOG]);
    keep(&site, &next, &[SHOP]);
    let answer = site.purge(&url);
    assert_eq!(answer.status, 200, "{answer:?}");
    for kind in ["1", "2"] {
        assert!(!is_hit(&site.ask("GET", &page, &[&format!("X-Kind: {kind}")])), "variant {kind}");
    }
    assert_eq!((kept(&site, &page, &[BLOG]), kept(&site, &next, &[SHOP])), (vec![true], vec![true]));
    assert_eq!(site.purge("url=https://shop.example/nothing").status, 200, "nothing is as good as purged");
}

#[test]
fn a_prefix_is_struck_and_what_only_looks_like_it_is_not() {
    let site = start("true");
    let pages = ["/blog/1", "/blog/2?page=1", "/blog", "/blogs/1"].map(|path| {
        let separator = if path.contains('?') { '&' } else { '?' };
        format!("{path}{separator}f={}", encoded(FRESH))
    });
    for page in &pages {
        keep(&site, page, &[SHOP, BLOG]);
    }
    site.purged("prefix=https://shop.example/blog/", 2);
    let left: Vec<_> = pages.iter().map(|page| kept(&site, page, &[SHOP, BLOG])).collect();
    assert_eq!(left, [[false, true], [false, true], [true, true], [true, true]]);
}

#[test]
fn a_host_is_struck_whatever_its_case_and_port() {
    let site = start("true");
    let page = with("page", &[FRESH]);
    let hosts = [SHOP, "Host: SHOP.example:8080", BLOG, "Host: shop.example.evil.example"];
    keep(&site, &page, &hosts);
    site.purged("host=Shop.Example", 2);
    assert_eq!(kept(&site, &page, &hosts), [false, false, true, true]);
}

#[test]
fn what_has_a_tag_is_struck_on_every_host_and_the_tags_are_for_the_edge() {
    let site = start("{ tags: [Surrogate-Key, Cache-Tag] }");
    let news = with("news", &[FRESH, "Surrogate-Key: news front"]);
    let sport = with("sport", &[FRESH, "Cache-Tag: sport,front"]);
    let other = with("other", &[FRESH, "Surrogate-Key: newsletter News"]);
    for page in [&news, &sport, &other] {
        keep(&site, page, &[SHOP, BLOG]);
    }
    site.purged("tag=news", 2);
    let left = |pages: [&String; 3]| pages.map(|page| kept(&site, page, &[SHOP, BLOG]));
    assert_eq!(left([&news, &sport, &other]), [[false, false], [true, true], [true, true]], "letter for letter");
    site.purged("tag=front&tag=nobody", 4);
    assert_eq!(left([&news, &sport, &other]), [[false, false], [false, false], [true, true]]);
    site.purged("all=1", 6);
    assert_eq!(left([&news, &sport, &other]), [[false, false]; 3]);
}

#[test]
fn a_soft_purge_makes_stale_and_takes_nothing_away() {
    let site = start("{ stale_while_revalidate: 1h }");
    let page = with("page", &[FRESH, "Surrogate-Key: page"]);
    keep(&site, &page, &[SHOP]);
    site.purged("tag=page&soft=1", 1);
    let stale = site.get(&page);
    assert!(is_hit(&stale) && run_of(&stale) == 1 && cache_status(&stale).contains("stale"), "{stale:?}");
    let renewed = crate::support::look_until(|| Some(site.get(&page)).filter(|response| run_of(response) == 2));
    assert!(renewed.is_some());
    site.purged("tag=page", 1);
    assert_eq!(run_of(&site.get(&page)), 3, "a hard one does");
}

#[test]
fn the_command_line_purges() {
    let site = start("true");
    let page = with("page", &[FRESH, "Surrogate-Key: page"]);
    let url = format!("https://shop.example{page}");
    for (arguments, what) in [
        (&[url.as_str()][..], "a URL"),
        (&["--prefix", "https://shop.example/told"], "a prefix"),
        (&["--host", "shop.example"], "a host"),
        (&["--tag", "page"], "a tag"),
        (&["--all"], "everything"),
    ] {
        keep(&site, &page, &[SHOP]);
        let said = cli(&site, arguments);
        assert!(said.contains("1 object"), "{what}: {said}");
        assert_eq!(kept(&site, &page, &[SHOP]), [false], "{what}");
    }
    let said = cli(&site, &["--soft", "--tag", "page"]);
    assert!(said.contains("stale"), "{said}");
    assert_eq!(kept(&site, &page, &[SHOP]), [false], "without a window stale is not used");
    let nothing = site.gateway.cli(&["purge"]);
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
}

#[test]
fn the_method_purges_for_those_who_may() {
    let site = start("true");
    let page = with("page", &[FRESH, "Surrogate-Key: page"]);
    let purge = |target: &str, lines: &[&str]| site.ask("PURGE", target, lines);
    for (target, lines) in
        [(page.as_str(), &[][..]), ("/told*", &[]), ("/", &["Surrogate-Key: page"]), ("/", &["Cache-Tag: other, page"])]
    {
        keep(&site, &page, &[SHOP]);
        let answer = purge(target, lines);
        assert_eq!(answer.status, 200, "{target} {lines:?}: {answer:?}");
        assert_eq!(answer.header("cache-status"), Some("hostler; detail=purge"));
        assert_eq!(kept(&site, &page, &[SHOP]), [false], "{target} {lines:?}");
    }
    keep(&site, &page, &[SHOP]);
    assert_eq!(purge(&page, &["Soft-Purge: 1"]).status, 200);
    assert_eq!(kept(&site, &page, &[SHOP]), [false]);
    keep(&site, &page, &[SHOP]);
    let over_h2 = site.ask_h2("PURGE", &page, &[]);
    assert_eq!((over_h2.status, kept(&site, &page, &[SHOP])), (200, vec![false]), "{over_h2:?}");
    let methods = site.gunicorn.journal().runs().into_iter().map(|run| run.method);
    assert!(!methods.into_iter().any(|method| method == "PURGE"), "the app has heard nothing of it");
}

#[test]
fn nobody_else_may() {
    let site = start("true");
    let page = with("page", &[FRESH, "Surrogate-Key: page"]);
    keep(&site, &page, &[SHOP]);
    let from_elsewhere = |lines: &[&str]| -> Response {
        Client::connect_from([127, 0, 0, 2], site.gateway.address()).ask("PURGE", &page, lines)
    };
    let refused = [
        from_elsewhere(&[]),
        from_elsewhere(&["X-Forwarded-For: 127.0.0.1"]),
        from_elsewhere(&["Surrogate-Key: page"]),
        // A proxy on this machine that is not in trusted_proxies, for anybody.
        site.ask("PURGE", &page, &["X-Forwarded-For: 203.0.113.9"]),
        site.ask("PURGE", &page, &["X-Real-IP: 203.0.113.9"]),
        // A web page that a browser of this network shows.
        site.ask("PURGE", &page, &["Origin: https://evil.example"]),
    ];
    for answer in refused {
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(answer.header("cache-status"), Some("hostler; detail=purge"));
    }
    assert_eq!(kept(&site, &page, &[SHOP]), [true]);
    // Where nobody may, it is a method like others.
    let site = Setup { more: "cache: { memory: 64MiB }\n", ..Setup::default() }.start();
    assert_eq!(site.ask("PURGE", &told("page", &[]), &[]).status, 200, "the app's answer");
    assert_eq!(site.runs("page"), 1);
}

#[test]
fn a_purge_strikes_what_is_on_disk() {
    let more = "cache: { memory: 16MiB, disk: { path: \"@folder@/cache\", size: 64MiB }, purge: [127.0.0.1/32] }\n";
    let site = Setup { more, ..Setup::default() }.start();
    let page = told("page", &[("f", FRESH), ("f", "Surrogate-Key: page"), ("size", "5000000")]);
    assert!(is_stored(&site.get(&page)));
    site.gateway.wait_metric("hostler_cache_objects{where=\"disk\"}", 1.0);
    assert!(is_hit(&site.get(&page)));
    site.purged("tag=page", 1);
    assert!(!is_hit(&site.get(&page)));
    assert_eq!(site.runs("page"), 2);
}
