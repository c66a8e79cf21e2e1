//! RFC 6455 frame by frame, against an app that echoes over HTTP: a table of what clients send, over HTTP/1.1 and HTTP/2; and
//! Autobahn's own cases, which kosoku runs.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::support::client::End;
use crate::support::tool::Tool;
use crate::support::websocket::{BINARY, CLOSE, CONTINUATION, Frame, PING, PONG, TEXT, accept_for};
use crate::support::{H2, WebSocket};
use crate::websocket_over_http::{Site, Way};

/// What a client sends, and what it gets.
struct Row {
    name: String,
    /// Each is one write.
    pieces: Vec<Vec<u8>>,
    /// What comes back.
    back: Vec<Frame>,
    then: Then,
}

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Then {
    /// The client says goodbye.
    Leaves,
    /// The gateway ends it with one of these codes. What is to come back may not have come.
    Fails(&'static [u16]),
    /// The client has closed: this comes back.
    Closed(Frame),
}

const PROTOCOL: Then = Then::Fails(&[1002]);
const NO_TEXT: Then = Then::Fails(&[1007]);
const TOO_BIG: Then = Then::Fails(&[1009]);

/// The table.
#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn row(&mut self, name: impl Into<String>, frames: &[Frame], back: &[Frame], then: Then) {
        self.bytes(name, frames.iter().map(Frame::masked).collect(), back, then);
    }

    fn bytes(&mut self, name: impl Into<String>, pieces: Vec<Vec<u8>>, back: &[Frame], then: Then) {
        self.0.push(Row { name: name.into(), pieces, back: back.to_vec(), then });
    }

    /// The same frames, cut into pieces of this size.
    fn chopped(&mut self, name: impl Into<String>, size: usize, frames: &[Frame], back: &[Frame], then: Then) {
        let all: Vec<u8> = frames.iter().flat_map(Frame::masked).collect();
        self.bytes(name, all.chunks(size).map(<[u8]>::to_vec).collect(), back, then);
    }
}

fn text(content: impl AsRef<[u8]>) -> Frame {
    Frame::new(TEXT, content)
}

/// A message in these parts.
fn parts(opcode: u8, contents: &[&[u8]]) -> Vec<Frame> {
    let last = contents.len() - 1;
    let part =
        |(at, content): (usize, &&[u8])| Frame::part(if at == 0 { opcode } else { CONTINUATION }, at == last, content);
    contents.iter().enumerate().map(part).collect()
}

fn with_rsv(frame: Frame, rsv: u8) -> Frame {
    Frame { rsv, ..frame }
}

fn sizes(table: &mut Table) {
    for (opcode, kind) in [(TEXT, "text"), (BINARY, "binary")] {
        for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 128_000] {
            let byte = if opcode == TEXT { b'*' } else { 0xfe };
            let frame = [Frame::new(opcode, vec![byte; size])];
            table.row(format!("{kind} of {size}"), &frame, &frame, Then::Leaves);
            table.chopped(format!("{kind} of {size} in pieces"), 997, &frame, &frame, Then::Leaves);
        }
        let frame = [Frame::new(opcode, b"octets")];
        table.chopped(format!("{kind} byte by byte"), 1, &frame, &frame, Then::Leaves);
        let many: Vec<_> = (0..50).map(|at| Frame::new(opcode, at.to_string())).collect();
        table.row(format!("50 of {kind} in a row"), &many, &many, Then::Leaves);
        table.chopped(format!("50 of {kind} in one write"), usize::MAX, &many, &many, Then::Leaves);
    }
    let mut header = vec![0x82, 0xff];
    header.extend((1_u64 << 20 | 1).to_be_bytes());
    header.extend([0; 4]);
    table.bytes("a frame that says it has a byte too many", vec![header], &[], TOO_BIG);
    let mut header = vec![0x82, 0xff];
    header.extend(u64::MAX.to_be_bytes());
    header.extend([0; 4]);
    table.bytes("a frame that says it is endless", vec![header], &[], Then::Fails(&[1002, 1009]));
    let half = vec![b'x'; 600 << 10];
    table.row("a message too large in parts", &parts(BINARY, &[&half, &half]), &[], TOO_BIG);
}

