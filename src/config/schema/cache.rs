//! `cache`: where answers are kept; and `routes[].cache`: true, false, or what is to be otherwise than usual.

use std::time::Duration;

use super::Places;
use super::field_name;
use super::key::is_token;
use super::process::{DAY, LARGEST};
use crate::config::decode::{Decoder, Fields, Section, seconds};
use crate::config::node::{Node, Value};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{AllowedClients, Cache, CacheBy, CacheDisk, RouteCache, TOKEN_COOKIES};

pub(super) static ROUTE_CACHE: Section = Section {
    name: "routes[].cache",
    keys: &[
        "default_ttl",
        "stale_while_revalidate",
        "stale_if_error",
        "by",
        "bypass_cookies",
        "ignore_cookies",
        "public",
        "obey_clients",
        "tags",
    ],
    later: &[],
    elsewhere: &[
        ("ttl", "default_ttl"),
        ("valid", "default_ttl"),
        ("proxy_cache_valid", "default_ttl"),
        ("grace", "stale_while_revalidate"),
        ("use_stale", "stale_if_error"),
        ("proxy_cache_use_stale", "stale_if_error"),
        ("key", "by"),
        ("proxy_cache_key", "by"),
        ("proxy_cache_bypass", "bypass_cookies"),
        ("bypass", "bypass_cookies"),
    ],
};
pub(super) static CACHE: Section = Section {
    name: "cache",
    keys: &["memory", "disk", "max_object", "purge"],
    later: &[],
    elsewhere: &[("max_item_size", "max_object"), ("proxy_cache_path", "disk"), ("path", "disk"), ("size", "memory")],
};
pub(super) static DISK: Section = Section {
    name: "cache.disk",
    keys: &["path", "size"],
    later: &[],
    elsewhere: &[("dir", "path"), ("folder", "path"), ("max_size", "size")],
};

/// The longest time that a default can be.
const LONGEST: u64 = 365 * DAY;

/// `None`: nothing of the route is kept.
pub(super) fn route(decoder: &mut Decoder<'_>, node: &Node) -> Option<RouteCache> {
    if !matches!(node.value, Value::Map(_) | Value::List(_)) {
        return decoder.boolean("cache", node).unwrap_or(true).then(RouteCache::default);
    }
    let default = RouteCache::default();
    let Some(fields) = decoder.fields(node, &ROUTE_CACHE) else { return Some(default) };
    let time = |decoder: &mut Decoder<'_>, key| fields.duration(decoder, key, seconds(0, LONGEST), Duration::ZERO);
    let bypass_cookies = cookies(decoder, &fields, "bypass_cookies");
    let ignore_cookies = cookies(decoder, &fields, "ignore_cookies");
    check_ignored(decoder, &fields, &bypass_cookies);
    Some(RouteCache {
        default_ttl: time(decoder, "default_ttl"),
        stale_while_revalidate: time(decoder, "stale_while_revalidate"),
        stale_if_error: time(decoder, "stale_if_error"),
        by: fields.get("by").map_or(default.by, |node| by(decoder, node)),
        bypass_cookies,
        ignore_cookies,
        public: fields.boolean(decoder, "public", default.public),
        obey_clients: fields.boolean(decoder, "obey_clients", default.obey_clients),
        tags: fields.get("tags").map_or(default.tags, |node| tags(decoder, node)),
    })
}

fn by(decoder: &mut Decoder<'_>, node: &Node) -> Vec<CacheBy> {
    let errors = decoder.error_count();
    let mut parts: Vec<CacheBy> = Vec::new();
    for item in decoder.list("by", node).unwrap_or_default() {
        let Some(text) = decoder.scalar("by", item, "a part of a request") else { continue };
        let Some(part) = decoder.fault(&item.span, read_part(&text)) else { continue };
        if parts.contains(&part) {
            decoder.error(&item.span, format!("{} stands here twice", quoted(&text))).help("keep one of them");
            continue;
        }
        parts.push(part);
        let has_one = parts.iter().any(|part| matches!(part, CacheBy::Parameter(_)));
        if has_one && parts.contains(&CacheBy::Query) {
            decoder
                .error(&item.span, "`query` and `query:NAME` do not go together")
                .help("`query` is all of it; take it out to tell requests apart by the parameters you name alone");
        }
    }
    if !parts.contains(&CacheBy::Path) && decoder.error_count() == errors {
        decoder
            .error(&node.span, "`by` has no `path`")
            .label("every page of the route would be the same")
            .help("write path into it; the default is [host, path, query]");
    }
    parts
}

