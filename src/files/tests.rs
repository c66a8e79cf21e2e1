//! The action over a folder on the disk.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderMap;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::*;
use crate::http::{ConnectionInfo, Dispatch, Dispatched, Protocol};

/// When the files of the tests were written: long ago, so that they are kept.
const WRITTEN: u64 = 784_111_777;
const WRITTEN_DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A folder, and a route with its files.
struct Site {
    folder: TempDir,
    files: Files,
    /// Answers what is handed on.
    router: Rc<Behind>,
}

/// The route behind: says so.
struct Behind;

impl Dispatch for Behind {
    fn dispatch(&self, request: Box<Request>, onward: Onward) -> Dispatched<'_> {
        let said = format!("{onward:?} {} {}", request.method, request.target.as_str());
        Box::pin(async move { Ok(Response::new(Body::Full(said.into()))) })
    }
}

/// What a client would see.
#[derive(Debug, Default)]
struct Seen {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    reason: Option<Reason>,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// An answer, or the reason for its absence and the fields that it would have.
impl Site {
    /// Of a route with this path and these keys of `files`, such as `browse: true`.
    fn new(path: &str, keys: &str) -> Self {
        Self::with_route(path, keys, "")
    }

    fn with_route(path: &str, keys: &str, route: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        let text = format!(
            "sites:\n  - routes:\n      - {{ {path}, {route} files: {{ root: ./root, {keys} }} }}\n      - {{ path: /, respond: {{}} }}\n"
        );
        let loaded = config::load_str(&text, "f", folder.path(), &|_| None);
        let config = loaded.unwrap_or_else(|report| panic!("{report}")).config;
        let route = &config.sites[0].routes[0];
        let config::Action::Files(files) = &route.action else { panic!() };
        let router = Rc::new(Behind);
        let redispatch = Redispatch::default();
        redispatch.connect(&router);
        let cache = Rc::new(Cache::new(Room::of_thread(1, 16)));
        let shared = Arc::new(Folder::compile(files, &route.path));
        let files = Files::compile(route, files, shared, cache, redispatch);
        Self { folder, files, router }
    }

    fn path(&self, name: &str) -> PathBuf {
        let root = self.folder.path().join("root");
        if name.is_empty() { root } else { root.join(name) }
    }

    /// Writes a file as it was written long ago.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        self.write_at(name, content, WRITTEN);
    }

    fn write_at(&self, name: &str, content: impl AsRef<[u8]>, seconds: u64) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::File::create(path).unwrap();
        file.write_all(content.as_ref()).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    async fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Seen {
        let request = request(method, target, fields);
        seen(&request.exchange.clone(), self.files.call(request).await).await
    }

    async fn get(&self, target: &str) -> Seen {
        self.ask("GET", target, &[]).await
    }
}

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Box<Request> {
    let raw = Bytes::copy_from_slice(target.as_bytes());
    let method: Method = method.parse().unwrap();
    let connection = Rc::new(ConnectionInfo::new("80"));
    let exchange = Exchange::new(connection, Protocol::Http11, method.clone(), raw.clone(), None, None);
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let target = Target::parse(raw).unwrap();
    Box::new(Request { method, target, headers, body: Body::Empty, exchange: Rc::new(exchange), refused: None })
}

async fn seen(exchange: &Exchange, answer: Result<Response, Error>) -> Seen {
    let (mut headers, mut body, mut seen) = (HeaderMap::new(), Vec::new(), Seen::default());
    match answer {
        Ok(response) => {
            let (parts, mut stream) = response.into_parts();
            (seen.status, headers) = (parts.status.as_u16(), parts.headers);
            while let Some(piece) = stream.data().await {
                body.extend_from_slice(&piece.unwrap());
            }
        }
        Err(error) => seen.reason = Some(error.reason),
    }
    exchange.answer_fields.apply(&mut headers);
    Seen { headers, body, ..seen }
}

