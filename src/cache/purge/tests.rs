use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::super::key::Key;
use super::super::store::{Found, Meta, Settings};
use super::*;
use crate::runtime;
use crate::runtime::drain::errands;

fn labels(by: &[CacheBy]) -> Labels {
    Labels::compile(by)
}

fn parsed(text: &str) -> Result<(String, String), String> {
    Address::parse(text, of_target).map(|address| (address.host.into(), address.target.into()))
}

#[test]
fn a_url_is_read_as_a_client_would_send_it() {
    for (text, host, target) in [
        ("https://shop.example/a?b=1", "shop.example", "/a?b=1"),
        ("HTTP://Shop.Example:8080/A", "shop.example", "/A"),
        ("https://shop.example:443", "shop.example", "/"),
        ("https://shop.example?q", "shop.example", "/?q"),
        ("//shop.example./a", "shop.example", "/a"),
        ("shop.example/a?next=http://other/", "shop.example", "/a?next=http://other/"),
        ("https://shop.example/a#part", "shop.example", "/a"),
        ("https://café.example/café menu?é", "xn--caf-dma.example", "/caf%C3%A9%20menu?%C3%A9"),
        ("https://xn--caf-dma.example/caf%C3%A9", "xn--caf-dma.example", "/caf%C3%A9"),
        ("http://[2001:DB8:0::1]:80/", "[2001:db8::1]", "/"),
        ("https://Café.example:8443/", "xn--caf-dma.example", "/"),
        (" shop.example/ ", "shop.example", "/"),
        ("http://127.0.0.1:8000/%c3", "127.0.0.1", "/%C3"),
        ("https://shop.example/a\"<b>`", "shop.example", "/a%22%3Cb%3E%60"),
    ] {
        assert_eq!(parsed(text), Ok((host.into(), target.into())), "{text}");
    }
}