fn pings(table: &mut Table) {
    for size in [0, 1, 124, 125] {
        let (ping, pong) = ([Frame::new(PING, vec![0xfe; size])], [Frame::new(PONG, vec![0xfe; size])]);
        table.row(format!("ping of {size}"), &ping, &pong, Then::Leaves);
        table.chopped(format!("ping of {size} byte by byte"), 1, &ping, &pong, Then::Leaves);
        table.row(format!("pong of {size}, unasked"), &pong, &[], Then::Leaves);
    }
    for opcode in [PING, PONG, CLOSE] {
        table.row(format!("control frame {opcode} of 126"), &[Frame::new(opcode, [0; 126])], &[], PROTOCOL);
        table.row(format!("control frame {opcode} of 65536"), &[Frame::new(opcode, vec![0; 65_536])], &[], PROTOCOL);
        let part = Frame::part(opcode, false, "x");
        table.row(format!("control frame {opcode} in parts"), &[part], &[], PROTOCOL);
    }
    let pair = [Frame::new(PONG, "unasked"), Frame::new(PING, "asked")];
    table.row("pong, then ping", &pair, &[Frame::new(PONG, "asked")], Then::Leaves);
    let flood: Vec<_> = (0..2_000).map(|at: u32| Frame::new(PING, at.to_string())).collect();
    let answers: Vec<_> = (0..2_000).map(|at: u32| Frame::new(PONG, at.to_string())).collect();
    table.chopped("a flood of pings", 16 << 10, &flood, &answers, Then::Leaves);
    let mut with_text = flood;
    with_text.truncate(100);
    let mut answered = answers;
    answered.truncate(100);
    with_text.push(text("behind"));
    answered.push(text("behind"));
    table.row("pings, then a text", &with_text, &answered, Then::Leaves);
}

