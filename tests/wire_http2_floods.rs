//! Floods of frames and slow ends on HTTP/2: who sends them loses a connection, who does not notices nothing.

use crate::support::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame,
};
use crate::support::h2::request;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Latch, Worker, look_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ENHANCE_YOUR_CALM: u32 = 11;
/// More than any flood needs.
const MANY: u32 = 20_000;

fn fields(method: &'static str, path: &'static str) -> Vec<(&'static str, &'static [u8])> {
    vec![(":method", method.as_bytes()), (":scheme", b"http"), (":authority", b"localhost"), (":path", path.as_bytes())]
}

fn get(stream: u32, path: &'static str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields("GET", path)))
}

fn post(stream: u32, path: &'static str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&fields("POST", path)))
}

fn window(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

fn refused(gateway: &Gateway, scope: &str, kind: &str) -> f64 {
    gateway.metric(&format!("hostler_http2_refused_total{{kind=\"{kind}\",scope=\"{scope}\"}}"))
}

/// What is sent again and again, by its number; before it, what makes it possible.
struct Flood {
    kind: &'static str,
    first: Vec<u8>,
    each: Box<dyn Fn(u32) -> Vec<u8>>,
}

fn flood(kind: &'static str, first: Vec<u8>, each: impl Fn(u32) -> Vec<u8> + 'static) -> Flood {
    Flood { kind, first, each: Box::new(each) }
}

fn always(bytes: Vec<u8>) -> impl Fn(u32) -> Vec<u8> {
    move |_| bytes.clone()
}

fn floods() -> Vec<Flood> {
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let own = |stream: u32| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat());
    let head = frame(HEADERS, END_STREAM, 1, &block(&fields("GET", "/")));
    vec![
        flood("resets", Vec::new(), move |n| [get(2 * n + 1, "/"), reset(2 * n + 1)].concat()),
        flood("provoked_resets", Vec::new(), move |n| {
            [post(2 * n + 1, "/"), window(2 * n + 1, (1 << 31) - 1)].concat()
        }),
        flood("provoked_resets", Vec::new(), move |n| [post(2 * n + 1, "/"), own(2 * n + 1)].concat()),
        flood("provoked_resets", Vec::new(), move |n| {
            let trailers = frame(HEADERS, END_HEADERS, 2 * n + 1, &block(&[("a", b"b")]));
            [post(2 * n + 1, "/"), trailers].concat()
        }),
        flood("refused_streams", Vec::new(), |n| post(2 * n + 1, "/")),
        flood("continuations", head.clone(), always(frame(CONTINUATION, 0, 1, &block(&[("a", b"b")])))),
        flood("continuations", head, always(frame(CONTINUATION, 0, 1, b""))),
        flood("empty_data", post(1, "/"), always(frame(DATA, 0, 1, b""))),
        flood("empty_data", post(1, "/"), always(frame(DATA, 8, 1, &[3, 0, 0, 0]))),
        flood("small_data", post(1, "/"), always(frame(DATA, 0, 1, b"x"))),
        flood("settings", Vec::new(), always(frame(SETTINGS, 0, 0, b""))),
        flood("pings", Vec::new(), always(frame(PING, 0, 0, b"pingpong"))),
        flood("pings", Vec::new(), always(frame(PING, ACK, 0, b"pingpong"))),
        flood("priorities", Vec::new(), always(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
        flood("window_updates", Vec::new(), always(window(0, 1))),
        flood("window_updates", post(1, "/"), always(window(1, 1))),
        flood("unknown_frames", Vec::new(), always(frame(0x10, 0, 0, &[0, 0, 0, 1, b'u']))),
        flood("unknown_frames", Vec::new(), always(frame(0xbe, 0, 0, &[0; 16 << 10]))),
    ]
}

#[test]
fn every_flood_ends_its_connection_and_nobody_elses() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "limits: {{ streams: 100 }}\n{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()))
    ));
    let honest = gateway.h2();
    assert_eq!(honest.get("/before").text(), "ok");
    for flood in floods() {
        let before = refused(&gateway, "connection", flood.kind);
        let mut frames = Frames::connect(gateway.address());
        frames.raw(&flood.first);
        // Who provokes resets waits for each of them; all others do not even read.
        let is_patient = flood.kind == "provoked_resets";
        let goes_on = |n: &u32| {
            let is_taken = frames.raw(&(flood.each)(*n));
            is_taken && (!is_patient || matches!(frames.outcome(2 * n + 1), Outcome::Reset(_)))
        };
        let sent = (0..MANY).take_while(goes_on).count();
        let outcome = if is_patient { Outcome::GoAway(ENHANCE_YOUR_CALM) } else { frames.outcome(u32::MAX) };
        if outcome != Outcome::GoAway(ENHANCE_YOUR_CALM) {
            gateway.fail(&format!("{} after {sent}: {outcome:?}", flood.kind));
        }
        let after = refused(&gateway, "connection", flood.kind);
        assert_eq!(after - before, 1.0, "{}", flood.kind);
        assert_eq!(honest.get("/beside").text(), "ok", "{}", flood.kind);
    }
    gateway.wait_idle();
    gateway.log_event("who it was", |event| {
        event["kind"] == "pings"
            && event["client"] == "127.0.0.1"
            && event["message"] == "an HTTP/2 connection is refused"
    });
    drop(honest);
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"h2\"}", 0.0);
}