fn read_part(text: &str) -> Result<CacheBy, Fault> {
    const FORMS: &str = "it can be host, path, query, query:NAME, header:NAME or cookie:NAME";
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    match text.split_once(':') {
        None => match text {
            "host" => Ok(CacheBy::Host),
            "path" => Ok(CacheBy::Path),
            "query" => Ok(CacheBy::Query),
            "uri" | "url" => fault("is not a value of `by`", "write path, query"),
            "client" => fault("is not a value of `by`", "what is kept for one client alone is not worth keeping"),
            _ => fault("is not a value of `by`", FORMS),
        },
        Some(("query", "")) => fault("names no parameter", "write query:NAME, as in query:page"),
        Some(("query", name)) if name.contains(['&', '=', '%', '+', ';', '#']) || !name.bytes().all(|b| b > b' ') => {
            fault("has no name of a parameter", "write its name as the app reads it, decoded, without & and =")
        }
        Some(("query", name)) => Ok(CacheBy::Parameter(name.to_owned())),
        Some(("cookie", name)) if is_token(name) && !name.contains('*') => Ok(CacheBy::Cookie(name.to_owned())),
        Some(("cookie", _)) => fault("has no valid name of a cookie", "write cookie:NAME"),
        Some(("header", name)) if name.eq_ignore_ascii_case("cookie") => {
            fault("is every cookie at once", "write cookie:NAME for those that count; answers can say Vary: Cookie")
        }
        Some(("header", name)) => field_name::of_condition(name).map(CacheBy::Header),
        Some(_) => fault("is not a value of `by`", FORMS),
    }
}

/// Names, and beginnings of names with a `*`.
fn cookies(decoder: &mut Decoder<'_>, fields: &Fields<'_>, key: &'static str) -> Vec<String> {
    let Some(node) = fields.get(key) else { return Vec::new() };
    let mut names = Vec::new();
    for item in decoder.list(key, node).unwrap_or_default() {
        let Some(text) = decoder.scalar(key, item, "the name of a cookie") else { continue };
        let name = text.strip_suffix('*').unwrap_or(&text);
        if name.is_empty() && !text.is_empty() {
            decoder
                .error(&item.span, format!("{} is every cookie", quoted(&text)))
                .help("write the names, or how they begin: _ga_*");
        } else if !is_token(name) || name.contains('*') {
            decoder
                .error(&item.span, format!("{} is not the name of a cookie", quoted(&text)))
                .help("names have letters, digits and any of !#$%&'+-.^_`|~; a * at the end stands for any end");
        } else {
            names.push(text);
        }
    }
    names
}

/// What cannot be left out of account.
fn check_ignored(decoder: &mut Decoder<'_>, fields: &Fields<'_>, bypass: &[String]) {
    let Some(Node { value: Value::List(items), .. }) = fields.get("ignore_cookies") else { return };
    for item in items {
        let Value::Text(text) = &item.value else { continue };
        let covers = |name: &str| text.strip_suffix('*').map_or(name == text, |start| name.starts_with(start));
        if let Some(token) = TOKEN_COOKIES.iter().find(|token| covers(token)).filter(|_| text.len() > 1) {
            decoder
                .error(&item.span, format!("{} would leave {token} out of account", quoted(text)))
                .label("pages with a token would be another's")
                .help("take it out: a page that says Vary: Cookie is kept for each of these cookies by itself");
        } else if bypass.iter().any(|name| covers(name)) {
            decoder
                .error(&item.span, format!("{} is in `bypass_cookies`, too", quoted(text)))
                .help("it either stands for somebody or does not count: keep one of them");
        }
    }
}

/// One field or several.
fn tags(decoder: &mut Decoder<'_>, node: &Node) -> Vec<String> {
    let items = match &node.value {
        Value::List(_) => decoder.list("tags", node).unwrap_or_default(),
        _ => std::slice::from_ref(node),
    };
    let mut names = Vec::new();
    for item in items {
        let Some(text) = decoder.scalar("tags", item, "the name of a header field") else { continue };
        names.extend(decoder.fault(&item.span, field_name::any(&text)));
    }
    names
}