fn reserved(table: &mut Table) {
    for rsv in 1..=7 {
        for (opcode, kind) in [(TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (PONG, "pong")] {
            table.row(
                format!("{kind} with reserved bits {rsv}"),
                &[with_rsv(Frame::new(opcode, "x"), rsv)],
                &[],
                PROTOCOL,
            );
        }
        let close = with_rsv(Frame::close(1000), rsv);
        table.row(format!("close with reserved bits {rsv}"), &[close], &[], PROTOCOL);
        let behind = [text("before"), with_rsv(text("x"), rsv), Frame::new(PING, "")];
        table.row(format!("reserved bits {rsv} behind a text"), &behind, &[text("before")], PROTOCOL);
        let within = [Frame::part(TEXT, false, "a"), with_rsv(Frame::part(CONTINUATION, true, "b"), rsv)];
        table.row(format!("reserved bits {rsv} in a continuation"), &within, &[], PROTOCOL);
    }
    for opcode in (3..=7).chain(11..=15) {
        table.row(format!("reserved opcode {opcode}"), &[Frame::new(opcode, "")], &[], PROTOCOL);
        table.row(format!("reserved opcode {opcode} with content"), &[Frame::new(opcode, "x")], &[], PROTOCOL);
        let behind = [text("before"), Frame::new(opcode, "x")];
        table.row(format!("reserved opcode {opcode} behind a text"), &behind, &[text("before")], PROTOCOL);
        let within = [Frame::part(TEXT, false, "a"), Frame::new(opcode, "x"), Frame::part(CONTINUATION, true, "b")];
        table.row(format!("reserved opcode {opcode} within a message"), &within, &[], PROTOCOL);
    }
}

fn fragments(table: &mut Table) {
    for opcode in [TEXT, BINARY] {
        for contents in
            [&[&b"a"[..], b"b"][..], &[b"a", b"b", b"c"], &[b"", b"", b""], &[b"", b"a", b""], &[&b"a"[..]; 100]]
        {
            let whole = [Frame::new(opcode, contents.concat())];
            let name = format!("opcode {opcode} in {} parts", contents.len());
            table.row(&name, &parts(opcode, contents), &whole, Then::Leaves);
            table.chopped(format!("{name} byte by byte"), 1, &parts(opcode, contents), &whole, Then::Leaves);
        }
    }
    let [first, second] = [Frame::part(TEXT, false, "a"), Frame::part(CONTINUATION, true, "b")];
    let ping = Frame::new(PING, "now");
    let pong = Frame::new(PONG, "now");
    let both = [pong.clone(), text("ab")];
    table.row("a ping within a message", &[first.clone(), ping.clone(), second.clone()], &both, Then::Leaves);
    table.row("a pong within a message", &[first.clone(), pong.clone(), second.clone()], &[text("ab")], Then::Leaves);
    let ten = [&[first.clone()][..], &vec![ping.clone(); 10], std::slice::from_ref(&second)].concat();
    table.row("ten pings within a message", &ten, &[&vec![pong; 10][..], &[text("ab")]].concat(), Then::Leaves);
    table.row("a continuation of nothing", std::slice::from_ref(&second), &[], PROTOCOL);
    table.row("an unfinished continuation of nothing", &[Frame::part(CONTINUATION, false, "x")], &[], PROTOCOL);
    table.row("a continuation behind a whole message", &[text("a"), second.clone()], &[text("a")], PROTOCOL);
    table.row("a text within a text", &[first.clone(), text("x")], &[], PROTOCOL);
    table.row("bytes within a text", &[first.clone(), Frame::new(BINARY, "x")], &[], PROTOCOL);
    table.row("an unfinished text within a text", &[first.clone(), first.clone()], &[], PROTOCOL);
    table.row("a close within a message", &[first, Frame::close(1000)], &[], Then::Closed(Frame::close(1000)));
}

const GOOD: &[&str] = &[
    "",
    "κόσμε",
    "Hello-µ@ßöäüàá-UTF-8!!",
    "\0",
    "\u{7f}\u{80}",
    "\u{7ff}\u{800}",
    "\u{ffff}\u{10000}",
    "\u{10ffff}",
    "\u{d7ff}\u{e000}",
    "\u{fdd0}\u{fffe}",
    "😀 and more",
];

const BAD: &[&[u8]] = &[
    b"\x80",
    b"\xbf",
    b"\xfe",
    b"\xff",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xed\xa0\x80",
    b"\xed\xad\xbf",
    b"\xed\xae\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xc3\x28",
    b"\xe2\x28\xa1",
    b"\xe2\x82\x28",
    b"\xf0\x28\x8c\xbc",
    b"\xf0\x90\x28\xbc",
    b"\xf0\x28\x8c\x28",
];

const CUT: &[&[u8]] = &[b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98", b"whole words and \xce"];

fn utf8(table: &mut Table) {
    for good in GOOD {
        table.row(format!("{good:?}"), &[text(good)], &[text(good)], Then::Leaves);
        if good.len() > 1 {
            let bytes: Vec<&[u8]> = good.as_bytes().chunks(1).collect();
            table.row(format!("{good:?} in parts of a byte"), &parts(TEXT, &bytes), &[text(good)], Then::Leaves);
        }
    }
    for bad in BAD.iter().chain(CUT) {
        let name = bad.escape_ascii();
        table.row(format!("{name}"), &[text(bad)], &[], NO_TEXT);
        table.row(format!("{name} behind a text"), &[text("a"), text(bad)], &[text("a")], NO_TEXT);
        let bytes: Vec<&[u8]> = bad.chunks(1).chain([&b""[..]]).collect();
        table.row(format!("{name} in parts of a byte"), &parts(TEXT, &bytes), &[], NO_TEXT);
        let binary = [Frame::new(BINARY, bad)];
        table.row(format!("{name} as bytes"), &binary, &binary, Then::Leaves);
    }
    // Nothing follows that would end the message.
    for bad in BAD {
        let first = Frame::part(TEXT, false, bad);
        table.row(format!("{} in an unfinished message", bad.escape_ascii()), &[first], &[], NO_TEXT);
    }
}

fn closes(table: &mut Table) {
    table.row("close", &[Frame::new(CLOSE, "")], &[], Then::Closed(Frame::new(CLOSE, "")));
    table.row("close of one byte", &[Frame::new(CLOSE, "x")], &[], PROTOCOL);
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999];
    for code in valid {
        table.row(format!("close {code}"), &[Frame::close(code)], &[], Then::Closed(Frame::close(code)));
        let with_reason = Frame::new(CLOSE, [&code.to_be_bytes()[..], "because ä".as_bytes()].concat());
        let back = Then::Closed(with_reason.clone());
        table.row(format!("close {code} with a reason"), &[with_reason], &[], back);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        table.row(format!("close {code}"), &[Frame::close(code)], &[], PROTOCOL);
    }
    let reason = |bytes: &[u8]| Frame::new(CLOSE, [&1000_u16.to_be_bytes()[..], bytes].concat());
    table.row("close with a long reason", &[reason(&[b'x'; 123])], &[], Then::Closed(reason(&[b'x'; 123])));
    table.row("close with too long a reason", &[reason(&[b'x'; 124])], &[], PROTOCOL);
    table.row("close with a reason that is no text", &[reason(b"\xce\xba\xed\xa0\x80")], &[], NO_TEXT);
    let closed = Then::Closed(Frame::close(1000));
    table.row("close twice", &[Frame::close(1000), Frame::close(1001)], &[], closed.clone());
    table.row("close, then a text", &[Frame::close(1000), text("late")], &[], closed.clone());
    table.row("close, then a ping", &[Frame::close(1000), Frame::new(PING, "")], &[], closed.clone());
    table.row("close, then nonsense", &[Frame::close(1000), Frame::new(7, "")], &[], closed.clone());
    table.row("a text, then close", &[text("a"), Frame::close(1000)], &[text("a")], closed.clone());
    table.chopped("close byte by byte", 1, &[Frame::close(1000)], &[], closed);
}

fn masks(table: &mut Table) {
    for opcode in [TEXT, BINARY, PING, PONG] {
        table.bytes(format!("opcode {opcode} without a mask"), vec![Frame::new(opcode, "x").plain()], &[], PROTOCOL);
    }
    table.bytes("close without a mask", vec![Frame::close(1000).plain()], &[], PROTOCOL);
    table.bytes("an empty text without a mask", vec![text("").plain()], &[], PROTOCOL);
    for mask in [[0; 4], [0xff; 4], [1, 0, 0, 0]] {
        let mut bytes = vec![0x81, 0x85];
        bytes.extend(mask);
        bytes.extend(b"hello".iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        table.bytes(format!("the mask {mask:?}"), vec![bytes], &[text("hello")], Then::Leaves);
    }
    table.bytes("HTTP", vec![b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n".to_vec()], &[], PROTOCOL);
    table.bytes("TLS", vec![b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()], &[], PROTOCOL);
}

fn table() -> Vec<Row> {
    let mut table = Table::default();
    for part in [sizes, pings, reserved, fragments, utf8, closes, masks] {
        part(&mut table);
    }
    table.0
}

/// What is wrong with how a row went.
fn fault(row: &Row, mut socket: WebSocket) -> Option<String> {
    for piece in &row.pieces {
        socket.send_bytes_if_open(piece);
    }
    let mut back = row.back.iter();
    let frame = loop {
        let Some(frame) = socket.frame() else { return Some("it was broken off".to_owned()) };
        if back.as_slice().first() != Some(&frame) {
            break frame;
        }
        back.next();
        if back.as_slice().is_empty() && row.then == Then::Leaves {
            break frame;
        }
    };
    let left = back.as_slice().len();
    match &row.then {
        Then::Leaves if left > 0 => return Some(format!("{left} are missing; got {}", shown(&frame))),
        Then::Leaves => {
            if row.back.is_empty() {
                return Some(format!("got {}", shown(&frame)));
            }
            socket.send(&Frame::close(1000));
            match socket.frame() {
                Some(frame) if frame.code() == Some(1000) => {}
                other => return Some(format!("goodbye was answered with {other:?}")),
            }
        }
        Then::Fails(codes) => {
            if !frame.code().is_some_and(|code| codes.contains(&code)) {
                return Some(format!("got {}", shown(&frame)));
            }
        }
        Then::Closed(expected) if frame != *expected || left > 0 => return Some(format!("got {}", shown(&frame))),
        Then::Closed(_) => {}
    }
    (socket.end() != End::Closed).then(|| "it ended without order".to_owned())
}

fn shown(frame: &Frame) -> String {
    let payload = &frame.payload[..frame.payload.len().min(40)];
    format!("opcode {} {}", frame.opcode, payload.escape_ascii())
}

fn check(site: &Site, open: impl Fn() -> WebSocket) {
    let rows = table();
    assert!(rows.len() >= 120, "{} rows", rows.len());
    let faults = rows.iter().filter_map(|row| {
        let socket = open();
        if row.back.is_empty() && row.then == Then::Leaves {
            // What has no answer is followed by what has.
            let mut pieces = row.pieces.clone();
            pieces.push(text("mark").masked());
            let marked = Row { name: row.name.clone(), pieces, back: vec![text("mark")], then: Then::Leaves };
            return fault(&marked, socket).map(|fault| format!("{}: {fault}", row.name));
        }
        fault(row, socket).map(|fault| format!("{}: {fault}", row.name))
    });
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "{} of {} rows:\n{}", faults.len(), rows.len(), faults.join("\n"));
    site.gateway.wait_metric("hostler_holds{kind=\"websocket\"}", 0.0);
}

#[test]
fn frames_are_taken_as_rfc_6455_has_them_over_http_1() {
    let site = Site::start(2);
    check(&site, || site.open("/echo"));
}

#[test]
fn frames_are_taken_as_rfc_6455_has_them_over_http_2() {
    let site = Site::start(2);
    let h2 = H2::tls(site.secure(), "localhost", &site.gateway.root());
    check(&site, || WebSocket::over_h2(&h2, "/echo", &[]));
}

#[test]
fn frames_are_taken_as_rfc_6455_has_them_over_tls() {
    let site = Site::start(2);
    check(&site, || site.open_by(Way::Tls, "/echo", &[]));
}

/// Autobahn's cases that ask for what is not built, or not taken: compression (12 and 13), and messages of a megabyte and more,
/// whose echo is no answer that an app may give.
const LEFT_OUT: &[&str] = &[
    "12.*", "13.*", "9.1.3", "9.1.4", "9.1.5", "9.1.6", "9.2.3", "9.2.4", "9.2.5", "9.2.6", "9.3.*", "9.4.*", "9.5.*",
    "9.6.*",
];

/// Thousands of round trips, which take their time.
const ROUND_TRIPS: &[&str] = &["9.7.*", "9.8.*"];

/// Runs the others against the server at this address, but for these.
fn autobahn(address: &str, also_left_out: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/autobahn.py");
    let python = crate::support::shop::python();
    let arguments = [&[script, address][..], LEFT_OUT, also_left_out].concat();
    let output = Tool::start(python.to_str().unwrap(), &arguments).output_within(Duration::from_secs(300));
    assert_eq!(output.code, Some(0), "{output:?}");
    let verdicts: Vec<Vec<&str>> = output.stdout.lines().map(|line| line.split('\t').collect()).collect();
    assert!(verdicts.len() >= 240, "{} cases", verdicts.len());
    let good = |verdict: &[&str]| {
        matches!(verdict[1], "OK" | "INFORMATIONAL" | "NON-STRICT") && matches!(verdict[2], "OK" | "INFORMATIONAL")
    };
    let bad: Vec<_> = verdicts.iter().filter(|verdict| !good(verdict)).collect();
    let strict = verdicts.iter().filter(|verdict| verdict[1] == "OK").count();
    assert!(bad.is_empty(), "{} of {}: {bad:?}\n{}", bad.len(), verdicts.len(), output.stderr);
    println!("{} of Autobahn's cases, {strict} of them strictly", verdicts.len());
}

#[test]
fn the_cases_of_autobahn_pass_over_http_1() {
    let site = Site::start(2);
    autobahn(&format!("ws://{}/echo", site.plain()), &[]);
}

/// What Autobahn's client says in HTTP/1.1 is said in HTTP/2: each of its sockets is a stream.
#[test]
fn the_cases_of_autobahn_pass_over_http_2() {
    let site = Site::start(2);
    let h2 = H2::tls(site.secure(), "localhost", &site.gateway.root());
    let bridge = TcpListener::bind("127.0.0.3:0").unwrap();
    let address = bridge.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in bridge.incoming().map_while(Result::ok) {
            bridged(&h2, client);
        }
    });
    autobahn(&format!("ws://{address}/echo"), ROUND_TRIPS);
}

fn bridged(h2: &H2, mut client: TcpStream) {
    client.set_nodelay(true).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value.trim())
    });
    let tunnel = WebSocket::over_h2(h2, "/echo", &[]).into_tunnel();
    let accept = accept_for(key.expect("a key"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    if client.write_all(answer.as_bytes()).is_ok() {
        tunnel.carry(client);
    }
}