#[test]
fn what_is_refused_on_a_stream_is_counted_by_its_code() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()));
    let mut frames = Frames::connect(gateway.address());
    let bad = [&fields("GET", "/")[..], &[("connection", b"close")]].concat();
    frames.request(1, &bad);
    assert_eq!(frames.outcome(1), Outcome::Reset(1));
    frames.raw(&get(3, "/"));
    assert_eq!(frames.outcome(3), Outcome::Answered { status: 200 }, "it costs only its stream");
    assert_eq!(refused(&gateway, "stream", "protocol_error"), 1.0);
    frames.raw(&frame(DATA, 0, 0, b"x"));
    assert_eq!(frames.outcome(0), Outcome::GoAway(1));
    assert_eq!(refused(&gateway, "connection", "protocol_error"), 1.0);
}

#[test]
fn more_streams_than_allowed_are_refused_and_may_be_asked_for_again() {
    let (done, wait) = (Latch::default(), Latch::default());
    let (open, asked) = (done.clone(), wait.clone());
    let worker = Worker::unix(move |visit| {
        while visit.request().is_some() {
            asked.open();
            open.wait();
            visit.send(OK);
        }
    });
    let gateway = Gateway::start(&format!(
        "limits: {{ streams: 2 }}\n{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()))
    ));
    let mut frames = Frames::connect(gateway.address());
    frames.raw(&[get(1, "/"), get(3, "/"), get(5, "/")].concat());
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(frames.outcome(5), Outcome::Reset(REFUSED_STREAM));
    wait.wait();
    done.open();
    assert_eq!(frames.outcome(3), Outcome::Answered { status: 200 });
    frames.raw(&get(7, "/"));
    assert_eq!(frames.outcome(7), Outcome::Answered { status: 200 });
    assert_eq!(refused(&gateway, "stream", "refused_stream"), 1.0);
}

#[test]
fn honest_use_of_the_same_frames_is_never_refused() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()));
    let mut frames = Frames::connect(gateway.address());
    for n in 0..2_000 {
        let stream = 2 * n + 1;
        // As browsers and gRPC clients do: a priority for each request, a ping and window updates for each answer.
        frames.raw(&[frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 9]), get(stream, "/")].concat());
        assert_eq!(frames.outcome(stream), Outcome::Answered { status: 200 }, "request {n}");
        frames.raw(&[frame(PING, 0, 0, b"pingpong"), window(0, 2), window(stream, 2)].concat());
    }
}

/// Limits that end quickly what is slow: whoever moves less than a gigabyte a second has a second.
fn impatient(worker: &Worker, more: &str) -> Gateway {
    Gateway::start(&format!(
        "limits: {{ read_rate: {{ min: 1000000000, after: 1s }}, body_rate: {{ min: 1000000000, after: 1s }}, \
         header_timeout: 500ms }}\n{more}{}",
        crate::support::gateway::before(&format!("endpoints: [\"{}\"], workers: 2", worker.endpoint()))
    ))
}

