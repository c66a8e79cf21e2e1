//! Files of a folder, over the wire: who gets what, who gets nothing, and what the operator is told.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::client::get;
use crate::support::gateway::cli;
use crate::support::h2::request;
use crate::support::shop::python;
use crate::support::tool::curl;
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, H2, Response, Worker, look_until};

/// A folder beside that of the gateway, with files of long ago, so that they are kept.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        // Whoever serves need not be who runs the test.
        fs::set_permissions(tree.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(tree.root()).unwrap();
        tree
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777)).unwrap();
        path
    }

    /// One route with these files at `/`, in plain HTTP and over TLS.
    fn config(&self, keys: &str) -> String {
        format!(
            "listeners:\n  - {{ bind: \"127.0.0.1:0\" }}\n  - {{ bind: \"127.0.0.2:0\", tls: {{ local: true }} }}\n\
             sites:\n  - routes:\n      - {{ path: /, files: {{ root: \"{}\", {keys} }} }}\n",
            self.root().display()
        )
    }

    fn serve(&self, keys: &str) -> Gateway {
        Gateway::start(&self.config(keys))
    }
}

fn tls(gateway: &Gateway) -> &crate::support::Address {
    gateway.listener("127.0.0.2:0")
}

/// The same GET by every protocol.
fn by_all(gateway: &Gateway, path: &str, fields: &[(&str, &str)]) -> [Response; 4] {
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
    let h1 = |mut client: Client| {
        client.send(&text);
        client.response("GET")
    };
    let h2 = |client: H2| client.send(request("GET", path, fields), b"");
    [
        h1(gateway.client()),
        h1(Client::tls(tls(gateway), "localhost", &gateway.root())),
        h2(gateway.h2()),
        h2(H2::tls(tls(gateway), "localhost", &gateway.root())),
    ]
}

#[test]
fn a_file_is_the_same_by_every_protocol() {
    let tree = Tree::new();
    tree.write("css/a.css", "body{}");
    tree.write("large.bin", vec![7; 200_000]);
    let gateway = tree.serve("");
    for _ in 0..2 {
        for response in by_all(&gateway, "/css/a.css", &[]) {
            assert_eq!((response.status, response.text()), (200, "body{}"));
            for (name, value) in [
                ("content-length", "6"),
                ("content-type", "text/css; charset=utf-8"),
                ("cache-control", "max-age=60, public"),
                ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("accept-ranges", "bytes"),
            ] {
                assert_eq!(response.header(name), Some(value), "{name}");
            }
            let etag = response.header("etag").unwrap();
            for again in by_all(&gateway, "/css/a.css", &[("if-none-match", etag)]) {
                assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, Some(etag)));
            }
        }
        for response in by_all(&gateway, "/large.bin", &[("range", "bytes=100000-100009")]) {
            assert_eq!((response.status, &response.body[..]), (206, &[7; 10][..]));
            assert_eq!(response.header("content-range"), Some("bytes 100000-100009/200000"));
            assert_eq!(response.header("content-length"), Some("10"));
        }
        for response in by_all(&gateway, "/large.bin", &[("range", "bytes=200000-")]) {
            assert_eq!((response.status, response.header("content-range")), (416, Some("bytes */200000")));
            assert_eq!(gateway.access_of(&response)["reason"], "range_not_satisfiable");
        }
    }
}

#[test]
fn head_promises_what_get_sends_even_if_that_is_nothing() {
    let tree = Tree::new();
    tree.write("empty.txt", "");
    tree.write("some.txt", "some");
    let gateway = tree.serve("");
    for (path, length) in [("/empty.txt", "0"), ("/some.txt", "4")] {
        let mut client = gateway.client();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n{}", get(path)));
        let (head, whole) = (client.response("HEAD"), client.response("GET"));
        let h2 = gateway.h2().send(request("HEAD", path, &[]), b"");
        for response in [&head, &whole, &h2] {
            assert_eq!((response.status, response.header("content-length")), (200, Some(length)), "{path}");
        }
        assert_eq!((head.body.len(), h2.body.len(), whole.body.len().to_string()), (0, 0, length.to_owned()));
    }
}

