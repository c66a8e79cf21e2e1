//! Cookies that try to hide.

use proptest::prelude::*;

use super::*;

fn asked(lines: &[&[u8]]) -> Asked {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("cookie", HeaderValue::from_bytes(line).unwrap());
    }
    Asked::of(&Method::GET, &headers, Context::default(), &Rules::default())
}

#[test]
fn a_cookie_that_some_reader_sees_is_seen() {
    for line in [
        &b"sessionid=1"[..],
        b"a=1; sessionid=1",
        b"a=1;sessionid=1",
        b"a=1;\tsessionid=1",
        b"a=1 ; sessionid =1",
        b"a=1, sessionid=1",
        b"a=1,sessionid=1",
        b"a=1 sessionid=1",
        b"a=\"1\"sessionid=1",
        b"a=\"; sessionid=1",
        b"a=\"x; sessionid=1\"",
        b"; ;sessionid=",
        b"a=1;\xa0sessionid=1",
        b"a=1;\xe2\x80\x83sessionid\xe2\x80\x83=1",
        b"a=1;\x85sessionid\xa0=1",
        b"_ga=1; sessionid=1",
        b"xsessionid=1; sessionid=1",
        b"sessionid=1; sessionidx=1",
        b"a=sessionid; sessionid=1",
        b"remember_token=1",
        b"django_language=de",
    ] {
        assert!(!asked(&[line]).is_anonymous(), "{}", line.escape_ascii());
    }
    assert!(!asked(&[b"a=1", b"sessionid=1"]).is_anonymous());
    assert!(!asked(&[b"sessionid=1", b"a=1"]).is_anonymous());
}

#[test]
fn what_only_looks_like_one_is_none() {
    for line in [
        &b""[..],
        b"a=1",
        b"xsessionid=1",
        b"x-sessionid=1",
        b"sessionidx=1",
        b"sessionid-2=1",
        b"SessionID=1",
        b"a=sessionid",
        b"a=sessionid=1",
        b"sessionid",
        b"sessionid; a=1",
        b"my.session=1",
    ] {
        assert!(asked(&[line]).is_anonymous(), "{}", line.escape_ascii());
    }
}

#[test]
fn an_ignored_cookie_hides_no_other() {
    for line in [
        &b"_ga=1; theme=dark"[..],
        b"_ga=1 theme=dark",
        b"_ga=1,theme=dark",
        b"_ga=\"1; theme=dark\"",
        b"_ga=\"1\"theme=dark",
        b"_ga=1\xa0theme=dark",
        b"_ga =1",
        b"_ga",
        b"_gax=1",
        b"x_ga=1",
        b"\"_ga\"=1",
    ] {
        assert!(asked(&[line]).has_cookies(), "{}", line.escape_ascii());
    }
    for line in [
        &b"_ga=GA1.2.123.456"[..],
        b"_ga=\"GA1\"",
        b"_ga_ABC123=GS1.1; _gid=GA1.2; _gat_gtag_UA_1=1; __utma=1; _fbp=fb.1.2.3; _hjSession_1=abc",
        b" ; _ga=1;;",
        b"_ga=",
    ] {
        assert!(!asked(&[line]).has_cookies(), "{}", line.escape_ascii());
    }
}

#[test]
fn a_pattern_that_is_every_cookie_is_none() {
    let patterns = Patterns::new(&["", "*", "a*", "b"]);
    for (name, is_one) in [("a", true), ("ab", true), ("b", true), ("bc", false), ("", false), ("c", false)] {
        assert_eq!(patterns.has(name.as_bytes()), is_one, "{name}");
        let line = format!("x=1; {name}=2");
        assert_eq!(patterns.is_in(line.as_bytes()), is_one, "{name}");
    }
}

/// As Django reads it: `django.http.cookie.parse_cookie`.
fn as_django_reads(line: &str) -> Vec<String> {
    let pieces = line.split(';').map(|piece| piece.split_once('=').unwrap_or(("", piece)));
    pieces.map(|(name, _)| name.trim().to_owned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_hides_a_cookie_that_django_sees(line in "(sessionid|_ga|a|=|;|,|\"| |\t|\\\\|\u{a0}|\u{2003}|x){0,12}") {
        let asked = asked(&[line.as_bytes()]);
        let seen = as_django_reads(&line);
        if seen.iter().any(|name| name == "sessionid") {
            prop_assert!(!asked.is_anonymous(), "{:?}", line);
        }
        if seen.iter().any(|name| name == "a" || name == "x") {
            prop_assert!(asked.has_cookies(), "{:?}", line);
        }
    }

    #[test]
    fn what_is_added_never_makes_somebody_anonymous(before in "[ -~]{0,12}", after in "[ -~]{0,12}") {
        let line = format!("{before};sessionid=1;{after}");
        prop_assert!(!asked(&[line.as_bytes()]).is_anonymous());
    }
}
