//! Files that do not fit into memory: sent whole, in part, resumed, and cut when they change under way.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use http::Request;

use crate::support::client::{End, get};
use crate::support::h2::request;
use crate::support::shop::python;
use crate::support::{Client, Gateway, H2, download};

const MIB: usize = 1 << 20;

/// Plain HTTP and TLS; the folder is the gateway's own.
fn gateway() -> (Gateway, PathBuf) {
    let gateway = Gateway::start_with(
        "listeners:\n  - { bind: \"127.0.0.1:0\" }\n  - { bind: \"127.0.0.2:0\", tls: { local: true } }\n\
         sites:\n  - routes:\n      - { path: /, files: { root: \"@folder@/files\" } }\n",
        |command| std::fs::create_dir(folder_of(command).join("files")).unwrap(),
    );
    let files = gateway.folder().join("files");
    (gateway, files)
}

/// Where the configuration lies.
fn folder_of(command: &Command) -> PathBuf {
    let config = command.get_args().last().map(Path::new).unwrap();
    config.parent().unwrap().to_owned()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|number| (number * 7 % 251) as u8).collect()
}

fn tls(gateway: &Gateway) -> Client {
    Client::tls(gateway.listener("127.0.0.2:0"), "localhost", &gateway.root())
}

fn tls_h2(gateway: &Gateway) -> H2 {
    H2::tls(gateway.listener("127.0.0.2:0"), "localhost", &gateway.root())
}

#[test]
fn a_large_file_arrives_whole_by_every_protocol() {
    let (gateway, files) = gateway();
    let content = content(5 * MIB + 3);
    std::fs::write(files.join("large.bin"), &content).unwrap();
    for response in [
        gateway.client().get("/large.bin"),
        tls(&gateway).get("/large.bin"),
        gateway.h2().get("/large.bin"),
        tls_h2(&gateway).get("/large.bin"),
    ] {
        assert_eq!((response.status, response.cut.as_deref()), (200, None));
        assert!(response.body == content, "{} bytes", response.body.len());
        let line = gateway.access_of(&response);
        assert_eq!(line["bytes_out"], content.len(), "{line}");
    }
}

#[test]
fn a_connection_serves_on_behind_a_large_file() {
    let (gateway, files) = gateway();
    std::fs::write(files.join("large.bin"), content(3 * MIB)).unwrap();
    std::fs::write(files.join("small.txt"), "small").unwrap();
    for mut client in [gateway.client(), tls(&gateway)] {
        client.send([get("/large.bin"), get("/small.txt"), get("/large.bin"), get("/small.txt")].concat());
        let lengths = [(); 4].map(|()| client.response("GET").body.len());
        assert_eq!(lengths, [3 * MIB, 5, 3 * MIB, 5]);
    }
}

/// The client has read the head and takes nothing more while the file is made shorter.
#[test]
fn a_file_that_gets_shorter_while_it_is_sent_is_cut_and_told_of() {
    let (gateway, files) = gateway();
    let length = 64 * MIB;
    let path = files.join("shrinks.bin");
    let shrink = || File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    for protocol in ["http", "https"] {
        File::create(&path).unwrap().set_len(length as u64).unwrap();
        let mut client = if protocol == "http" { gateway.client() } else { tls(&gateway) };
        client.send(get("/shrinks.bin"));
        assert_eq!(client.head().expect("a head").0, 200, "{protocol}");
        shrink();
        let (read, end) = client.drain();
        assert!(read < length, "{protocol}: {read} bytes of {length}");
        assert_eq!(end, End::Reset, "{protocol}: nobody takes it for the whole");
    }
    for h2 in [gateway.h2(), tls_h2(&gateway)] {
        File::create(&path).unwrap().set_len(length as u64).unwrap();
        let stream = h2.open(request("GET", "/shrinks.bin", &[]), true);
        let (status, first, body) = stream.first_piece();
        assert_eq!(status, 200);
        shrink();
        let read = h2.drain(body);
        let error = read.as_ref().expect_err("the stream is reset");
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
        assert!(!first.is_empty());
    }
    let told = gateway.log_event("the file that has changed", |event| event["reason"] == "file_changed");
    assert!(told["message"].as_str().is_some_and(|message| message.contains("shrinks.bin")), "{told}");
    let lines = gateway.stop().access;
    assert_eq!(lines.iter().filter(|line| line["reason"] == "file_changed").count(), 4, "{lines:#?}");
}

#[test]
fn a_file_that_grows_or_is_replaced_is_sent_as_it_was_promised() {
    let (gateway, files) = gateway();
    let (path, old) = (files.join("grows.bin"), content(16 * MIB));
    for replaces in [false, true] {
        std::fs::write(&path, &old).unwrap();
        let mut client = gateway.client();
        client.send(get("/grows.bin"));
        let (status, headers) = client.head().expect("a head");
        assert_eq!(status, 200);
        assert!(headers.contains(&("content-length".to_owned(), old.len().to_string())), "{headers:?}");
        if replaces {
            let beside = files.join("beside");
            std::fs::write(&beside, "a new version").unwrap();
            std::fs::rename(beside, &path).unwrap();
        } else {
            File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        }
        assert!(client.take(old.len()).expect("all of it") == old, "the bytes of the old one");
        // Nothing more is sent for it: the next answer begins here.
        client.send(get("/nowhere"));
        assert_eq!(client.response("GET").status, 404);
    }
}