#[test]
fn curl_takes_parts_and_unpacks_what_lies_ready() {
    let tree = Tree::new();
    let text: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    let path = tree.write("numbers.txt", &text);
    let zip =
        "import gzip, shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), gzip.open(sys.argv[1] + '.gz', 'wb'))";
    assert!(Command::new(python()).args(["-c", zip]).arg(&path).status().unwrap().success());
    let gateway = tree.serve("");
    let root = gateway.root();
    let url = format!("https://localhost:{}/numbers.txt", tls(&gateway).port());
    let resolve = format!("localhost:{}:127.0.0.2", tls(&gateway).port());
    for version in ["--http1.1", "--http2"] {
        let common = [version, "--cacert", root.to_str().unwrap(), "--resolve", &resolve];
        let ask = |more: &[&str]| curl(&[&common[..], more, &[url.as_str()]].concat());
        let part = ask(&["--range", "10-19"]);
        assert_eq!(part.stdout, text[10..20].trim_end_matches('\n'), "{part:?}");
        let several = ask(&["--range", "0-1,100-105"]);
        assert!(several.stdout.contains("Content-Range: bytes 100-105/"), "{several:?}");
        let unpacked = ask(&["--compressed"]);
        assert!(unpacked.stdout == text.trim_end_matches('\n'), "{} bytes", unpacked.stdout.len());
        let coded = ask(&["--header", "Accept-Encoding: gzip", "--head"]);
        for line in ["content-encoding: gzip", "vary: accept-encoding", "content-type: text/plain; charset=utf-8"] {
            assert!(coded.stdout.to_lowercase().contains(line), "{line} in {coded:?}");
        }
    }
    assert_eq!(gateway.client().get("/numbers.txt.gz").status, 404, "it is sent for its original alone");
}

#[test]
fn no_spelling_of_a_path_leads_out_of_the_root() {
    let tree = Tree::new();
    tree.write("a/b.txt", "inside");
    fs::write(tree.0.path().join("secret"), "secret").unwrap();
    symlink("../secret", tree.root().join("link")).unwrap();
    symlink("..", tree.root().join("up")).unwrap();
    symlink("/etc", tree.root().join("etc")).unwrap();
    let gateway = tree.serve("browse: true, fallback: /a/b.txt, not_found: false");
    let up = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%252e%252e",
        "%c0%ae%c0%ae",
        "%e0%80%ae.",
        "..%00",
        "..;",
        "....",
        "..\\",
        "..%5c",
        "%uff0e%uff0e",
    ];
    let slash = ["/", "%2f", "%2F", "//", "%c0%af", "\\", "%5C", "/./", "%252f"];
    let mut client = gateway.client();
    let mut asked = 0;
    for up in up {
        for slash in slash {
            for path in [
                format!("/{up}{slash}secret"),
                format!("/a{slash}{up}{slash}{up}{slash}secret"),
                format!("/{up}{slash}{up}{slash}{up}{slash}etc{slash}passwd"),
                format!("/{slash}{up}"),
            ] {
                if client.try_send(get(&path)).is_err() {
                    client = gateway.client();
                    client.send(get(&path));
                }
                let Some(response) = client.try_response("GET") else {
                    client = gateway.client();
                    continue;
                };
                let text = String::from_utf8_lossy(&response.body);
                assert!(matches!(response.status, 200 | 400 | 403), "{path}: {response:?}");
                assert!(
                    response.status != 200 || text == "inside" || text.contains("<h1>/</h1>"),
                    "{path}: {response:?}"
                );
                asked += 1;
                if response.header("connection") == Some("close") {
                    client = gateway.client();
                }
            }
        }
    }
    assert!(asked > 300, "{asked}");
    for path in ["/link", "/up/secret", "/etc/passwd", "/up/root/a/b.txt"] {
        let response = gateway.client().get(path);
        assert_eq!(response.status, 403, "{path}: {response:?}");
        assert_eq!(gateway.access_of(&response)["reason"], "file_forbidden");
    }
    gateway.log_event("why", |event| event["message"].as_str().is_some_and(|text| text.contains("symbolic link")));
}

