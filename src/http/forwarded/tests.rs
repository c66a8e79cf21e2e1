use proptest::prelude::*;

use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    headers
}

/// 2026-11-22 19:00:00 UTC.
const NOW: Duration = Duration::from_secs(1_795_374_000);

/// Everything in 10.0.0.0/8 and the whole of ::/16 is ours.
fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 10,
        IpAddr::V6(address) => address.segments()[0] == 0,
    }
}

fn read(fields: &[(&str, &str)]) -> Claims {
    Claims::read(&map(fields), NOW, is_ours)
}

fn client_of(fields: &[(&str, &str)]) -> Option<String> {
    read(fields).client.map(|client| client.to_string())
}

#[test]
fn the_client_is_the_rightmost_address_that_is_not_ours() {
    for (lines, client) in [
        (&["192.0.2.1"][..], Some("192.0.2.1")),
        (&["192.0.2.1, 10.0.0.1"], Some("192.0.2.1")),
        (&["192.0.2.1,10.0.0.1,10.0.0.2"], Some("192.0.2.1")),
        // The client's own stories stand to the left.
        (&["1.1.1.1, 192.0.2.1, 10.0.0.1"], Some("192.0.2.1")),
        (&["10.9.9.9, 192.0.2.1"], Some("192.0.2.1")),
        (&["1.1.1.1", "192.0.2.1", "10.0.0.1"], Some("192.0.2.1")),
        (&["1.1.1.1", "192.0.2.1, 10.0.0.1", "10.0.0.2"], Some("192.0.2.1")),
        // Within our own network.
        (&["10.0.0.3, 10.0.0.2"], Some("10.0.0.3")),
        // Empty elements are none.
        (&["", "192.0.2.1, ,", " , "], Some("192.0.2.1")),
        (&["", ","], None),
        // Nobody left of what cannot be read is believed.
        (&["192.0.2.1, unknown"], None),
        (&["192.0.2.1, unknown, 10.0.0.1"], Some("10.0.0.1")),
        (&["192.0.2.1, _hidden, 10.0.0.1"], Some("10.0.0.1")),
        (&["192.0.2.1, 10.0.0.256, 10.0.0.1"], Some("10.0.0.1")),
        (&["192.0.2.1, \u{e9}, 10.0.0.1"], Some("10.0.0.1")),
        (&["192.0.2.1 10.0.0.1"], None),
        // A quote that a client has left open hides nothing.
        (&["\", 192.0.2.1"], Some("192.0.2.1")),
        // Forms.
        (&["192.0.2.1:4711, 10.0.0.1:80"], Some("192.0.2.1")),
        (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
        (&["[2001:db8::1]"], Some("2001:db8::1")),
        (&["2001:DB8:0::1"], Some("2001:db8::1")),
        (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
        (&["192.0.2.1, [::ffff:10.0.0.1]:5"], Some("192.0.2.1")),
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        assert_eq!(client_of(&fields).as_deref(), client, "{lines:?}");
    }
}

#[test]
fn what_is_no_address_is_none() {
    for node in [
        "",
        "unknown",
        "_a",
        "localhost",
        "192.0.2",
        "192.0.2.01",
        "0x7f.1",
        "192.0.2.1:",
        "192.0.2.1:123456",
        "192.0.2.1:8a",
        "[192.0.2.1]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]80",
        "[2001:db8::1]:",
        "[fe80::1%eth0]",
        "fe80::1%1",
        "1.2.3.4/32",
        "192.0.2.1:_",
        "\"192.0.2.1\"",
        "192.0.2.1.",
    ] {
        assert_eq!(address(node.as_bytes()), None, "{node:?}");
    }
    for node in ["192.0.2.1:_p-1.x", "[::2]:_x"] {
        assert!(address(node.as_bytes()).is_some(), "{node}");
    }
}

#[test]
fn forwarded_says_the_same_in_its_own_words() {
    for (lines, client, scheme) in [
        (&["for=192.0.2.1"][..], Some("192.0.2.1"), None),
        (&["For=\"[2001:db8::1]:4711\";Proto=https"], Some("2001:db8::1"), Some(Scheme::Https)),
        (&["for=[2001:db8::1]"], Some("2001:db8::1"), None),
        (
            &["for=192.0.2.1;by=\"a,b;c\\\"\";proto=http, for=10.0.0.1;proto=https"],
            Some("192.0.2.1"),
            Some(Scheme::Https),
        ),
        (&["proto=https;for=\"192.0.2.1:80\" ; host=shop.example"], Some("192.0.2.1"), Some(Scheme::Https)),
        (&["for=1.1.1.1", "for=192.0.2.1, for=10.0.0.1"], Some("192.0.2.1"), None),
        // Attempts to reach into what the proxy has appended.
        (&["for=\"1.1.1.1, for=192.0.2.1"], Some("192.0.2.1"), None),
        (&["for=1.1.1.1;by=\"\\, for=192.0.2.1"], Some("192.0.2.1"), None),
        (&["for=\"1.1.1.1\\\", for=\"[2001:db8::1]\""], Some("2001:db8::1"), None),
        (&["for=\"", "for=192.0.2.1"], Some("192.0.2.1"), None),
        // What nobody says, and what cannot be read.
        (&["for=unknown"], None, None),
        (&["for=_x, for=10.0.0.1"], Some("10.0.0.1"), None),
        (&["by=10.0.0.1;proto=https"], None, Some(Scheme::Https)),
        (&["for=192.0.2.1;for=1.1.1.1"], None, None),
        (&["for=192.0.2.1;proto=HTTPS"], Some("192.0.2.1"), None),
        (&["for=192.0.2.1;proto=wss"], Some("192.0.2.1"), None),
        (&["for = 192.0.2.1"], None, None),
        (&["for=\"192.0.2.\\1\""], None, None),
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        let claims = read(&fields);
        assert_eq!((claims.client.map(|c| c.to_string()).as_deref(), claims.scheme), (client, scheme), "{lines:?}");
    }
}

#[test]
fn two_fields_that_name_different_clients_name_none() {
    for (lines, standard, client, is_contradictory) in [
        ("192.0.2.1", "for=192.0.2.1", Some("192.0.2.1"), false),
        ("192.0.2.1, 10.0.0.1", "for=1.1.1.1, for=\"192.0.2.1:80\"", Some("192.0.2.1"), false),
        ("192.0.2.1", "for=1.1.1.1", None, true),
        ("192.0.2.1", "for=unknown", None, true),
        ("192.0.2.1", "proto=https", None, true),
        ("unknown", "for=192.0.2.1", None, true),
        ("", "for=192.0.2.1", None, true),
        ("unknown", "for=unknown", None, false),
    ] {
        let claims = read(&[("x-forwarded-for", lines), ("forwarded", standard)]);
        let found = (claims.client.map(|client| client.to_string()), claims.is_contradictory);
        assert_eq!(found, (client.map(str::to_owned), is_contradictory), "{lines:?} {standard:?}");
    }
    // The scheme has a field of its own, which goes before.
    let both = [("forwarded", "for=192.0.2.1;proto=http"), ("x-forwarded-proto", "https")];
    assert_eq!(read(&both).scheme, Some(Scheme::Https));
    assert_eq!(read(&[("forwarded", "proto=https"), ("x-forwarded-proto", "ftp")]).scheme, None);
}

#[test]
fn scheme_and_port_are_the_last_and_exact() {
    for (value, scheme) in [
        ("https", Some(Scheme::Https)),
        ("http", Some(Scheme::Http)),
        ("http, https", Some(Scheme::Https)),
        ("https,http", Some(Scheme::Http)),
        ("HTTPS", None),
        ("https;", None),
        ("on", None),
        ("", None),
        ("https, ", Some(Scheme::Https)),
    ] {
        assert_eq!(read(&[("x-forwarded-proto", value)]).scheme, scheme, "{value:?}");
    }
    let two = [("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")];
    assert_eq!(read(&two).scheme, Some(Scheme::Http));
    for (value, port) in [
        ("443", Some(443)),
        ("80, 8443", Some(8443)),
        ("0", None),
        ("65536", None),
        ("+80", None),
        ("080", Some(80)),
        ("", None),
    ] {
        assert_eq!(read(&[("x-forwarded-port", value)]).port, port, "{value:?}");
    }
}

#[test]
fn the_start_is_told_in_any_of_three_units() {
    for (value, expected) in [
        ("t=1795374000.123456", Some((1_795_374_000, 123_456_000))),
        ("t=1795374000.123", Some((1_795_374_000, 123_000_000))),
        ("1795374000", Some((1_795_374_000, 0))),
        ("t=1795374000123", Some((1_795_374_000, 123_000_000))),
        ("t=1795374000123.5", Some((1_795_374_000, 123_500_000))),
        ("1795374000123456", Some((1_795_374_000, 123_456_000))),
        ("t=1795374000.1234567890", None),
        ("t=1795374000.", None),
        ("t=.5", None),
        ("t=-1795374000", None),
        ("t=1", None),
        ("t=99999999999999999999", None),
        ("T=1795374000", None),
        ("t=1795374000\u{e9}", None),
        ("t=1795374000, t=1795374001", Some((1_795_374_001, 0))),
    ] {
        let started = read(&[("x-request-start", value)]).started;
        assert_eq!(started.map(|since| (since.as_secs(), since.subsec_nanos())), expected, "{value}");
    }
}

#[test]
fn a_start_in_the_future_or_long_ago_is_not_believed() {
    for (value, is_believed) in [
        ("t=1795374000", true),
        ("t=1795374001", true),
        ("t=1795374001.001", false),
        ("t=1795373400", true),
        ("t=1795373399.999", false),
        ("t=1000000000", false),
        ("t=9999999999", false),
    ] {
        assert_eq!(read(&[("x-request-start", value)]).started.is_some(), is_believed, "{value}");
    }
}

#[test]
fn a_long_chain_is_followed_to_a_limit() {
    let chain = |ours: usize| format!("192.0.2.1{}", ", 10.0.0.1".repeat(ours));
    assert_eq!(client_of(&[("x-forwarded-for", &chain(MAX_HOPS - 1))]).as_deref(), Some("192.0.2.1"));
    assert_eq!(client_of(&[("x-forwarded-for", &chain(MAX_HOPS))]).as_deref(), Some("10.0.0.1"));
}

/// The elements of a line, from the left, by the grammar of RFC 9110, 5.6; `None` when a quote is left open.
fn from_the_left(line: &str) -> Option<Vec<String>> {
    let (mut elements, mut element, mut bytes) = (Vec::new(), String::new(), line.chars());
    while let Some(c) = bytes.next() {
        match c {
            ',' => elements.push(std::mem::take(&mut element)),
            '"' => {
                element.push(c);
                loop {
                    let c = bytes.next()?;
                    element.push(c);
                    match c {
                        '\\' => element.push(bytes.next()?),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            _ => element.push(c),
        }
    }
    elements.push(element);
    Some(elements.iter().map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect())
}

fn element() -> impl Strategy<Value = String> {
    let value = prop_oneof!["[a-z0-9._-]{1,6}", "\"([a-z,;=. ]|\\\\[\"\\\\a,]){0,8}\"", Just("192.0.2.7".to_owned())];
    let pair = (prop::sample::select(&["for", "by", "proto", "x"][..]), value).prop_map(|(n, v)| format!("{n}={v}"));
    prop::collection::vec(pair, 1..4).prop_map(|pairs| pairs.join(";"))
}

fn split(line: &str) -> Vec<String> {
    let headers = map(&[("forwarded", line)]);
    from_the_right(&headers, &header::FORWARDED).map(|element| String::from_utf8_lossy(element).into_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_well_formed_reads_the_same_from_either_side(elements in prop::collection::vec(element(), 0..4)) {
        let line = elements.join(" ,");
        let mut expected = from_the_left(&line).unwrap();
        expected.reverse();
        prop_assert_eq!(split(&line), expected);
    }

    #[test]
    fn nothing_that_a_client_writes_changes_what_its_proxy_appends(
        forged in "[a-z0-9:.,;=_ \"\\\\\\[\\]]{0,40}", appended in element(),
    ) {
        let line = format!("{forged}, {appended}");
        let elements = split(&line);
        prop_assert_eq!(elements.first(), Some(&appended));
    }

    #[test]
    fn a_forged_chain_never_hides_the_client_that_the_proxy_saw(
        forged in prop::collection::vec("[ -~]{0,30}", 0..4), client in any::<[u8; 4]>(), ours in 0..4_usize, kind in any::<bool>(),
    ) {
        let client = IpAddr::from(client);
        prop_assume!(!is_ours(client));
        let (name, word) = if kind { ("x-forwarded-for", "") } else { ("forwarded", "for=") };
        let mut fields: Vec<_> = forged.iter().map(|line| (name, line.clone())).collect();
        let appended = format!("{word}{client}{}", format!(", {word}10.0.0.1").repeat(ours));
        match fields.last_mut() {
            Some((_, line)) => *line = format!("{line}, {appended}"),
            None => fields.push((name, appended)),
        }
        let fields: Vec<_> = fields.iter().map(|(name, line)| (*name, line.as_str())).collect();
        prop_assert_eq!(read(&fields).client, Some(client));
    }

    #[test]
    fn addresses_are_read_as_the_standard_library_writes_them(v4: u32, v6: u128, port: u16) {
        let (v4, v6) = (std::net::Ipv4Addr::from(v4), Ipv6Addr::from(v6));
        for text in [format!("{v4}"), format!("{v4}:{port}")] {
            prop_assert_eq!(address(text.as_bytes()), Some(IpAddr::V4(v4)));
        }
        for text in [format!("{v6}"), format!("[{v6}]"), format!("[{v6}]:{port}")] {
            prop_assert_eq!(address(text.as_bytes()), Some(IpAddr::V6(v6).to_canonical()));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(name in prop::sample::select(&["x-forwarded-for", "forwarded", "x-forwarded-proto",
        "x-forwarded-port", "x-request-start"][..]), value in prop::collection::vec(any::<u8>(), 0..60)) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.append(name, value);
        let _ = Claims::read(&headers, NOW, is_ours);
    }
}
