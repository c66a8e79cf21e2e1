//! HTTP/2 frame by frame: what RFC 9113 says of each, and what we do. Each case is a connection of its own.

use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, Outcome, PADDED, PING, PRIORITIZED,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::worker::Transport;
use crate::support::{Gateway, Worker};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const NAME: &str = "localhost";

const ANSWERED: Outcome = Outcome::Answered { status: 200 };

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

const fn reset(code: u32) -> Outcome {
    Outcome::Reset(code)
}

const fn goaway(code: u32) -> Outcome {
    Outcome::GoAway(code)
}

const fn status(status: u16) -> Outcome {
    Outcome::Answered { status }
}

/// What is sent behind the preface and an empty SETTINGS, and what becomes of one stream.
struct Case {
    name: &'static str,
    /// Section of RFC 9113; with `H`, of RFC 7541.
    section: &'static str,
    sent: Vec<Vec<u8>>,
    stream: u32,
    outcome: Outcome,
}

fn case(
    name: &'static str,
    section: &'static str,
    sent: impl IntoIterator<Item = Vec<u8>>,
    stream: u32,
    outcome: Outcome,
) -> Case {
    Case { name, section, sent: sent.into_iter().collect(), stream, outcome }
}

type Field = (&'static str, &'static [u8]);

fn fields(method: &'static str) -> Vec<Field> {
    vec![(":method", method.as_bytes()), (":scheme", b"http"), (":authority", NAME.as_bytes()), (":path", b"/")]
}

/// HEADERS with a whole header block.
fn head(stream: u32, flags: u8, fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

fn get(stream: u32) -> Vec<u8> {
    head(stream, END_STREAM, &fields("GET"))
}

fn get_with(more: &[Field]) -> Vec<u8> {
    head(1, END_STREAM, &[&fields("GET")[..], more].concat())
}

/// HEADERS after which the body may come.
fn post(stream: u32, more: &[Field]) -> Vec<u8> {
    head(stream, 0, &[&fields("POST")[..], more].concat())
}

/// A GET whose header block is this.
fn get_block(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, block)
}

/// The header block of a good request, and more behind it.
fn block_and(more: &[u8]) -> Vec<u8> {
    [&block(&fields("GET"))[..], more].concat()
}

fn without(name: &str) -> Vec<u8> {
    let rest: Vec<Field> = fields("GET").into_iter().filter(|(own, _)| *own != name).collect();
    head(1, END_STREAM, &rest)
}

fn with(name: &'static str, value: &'static [u8]) -> Vec<u8> {
    let mut all = fields("GET");
    all.iter_mut().filter(|(own, _)| *own == name).for_each(|field| field.1 = value);
    head(1, END_STREAM, &all)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn rst(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[15]].concat())
}

/// The parts of a GET's header block in frames: HEADERS, then CONTINUATION.
fn in_parts(stream: u32, count: usize) -> Vec<Vec<u8>> {
    let block = block(&fields("GET"));
    let size = block.len().div_ceil(count);
    let last = block.chunks(size).len() - 1;
    let part = |(at, bytes): (usize, &[u8])| {
        let end = if at == last { END_HEADERS } else { 0 };
        if at == 0 { frame(HEADERS, END_STREAM | end, stream, bytes) } else { frame(CONTINUATION, end, stream, bytes) }
    };
    block.chunks(size).enumerate().map(part).collect()
}

