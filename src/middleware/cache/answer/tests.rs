//! Claims about answers, each with the section of RFC 9110 (or another) that makes it.
//!
//! Responses and requests are written on one line: `200 | etag: "a"`, `GET | range: bytes=0-3`. Of an answer it is said what it
//! has, what it has not (`!age`), and behind `=>` what its body is.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::*;
use crate::cache::Key;
use crate::cache::store::{DiskSettings, Meta, Settings, Store};
use crate::http::{ConnectionInfo, Protocol, Source};

const BODY: &str = "0123456789";
const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT";
const AGE: u64 = 7;
const KEY: Key = Key::from_bytes([7; Key::LENGTH]);

/// Claims about one stored response: what is asked, what the answer is, and who says so.
type Claims = &'static [(&'static str, &'static str, &'static str)];

const TAGGED: &str = "200 | etag: \"a\" | content-type: text/plain | cache-control: max-age=60 | vary: accept \
    | expires: Sun, 06 Nov 1994 08:50:37 GMT | last-modified: Sun, 06 Nov 1994 08:48:37 GMT | x-own: 1";

const OF_TAGGED: Claims = &[
    ("GET", "200 | etag: \"a\" | x-own: 1 | vary: accept | !content-range => 0123456789", "9.3.1"),
    ("GET", "age: 7", "RFC 9111, 5.1: a stored response says how old it is"),
    ("GET", "date: Sun, 06 Nov 1994 08:49:37 GMT", "6.6.1: the date is the app's, not the edge's"),
    ("GET", "accept-ranges: bytes", "14.3: the edge answers ranges"),
    ("GET", "!content-length => 0123456789", "8.6: written from the body"),
    ("HEAD", "200 | content-length: 10 | etag: \"a\" | age: 7 | accept-ranges: bytes =>", "9.3.2"),
    ("HEAD | range: bytes=0-3", "200 | content-length: 10 | !content-range =>", "14.2: Range is of GET alone"),
    ("GET | if-none-match: \"a\"", "304 =>", "13.1.2"),
    ("HEAD | if-none-match: \"a\"", "304 | !content-length =>", "13.1.2"),
    ("GET | if-none-match: \"b\"", "200 => 0123456789", "13.1.2"),
    ("GET | if-none-match: *", "304 =>", "13.1.2"),
    ("GET | if-modified-since: Sun, 06 Nov 1994 08:48:37 GMT", "304 =>", "13.1.3"),
    ("GET | if-modified-since: Sun, 06 Nov 1994 08:48:36 GMT", "200 => 0123456789", "13.1.3"),
    ("GET | if-none-match: \"a\"", "etag: \"a\" | date: Sun, 06 Nov 1994 08:49:37 GMT | vary: accept", "15.4.5"),
    ("GET | if-none-match: \"a\"", "cache-control: max-age=60 | expires: Sun, 06 Nov 1994 08:50:37 GMT", "15.4.5"),
    ("GET | if-none-match: \"a\"", "!last-modified | !content-type | !accept-ranges", "15.4.5: a tag is enough"),
    ("GET | if-none-match: \"a\"", "age: 7", "RFC 9111, 4.3.2: a 304 from the cache has an age as well"),
    ("GET | range: bytes=0-3", "206 | content-range: bytes 0-3/10 => 0123", "15.3.7.1"),
    ("GET | range: bytes=4-", "206 | content-range: bytes 4-9/10 => 456789", "14.1.2"),
    ("GET | range: bytes=-3", "206 | content-range: bytes 7-9/10 => 789", "14.1.2"),
    ("GET | range: bytes=8-99", "206 | content-range: bytes 8-9/10 => 89", "14.1.2"),
    (
        "GET | range: bytes=0-9",
        "206 | content-range: bytes 0-9/10 => 0123456789",
        "15.3.7: all of it is a range as well",
    ),
    ("GET | range: bytes=0-3", "etag: \"a\" | cache-control: max-age=60 | vary: accept | age: 7", "15.3.7"),
    ("GET | range: bytes=0-3", "content-type: text/plain | accept-ranges: bytes | !content-length", "15.3.7.1"),
    ("GET | range: bytes=10-", "416 | content-range: bytes */10", "15.5.17"),
    ("GET | range: bytes=-0", "416 | content-range: bytes */10", "14.1.2: the last none"),
    ("GET | range: bytes=3-1", "200 => 0123456789", "14.1.1: no range at all"),
    ("GET | range: lines=0-3", "200 => 0123456789", "14.2: another unit is ignored"),
    ("GET | range: bytes=0-1 | range: bytes=2-3", "200 => 0123456789", "14.2: two lines are none"),
    ("GET | range: bytes=0-3 | if-range: \"a\"", "206 => 0123", "13.1.5"),
    ("GET | range: bytes=0-3 | if-range: \"b\"", "200 | !content-range => 0123456789", "13.1.5"),
    ("GET | range: bytes=99- | if-range: \"b\"", "200 => 0123456789", "13.1.5: the range of another one"),
    ("GET | range: bytes=0-3 | if-range: Sun, 06 Nov 1994 08:48:37 GMT", "206 => 0123", "13.1.5"),
    ("GET | range: bytes=0-3 | if-none-match: \"a\"", "304 | !content-range =>", "13.2.2: conditions go first"),
    ("GET | range: bytes=0-3 | if-none-match: \"b\"", "206 => 0123", "13.2.2"),
];