/// Answers `/large` with more than any window or socket takes.
fn large() -> Worker {
    const LENGTH: usize = 16 << 20;
    Worker::unix(|visit| {
        while let Some(received) = visit.request() {
            if received.line().contains("/large") {
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"));
                visit.send(vec![b'l'; LENGTH]);
            } else {
                visit.send(OK);
            }
        }
    })
}

#[test]
fn a_reader_that_opens_no_window_loses_its_stream_and_no_other() {
    let worker = large();
    let gateway = impatient(&worker, "");
    let mut frames = Frames::connect(gateway.address());
    frames.raw(&[window(0, 1 << 20), get(1, "/large")].concat());
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 200 });
    const CANCEL: u32 = 8;
    assert_eq!(frames.outcome(1), Outcome::Reset(CANCEL));
    frames.raw(&get(3, "/small"));
    assert_eq!(frames.outcome(3), Outcome::Answered { status: 200 });
    let line = gateway.access_of_path("/large");
    assert_eq!((line["reason"].as_str(), line["bytes_out"].as_u64()), (Some("client_stalled"), Some(65_535)), "{line}");
    gateway.wait_idle();
    gateway.wait_metric("hostler_spool_bytes{where=\"memory\"}", 0.0);
}

#[test]
fn a_window_that_opens_byte_by_byte_is_as_good_as_none() {
    let worker = large();
    let gateway = impatient(&worker, "");
    let mut frames = Frames::connect(gateway.address());
    frames.raw(&[window(0, 1 << 20), get(1, "/large")].concat());
    let mut dribbled = 0;
    while let Some(next) = frames.next_frame() {
        match next.kind {
            DATA => {
                // Enough that it is no flood of WINDOW_UPDATE.
                frames.raw(&window(1, 64));
                dribbled += 1;
            }
            RST_STREAM => {
                assert_eq!(next.payload, 8u32.to_be_bytes());
                assert!(dribbled > 4);
                return;
            }
            _ => {}
        }
    }
    panic!("the connection has ended");
}

#[test]
fn streams_behind_closed_windows_end_one_by_one_and_leave_nothing() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = impatient(&worker, "");
    let mut settings = Vec::from(4u16.to_be_bytes());
    settings.extend(0u32.to_be_bytes());
    let mut frames = Frames::over(Client::connect(gateway.address()), &settings);
    for n in 0..100 {
        frames.raw(&get(2 * n + 1, "/"));
    }
    for _ in 0..100 {
        let reset = frames.next_of(RST_STREAM).expect("a reset");
        assert_eq!(reset.payload, 8u32.to_be_bytes());
    }
    gateway.wait_idle();
    assert_eq!(gateway.h2().get("/").text(), "ok");
}

#[test]
fn a_client_that_does_not_read_its_socket_loses_its_connection() {
    let worker = large();
    let gateway = impatient(&worker, "");
    let mut settings = Vec::from(4u16.to_be_bytes());
    settings.extend(((1u32 << 31) - 1).to_be_bytes());
    let mut frames = Frames::over(Client::connect(gateway.address()), &settings);
    frames.raw(&window(0, (1 << 31) - 1 - 65_535));
    for n in 0..8 {
        frames.raw(&get(2 * n + 1, "/large"));
    }
    let line = gateway.access_of_path("/large");
    assert_eq!(line["reason"], "client_stalled", "{line}");
    let told = look_until(|| (refused(&gateway, "connection", "client_stalled") > 0.0).then_some(()));
    assert!(told.is_some(), "{}", gateway.admin_get("/metrics").text());
    gateway.wait_idle();
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"h2\"}", 0.0);
}

#[test]
fn an_uploader_that_stops_is_told_so() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = impatient(&worker, "");
    let mut frames = Frames::connect(gateway.address());
    frames.raw(&[post(1, "/stops"), frame(DATA, 0, 1, b"the beginning")].concat());
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 408 });
    assert_eq!(gateway.access_of_path("/stops")["reason"], "body_timeout");
    assert_eq!(worker.connections(), 0);
}