fn of_frames() -> Vec<Case> {
    let open = || frame(HEADERS, END_STREAM, 1, &block(&fields("GET")));
    let huge = vec![0; (16 << 10) + 1];
    vec![
        case("an unknown type", "4.1", [frame(0xbe, 0xff, 0, b"x"), get(1)], 1, ANSWERED),
        case("an unknown type on a stream", "4.1", [frame(0xbe, 0, 1, b"x"), get(1)], 1, ANSWERED),
        case("flags that mean nothing", "4.1", [frame(PING, 0x5e, 0, &[0; 8]), get(1)], 1, ANSWERED),
        case("the reserved bit", "4.1", [frame(WINDOW_UPDATE, 0, 1 << 31, &[0, 0, 0, 9]), get(1)], 1, ANSWERED),
        case("DATA over the limit", "4.2", [post(1, &[]), frame(DATA, 0, 1, &huge)], 1, goaway(FRAME_SIZE_ERROR)),
        case("HEADERS over the limit", "4.2", [frame(HEADERS, 4, 1, &huge)], 1, goaway(FRAME_SIZE_ERROR)),
        case("an unknown type over the limit", "4.2", [frame(0xbe, 0, 0, &huge)], 1, goaway(FRAME_SIZE_ERROR)),
        case("a head interrupted by DATA", "4.3", [open(), frame(DATA, 0, 1, b"x")], 1, goaway(PROTOCOL_ERROR)),
        case("a head interrupted by a PING", "4.3", [open(), frame(PING, 0, 0, &[0; 8])], 1, goaway(PROTOCOL_ERROR)),
        case("a head interrupted by a head", "4.3", [open(), get(3)], 1, goaway(PROTOCOL_ERROR)),
        case("a head interrupted by something", "5.5", [open(), frame(0xbe, 0, 1, b"")], 1, goaway(PROTOCOL_ERROR)),
        case("a stream of the server's", "5.1.1", [get(2)], 2, goaway(PROTOCOL_ERROR)),
        case("a stream below the last", "5.1.1", [get(5), get(3)], 3, goaway(PROTOCOL_ERROR)),
        case("streams left out", "5.1.1", [get(1), get(101)], 101, ANSWERED),
        case("DATA on stream 0", "6.1", [frame(DATA, 0, 0, b"x")], 1, goaway(PROTOCOL_ERROR)),
        case("padding", "6.1", [post(1, &[]), frame(DATA, PADDED | END_STREAM, 1, &[2, b'a', 0, 0])], 1, ANSWERED),
        case(
            "nothing but padding",
            "6.1",
            [post(1, &[]), frame(DATA, PADDED | END_STREAM, 1, &[2, 0, 0])],
            1,
            ANSWERED,
        ),
        case("too much padding", "6.1", [post(1, &[]), frame(DATA, PADDED, 1, &[3, 0, 0])], 1, goaway(PROTOCOL_ERROR)),
        case("HEADERS on stream 0", "6.2", [frame(HEADERS, 5, 0, &block(&fields("GET")))], 1, goaway(PROTOCOL_ERROR)),
        case(
            "a padded head",
            "6.2",
            [frame(HEADERS, 5 | PADDED, 1, &[&[1][..], &block(&fields("GET")), &[0]].concat())],
            1,
            ANSWERED,
        ),
        case("a head too much padded", "6.2", [frame(HEADERS, 5 | PADDED, 1, &[9, 0, 0])], 1, goaway(PROTOCOL_ERROR)),
        case(
            "a head with a priority",
            "6.2",
            [frame(HEADERS, 5 | PRIORITIZED, 1, &[&[0, 0, 0, 3, 9][..], &block(&fields("GET"))].concat())],
            1,
            ANSWERED,
        ),
        case("PRIORITY on stream 0", "6.3", [priority(0, 1)], 1, goaway(PROTOCOL_ERROR)),
        case("PRIORITY of four bytes", "6.3", [frame(PRIORITY, 0, 1, &[0; 4])], 1, goaway(FRAME_SIZE_ERROR)),
        case("PRIORITY before the stream", "6.3", [priority(1, 3), get(1)], 1, ANSWERED),
        case("PRIORITY behind the stream", "6.3", [get(1), priority(1, 3), get(3)], 3, ANSWERED),
        case("RST_STREAM on stream 0", "6.4", [rst(0)], 1, goaway(PROTOCOL_ERROR)),
        case(
            "RST_STREAM of three bytes",
            "6.4",
            [post(1, &[]), frame(RST_STREAM, 0, 1, &[0; 3])],
            1,
            goaway(FRAME_SIZE_ERROR),
        ),
        case("SETTINGS on a stream", "6.5", [frame(SETTINGS, 0, 1, b"")], 1, goaway(PROTOCOL_ERROR)),
        case(
            "SETTINGS that acknowledge and say",
            "6.5",
            [frame(SETTINGS, ACK, 0, &[0; 6])],
            1,
            goaway(FRAME_SIZE_ERROR),
        ),
        case("SETTINGS of five bytes", "6.5", [frame(SETTINGS, 0, 0, &[0; 5])], 1, goaway(FRAME_SIZE_ERROR)),
        case("ENABLE_PUSH of 2", "6.5.2", [setting(2, 2)], 1, goaway(PROTOCOL_ERROR)),
        case("MAX_FRAME_SIZE too small", "6.5.2", [setting(5, 16_383)], 1, goaway(PROTOCOL_ERROR)),
        case("MAX_FRAME_SIZE too large", "6.5.2", [setting(5, 1 << 24)], 1, goaway(PROTOCOL_ERROR)),
        case("an unknown setting", "6.5.2", [setting(0xbabe, 7), get(1)], 1, ANSWERED),
        case("PUSH_PROMISE", "6.6", [get(1), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])], 0, goaway(PROTOCOL_ERROR)),
        case("PING on a stream", "6.7", [frame(PING, 0, 1, &[0; 8])], 1, goaway(PROTOCOL_ERROR)),
        case("PING of six bytes", "6.7", [frame(PING, 0, 0, &[0; 6])], 1, goaway(FRAME_SIZE_ERROR)),
        case("an answer to no PING", "6.7", [frame(PING, ACK, 0, &[7; 8]), get(1)], 1, ANSWERED),
        case("GOAWAY on a stream", "6.8", [frame(GOAWAY, 0, 1, &[0; 8])], 1, goaway(PROTOCOL_ERROR)),
        case("GOAWAY of four bytes", "6.8", [frame(GOAWAY, 0, 0, &[0; 4])], 1, goaway(FRAME_SIZE_ERROR)),
        case("a goodbye behind a request", "6.8", [get(1), frame(GOAWAY, 0, 0, &[0; 8])], 1, ANSWERED),
        case("CONTINUATION of nothing", "6.10", [frame(CONTINUATION, 4, 1, b"")], 1, goaway(PROTOCOL_ERROR)),
        case(
            "CONTINUATION of a whole head",
            "6.10",
            [get(1), frame(CONTINUATION, 4, 1, b"")],
            0,
            goaway(PROTOCOL_ERROR),
        ),
        case(
            "CONTINUATION of another stream",
            "6.10",
            [open(), frame(CONTINUATION, 4, 3, b"")],
            1,
            goaway(PROTOCOL_ERROR),
        ),
        case("CONTINUATION on stream 0", "6.10", [open(), frame(CONTINUATION, 4, 0, b"")], 1, goaway(PROTOCOL_ERROR)),
        case("a head in two parts", "6.10", in_parts(1, 2), 1, ANSWERED),
        case("a head in six parts", "6.10", in_parts(1, 6), 1, ANSWERED),
    ]
}