/// The same of others, each with its response.
const OF_OTHERS: &[(&str, &str, &str, &str)] = &[
    ("404", "GET", "404 | age: 7 | !accept-ranges => 0123456789", "RFC 9111, 3: other statuses are as they were"),
    ("404", "GET | range: bytes=0-3", "404 | !content-range => 0123456789", "14.2: a range is of a 200"),
    ("404 | etag: \"a\"", "GET | if-none-match: \"a\"", "404 => 0123456789", "13.2.1: conditions are about a 2xx"),
    ("301 | location: /b", "GET", "301 | location: /b => 0123456789", "15.4.2"),
    ("301 | location: /b", "HEAD", "301 | location: /b | content-length: 10 =>", "9.3.2"),
    (
        "200 | last-modified: Sun, 06 Nov 1994 08:48:37 GMT",
        "GET | if-modified-since: Sun, 06 Nov 1994 08:48:37 GMT",
        "304 | last-modified: Sun, 06 Nov 1994 08:48:37 GMT =>",
        "15.4.5: without a tag the date says what it is",
    ),
    ("200", "GET | if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT", "304 =>", "RFC 9111, 4.3.2: Date in its place"),
    ("200 | content-encoding: gzip", "GET | range: bytes=0-3", "206 | content-encoding: gzip => 0123", "14.2"),
    ("200 | content-digest: x | repr-digest: y", "GET", "content-digest: x | repr-digest: y", "RFC 9530, 2"),
    (
        "200 | content-digest: x | content-md5: z | repr-digest: y",
        "GET | range: bytes=0-3",
        "206 | !content-digest | !content-md5 | repr-digest: y",
        "RFC 9530, 2: a part has another digest, and belongs to the same representation",
    ),
    ("200 | accept-ranges: none", "GET", "accept-ranges: bytes", "14.3: said by who answers"),
    ("200 | link: </a>; rel=x | link: </b>; rel=x", "GET", "link: </a>; rel=x | link: </b>; rel=x", "5.3: in order"),
    (
        "200 | content-location: /a.en | content-security-policy: default-src 'none' | etag: \"a\"",
        "GET | if-none-match: \"a\"",
        "304 | content-location: /a.en | content-security-policy: default-src 'none'",
        "15.4.5",
    ),
];

/// Several parts: only what is there can be given in any order.
const OF_SEVERAL: Claims = &[
    ("GET | range: bytes=0-0,9-9", "206 | !content-range | !content-length", "15.3.7.2"),
    ("GET | range: bytes=0-0,9-9 | if-range: \"b\"", "200 => 0123456789", "13.1.5"),
    ("GET | range: bytes=0-3,2-5", "206 | content-range: bytes 0-5/10 => 012345", "15.3.7.2: what overlaps is one"),
    ("GET | range: bytes=20-,30-", "416 | content-range: bytes */10", "15.5.17"),
];