#[tokio::test]
async fn a_file_is_sent_with_what_tells_of_it() {
    let site = Site::new("path: /static/", "");
    site.write("css/a.css", "body{}");
    let sent = site.get("/static/css/a.css").await;
    assert_eq!((sent.status, sent.text()), (200, "body{}"));
    for (name, value) in [
        ("content-type", "text/css; charset=utf-8"),
        ("etag", "\"2ebc98a1-6\""),
        ("last-modified", WRITTEN_DATE),
        ("cache-control", "max-age=60, public"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(sent.field(name), Some(value), "{name}");
    }
    for name in ["vary", "content-encoding", "content-range"] {
        assert_eq!(sent.field(name), None, "{name}");
    }
    assert_eq!(site.get("/static/css/A.css").await.reason, Some(Reason::FileNotFound));
}

#[tokio::test]
async fn head_says_what_get_would_send() {
    let site = Site::new("path: /", "");
    site.write("empty.txt", "");
    site.write("small.txt", "small");
    site.write("large.bin", vec![7; 100_000]);
    for (target, length) in [("/empty.txt", 0), ("/small.txt", 5), ("/large.bin", 100_000)] {
        let (head, get) = (site.ask("HEAD", target, &[]).await, site.get(target).await);
        assert_eq!((head.status, get.status, get.body.len()), (200, 200, length), "{target}");
        assert_eq!((head.field("content-length"), head.body.len()), (Some(&*length.to_string()), 0), "{target}");
        let mut fields = head.headers.clone();
        fields.remove("content-length");
        assert_eq!(fields, get.headers, "{target}");
        let part = site.ask("HEAD", target, &[("range", "bytes=0-0")]).await;
        assert_eq!(part.status, 200, "a range is asked of GET alone");
    }
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let site = Site::new("path: /", "");
    site.write("a.txt", "abc");
    site.write("a.txt.gz", "z");
    let tag = |sent: &Seen| sent.field("etag").unwrap().to_owned();
    let plain = tag(&site.get("/a.txt").await);
    let zipped = tag(&site.ask("GET", "/a.txt", &[("accept-encoding", "gzip")]).await);
    assert_ne!(plain, zipped);
    for (fields, status) in [
        (&[("if-none-match", plain.as_str())][..], 304),
        (&[("if-none-match", &format!("W/{plain}"))], 304),
        (&[("if-none-match", &zipped)], 200),
        (&[("if-none-match", &zipped), ("accept-encoding", "gzip")], 304),
        (&[("if-none-match", &plain), ("accept-encoding", "gzip")], 200),
        (&[("if-none-match", "*")], 304),
        (&[("if-modified-since", WRITTEN_DATE)], 304),
        (&[("if-match", &plain)], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], 412),
        (&[("if-none-match", &plain), ("range", "bytes=0-0")], 304),
    ] {
        for method in ["GET", "HEAD"] {
            let sent = site.ask(method, "/a.txt", fields).await;
            let is_refused = sent.reason == Some(Reason::PreconditionFailed);
            assert_eq!(if is_refused { 412 } else { sent.status }, status, "{method} {fields:?}");
            if status == 304 {
                assert_eq!((sent.field("vary"), sent.body.len()), (Some("accept-encoding"), 0));
                assert!(sent.field("etag").is_some() && sent.field("cache-control").is_some());
                assert!(sent.field("content-length").is_none() && sent.field("content-type").is_none());
            }
        }
    }
}