fn of_windows() -> Vec<Case> {
    let largest = (1 << 31) - 1;
    vec![
        case("no window at all", "6.9", [window(0, 0)], 1, goaway(PROTOCOL_ERROR)),
        case("WINDOW_UPDATE of three bytes", "6.9", [frame(WINDOW_UPDATE, 0, 0, &[0; 3])], 1, goaway(FRAME_SIZE_ERROR)),
        case("a window for a stream that is over", "6.9", [get(1), rst(1), window(1, 9), get(3)], 3, ANSWERED),
        case("the connection's window too large", "6.9.1", [window(0, largest)], 1, goaway(FLOW_CONTROL_ERROR)),
        case("a stream's window too large", "6.9.1", [post(1, &[]), window(1, largest)], 1, reset(FLOW_CONTROL_ERROR)),
        case("streams start without a window", "6.9.2", [setting(4, 0), get(1)], 1, ANSWERED),
        case(
            "a setting makes a window too large",
            "6.9.2",
            [post(1, &[]), window(1, largest - 65_535), setting(4, 65_536), get(3)],
            0,
            goaway(FLOW_CONTROL_ERROR),
        ),
    ]
}

fn of_streams() -> Vec<Case> {
    vec![
        case("DATA on an idle stream", "5.1", [frame(DATA, END_STREAM, 1, b"x")], 1, goaway(PROTOCOL_ERROR)),
        case("RST_STREAM on an idle stream", "5.1", [rst(1)], 1, goaway(PROTOCOL_ERROR)),
        case("WINDOW_UPDATE on an idle stream", "5.1", [window(1, 9)], 1, goaway(PROTOCOL_ERROR)),
        case(
            "DATA on a stream that was reset",
            "5.1",
            [post(1, &[]), rst(1), frame(DATA, 0, 1, b"x")],
            1,
            reset(STREAM_CLOSED),
        ),
        case("RST_STREAM twice", "5.1", [post(1, &[]), rst(1), rst(1), get(3)], 3, ANSWERED),
        case("a stream that depends on itself", "5.3.1", [post(1, &[]), priority(1, 1)], 1, reset(PROTOCOL_ERROR)),
        case("nothing but a head", "8.1", [get(1)], 1, ANSWERED),
        case("an empty body", "8.1", [post(1, &[]), frame(DATA, END_STREAM, 1, b"")], 1, ANSWERED),
        case("trailers", "8.1", [post(1, &[]), head(1, END_STREAM, &[("x-sum", b"1")])], 1, ANSWERED),
        case(
            "trailers that are not the end",
            "8.1",
            [post(1, &[]), head(1, 0, &[("x-sum", b"1")])],
            1,
            reset(PROTOCOL_ERROR),
        ),
        // Malformed, says the standard. Trailers end here, whatever is in them.
        case(
            "a pseudo field in trailers",
            "8.1",
            [post(1, &[]), head(1, END_STREAM, &[(":path", b"/x")])],
            1,
            ANSWERED,
        ),
        case(
            "less than was said",
            "8.1.1",
            [post(1, &[("content-length", b"5")]), frame(DATA, END_STREAM, 1, b"1234")],
            1,
            reset(PROTOCOL_ERROR),
        ),
        case(
            "more than was said",
            "8.1.1",
            [post(1, &[("content-length", b"5")]), frame(DATA, 0, 1, b"123456")],
            1,
            reset(PROTOCOL_ERROR),
        ),
        case(
            "as much as was said",
            "8.1.1",
            [post(1, &[("content-length", b"5")]), frame(DATA, 0, 1, b"123"), frame(DATA, END_STREAM, 1, b"45")],
            1,
            ANSWERED,
        ),
        case(
            "less than was said, and trailers",
            "8.1.1",
            [post(1, &[("content-length", b"5")]), frame(DATA, 0, 1, b"1"), head(1, END_STREAM, &[("x", b"1")])],
            1,
            reset(PROTOCOL_ERROR),
        ),
        case("a length and no body", "8.1.1", [get_with(&[("content-length", b"1")])], 1, reset(PROTOCOL_ERROR)),
        case("a length that is no number", "8.1.1", [get_with(&[("content-length", b"1x")])], 1, reset(PROTOCOL_ERROR)),
        case(
            "two lengths",
            "8.1.1",
            [post(1, &[("content-length", b"1"), ("content-length", b"2")])],
            1,
            reset(PROTOCOL_ERROR),
        ),
    ]
}