/// The section `cache`.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, places: &mut Places) -> Cache {
    let default = Cache::default();
    let Some(fields) = decoder.fields(node, &CACHE) else { return default };
    let disk = fields.get("disk").and_then(|node| disk(decoder, node, places));
    let cache = Cache {
        memory: fields.size(decoder, "memory", 1 << 20..=LARGEST, default.memory),
        disk,
        max_object: fields.size(decoder, "max_object", 1 << 10..=LARGEST, default.max_object),
        purge: fields.get("purge").map_or(default.purge, |node| purge(decoder, node)),
    };
    // One object may not drive out all others (`cache::store`).
    let room = cache.disk.as_ref().map_or(0, |disk| disk.size / 2).max(cache.memory / 4);
    if let Some(node) = fields.get("max_object").filter(|_| cache.max_object > room) {
        decoder
            .error(&node.span, "`max_object` is larger than a quarter of `memory`, and than half of `disk.size`")
            .label(format!("nothing above {} KiB would be kept", room >> 10))
            .help("make it smaller, or `memory` or `disk.size` larger");
    }
    cache
}

fn disk(decoder: &mut Decoder<'_>, node: &Node, places: &mut Places) -> Option<CacheDisk> {
    let fields = decoder.fields(node, &DISK)?;
    let size = fields.size(decoder, "size", 1 << 20..=LARGEST << 10, 10 << 30);
    let path = fields.required(decoder, "path", "write path: /var/cache/hostler")?;
    places.cache = Some(path.span.clone());
    Some(CacheDisk { path: decoder.path("path", path)?, size })
}