#[test]
fn a_pipe_in_the_root_keeps_nobody_waiting() {
    let tree = Tree::new();
    tree.write("a.txt", "a");
    let pipe = tree.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(tree.root().join("socket")).unwrap();
    let gateway = tree.serve("");
    // More than there are threads for disks.
    let mut clients: Vec<_> = (0..64).map(|_| gateway.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.send(get(if at % 2 == 0 { "/pipe" } else { "/socket" }));
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").status, 403);
    }
    assert_eq!(gateway.client().get("/a.txt").text(), "a");
}

/// Root may read everything: here it may not.
const WITHOUT_PRIVILEGES: &[&str] = &["setpriv", "--bounding-set", "-dac_override,-dac_read_search"];

#[test]
fn what_may_not_be_read_is_told_with_the_folder_and_the_missing_right() {
    let tree = Tree::new();
    tree.write("open.txt", "open");
    let file = tree.write("closed.txt", "x");
    tree.write("folder/inner/file.txt", "x");
    tree.write("dim/index.html", "index");
    let set = |path: &PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (folder, dim) = (tree.root().join("folder"), tree.root().join("dim"));
    set(&file, 0o200);
    set(&folder, 0o600);
    // May be passed through, and not be read.
    set(&dim, 0o300);
    let launcher = if rustix::process::geteuid().is_root() { WITHOUT_PRIVILEGES } else { &["env"] };
    let gateway = Gateway::start_by(launcher, &tree.config(""));
    let get = |path: &str| gateway.client().get(path);
    assert_eq!(get("/open.txt").text(), "open");
    assert_eq!((get("/dim").status, get("/dim/").text().to_owned()), (308, "index".to_owned()));
    for (path, told) in [
        ("/closed.txt", vec!["may not read", "closed.txt", "mode 0200", "chmod o+r"]),
        ("/folder/inner/file.txt", vec!["may not enter", "folder`", "mode 0600", "chmod o+x"]),
    ] {
        let response = get(path);
        assert_eq!(response.status, 403, "{path}: {response:?}");
        assert!(
            response.text().contains("reason: file_forbidden") && !response.text().contains("chmod"),
            "{response:?}"
        );
        let is_told = |event: &serde_json::Value| {
            let message = event["message"].as_str().unwrap_or_default();
            told.iter().all(|part| message.contains(part))
        };
        // One line a second: asked until it is this one's turn.
        let found = look_until(|| {
            get(path);
            gateway.log().iter().filter_map(|line| serde_json::from_str(line).ok()).find(|event| is_told(event))
        });
        let event = found.unwrap_or_else(|| gateway.fail(&format!("{path} is not told: {told:?}")));
        assert_eq!((&event["level"], &event["reason"]), (&"WARN".into(), &"file_forbidden".into()), "{event}");
    }
    // Once it is put right it is served, within a second.
    set(&folder, 0o700);
    assert!(look_until(|| (get("/folder/inner/file.txt").status == 200).then_some(())).is_some());
}

#[test]
fn a_root_that_vanishes_is_told_and_found_again() {
    let tree = Tree::new();
    tree.write("a.txt", "one");
    let gateway = tree.serve("");
    let get = || gateway.client().get("/a.txt");
    assert_eq!(get().text(), "one");
    let away = tree.0.path().join("away");
    fs::rename(tree.root(), &away).unwrap();
    let missing = look_until(|| Some(get()).filter(|response| response.status == 500)).unwrap();
    assert!(missing.text().contains("reason: root_missing"), "{missing:?}");
    for _ in 0..50 {
        assert_eq!(get().status, 500);
    }
    let path = tree.root().display().to_string();
    let is_it = |event: &serde_json::Value| {
        event["reason"] == "root_missing" && event["message"].as_str().is_some_and(|text| text.contains(&path))
    };
    gateway.log_event("the missing root", is_it);
    let lines = gateway.log().iter().filter(|line| line.contains("root_missing")).count();
    assert!(lines < 25, "a line a second at most, not one for each: {lines}");
    // The next release, by a link.
    fs::write(away.join("a.txt"), "two").unwrap();
    symlink("away", tree.root()).unwrap();
    assert_eq!(get().text(), "two");
}