/// A malformed request is a stream error (8.1.1). Where `h2` finds it while it still decompresses, it takes the connection
/// with it, as every stream error may (5.4.1).
fn of_fields() -> Vec<Case> {
    let mut late = fields("GET");
    late.insert(3, ("accept", b"*/*"));
    vec![
        case("upper case", "8.2.1", [get_with(&[("X-Up", b"1")])], 1, goaway(PROTOCOL_ERROR)),
        case("a colon in a name", "8.2.1", [get_with(&[("a:b", b"1")])], 1, goaway(PROTOCOL_ERROR)),
        case("LF in a value", "8.2.1", [get_with(&[("a", b"b\nc: d")])], 1, goaway(PROTOCOL_ERROR)),
        case("NUL in a value", "8.2.1", [get_with(&[("a", b"b\0")])], 1, goaway(PROTOCOL_ERROR)),
        case("a space before a value", "8.2.1", [get_with(&[("a", b" b")])], 1, status(400)),
        case("a tab behind a value", "8.2.1", [get_with(&[("a", b"b\t")])], 1, status(400)),
        case("an empty value", "8.2.1", [get_with(&[("a", b"")])], 1, ANSWERED),
        case("connection", "8.2.2", [get_with(&[("connection", b"close")])], 1, reset(PROTOCOL_ERROR)),
        case("keep-alive", "8.2.2", [get_with(&[("keep-alive", b"1")])], 1, reset(PROTOCOL_ERROR)),
        case("proxy-connection", "8.2.2", [get_with(&[("proxy-connection", b"close")])], 1, reset(PROTOCOL_ERROR)),
        case("transfer-encoding", "8.2.2", [get_with(&[("transfer-encoding", b"chunked")])], 1, reset(PROTOCOL_ERROR)),
        case("upgrade", "8.2.2", [get_with(&[("upgrade", b"h2c")])], 1, reset(PROTOCOL_ERROR)),
        case("te: trailers", "8.2.2", [get_with(&[("te", b"trailers")])], 1, ANSWERED),
        case("te: gzip", "8.2.2", [get_with(&[("te", b"gzip")])], 1, reset(PROTOCOL_ERROR)),
        case("cookies apart", "8.2.3", [get_with(&[("cookie", b"a=1"), ("cookie", b"b=2")])], 1, ANSWERED),
        case("an unknown pseudo field", "8.3", [get_with(&[(":x", b"1")])], 1, goaway(PROTOCOL_ERROR)),
        case("a pseudo field of responses", "8.3", [get_with(&[(":status", b"200")])], 1, reset(PROTOCOL_ERROR)),
        case("a pseudo field behind others", "8.3", [head(1, END_STREAM, &late)], 1, reset(PROTOCOL_ERROR)),
        case("two methods", "8.3", [get_with(&[(":method", b"PUT")])], 1, reset(PROTOCOL_ERROR)),
        case("two paths", "8.3", [get_with(&[(":path", b"/x")])], 1, reset(PROTOCOL_ERROR)),
        case("two schemes", "8.3", [get_with(&[(":scheme", b"https")])], 1, reset(PROTOCOL_ERROR)),
        case("no method", "8.3.1", [without(":method")], 1, reset(PROTOCOL_ERROR)),
        case("no scheme", "8.3.1", [without(":scheme")], 1, reset(PROTOCOL_ERROR)),
        case("no path", "8.3.1", [without(":path")], 1, reset(PROTOCOL_ERROR)),
        case("an empty path", "8.3.1", [with(":path", b"")], 1, reset(PROTOCOL_ERROR)),
        case("a path without a slash", "8.3.1", [with(":path", b"x")], 1, reset(PROTOCOL_ERROR)),
        case("a star", "8.3.1", [with(":path", b"*")], 1, status(400)),
        case("neither authority nor host", "8.3.1", [without(":authority")], 1, status(400)),
        case("another host", "8.3.1", [get_with(&[("host", b"other.example")])], 1, status(400)),
        case("the same host", "8.3.1", [get_with(&[("host", NAME.as_bytes())])], 1, ANSWERED),
        case("a user in the authority", "8.3.1", [with(":authority", b"me@localhost")], 1, status(400)),
        case("CONNECT", "8.5", [head(1, 0, &[(":method", b"CONNECT"), (":authority", b"a:1")])], 1, status(501)),
        case(
            "CONNECT with a protocol",
            "8441, 3",
            [head(1, 0, &[&fields("CONNECT")[..], &[(":protocol", b"websocket")]].concat())],
            1,
            reset(PROTOCOL_ERROR),
        ),
    ]
}