#[tokio::test]
async fn what_is_stored_is_answered_as_the_rfc_says() {
    for (asked, expected, section) in OF_TAGGED.iter().chain(OF_SEVERAL) {
        check(What::Stored, TAGGED, asked, expected, section).await;
    }
    for (first, asked, expected, section) in OF_OTHERS {
        check(What::Stored, first, asked, expected, section).await;
    }
}

#[tokio::test]
async fn what_is_still_coming_is_answered_in_the_same_way() {
    for (asked, expected, section) in OF_TAGGED {
        check(What::Coming(Some(10)), TAGGED, asked, expected, section).await;
    }
    for (first, asked, expected, section) in OF_OTHERS {
        check(What::Coming(Some(10)), first, asked, expected, section).await;
    }
    let several = "GET | range: bytes=5-5,0-0";
    check(What::Coming(Some(10)), TAGGED, several, "200 => 0123456789", "14.2: may be ignored").await;
}

#[tokio::test]
async fn of_what_has_no_length_yet_there_are_no_parts() {
    for (asked, expected, section) in [
        ("GET", "200 | !accept-ranges => 0123456789", "14.3: nothing is promised"),
        ("GET | range: bytes=0-3", "200 | !content-range => 0123456789", "14.2"),
        ("GET | range: bytes=99-", "200 => 0123456789", "14.2: nobody knows that it is beyond"),
        ("HEAD", "200 | !content-length =>", "9.3.2: what is not known may be left out"),
        ("GET | if-none-match: \"a\"", "304 =>", "13.1.2"),
    ] {
        check(What::Coming(None), TAGGED, asked, expected, section).await;
    }
}

#[tokio::test]
async fn an_answer_of_the_apps_own_has_its_age_and_not_another() {
    let (status, fields) = response_of("200 | age: 3");
    let exchange = exchange();
    let (method, headers) = request_of("GET");
    let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
    let response = of_coming(asker, status, fields.clone(), Body::Full(BODY.into()), None).unwrap();
    assert_eq!(response.headers()[header::AGE], "3");
    let response = of_coming(asker, status, fields, Body::Full(BODY.into()), Some(5)).unwrap();
    assert_eq!(response.headers()[header::AGE], "5", "RFC 9111, 4: it replaces what is there");
}

#[tokio::test]
async fn what_the_app_has_brought_up_to_date_is_answered_with_its_new_fields() {
    let object = object(&store(1 << 20), TAGGED, BODY.into()).await;
    let (_, fields) = response_of("200 | etag: \"a\" | x-own: 2");
    for (asked, status) in [("GET", 200), ("GET | if-none-match: \"a\"", 304)] {
        let (exchange, (method, headers)) = (exchange(), request_of(asked));
        let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
        let response = with_fields(asker, &object, fields.clone(), 0).unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["x-own"]), (status, &"2".parse().unwrap()));
        assert_eq!(response.headers()[header::AGE], "0", "RFC 9111, 4.3.4");
    }
}

#[tokio::test]
async fn several_parts_are_framed_with_their_type_wherever_the_body_lies() {
    let (objects, _there) = objects().await;
    for object in objects {
        let length = object.length();
        let asked = format!("GET | range: bytes={}-{},0-3", length - 2, length - 1);
        let (exchange, (method, headers)) = (exchange(), request_of(&asked));
        let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
        let response = of_object(asker, &object, AGE).unwrap();
        assert_eq!(response.status(), 206);
        let said = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let boundary = said.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let body = read(response.into_body()).await;
        let head = |range: &str| {
            format!("--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/{length}\r\n\r\n")
        };
        let (last, all) = (length - 1, pattern(length));
        let heads = [head(&format!("{}-{last}", length - 2)), format!("\r\n{}", head("0-3"))];
        let tail = format!("\r\n--{boundary}--\r\n");
        let expected = [heads[0].as_bytes(), &all[all.len() - 2..], heads[1].as_bytes(), &all[..4], tail.as_bytes()];
        assert_eq!(body, expected.concat(), "{object:?}");
    }
}