#[test]
fn ranges_beyond_4_gib_are_sent_from_where_they_lie() {
    let (gateway, files) = gateway();
    let length = (5_u64 << 30) + 3;
    download::plant(&files.join("big.bin"), length);
    let at = 4_u64 << 30;
    for (first, last) in [(at - 4, at + 7), (at - (300 << 10), at + (300 << 10)), (length - 3, length - 1)] {
        let fields = [("range", format!("bytes={first}-{last}"))];
        let field: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut client = gateway.client();
        client.send(format!("GET /big.bin HTTP/1.1\r\nHost: shop.example\r\nRange: {}\r\n\r\n", fields[0].1));
        for response in [client.response("GET"), gateway.h2().send(request("GET", "/big.bin", &field), b"")] {
            assert_eq!(response.status, 206);
            assert_eq!(response.header("content-range"), Some(format!("bytes {first}-{last}/{length}").as_str()));
            assert_eq!(response.body.len() as u64, last - first + 1);
            if first <= at && at + 8 <= last {
                let mark = &response.body[(at - first) as usize..][..8];
                assert_eq!(mark, at.to_be_bytes(), "the bytes of that place");
            }
        }
    }
}

#[test]
fn several_ranges_are_read_by_a_parser_that_is_not_ours() {
    let (gateway, files) = gateway();
    let content = content(MIB);
    std::fs::write(files.join("a.bin"), &content).unwrap();
    std::fs::write(files.join("a.txt"), &content[..1000]).unwrap();
    for path in ["/a.bin", "/a.txt"] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nRange: bytes=0-9, 500-899,-50\r\n\r\n"));
        let response = client.response("GET");
        assert_eq!(response.status, 206);
        let content_type = response.header("content-type").unwrap();
        // Python's email package has a parser of MIME that nobody wrote for this.
        let code = "import email, email.policy, sys\n\
                    whole = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.HTTP)\n\
                    assert not whole.defects, whole.defects\n\
                    assert whole.get_content_type() == 'multipart/byteranges', whole.get_content_type()\n\
                    for part in whole.iter_parts():\n    \
                        assert not part.defects, part.defects\n    \
                        print(part['Content-Range'], part['Content-Type'].replace('\"', ''), part.get_payload(decode=True).hex())\n";
        let mut child = Command::new(python());
        child.args(["-c", code]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let head = format!("MIME-Version: 1.0\r\nContent-Type: {content_type}\r\n\r\n");
        child.stdin.take().unwrap().write_all(&[head.as_bytes(), &response.body].concat()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (length, kind) =
            if path == "/a.bin" { (MIB, "application/octet-stream") } else { (1000, "text/plain; charset=utf-8") };
        let hex = |range: std::ops::RangeInclusive<usize>| -> String {
            content[range].iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let part = |first: usize, last: usize| format!("bytes {first}-{last}/{length} {kind} {}\n", hex(first..=last));
        let expected = [part(0, 9), part(500, 899), part(length - 50, length - 1)].concat();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{path}");
    }
}

#[test]
fn a_download_of_1_gib_goes_on_where_it_broke_off() {
    let (gateway, files) = gateway();
    let original = files.join("large.iso");
    download::plant(&original, 1 << 30);
    let port = |bind: &str| gateway.listener(bind).port();
    let root = gateway.root().display().to_string();
    let part = (400 << 20) + 12_345;
    let plain = format!("http://127.0.0.1:{}/large.iso", port("127.0.0.1:0"));
    assert_eq!(download::resume(&plain, &[], part, &original, gateway.folder()), 206);
    let secure = format!("https://localhost:{}/large.iso", port("127.0.0.2:0"));
    let there = format!("localhost:{}:127.0.0.2", port("127.0.0.2:0"));
    let arguments = ["--http2", "--cacert", &root, "--resolve", &there];
    assert_eq!(download::resume(&secure, &arguments, part, &original, gateway.folder()), 206);
}

/// What is sent lies in the page cache, and not with us.
#[test]
fn clients_that_take_nothing_cost_no_memory_and_keep_nobody_waiting() {
    let (gateway, files) = gateway();
    std::fs::write(files.join("large.bin"), content(16 * MIB)).unwrap();
    std::fs::write(files.join("small.txt"), "small").unwrap();
    assert_eq!(gateway.client().get("/large.bin").body.len(), 16 * MIB);
    let before = gateway.rss_kib();
    let mut readers: Vec<Client> = (0..50).map(|_| gateway.client()).collect();
    let h2 = gateway.h2();
    for reader in &mut readers {
        reader.send(get("/large.bin"));
        assert_eq!(reader.head().expect("a head").0, 200);
    }
    let streams: Vec<_> = (0..50).map(|_| h2.open(request("GET", "/large.bin", &[]), true).head()).collect();
    assert!(streams.iter().all(|(status, _)| *status == 200));
    assert_eq!(gateway.client().get("/small.txt").text(), "small");
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "100 readers of a file of 16 MiB have cost {grown} KiB");
    let mut last = readers.pop().expect("a reader");
    assert!(last.take(16 * MIB).expect("all of it") == content(16 * MIB));
}

#[test]
fn head_and_conditions_read_nothing_of_a_large_file() {
    let (gateway, files) = gateway();
    File::create(files.join("big.bin")).unwrap().set_len(1 << 40).unwrap();
    let mut client = gateway.client();
    client.send("HEAD /big.bin HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let head = client.response("HEAD");
    assert_eq!((head.status, head.header("content-length")), (200, Some("1099511627776")));
    let etag = head.header("etag").expect("a validator").to_owned();
    let request = Request::get("http://shop.example/big.bin").header("if-none-match", etag).body(()).unwrap();
    assert_eq!(gateway.h2().send(request, b"").status, 304);
}