#[tokio::test]
async fn a_part_is_sent_of_small_files_and_of_large_ones() {
    let site = Site::new("path: /", "");
    for size in [1000_usize, 100_000] {
        let content: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        site.write("f.bin", &content);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        let tag = site.get("/f.bin").await.field("etag").unwrap().to_owned();
        let last = size - 1;
        for (range, first, end) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=10-19".to_owned(), 10, 20),
            ("bytes=10-".to_owned(), 10, size),
            ("bytes=-10".to_owned(), size - 10, size),
            (format!("bytes={last}-{last}"), last, size),
            (format!("bytes={last}-99999999999999999999"), last, size),
            (format!("bytes=-{}", size * 2), 0, size),
        ] {
            let sent = site.ask("GET", "/f.bin", &[("range", &range), ("if-range", &tag)]).await;
            assert_eq!(sent.status, 206, "{range}");
            assert_eq!(sent.field("content-range"), Some(&*format!("bytes {first}-{}/{size}", end - 1)), "{range}");
            assert!(sent.body == content[first..end], "{range} of {size}");
            assert_eq!(sent.field("etag"), Some(&*tag));
        }
        for fields in [
            &[("range", "bytes=1-0")][..],
            &[("range", "bytes=0-0"), ("if-range", "\"other\"")],
            &[("range", "bytes=0-0"), ("if-range", "Sun, 06 Nov 1994 08:49:36 GMT")],
            &[("range", "bytes=0-0"), ("range", "bytes=1-1")],
            &[("range", "lines=0-0")],
        ] {
            let sent = site.ask("GET", "/f.bin", fields).await;
            assert!(sent.status == 200 && sent.body == content, "{fields:?}");
        }
        let dated = site.ask("GET", "/f.bin", &[("range", "bytes=0-0"), ("if-range", WRITTEN_DATE)]).await;
        assert_eq!(dated.status, 206);
        let beyond = site.ask("GET", "/f.bin", &[("range", &format!("bytes={size}-"))]).await;
        assert_eq!(beyond.reason, Some(Reason::RangeNotSatisfiable));
        assert_eq!(beyond.field("content-range"), Some(&*format!("bytes */{size}")));
        let many = site.ask("GET", "/f.bin", &[("range", "bytes=0-1, 10-11")]).await;
        assert_eq!(many.status, 206);
        assert!(many.field("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
        assert_eq!(many.field("content-range"), None);
        let text = String::from_utf8_lossy(&many.body);
        for part in [format!("bytes 0-1/{size}"), format!("bytes 10-11/{size}")] {
            assert!(text.contains(&part) && text.contains("application/octet-stream"), "{text}");
        }
    }
}

#[tokio::test]
async fn files_lie_ready_in_other_codings() {
    let site = Site::new("path: /", "");
    site.write("a.js", "0123456789");
    site.write("a.js.br", "br");
    site.write("a.js.gz", "gzip");
    site.write("a.js.zst", "0123456789 larger than the original");
    site.write("old.js", "0123456789");
    site.write_at("old.js.gz", "old", WRITTEN - 3);
    site.write("alone.js.gz", "alone");
    for (asked, coding, body) in [
        ("", None, "0123456789"),
        ("gzip, br", Some("br"), "br"),
        ("gzip", Some("gzip"), "gzip"),
        ("zstd", None, "0123456789"),
        ("br;q=0, gzip;q=0.1", Some("gzip"), "gzip"),
    ] {
        let sent = site.ask("GET", "/a.js", &[("accept-encoding", asked)]).await;
        assert_eq!((sent.field("content-encoding"), sent.text()), (coding, body), "{asked}");
        assert_eq!(sent.field("vary"), Some("accept-encoding"));
        assert_eq!(sent.field("content-type"), Some("text/javascript; charset=utf-8"));
    }
    let part = site.ask("GET", "/a.js", &[("accept-encoding", "gzip"), ("range", "bytes=1-2")]).await;
    assert_eq!((part.text(), part.field("content-range")), ("zi", Some("bytes 1-2/4")), "a range of what is sent");
    let many = site.ask("GET", "/a.js", &[("accept-encoding", "gzip"), ("range", "bytes=0-0, 2-2")]).await;
    assert_eq!((many.status, many.text(), many.field("content-encoding")), (200, "gzip", Some("gzip")), "all of it");
    let plain = site.ask("GET", "/a.js", &[("range", "bytes=0-0, 2-2")]).await;
    assert_eq!((plain.status, plain.field("content-encoding")), (206, None));
    for hidden in ["/a.js.br", "/a.js.gz", "/a.js.zst", "/old.js.gz"] {
        assert_eq!(site.get(hidden).await.reason, Some(Reason::FileNotFound), "{hidden}");
    }
    let alone = site.get("/alone.js.gz").await;
    assert_eq!((alone.text(), alone.field("content-type")), ("alone", Some("application/gzip")));
    let old = site.ask("GET", "/old.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!((old.field("content-encoding"), old.field("vary")), (None, None), "older than its original");
    let off = Site::new("path: /", "precompressed: false");
    off.write("a.js", "0123456789");
    off.write("a.js.gz", "gzip");
    let sent = off.ask("GET", "/a.js", &[("accept-encoding", "gzip")]).await;
    assert_eq!((sent.text(), sent.field("vary")), ("0123456789", None));
    assert_eq!(off.get("/a.js.gz").await.text(), "gzip");
}

#[tokio::test]
async fn what_an_app_leads_to_is_never_answered_with_another_file() {
    let site = Site::with_route("path: /p/", "", "internal: true,");
    for (name, content) in [
        ("report.csv", "0123456789"),
        ("report.csv.gz", "another"),
        ("report.tar", "tar tar tar"),
        ("report.tar.gz", "gzip"),
    ] {
        site.write(name, content);
        let sent = site.ask("GET", &format!("/p/{name}"), &[("accept-encoding", "gzip")]).await;
        assert_eq!((sent.status, sent.text()), (200, content), "{name}");
    }
    for (name, content) in [("report.csv", "0123456789"), ("report.tar", "tar tar tar")] {
        let sent = site.ask("GET", &format!("/p/{name}"), &[("accept-encoding", "gzip")]).await;
        assert_eq!((sent.text(), sent.field("content-encoding"), sent.field("vary")), (content, None, None), "{name}");
    }
    let written = Site::with_route("path: /p/", "precompressed: true", "internal: true,");
    written.write("a.js", "0123456789");
    written.write("a.js.gz", "gzip");
    assert_eq!(written.ask("GET", "/p/a.js", &[("accept-encoding", "gzip")]).await.text(), "gzip");
}

#[tokio::test(start_paused = true)]
async fn what_lies_ready_is_hidden_as_soon_as_its_original_is_there() {
    let site = Site::new("path: /", "");
    site.write("a.js.gz", "gzip");
    assert_eq!(site.get("/a.js.gz").await.text(), "gzip");
    site.write("a.js", "0123456789");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(site.get("/a.js.gz").await.reason, Some(Reason::FileNotFound));
}

#[tokio::test]
async fn what_a_layer_has_read_of_the_codings_counts() {
    let site = Site::new("path: /", "");
    site.write("a.js", "0123456789");
    site.write("a.js.gz", "gzip");
    let request = request("GET", "/a.js", &[]);
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    request.exchange.codings.set(Some(crate::http::Codings::of(&headers)));
    let exchange = request.exchange.clone();
    assert_eq!(seen(&exchange, site.files.call(request).await).await.text(), "gzip");
}

#[tokio::test]
async fn a_folder_is_its_index() {
    let site = Site::new("path: /docs/", "");
    site.write("index.html", "top");
    site.write("a/index.html", "inner");
    site.write("b/file", "x");
    for (target, text) in
        [("/docs/", "top"), ("/docs/a/", "inner"), ("/docs//a//", "inner"), ("/docs/a/index.html", "inner")]
    {
        assert_eq!(site.get(target).await.text(), text, "{target}");
    }
    for target in ["/docs/b/", "/docs/b/file/", "/docs/none/", "/docs/index.html/"] {
        assert_eq!(site.get(target).await.reason, Some(Reason::FileNotFound), "{target}");
    }
    for (target, location) in
        [("/docs/a", "/docs/a/"), ("/docs/%61?b=/c", "/docs/%61/?b=/c"), ("/docs//b", "/docs//b/")]
    {
        let sent = site.get(target).await;
        assert_eq!((sent.status, sent.field("location")), (308, Some(location)), "{target}");
    }
    let other = Site::new("path: /", "index: main.htm");
    other.write("main.htm", "main");
    other.write("evil.example/x", "x");
    assert_eq!(other.get("/").await.text(), "main");
    assert_eq!(other.get("//evil.example").await.field("location"), Some("/evil.example/"), "no other host");
    let none = Site::new("path: /", "index: false");
    none.write("index.html", "top");
    assert_eq!(none.get("/").await.reason, Some(Reason::FileNotFound));
    assert_eq!(none.get("/index.html").await.text(), "top");
}

#[tokio::test(start_paused = true)]
async fn a_folder_without_an_index_is_shown_if_it_may_be() {
    let site = Site::new("path: /pub/", "browse: true");
    site.write("a/file.txt", "x");
    site.write("a/.hidden", "x");
    let sent = site.get("/pub/a/").await;
    assert_eq!((sent.status, sent.field("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(sent.field("cache-control"), Some("no-cache"));
    assert!(sent.text().contains("./file.txt") && !sent.text().contains("hidden"), "{}", sent.text());
    let head = site.ask("HEAD", "/pub/a/", &[]).await;
    assert_eq!(head.field("content-length"), Some(&*sent.body.len().to_string()));
    site.write("a/index.html", "index");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(site.get("/pub/a/").await.text(), "index");
}

#[tokio::test]
async fn names_with_a_dot_and_files_that_are_none_are_not_served() {
    let site = Site::new("path: /", "");
    for name in [".env", ".git/config", "a/.htaccess", ".well-known/security.txt"] {
        site.write(name, "secret");
    }
    let made = |name: &str, kind| mknodat(CWD, site.path(name), kind, Mode::RWXU, 0);
    made("pipe", FileType::Fifo).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(site.path("socket")).unwrap();
    for target in ["/.env", "/%2eenv", "/.git/config", "/a/.htaccess", "/.git/", "/.git", "/.", "/..."] {
        let Ok(_) = Target::parse(Bytes::copy_from_slice(target.as_bytes())) else { continue };
        assert_eq!(site.get(target).await.reason, Some(Reason::FileNotFound), "{target}");
    }
    assert_eq!(site.get("/.well-known/security.txt").await.text(), "secret");
    for target in ["/pipe", "/socket"] {
        assert_eq!(site.get(target).await.reason, Some(Reason::FileForbidden), "{target}");
    }
    // Only root makes devices, and not in every container.
    if mknodat(CWD, site.path("zero"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5)).is_ok() {
        assert_eq!(site.get("/zero").await.reason, Some(Reason::FileForbidden));
    }
}

#[tokio::test]
async fn links_lead_as_far_as_the_operator_lets_them() {
    for (symlinks, inside, outside) in [("inside", true, false), ("follow", true, true), ("never", false, false)] {
        let site = Site::new("path: /", &format!("symlinks: {symlinks}"));
        site.write("a/file", "file");
        fs::write(site.folder.path().join("secret"), "secret").unwrap();
        symlink("a/file", site.path("link")).unwrap();
        symlink("a", site.path("folder")).unwrap();
        symlink("../secret", site.path("escape")).unwrap();
        symlink("..", site.path("up")).unwrap();
        symlink("/etc", site.path("etc")).unwrap();
        for target in ["/link", "/folder/file"] {
            let sent = site.get(target).await;
            let expected = if inside { None } else { Some(Reason::FileForbidden) };
            assert_eq!(sent.reason, expected, "{symlinks} {target}");
        }
        for target in ["/escape", "/up/secret", "/etc/passwd"] {
            let sent = site.get(target).await;
            let expected = if outside { None } else { Some(Reason::FileForbidden) };
            assert_eq!(sent.reason, expected, "{symlinks} {target}");
        }
    }
}

#[tokio::test]
async fn files_are_read_and_nothing_else() {
    let site = Site::new("path: /", "");
    site.write("a", "x");
    for method in ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"] {
        let sent = site.ask(method, "/a", &[]).await;
        assert_eq!(sent.reason, Some(Reason::MethodNotAllowed), "{method}");
        assert_eq!(sent.field("allow"), Some("GET, HEAD, OPTIONS"));
    }
    let options = site.ask("OPTIONS", "/a", &[]).await;
    assert_eq!((options.status, options.field("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

#[tokio::test]
async fn where_there_is_no_file_the_next_route_answers() {
    let site = Site::new("path: /", "fallback: next");
    site.write("robots.txt", "robots");
    site.write("admin/a.css", "css");
    site.write("docs/index.html", "docs");
    assert_eq!(site.get("/robots.txt").await.text(), "robots");
    for (method, target) in [
        ("GET", "/page?a=b"),
        ("POST", "/page"),
        ("OPTIONS", "/page"),
        ("GET", "/"),
        ("GET", "/.env"),
        ("GET", "/admin"),
        ("HEAD", "/admin"),
        ("GET", "/admin/"),
        ("POST", "/admin"),
        ("POST", "/admin/"),
    ] {
        let sent = site.ask(method, target, &[]).await;
        assert_eq!(sent.text(), format!("Next {method} {target}"));
    }
    assert_eq!(site.ask("POST", "/robots.txt", &[]).await.reason, Some(Reason::MethodNotAllowed));
    assert_eq!(site.ask("OPTIONS", "/robots.txt", &[]).await.status, 204);
    assert_eq!(site.get("/docs").await.status, 308);
    let shown = Site::new("path: /", "fallback: next, browse: true");
    shown.write("admin/a.css", "css");
    assert_eq!(shown.get("/admin").await.status, 308);
    assert_eq!(Rc::strong_count(&site.router), 1);
    fs::remove_dir_all(site.path("")).unwrap();
    assert_eq!(site.get("/page").await.text(), "Next GET /page", "a missing root keeps nobody from the app");
}

#[tokio::test]
async fn a_file_may_answer_where_there_is_none() {
    let app = Site::new("path: /", "fallback: /app.html");
    assert_eq!(app.get("/a").await.reason, Some(Reason::FileNotFound));
    app.write("app.html", "app");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    let sent = app.get("/some/page").await;
    assert_eq!((sent.status, sent.text(), sent.field("content-type")), (200, "app", Some("text/html; charset=utf-8")));
    let page = Site::new("path: /", "not_found: /errors/404.html");
    page.write("errors/404.html", "gone");
    page.write("errors/404.html.gz", "gz");
    for (method, body, length) in [("GET", "gone", None), ("HEAD", "", Some("4"))] {
        let request = request(method, "/none", &[("if-none-match", "*"), ("range", "bytes=0-0")]);
        let exchange = request.exchange.clone();
        let sent = seen(&exchange, page.files.call(request).await).await;
        assert_eq!((sent.status, sent.text(), sent.field("content-length")), (404, body, length));
        assert_eq!((sent.field("etag"), sent.field("cache-control")), (None, Some("no-store")));
        assert_eq!((sent.field("vary"), exchange.reason.get()), (Some("accept-encoding"), Some(Reason::FileNotFound)));
    }
}

#[tokio::test]
async fn what_never_changes_is_kept_for_ever() {
    let immutable = "max-age=315360000, public, immutable";
    let site = Site::new("path: /static/", "");
    site.write("a.css", "x");
    site.write("a.0123456789ab.css", "x");
    site.write("b.0123456789ab.css", "x");
    site.write("staticfiles.json", r#"{"paths": {"a.css": "a.0123456789ab.css"}, "version": "1.1"}"#);
    for (target, value) in [
        ("/static/a.0123456789ab.css", immutable),
        ("/static/b.0123456789ab.css", "max-age=60, public"),
        ("/static/a.css", "max-age=60, public"),
        ("/static/staticfiles.json", "max-age=60, public"),
    ] {
        assert_eq!(site.get(target).await.field("cache-control"), Some(value), "{target}");
        let tag = site.get(target).await.field("etag").unwrap().to_owned();
        assert_eq!(site.ask("GET", target, &[("if-none-match", &tag)]).await.field("cache-control"), Some(value));
    }
    // The next deploy.
    site.write_at("staticfiles.json", r#"{"paths": {"b.css": "b.0123456789ab.css"}}"#, WRITTEN + 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(site.get("/static/b.0123456789ab.css").await.field("cache-control"), Some(immutable));
    assert_eq!(site.get("/static/a.0123456789ab.css").await.field("cache-control"), Some("max-age=60, public"));
    for (keys, value) in [
        ("immutable: hashed", immutable),
        ("immutable: false", "max-age=60, public"),
        ("immutable: false, max_age: 1h", "max-age=3600, public"),
        ("immutable: false, max_age: 0s", "no-cache"),
    ] {
        let site = Site::new("path: /", keys);
        site.write("app-B2kd93Ls.js", "x");
        assert_eq!(site.get("/app-B2kd93Ls.js").await.field("cache-control"), Some(value), "{keys}");
    }
}

#[tokio::test]
async fn what_is_not_for_everybody_is_kept_by_nobody_else() {
    for (route, value) in
        [("auth: { allow: [private] },", "max-age=60, private"), ("internal: true,", "private, no-cache")]
    {
        let site = Site::with_route("path: /", "", route);
        site.write("a.txt", "x");
        site.write("b/index.html", "x");
        assert_eq!(site.get("/a.txt").await.field("cache-control"), Some(value));
        let folder = site.get("/b").await;
        assert_eq!(folder.status == 308, !route.starts_with("internal"), "no client is led to where it may not go");
    }
}

#[tokio::test]
async fn the_prefix_is_what_the_path_of_the_route_says() {
    let single = Site::new("path_exact: /favicon.ico", "");
    fs::remove_dir(single.path("")).unwrap();
    single.write_at("", "icon", WRITTEN);
    let sent = single.get("/favicon.ico").await;
    assert_eq!((sent.text(), sent.field("content-type")), ("icon", Some("application/octet-stream")));
    let pattern = Site::new("path_regex: '^/[a-z]+/a'", "");
    pattern.write("b/a.txt", "whole");
    assert_eq!(pattern.get("/b/a.txt").await.text(), "whole");
    let plain = Site::new("path: /static", "");
    plain.write("a", "x");
    for (target, reason) in [("/static/a", None), ("/static//a", None), ("/statica", Some(Reason::FileNotFound))] {
        assert_eq!(plain.get(target).await.reason, reason, "{target}");
    }
}

#[tokio::test]
async fn an_app_names_files_as_they_are() {
    let site = Site::new("path: /", "");
    site.write("a.txt", "plain");
    site.write("a.txt.gz", "gz");
    site.write(".hidden", "hidden");
    site.write("b/index.html", "x");
    let root = site.path("");
    let files = Files::named_by_app(&root, Symlinks::Inside, Rc::new(Cache::new(Room::of_thread(1, 16))));
    assert_eq!(files.root(), root);
    let ask = async |name: &str| {
        let absolute = format!("{}/{name}", root.display());
        let request = request("GET", "/anything", &[("accept-encoding", "gzip"), ("range", "bytes=0-0")]);
        let path = Relative::below(&root, absolute.as_bytes()).unwrap();
        seen(&request.exchange.clone(), files.answer(&request, &path).await).await
    };
    for (name, text) in [("a.txt", "p"), ("a.txt.gz", "g"), (".hidden", "h")] {
        let sent = ask(name).await;
        assert_eq!((sent.status, sent.text(), sent.field("vary")), (206, text, None), "{name}");
        assert_eq!(sent.field("cache-control"), Some("private, no-cache"));
    }
    for name in ["b", "none"] {
        assert_eq!(ask(name).await.reason, Some(Reason::FileNotFound), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_replaced_or_written_anew_is_seen_within_a_second() {
    let site = Site::new("path: /", "");
    let second = Duration::from_secs(1);
    site.write("a.txt", "one");
    let first = site.get("/a.txt").await;
    site.write_at("new", "two!", WRITTEN + 1);
    fs::rename(site.path("new"), site.path("a.txt")).unwrap();
    let kept = site.get("/a.txt").await;
    assert_eq!((kept.text(), kept.field("etag")), ("one", first.field("etag")), "old, and whole");
    tokio::time::advance(second).await;
    let replaced = site.get("/a.txt").await;
    assert_eq!(replaced.text(), "two!");
    assert_ne!(replaced.field("etag"), first.field("etag"));
    site.write_at("a.txt", "three", WRITTEN + 5);
    tokio::time::advance(second).await;
    assert_eq!(site.get("/a.txt").await.text(), "three");
    site.write("a.txt.gz", "z");
    tokio::time::advance(second).await;
    assert_eq!(site.get("/a.txt").await.field("vary"), None, "older than the new original");
    site.write_at("a.txt.gz", "z", WRITTEN + 5);
    tokio::time::advance(second).await;
    assert_eq!(site.ask("GET", "/a.txt", &[("accept-encoding", "gzip")]).await.text(), "z");
    fs::remove_file(site.path("a.txt")).unwrap();
    tokio::time::advance(second).await;
    assert_eq!(site.get("/a.txt").await.reason, Some(Reason::FileNotFound));
    site.write("a.txt", "back");
    assert_eq!(site.get("/a.txt").await.reason, Some(Reason::FileNotFound), "remembered for a moment");
    tokio::time::advance(second).await;
    assert_eq!(site.get("/a.txt").await.text(), "back");
}

#[tokio::test(start_paused = true)]
async fn a_large_file_that_is_written_in_place_is_seen_at_once() {
    let site = Site::new("path: /", "");
    site.write("large.bin", vec![1; 100_000]);
    let first = site.get("/large.bin").await;
    assert_eq!(first.body.len(), 100_000);
    for (size, content) in [(90_000, 2), (120_000, 3), (10, 4)] {
        site.write_at("large.bin", vec![content; size], WRITTEN + 10);
        let sent = site.get("/large.bin").await;
        assert!(sent.body.len() == size && sent.body.iter().all(|byte| *byte == content), "{size}");
        assert!(sent.field("etag").unwrap().contains(&format!("-{size:x}")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_just_written_is_read_each_time() {
    let site = Site::new("path: /", "");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for content in ["one", "two", "six"] {
        site.write_at("a.txt", content, now);
        assert_eq!(site.get("/a.txt").await.text(), content, "the same time, the same size");
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_that_goes_away_is_missed_and_found_again() {
    let site = Site::new("path: /", "");
    site.write("a.txt", "one");
    assert_eq!(site.get("/a.txt").await.text(), "one");
    let elsewhere = site.folder.path().join("elsewhere");
    fs::rename(site.path(""), &elsewhere).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..2 {
        assert_eq!(site.get("/a.txt").await.reason, Some(Reason::RootMissing));
        assert_eq!(site.get("/b.txt").await.reason, Some(Reason::RootMissing));
    }
    // As a deploy does it: a link to the new release.
    symlink("elsewhere", site.folder.path().join("root")).unwrap();
    assert_eq!(site.get("/a.txt").await.text(), "one");
    fs::write(site.folder.path().join("file"), "x").unwrap();
    fs::remove_file(site.folder.path().join("root")).unwrap();
    symlink("file", site.folder.path().join("root")).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(site.get("/a.txt").await.reason, Some(Reason::RootMissing), "a file is no folder");
}

#[tokio::test]
async fn headers_and_bytes_belong_together_while_files_are_replaced() {
    let site = Site::new("path: /", "");
    site.write("f", [0]);
    let (path, new) = (site.path("f"), site.path("new"));
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    // Versions of one byte each, as many as the byte says, small and large, with times of their own.
    let writer = std::thread::spawn(move || {
        let mut version = 0_u64;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            version += 1;
            let byte = u8::try_from(version % 200 + 1).unwrap();
            let mut file = fs::File::create(&new).unwrap();
            file.write_all(&vec![byte; usize::from(byte) * 1000]).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(WRITTEN + version)).unwrap();
            fs::rename(&new, &path).unwrap();
        }
    });
    let mut versions = std::collections::HashSet::new();
    for _ in 0..300 {
        // Nothing is fresh: every request looks.
        site.files.cache.sweep(Instant::now() + Duration::from_secs(60));
        let sent = site.get("/f").await;
        assert_eq!(sent.status, 200);
        let byte = sent.body[0];
        let size = if byte == 0 { 1 } else { usize::from(byte) * 1000 };
        assert!(sent.body.len() == size && sent.body.iter().all(|other| *other == byte), "one version");
        assert!(sent.field("etag").unwrap().ends_with(&format!("-{size:x}\"")), "its own tag");
        versions.insert(byte);
    }
    drop(stop);
    writer.join().unwrap();
    assert!(!versions.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_path_leads_out_of_the_root(
        pieces in prop::collection::vec(prop::sample::select(&[
            "a", "up", "etc", "escape", "secret", "passwd", "/", "/", "/", "..", ".", "%2e", "%2F", "//", "%5c", "%00",
            "%c0%ae", "file", "link", ";", "?", "\\",
        ][..]), 0..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for symlinks in ["inside", "never"] {
            let site = Site::new("path: /", &format!("symlinks: {symlinks}, browse: true"));
            site.write("a/file", "file");
            fs::write(site.folder.path().join("secret"), "secret").unwrap();
            symlink("a", site.path("link")).unwrap();
            symlink("../secret", site.path("escape")).unwrap();
            symlink("..", site.path("up")).unwrap();
            symlink("/etc", site.path("etc")).unwrap();
            let target = format!("/{}", pieces.concat());
            if Target::parse(Bytes::copy_from_slice(target.as_bytes())).is_err() {
                continue;
            }
            let sent = runtime.block_on(site.get(&target));
            let is_page = sent.field("content-type").is_some_and(|kind| kind.starts_with("text/html"));
            prop_assert!(is_page || matches!(sent.text(), "" | "file"), "{} {:?}", target, sent);
            prop_assert!(!is_page || !sent.text().contains("secret"), "{}", target);
        }
    }
}