#[test]
fn what_is_no_url_is_refused_with_a_word() {
    for (text, said) in [
        ("", "nothing is named"),
        ("/page", "has no host"),
        ("https:///page", "has no host"),
        ("https:/shop.example/page", "is not a host"),
        ("ftp://shop.example/", "neither http nor https"),
        ("https://ann:secret@shop.example/", "without a name and password"),
        ("https://*.shop.example/", "has to be a whole one"),
        ("https://shop..example/", "letters, digits, hyphens and dots"),
        ("https://shop.example:x/", "letters, digits, hyphens and dots"),
        ("https://straße.example/", "as browsers send it"),
        ("https://shop.example/a/../b", "no request can have the path"),
        ("https://shop.example/%zz", "no request can have the path"),
    ] {
        let error = parsed(text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
    let long = format!("https://shop.example/{}", "a".repeat(LONGEST_URL));
    assert!(parsed(&long).unwrap_err().contains("longer than 8192 bytes"));
    assert!(!parsed("\u{1b}[2Jx").unwrap_err().contains('\u{1b}'), "no sentence steers a terminal");
    for text in ["shop.example/a", "https://shop.example", "*.shop.example", ""] {
        assert!(What::host(text).is_err(), "{text}");
    }
    assert_eq!(What::host("Shop.Example.:8443"), Ok(What::Host("shop.example".into())));
}

#[test]
fn tags_stand_apart_by_spaces_and_commas() {
    let tags = |texts: &[&str]| What::tags(texts.iter().map(|text| text.as_bytes()));
    let of = |names: &[&str]| Ok(What::Tags(names.iter().map(|name| name.as_bytes().into()).collect()));
    assert_eq!(tags(&["a b", "c,d", "e, f", "\tg "]), of(&["a", "b", "c", "d", "e", "f", "g"]));
    assert_eq!(tags(&["Ünï"]), of(&["Ünï"]));
    assert!(tags(&[" , "]).unwrap_err().contains("no tag"));
    assert!(tags(&[&"x".repeat(LONGEST_TAG + 1)]).unwrap_err().contains("longer than 255 bytes"));
    assert!(tags(&[&"x ".repeat(MOST_TAGS + 1)]).unwrap_err().contains("more than 256 tags"));
}

/// Every kind of `by`, as far as labels go.
fn kinds() -> [Vec<CacheBy>; 5] {
    let page = || CacheBy::Parameter("page".into());
    [
        vec![CacheBy::Host, CacheBy::Path, CacheBy::Query],
        vec![CacheBy::Path, CacheBy::Query],
        vec![CacheBy::Host, CacheBy::Path, page()],
        vec![CacheBy::Path, page()],
        vec![CacheBy::Host, CacheBy::Path],
    ]
}

/// Whether this order strikes an answer to this request, on a route with this `by`.
fn strikes(what: &What, by: &[CacheBy], host: &str, target: &str) -> bool {
    let host = Host::parse(Bytes::copy_from_slice(host.as_bytes())).unwrap();
    let target = Target::parse(Bytes::copy_from_slice(target.as_bytes())).unwrap();
    let (host, path) = (labels(by).host(Some(&host)), labels(by).path(&target));
    let (host, path) = (host.as_bytes(), path.as_bytes());
    what.purges().iter().any(|purge| match purge {
        Purge::Url { host: of, path: at } => **of == *host && **at == *path,
        Purge::Prefix { host: of, path: beneath } => **of == *host && path.starts_with(beneath),
        Purge::Host(of) => **of == *host,
        Purge::Tag(_) => false,
        Purge::All => true,
    })
}

#[test]
fn a_page_is_found_by_its_url_whatever_its_route_is_told_apart_by() {
    let what = What::url("https://shop.example/a?page=1").unwrap();
    for by in kinds() {
        assert!(strikes(&what, &by, "Shop.Example:8443", "/a?page=1"), "{by:?}");
        assert!(!strikes(&what, &by, "shop.example", "/ab?page=1"), "{by:?}");
    }
    let [usual, no_host, by_page, ..] = kinds();
    assert!(!strikes(&what, &usual, "shop.example", "/a?page=2"), "its query tells it apart");
    assert!(!strikes(&what, &usual, "other.example", "/a?page=1"));
    assert!(strikes(&what, &no_host, "other.example", "/a?page=1"), "it is the same object");
    assert!(strikes(&what, &by_page, "shop.example", "/a?utm=x"), "nobody knows what it was stored for first");
}

#[test]
fn prefixes_and_hosts_strike_what_lies_below_them() {
    for by in kinds() {
        let strikes = |what: &What, target: &str| strikes(what, &by, "shop.example", target);
        let blog = What::prefix("https://shop.example/blog/*").unwrap();
        assert_eq!(blog, What::prefix("shop.example/blog/").unwrap());
        assert!(strikes(&blog, "/blog/") && strikes(&blog, "/blog/a?b") && !strikes(&blog, "/blog"), "{by:?}");
        let query = What::prefix("https://shop.example/a?page=").unwrap();
        assert!(strikes(&query, "/a?page=1") && !strikes(&query, "/ab?page=1"), "{by:?}");
        let host = What::host("shop.example").unwrap();
        assert!(strikes(&host, "/") && strikes(&host, "/a?b"), "{by:?}");
    }
    assert!(!strikes(&What::host("shop.example").unwrap(), &kinds()[0], "other.example", "/"));
}

fn store() -> Arc<Store> {
    let settings = Settings { memory: 8 << 20, max_object: 1 << 20, variants: 4, open_files: 0, disk: None };
    Store::open(&settings).unwrap()
}

fn put(store: &Arc<Store>, number: u16, host: &str, path: &str, tags: &[&[u8]]) {
    let meta = Meta {
        status: StatusCode::OK,
        fields: &HeaderMap::new(),
        facts: b"",
        host: host.as_bytes(),
        path: path.as_bytes(),
        tags,
        since: store.moment(),
        primary: None,
        length: None,
    };
    let mut writer = store.writer(&key(number), &meta).unwrap();
    writer.push(&Bytes::from_static(b"page"));
    runtime::block_on(writer.finish()).unwrap().unwrap();
}

#[test]
fn an_order_says_how_many_objects_it_has_struck() {
    let store = store();
    let put = |number, host: &str, path: &str, tags: &[&[u8]]| put(&store, number, host, path, tags);
    let struck = |what: What| {
        let order = Order { what, manner: Manner::Hard };
        runtime::block_on(order.carry_out(&store)).unwrap().unwrap()
    };
    put(1, "shop.example", "/a", &[b"x"]);
    put(2, "shop.example", "/a?*", &[b"x", b"y"]);
    put(3, "", "/a", &[]);
    put(4, "other.example", "/a", &[b"y"]);
    assert_eq!(struck(What::url("http://shop.example/a").unwrap()), 3);
    assert!(matches!(store.get(&key(4)), Some(Found::Object(_))));
    put(1, "shop.example", "/a", &[b"x"]);
    assert_eq!(struck(What::tags([b"x,y".as_slice()]).unwrap()), 2);
    assert_eq!(struck(What::All), 0);
    put(1, "shop.example", "/a", &[]);
    let host = Host::parse(Bytes::from_static(b"SHOP.example:80")).unwrap();
    let cache = Cache::new(Arc::clone(&store));
    assert_eq!(runtime::block_on(invalidate(&cache, Some(&host), "/%61", Manner::Soft)).unwrap(), 1);
    assert!(store.settle(Duration::ZERO));
}

#[test]
fn only_labels_that_some_route_has_had_are_struck_by_a_change() {
    let wide = Wide::default();
    let struck =
        |wide: &Wide| wide.addresses("h", "/a?b").map(|(host, path)| [host, &path].concat()).collect::<Vec<_>>();
    let [usual, no_host, by_page, ..] = kinds();
    wide.add(labels(&usual));
    assert_eq!(struck(&wide), ["h/a?b"]);
    wide.add(labels(&by_page));
    assert_eq!(struck(&wide), ["h/a?b", "h/a?*"]);
    wide.add(labels(&no_host));
    wide.add(labels(&usual));
    assert_eq!(struck(&wide), ["h/a?b", "h/a?*", "/a?b", "/a?*"], "what there was may still be kept");
}

#[test]
fn a_purge_goes_on_without_whoever_has_asked_for_it() {
    let store = store();
    (0..400).for_each(|number| put(&store, number, "shop.example", "/", &[]));
    let order = Order { what: What::All, manner: Manner::Hard };
    runtime::block_on(async {
        {
            let mut asked = pin!(order.carry_out(&store));
            let is_pending = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending())).await;
            assert!(is_pending);
        }
        errands().await;
        assert_eq!(store.numbers().memory_objects, 0, "all of it, though nobody waits any more");
    })
    .unwrap();
}