#[tokio::test]
async fn wherever_the_body_lies_a_part_of_it_is_that_part() {
    let (objects, _there) = objects().await;
    for object in objects {
        let length = object.length();
        let all = pattern(length);
        for (first, last) in [(0, 0), (length / 3, length / 2), (length - 1, length - 1), (0, length - 1)] {
            let (exchange, (method, headers)) = (exchange(), request_of(&format!("GET | range: bytes={first}-{last}")));
            let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
            let response = of_object(asker, &object, AGE).unwrap();
            assert_eq!(response.body().remaining(), Some(last - first + 1));
            let body = read(response.into_body()).await;
            assert!(body == all[first as usize..=last as usize], "{first}-{last} of {object:?}");
        }
    }
}

#[tokio::test]
async fn a_small_body_in_memory_is_one_piece_that_nobody_has_to_ask_for() {
    let object = object(&store(1 << 20), TAGGED, pattern(1024).into()).await;
    let (exchange, (method, headers)) = (exchange(), request_of("GET"));
    let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
    assert!(matches!(of_object(asker, &object, AGE).unwrap().body(), Body::Full(bytes) if bytes.len() == 1024));
}

#[tokio::test]
async fn a_part_of_what_comes_lets_the_rest_go_and_a_short_one_is_cut() {
    let (dropped, body) = Coming::body(BODY, Some(10));
    let mut part = Stretch::new(body, ByteRange { first: 2, last: 4 });
    let mut all = Vec::new();
    while part.remaining() != Some(0) {
        all.extend(next(&mut part).await.unwrap().unwrap());
    }
    assert_eq!((all.as_slice(), dropped.get()), (&b"234"[..], true), "before its end is asked for");
    assert!(next(&mut part).await.is_none());
    let (_, body) = Coming::body("0123", Some(10));
    let mut part = Stretch::new(body, ByteRange { first: 2, last: 7 });
    let mut all = Vec::new();
    let reason = loop {
        match next(&mut part).await.unwrap() {
            Ok(data) => all.extend_from_slice(&data),
            Err(error) => break error.reason,
        }
    };
    assert_eq!((all.as_slice(), reason), (&b"23"[..], Reason::EofInBody), "never an end");
}

#[tokio::test]
async fn who_takes_no_body_lets_it_go() {
    for asked in ["HEAD", "GET | if-none-match: \"a\""] {
        let (dropped, body) = Coming::body(BODY, Some(10));
        let (exchange, (method, headers), (status, fields)) = (exchange(), request_of(asked), response_of(TAGGED));
        let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
        let response = of_coming(asker, status, fields, body, None).unwrap();
        assert!(matches!(response.body(), Body::Empty) && dropped.get(), "{asked}");
    }
}

/// What is answered with.
#[derive(Clone, Copy)]
enum What {
    Stored,
    /// With the length that it is said to have.
    Coming(Option<u64>),
}

/// Holds an answer against what is claimed of it.
async fn check(what: What, first: &str, asked: &str, expected: &str, section: &str) {
    let (exchange, (method, headers)) = (exchange(), request_of(asked));
    let asker = Asker { method: &method, headers: &headers, exchange: &exchange };
    let answered = match what {
        What::Stored => of_object(asker, &object(&store(1 << 20), first, BODY.into()).await, AGE),
        What::Coming(length) => {
            let (status, fields) = response_of(first);
            of_coming(asker, status, fields, Coming::body(BODY, length).1, Some(AGE))
        }
    };
    let told = format!("{section}: {first} -> {asked}");
    let (status, fields, body) = match answered {
        Ok(response) => {
            let (head, body) = response.into_parts();
            (head.status.as_u16(), head.headers, read(body).await)
        }
        Err(error) => {
            assert_eq!(error.reason, Reason::RangeNotSatisfiable, "{told}");
            let mut fields = HeaderMap::new();
            exchange.answer_fields.apply(&mut fields);
            (416, fields, Vec::new())
        }
    };
    let (head, expected_body) = expected.split_once("=>").map_or((expected, None), |(head, body)| (head, Some(body)));
    if let Some(expected) = expected_body {
        assert_eq!(String::from_utf8_lossy(&body), expected.trim(), "{told}");
    }
    let mut seen = HeaderMap::new();
    for claim in head.split(" | ").map(str::trim) {
        if let Some((name, value)) = claim.split_once(": ") {
            seen.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        } else if let Some(name) = claim.strip_prefix('!') {
            assert!(!fields.contains_key(name), "{told}: {name}");
        } else {
            assert_eq!(status.to_string(), claim, "{told}");
        }
    }
    for name in seen.keys() {
        assert!(fields.get_all(name).iter().eq(seen.get_all(name)), "{told}: {name} is {:?}", fields.get(name));
    }
}