/// RFC 9113 (4.3) wants COMPRESSION_ERROR for all of these. `h2` says PROTOCOL_ERROR; the connection ends either way.
fn of_compression() -> Vec<Case> {
    vec![
        case("an index of 0", "H 6.1", [get_block(&block_and(&[0x80]))], 1, goaway(PROTOCOL_ERROR)),
        case(
            "an index beyond the table",
            "H 2.3.3",
            [get_block(&block_and(&[0xff, 0x80, 0x01]))],
            1,
            goaway(PROTOCOL_ERROR),
        ),
        case("an integer without an end", "H 5.1", [get_block(&block_and(&[0xff; 12]))], 1, goaway(PROTOCOL_ERROR)),
        case(
            "a string longer than the block",
            "H 5.2",
            [get_block(&block_and(&[0, 9, b'a']))],
            1,
            goaway(PROTOCOL_ERROR),
        ),
        case(
            "a Huffman code that is padded with zeros",
            "H 5.2",
            [get_block(&block_and(&[0, 0x81, 0x00, 0]))],
            1,
            goaway(PROTOCOL_ERROR),
        ),
        case(
            "a table larger than was allowed",
            "H 6.3",
            [get_block(&[&[0x3f, 0xe2, 0x1f][..], &block(&fields("GET"))].concat())],
            1,
            goaway(PROTOCOL_ERROR),
        ),
        case("an empty table", "H 6.3", [get_block(&[&[0x20][..], &block(&fields("GET"))].concat())], 1, ANSWERED),
    ]
}

#[test]
fn every_frame_has_the_outcome_that_the_standard_says() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"127.0.0.2:0\", tls: {{ local: true }} }}\n\
         limits: {{ body: 1MB }}\n{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 4", worker.endpoint()))
    ));
    let (plain, tls) = (gateway.listener("127.0.0.1:0"), gateway.listener("127.0.0.2:0"));
    let root = gateway.root();
    let all = [of_frames(), of_windows(), of_streams(), of_fields(), of_compression()];
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in all.iter().flatten() {
        for is_tls in [false, true] {
            let mut frames = if is_tls { Frames::tls(tls, NAME, &root) } else { Frames::connect(plain) };
            // A gateway that has said enough already need not take the rest.
            let _ = case.sent.iter().all(|bytes| frames.raw(bytes));
            let outcome = frames.outcome(case.stream);
            if outcome != case.outcome {
                wrong.push(format!(
                    "{} ({}), TLS {is_tls}: {outcome:?}, not {:?}",
                    case.name, case.section, case.outcome
                ));
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 60, "{count} cases");
    gateway.wait_idle();
    assert_eq!(gateway.h2().get("/").text(), "ok");
}