fn key(number: u16) -> Key {
    let [high, low] = number.to_be_bytes();
    Key::from_bytes(std::array::from_fn(|at| if at % 2 == 0 { low } else { high }))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}|(https?://)?[a-zé.:@*\\[\\]/?#%&<> ]{0,40}") {
        for what in [What::url(&text), What::prefix(&text)] {
            if let Ok(What::Url(address) | What::Prefix(address)) = what {
                prop_assert!(address.target.starts_with('/') && address.target.bytes().all(|b| (0x21..=0x7E).contains(&b)));
                let again = Host::parse(Bytes::copy_from_slice(address.host.as_bytes())).unwrap();
                prop_assert_eq!(&*again.compared(), &*address.host);
            }
        }
        let _ = What::host(&text);
        let _ = What::tags([text.as_bytes()]);
    }

    #[test]
    fn a_path_is_purged_in_whatever_spelling_it_was_asked_for(
        path in prop::collection::vec((1..=255u8, any::<bool>(), any::<bool>()), 0..12),
    ) {
        let spelled = |is_other: bool| {
            let byte = |(byte, one, other): &(u8, bool, bool)| match byte {
                b'!'..=b'~' if !b"%?#<>`\\".contains(byte) && if is_other { *other } else { *one } => char::from(*byte).to_string(),
                _ if is_other => format!("%{byte:02x}"),
                _ => format!("%{byte:02X}"),
            };
            format!("/{}", path.iter().map(byte).collect::<String>())
        };
        let (one, other) = (spelled(false), spelled(true));
        prop_assume!(Target::parse(Bytes::copy_from_slice(one.as_bytes())).is_ok());
        for by in kinds() {
            let what = What::url(&format!("https://shop.example{one}")).unwrap();
            prop_assert!(strikes(&what, &by, "shop.example", &other), "{one} {other} {by:?}");
            let what = What::prefix(&format!("https://shop.example{one}*")).unwrap();
            prop_assert!(strikes(&what, &by, "shop.example", &format!("{other}a")), "{one}* {other}a {by:?}");
        }
    }

    #[test]
    fn whatever_can_be_asked_for_can_be_purged(
        host in "[a-zA-Z0-9]{1,8}(\\.[a-zA-Z0-9-]{1,5}){0,2}\\.?(:[0-9]{1,4})?",
        target in "/[a-z%./~*]{0,12}(\\?[a-z=&%*/:]{0,12})?",
    ) {
        let readable = Target::parse(Bytes::copy_from_slice(target.as_bytes())).is_ok();
        prop_assume!(readable);
        let what = What::url(&format!("https://{host}{target}")).unwrap();
        for by in kinds() {
            prop_assert!(strikes(&what, &by, &host, &target), "{:?}", by);
        }
    }
}