fn response_of(line: &str) -> (StatusCode, HeaderMap) {
    let (status, fields) = line.split_once(" | ").unwrap_or((line, DATE));
    let mut map = fields_of(fields);
    if !map.contains_key(header::DATE) {
        map.extend(fields_of(DATE));
    }
    (status.parse().unwrap(), map)
}

fn request_of(line: &str) -> (Method, HeaderMap) {
    let (method, fields) = line.split_once(" | ").unwrap_or((line, ""));
    (method.parse().unwrap(), fields_of(fields))
}

fn fields_of(text: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in text.split(" | ").filter_map(|field| field.split_once(": ")) {
        map.append(HeaderName::try_from(name.trim()).unwrap(), value.trim().parse().unwrap());
    }
    map
}

fn exchange() -> Exchange {
    Exchange::new(Rc::new(ConnectionInfo::new("80")), Protocol::Http11, Method::GET, Bytes::new(), None, None)
}

fn settings(memory: u64) -> Settings {
    Settings { memory, max_object: 64 << 20, variants: 4, open_files: 4, disk: None }
}

fn store(memory: u64) -> Arc<Store> {
    Store::open(&settings(memory)).unwrap()
}

async fn object(store: &Arc<Store>, first: &str, body: Bytes) -> Arc<Object> {
    let (status, fields) = response_of(first);
    let meta = Meta {
        status,
        fields: &fields,
        facts: b"",
        host: b"shop.example",
        path: b"/",
        tags: &[],
        since: store.moment(),
        primary: None,
        length: Some(body.len() as u64),
    };
    let mut writer = store.writer(&KEY, &meta).unwrap();
    for at in (0..body.len()).step_by(16 << 10) {
        std::future::poll_fn(|cx| writer.poll_ready(cx)).await;
        writer.push(&body.slice(at..body.len().min(at + (16 << 10))));
    }
    writer.finish().await.unwrap()
}

/// What a body on disk needs to be read.
type There = (Arc<Store>, tempfile::TempDir);

/// A body of each kind: behind its head, in pieces, and on disk.
async fn objects() -> (Vec<Arc<Object>>, There) {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskSettings { path: folder.path().to_owned(), size: 64 << 20, walkers: 1 };
    let on_disk = Store::open(&Settings { disk: Some(disk), ..settings(16 << 20) }).unwrap();
    let large = Bytes::from(pattern(3_000_000));
    let objects = vec![
        object(&store(1 << 20), TAGGED, pattern(1024).into()).await,
        object(&store(64 << 20), TAGGED, large.clone()).await,
        object(&on_disk, TAGGED, large).await,
    ];
    assert_eq!(objects.iter().map(|object| object.is_on_disk()).collect::<Vec<_>>(), [false, false, true]);
    (objects, (on_disk, folder))
}

fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

async fn read(mut body: Body) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        all.extend_from_slice(&data.unwrap());
    }
    all
}

async fn next(source: &mut impl Source) -> Option<Result<Bytes, Error>> {
    std::future::poll_fn(|cx| source.poll_data(cx)).await
}

/// A body that comes in pieces of three bytes, each of which has to be waited for, and that says when it is dropped.
struct Coming {
    rest: Bytes,
    length: Option<u64>,
    has_waited: bool,
    dropped: Rc<Cell<bool>>,
}

impl Coming {
    fn body(body: &'static str, length: Option<u64>) -> (Rc<Cell<bool>>, Body) {
        let dropped = Rc::default();
        let coming = Self { rest: body.into(), length, has_waited: false, dropped: Rc::clone(&dropped) };
        (dropped, Body::Stream(Box::new(coming)))
    }
}

impl Source for Coming {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.has_waited = !self.has_waited;
        if self.has_waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = self.rest.split_to(self.rest.len().min(3));
        self.length = self.length.map(|length| length - piece.len() as u64);
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }

    fn remaining(&self) -> Option<u64> {
        self.length
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.dropped.set(true);
    }
}