#[test]
fn a_missing_root_is_told_by_check_and_at_the_start() {
    let tree = Tree::new();
    fs::remove_dir(tree.root()).unwrap();
    let gateway = tree.serve("");
    let is_told = |text: &str| text.contains("root`: No such file or directory") && text.contains("collectstatic");
    gateway.log_event("the missing root", |event| event["message"].as_str().is_some_and(is_told));
    let file = gateway.folder().join("hostler.yaml");
    let checked = cli(&["check"], &file);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!((checked.stdout + &checked.stderr).contains("No such file or directory"));
}

#[test]
fn the_app_gets_what_is_no_file() {
    let worker = Worker::answering(Transport::Unix, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napp");
    let tree = Tree::new();
    tree.write("robots.txt", "robots");
    let gateway = Gateway::start(&format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 4 }}\nsites:\n  - routes:\n      \
         - {{ path: /, files: {{ root: \"{}\", fallback: next }}, headers: {{ response: {{ set: {{ x-first: \"1\" }} }} }} }}\n      \
         - {{ path: /, proxy: app, headers: {{ response: {{ set: {{ x-second: \"2\" }} }} }} }}\n",
        worker.endpoint(),
        tree.root().display()
    ));
    let file = gateway.client().get("/robots.txt");
    assert_eq!((file.text(), file.header("x-first"), file.header("x-second")), ("robots", Some("1"), None));
    for text in [
        get("/page?a=b"),
        get("/"),
        get("/.env"),
        "POST /form HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nbody".into(),
    ] {
        let mut client = gateway.client();
        client.send(&text);
        let response = client.response("GET");
        assert_eq!(
            (response.text(), response.header("x-first"), response.header("x-second")),
            ("app", Some("1"), Some("2"))
        );
    }
    let requests = worker.requests();
    assert_eq!(requests[0].line(), "GET /page?a=b HTTP/1.1");
    assert_eq!((requests[3].line(), &requests[3].body[..]), ("POST /form HTTP/1.1", &b"body"[..]));
}

#[test]
fn what_is_not_there_has_the_page_of_the_site_or_its_own() {
    let tree = Tree::new();
    tree.write("404.html", "<h1>own");
    let page = tree.0.path().join("page.html");
    fs::write(&page, "<h1>site").unwrap();
    let gateway = Gateway::start(&format!(
        "sites:\n  - error_pages: {{ 404: \"{}\" }}\n    routes:\n      \
         - {{ path: /own/, files: {{ root: \"{root}\", not_found: /404.html }} }}\n      - {{ path: /, files: \"{root}\" }}\n",
        page.display(),
        root = tree.root().display()
    ));
    for (path, accept, text) in [
        ("/own/none", "text/html", "<h1>own"),
        ("/own/none", "*/*", "<h1>own"),
        ("/none", "text/html", "<h1>site"),
        ("/none", "*/*", "404 Not Found\nThere is nothing at this address.\nreason: file_not_found\n"),
    ] {
        let mut client = gateway.client();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"));
        let response = client.response("GET");
        assert!(response.status == 404 && response.text().starts_with(text), "{path} {accept}: {response:?}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(gateway.access_of(&response)["reason"], "file_not_found");
    }
}

#[test]
fn a_reload_changes_what_is_served() {
    let (one, two) = (Tree::new(), Tree::new());
    one.write("a.txt", "one");
    two.write("a.txt", "two");
    let gateway = one.serve("");
    let mut client = gateway.client();
    assert_eq!(client.get("/a.txt").text(), "one");
    gateway.reload(&two.config(""));
    assert_eq!(client.get("/a.txt").text(), "two", "on an open connection");
}

#[test]
fn files_are_read_and_a_body_changes_nothing_of_that() {
    let tree = Tree::new();
    tree.write("a.txt", "a");
    let gateway = tree.serve("");
    let mut client = gateway.client();
    client.send("POST /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let response = client.response("POST");
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert_eq!(gateway.access_of(&response)["reason"], "method_not_allowed");
    let mut client = gateway.client();
    client.send("GET /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    let response = client.response("GET");
    assert_eq!((response.text(), response.header("connection")), ("a", Some("close")), "nobody reads it");
}