#[test]
fn an_uploader_that_dribbles_is_told_so() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = impatient(&worker, "");
    let mut frames = Frames::connect(gateway.address());
    frames.raw(&post(1, "/dribbles"));
    let given_up = look_until(|| {
        frames.raw(&frame(DATA, 0, 1, b"sixteen bytes...."));
        (gateway.failures("", "body_timeout") > 0.0).then_some(())
    });
    assert!(given_up.is_some());
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 408 });
    assert_eq!(worker.connections(), 0);
}

#[test]
fn a_head_that_dribbles_has_the_time_of_a_head() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = impatient(&worker, "");
    let mut whole = Frames::connect(gateway.address());
    assert!(whole.raw(&get(1, "/")));
    assert_eq!(whole.outcome(1), Outcome::Answered { status: 200 });
    // In CONTINUATION frames that never end it, in half a frame, on a connection that has been of use.
    for part in [frame(HEADERS, END_STREAM, 1, &block(&fields("GET", "/"))), get(1, "/")[..12].to_vec()] {
        let before = refused(&gateway, "connection", "header_timeout");
        let mut frames = Frames::connect(gateway.address());
        frames.raw(&part);
        if part.len() > 12 {
            frames.raw(&frame(CONTINUATION, 0, 1, b""));
        }
        assert_eq!(frames.outcome(1), Outcome::GoAway(ENHANCE_YOUR_CALM));
        assert_eq!(refused(&gateway, "connection", "header_timeout") - before, 1.0);
    }
    assert_eq!(worker.requests().len(), 1);
}

#[test]
fn a_preface_that_does_not_come_over_tls_is_not_waited_for() {
    let worker = Worker::answering(Transport::Unix, OK);
    let listeners = "listeners:\n  - { bind: \"127.0.0.1:0\", tls: { local: true } }\n";
    let gateway = impatient(&worker, listeners);
    let client = || Client::tls_speaking(b"h2", gateway.address(), "localhost", &gateway.root());
    let mut silent = Frames::silent(client());
    assert_eq!(silent.outcome(1), Outcome::Closed);
    assert_eq!(refused(&gateway, "connection", "preface"), 1.0);
    let mut half = Frames::silent(client());
    half.raw(&frames::PREFACE.as_bytes()[..20]);
    assert_eq!(half.outcome(1), Outcome::Closed);
    let mut other = Frames::silent(client());
    other.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(other.outcome(1), Outcome::Closed);
    let mut unsettled = Frames::silent(client());
    unsettled.raw(&[frames::PREFACE.as_bytes(), &get(1, "/")].concat());
    assert_eq!(unsettled.outcome(1), Outcome::GoAway(1));
    assert_eq!(refused(&gateway, "connection", "preface"), 4.0);
    gateway.wait_metric("hostler_connections{listener=\"127.0.0.1:0\",protocol=\"h2\"}", 0.0);
}

#[test]
fn an_answer_in_mid_upload_is_whole_before_the_stream_is_reset() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 1 }} }}\nsites: [{{ routes: [{{ path: /, proxy: app, \
         body_limit: 10 }}] }}]\n",
        worker.endpoint()
    ));
    for _ in 0..20 {
        let stream = 1;
        let mut frames = Frames::connect(gateway.address());
        frames.raw(&post(stream, "/"));
        (0..3).for_each(|_| assert!(frames.raw(&frame(DATA, 0, stream, &[0; 16 << 10]))));
        assert_eq!(frames.outcome(stream), Outcome::Answered { status: 413 });
        let mut is_whole = false;
        loop {
            let next = frames.next_frame().expect("a frame");
            match next.kind {
                DATA if next.stream == stream => is_whole |= next.flags & END_STREAM != 0,
                RST_STREAM if next.stream == stream => {
                    assert!(is_whole, "the reset comes behind the answer");
                    assert_eq!(next.payload, 0u32.to_be_bytes(), "NO_ERROR");
                    break;
                }
                frames::GOAWAY => panic!("{next:?}"),
                _ => {}
            }
        }
        // What was on its way costs nothing.
        frames.raw(&[frame(DATA, 0, stream, &[0; 9 << 10]), get(3, "/next")].concat());
        assert_eq!(frames.outcome(3), Outcome::Answered { status: 200 });
    }
    assert_eq!(gateway.h2().send(request("POST", "/", &[]), b"small").text(), "ok");
}