fn purge(decoder: &mut Decoder<'_>, node: &Node) -> AllowedClients {
    let mut clients = AllowedClients::default();
    for item in decoder.list("purge", node).unwrap_or_default() {
        let Some(text) = decoder.scalar("purge", item, "an address or a network") else { continue };
        let added = clients.0.add(&text);
        decoder.fault(&item.span, added);
        if clients.0.networks.last().is_some_and(|network| network.is_everybody()) && text.contains('/') {
            decoder
                .error(&item.span, format!("{} lets everybody purge", quoted(&text)))
                .help("whoever purges makes the app answer everything anew: write the networks of your own machines");
        }
    }
    clients
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::node;
    use crate::config::report::{Report, Source};

    /// What is decoded, or the errors.
    fn read<T>(text: &str, decode: impl FnOnce(&mut Decoder<'_>, &Node) -> T) -> Result<T, Vec<String>> {
        let env = |_: &str| None;
        let mut decoder = Decoder::new(Path::new("/etc/hostler"), &env);
        let decoded = decode(&mut decoder, &node::parse(text).unwrap().unwrap());
        if !decoder.has_errors() {
            return Ok(decoded);
        }
        let report = Report::new(Source::new("f", text), decoder.findings);
        Err(report.errors().map(str::to_owned).collect())
    }

    fn whole(decoder: &mut Decoder<'_>, node: &Node) -> Cache {
        decode(decoder, node, &mut Places::default())
    }

    #[test]
    fn a_route_keeps_nothing_or_what_its_answers_say() {
        assert_eq!(read("false", route), Ok(None));
        for text in ["true", "{}"] {
            assert_eq!(read(text, route), Ok(Some(RouteCache::default())), "{text}");
        }
        let text = "{ default_ttl: 10s, stale_while_revalidate: 30s, stale_if_error: 1h, by: [host, path, 'query:page', 'header:X-Beta', \
                    'cookie:lang'], bypass_cookies: [shop_session, 'auth_*'], ignore_cookies: ['_ga*'], public: true, \
                    obey_clients: true, tags: Surrogate-Key }";
        let expected = RouteCache {
            default_ttl: Duration::from_secs(10),
            stale_while_revalidate: Duration::from_secs(30),
            stale_if_error: Duration::from_secs(3600),
            by: vec![
                CacheBy::Host,
                CacheBy::Path,
                CacheBy::Parameter("page".into()),
                CacheBy::Header("x-beta".into()),
                CacheBy::Cookie("lang".into()),
            ],
            bypass_cookies: vec!["shop_session".into(), "auth_*".into()],
            ignore_cookies: vec!["_ga*".into()],
            public: true,
            obey_clients: true,
            tags: vec!["surrogate-key".into()],
        };
        assert_eq!(read(text, route), Ok(Some(expected)));
        let tags = read("{ tags: [Cache-Tag, X-Tags] }", route).unwrap().unwrap().tags;
        assert_eq!(tags, ["cache-tag", "x-tags"]);
    }

    #[test]
    fn what_would_go_wrong_is_refused_with_a_word() {
        for (text, error) in [
            ("{ by: [host, query] }", "`by` has no `path`"),
            ("{ by: [path, path] }", "`path` stands here twice"),
            ("{ by: [path, query, 'query:a'] }", "`query` and `query:NAME` do not go together"),
            ("{ by: [path, client] }", "`client` is not a value of `by`"),
            ("{ by: [path, 'query:'] }", "`query:` names no parameter"),
            ("{ by: [path, 'query:a&b'] }", "`query:a&b` has no name of a parameter"),
            ("{ by: [path, 'cookie:a*'] }", "`cookie:a*` has no valid name of a cookie"),
            ("{ by: [path, 'cookie:a b'] }", "`cookie:a b` has no valid name of a cookie"),
            ("{ by: [path, 'header:Cookie'] }", "`header:Cookie` is every cookie at once"),
            (
                "{ by: [path, 'header:X-Forwarded-For'] }",
                "`X-Forwarded-For` is not taken from clients: any of them could write it",
            ),
            ("{ bypass_cookies: ['*'] }", "`*` is every cookie"),
            ("{ bypass_cookies: ['a=b'] }", "`a=b` is not the name of a cookie"),
            ("{ ignore_cookies: [csrftoken] }", "`csrftoken` would leave csrftoken out of account"),
            ("{ ignore_cookies: ['csrf*'] }", "`csrf*` would leave csrftoken out of account"),
            ("{ bypass_cookies: [sid], ignore_cookies: ['s*'] }", "`s*` is in `bypass_cookies`, too"),
            ("{ tags: 'a b' }", "`a b` is not the name of a header field"),
            ("{ ttl: 10s }", "unknown key `ttl` in `routes[].cache`"),
            ("{ default_ttl: 366d }", "`default_ttl` is out of range: `366d`"),
            ("[]", "`routes[].cache` takes a mapping, not a list"),
        ] {
            assert_eq!(read(text, route), Err(vec![error.to_owned()]), "{text}");
        }
    }

    const TOO_LARGE: &str = "`max_object` is larger than a quarter of `memory`, and than half of `disk.size`";

    #[test]
    fn the_cache_is_in_memory_unless_it_has_a_folder() {
        assert_eq!(read("{}", whole), Ok(Cache::default()));
        let text =
            "{ memory: 64MiB, disk: { path: cache, size: 1GiB }, max_object: 512MiB, purge: [127.0.0.1/32, unix] }";
        let cache = read(text, whole).unwrap();
        assert_eq!((cache.memory, cache.max_object), (64 << 20, 512 << 20));
        assert_eq!(cache.disk, Some(CacheDisk { path: "/etc/hostler/cache".into(), size: 1 << 30 }));
        assert!(cache.purge.has(Some("127.0.0.1".parse().unwrap())));
        assert_eq!(read("{ disk: { path: /c } }", whole).unwrap().disk.unwrap().size, 10 << 30);
        assert_eq!(read("{ memory: 1MiB, max_object: 256KiB }", whole).unwrap().max_object, 256 << 10);
        for (text, error) in [
            ("{ disk: { size: 1GiB } }", "`path` is missing in `cache.disk`"),
            ("{ memory: 1MiB, max_object: 257KiB }", TOO_LARGE),
            ("{ memory: 1MiB, disk: { path: /c, size: 1MiB }, max_object: 513KiB }", TOO_LARGE),
            ("{ purge: [0.0.0.0/0] }", "`0.0.0.0/0` lets everybody purge"),
            ("{ purge: [x] }", "`x` is not an address, nor a network"),
            ("{ memory: 1KiB }", "`memory` is out of range: `1KiB`"),
        ] {
            assert_eq!(read(text, whole), Err(vec![error.to_owned()]), "{text}");
        }
    }
}