#[test]
fn a_client_that_waits_to_be_asked_is_asked_for_its_body() {
    let worker = Worker::answering(Transport::Unix, OK);
    let gateway = Gateway::before(&format!("endpoints: [\"{}\"], workers: 1", worker.endpoint()));
    let mut frames = Frames::connect(gateway.address());
    let expecting = [&fields("POST", "/")[..], &[("expect", b"100-continue")]].concat();
    frames.send(HEADERS, END_HEADERS, 1, &block(&expecting));
    assert_eq!(frames.next_of(HEADERS).unwrap().status(), 100);
    frames.send(DATA, END_STREAM, 1, b"body");
    assert_eq!(frames.outcome(1), Outcome::Answered { status: 200 });
    assert_eq!(worker.wait_requests(1).body, b"body");
}

/// Takes our settings: the windows are what they say from then on.
fn take_settings(frames: &mut Frames) {
    frames.next_of(SETTINGS).expect("our settings");
    frames.send(SETTINGS, ACK, 0, b"");
}

/// A stream's whole window in frames of so many bytes.
fn pieces(stream: u32, size: usize) -> Vec<u8> {
    frame(DATA, 0, stream, &vec![b'x'; size]).repeat((256 << 10) / size)
}

#[test]
fn small_pieces_of_bodies_that_nobody_reads_do_not_end_the_answers_that_wait_for_their_reader() {
    const STREAMS: [u32; 4] = [1, 3, 5, 7];
    const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];
    let gateway = Gateway::start("sites:\n  - routes:\n      - { path: /, respond: { body: answer } }\n");
    let mut frames = Frames::over(Client::connect(gateway.address()), &NO_WINDOW);
    take_settings(&mut frames);
    for stream in STREAMS {
        assert!(frames.raw(&post(stream, "/")));
        assert_eq!(frames.outcome(stream), Outcome::Answered { status: 200 });
        assert!(frames.raw(&pieces(stream, 16)));
    }
    for stream in STREAMS {
        assert!(frames.raw(&window(stream, 100)));
        let answer = frames.next_of(DATA).expect("the answer");
        assert_eq!((answer.stream, &answer.payload[..]), (stream, &b"answer"[..]));
    }
    assert_eq!(refused(&gateway, "connection", "enhance_your_calm"), 0.0);
}

#[test]
fn small_pieces_wait_for_an_app_as_bytes_and_no_more_of_them_than_a_window() {
    let (worker, latch) = Worker::held(OK);
    let gateway = Gateway::start(&format!(
        "upstreams: {{ app: {{ endpoints: [\"{}\"], workers: 2 }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app, websocket: tunnel }}] }}]\n",
        worker.endpoint()
    ));
    let mut frames = Frames::connect(gateway.address());
    take_settings(&mut frames);
    let version: (&'static str, &'static [u8]) = ("sec-websocket-version", b"13");
    let opening = [&[(":protocol", &b"websocket"[..])], &fields("CONNECT", "/")[..], &[version]].concat();
    let before = gateway.peak_rss_kib();
    for stream in [1, 3] {
        frames.send(HEADERS, END_HEADERS, stream, &block(&opening));
        assert!(frames.raw(&pieces(stream, 16)));
    }
    frames.send(PING, 0, 0, b"pingpong");
    assert_eq!(frames.next_of(PING).map(|ping| ping.flags), Some(ACK), "they have arrived");
    let grown = gateway.peak_rss_kib() - before;
    // `h2` alone would keep some 256 bytes for each: 8 MiB.
    assert!(grown < 5 << 10, "{grown} KiB");
    worker.wait_requests(2);
    latch.open();
    for _ in [1, 3] {
        assert!(frames.next_of(HEADERS).is_some(), "no WebSocket, but an answer");
    }
    assert_eq!(refused(&gateway, "connection", "enhance_your_calm"), 0.0);
    drop(frames);
    gateway.wait_idle();
}
