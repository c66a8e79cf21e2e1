//! Downloads that an app hands over, as the packages for it do that people use: django-sendfile2 with its nginx and its
//! xsendfile backend, and Flask with USE_X_SENDFILE, all of them unmodified, on gunicorn and uWSGI.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;

use crate::support::client::get;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::tls_worker::Ca;
use crate::support::tool::{Tool, curl};
use crate::support::worker::Transport;
use crate::support::{Client, Gateway, Gunicorn, H2, Response, Uwsgi, Worker};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// An app, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum App {
    /// X-Accel-Redirect.
    DjangoNginx,
    /// X-Sendfile.
    DjangoXsendfile,
    /// X-Sendfile.
    Flask,
}

use App::{DjangoNginx, DjangoXsendfile, Flask};

impl App {
    fn module(self) -> &'static str {
        if self == Flask { "downloads_flask:application" } else { "downloads_django:application" }
    }

    fn backend(self) -> &'static str {
        if self == DjangoNginx { "django_sendfile.backends.nginx" } else { "django_sendfile.backends.xsendfile" }
    }

    fn variables(self, folder: &TempDir) -> [(&'static str, String); 2] {
        [("SENDFILE_BACKEND", self.backend().to_owned()), ("DOWNLOADS", folder.path().display().to_string())]
    }

    /// On gunicorn with one worker, or with two threads.
    fn plan(self, kind: Kind, folder: &TempDir) -> Plan {
        let plan = Plan::new(kind, 1, Transport::Unix).serving(self.module());
        self.variables(folder).iter().fold(plan, |plan, (name, value)| plan.variable(name, value))
    }

    /// Before this endpoint, with these further keys of listener and upstream. Only what this app says is followed.
    fn gateway(self, endpoint: &str, folder: &TempDir, listener: &str, upstream: &str) -> Gateway {
        let root = folder.path().display();
        let (internal, sendfile) = match self {
            DjangoNginx => {
                (format!("      - {{ path: /protected/, internal: true, files: {{ root: {root} }} }}\n"), String::new())
            }
            DjangoXsendfile | Flask => (String::new(), format!(", sendfile: {{ roots: [{root}] }}")),
        };
        Gateway::start(&format!(
            "listeners:\n  - {{ bind: \"127.0.0.1:0\"{listener} }}\n\
             upstreams:\n  app: {{ endpoints: [\"{endpoint}\"], workers: 1{upstream} }}\n\
             sites:\n  - routes:\n{internal}      - {{ path: /, proxy: app{sendfile} }}\n"
        ))
    }

    fn serve(self, kind: Kind, folder: &TempDir) -> (Gunicorn, Gateway) {
        let gunicorn = self.plan(kind, folder).start();
        let gateway = self.gateway(&gunicorn.endpoint(), folder, "", "");
        (gunicorn, gateway)
    }
}

/// A folder in which everybody may read, as a server that gives up root has to.
fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// A file of this size that takes hardly any room: a few of its stretches are not empty, and no two are alike.
fn write_large(path: &Path, size: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (number, at) in (0..).step_by(100_000_007).take_while(|at| at + 65_536 <= GIB).enumerate() {
        let bytes: Vec<u8> = (0..65_536_usize).map(|byte| (byte * (number + 3) % 251) as u8).collect();
        let here = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        file.write_all_at(&bytes[..here], at).unwrap();
    }
}

/// What curl gets is what the file has from `first` on, `length` bytes and no more.
fn is_same(url: &str, arguments: &str, file: &Path, first: u64, length: u64) {
    let script = format!(
        "set -o pipefail; curl --silent --show-error --fail --max-time 60 --write-out '%{{stderr}}%{{size_download}}' \
         {arguments} '{url}' | cmp --ignore-initial=0:{first} --bytes={length} - '{}'",
        file.display()
    );
    let output = Tool::start("bash", &["-c", &script]).output_within(std::time::Duration::from_secs(60));
    let told = (output.code, output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(told, (Some(0), "", &*length.to_string()), "{arguments} {url}");
}

fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.address())
}

#[test]
fn a_gibibyte_is_sent_and_resumed_while_its_only_worker_serves_others() {
    let folder = folder();
    let file = folder.path().join("film.mp4");
    write_large(&file, GIB);
    for (app, kind) in [
        (DjangoNginx, Kind::Sync),
        (DjangoNginx, Kind::Gthread { threads: 2 }),
        (DjangoXsendfile, Kind::Sync),
        (Flask, Kind::Gthread { threads: 2 }),
    ] {
        let (_gunicorn, gateway) = app.serve(kind, &folder);
        let url = url(&gateway, "/download/film.mp4");
        is_same(&url, "", &file, 0, GIB);
        is_same(&url, "--range 100000000-100100000", &file, 100_000_000, 100_001);
        is_same(&url, "--range -65536", &file, GIB - 65_536, 65_536);

        let partial = gateway.folder().join("partial");
        write_large(&partial, GIB - 150 * MIB + 1);
        let output = curl(&["--fail", "--continue-at", "-", "--output", partial.to_str().unwrap(), &url]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let compared = Tool::start("cmp", &[partial.to_str().unwrap(), file.to_str().unwrap()]).output();
        assert_eq!((compared.code, compared.stdout.as_str()), (Some(0), ""), "{app:?} {kind:?}");
        std::fs::remove_file(&partial).unwrap();

        gateway.wait_idle();
        gateway.wait_metric("hostler_worker_seconds_count{upstream=\"app\"}", 4.0);
        let seconds = gateway.metric("hostler_worker_seconds_sum{upstream=\"app\"}");
        eprintln!("{app:?} on {kind:?}: the worker was busy with a download for {:.1} ms on average", seconds * 250.0);

        // One that stops in the middle holds no worker.
        let mut slow = gateway.client();
        slow.send(get("/download/film.mp4"));
        assert_eq!(slow.head().expect("a head").0, 200);
        slow.take(1 << 20).expect("a part");
        gateway.wait_idle();
        let mut other = gateway.client();
        for _ in 0..5 {
            assert_eq!(other.get("/quick").text(), "quick");
        }
        assert_eq!(slow.take(1 << 20).expect("the next part").len(), 1 << 20);
        drop(slow);

        gateway.wait_idle();
        for reason in ["eof_in_body", "idle_timeout", "bad_head"] {
            assert_eq!(gateway.failures("app", reason), 0.0, "{app:?} {kind:?} {reason}");
        }
    }
}

#[test]
fn over_tls_and_http2_as_well() {
    let folder = folder();
    let file = folder.path().join("film.mp4");
    write_large(&file, 300 * MIB);
    for app in [DjangoNginx, Flask] {
        let gunicorn = app.plan(Kind::Sync, &folder).start();
        let gateway = app.gateway(&gunicorn.endpoint(), &folder, ", tls: { local: true }", "");
        let url = format!("https://localhost:{}/download/film.mp4", gateway.address().port());
        for version in ["--http1.1", "--http2"] {
            let common = format!("{version} --cacert {}", gateway.root().display());
            is_same(&url, &common, &file, 0, 300 * MIB);
            is_same(&url, &format!("{common} --range 200000000-"), &file, 200_000_000, 300 * MIB - 200_000_000);
        }
        let mut slow = Client::tls(gateway.address(), "localhost", &gateway.root());
        slow.send(get("/download/film.mp4").replace("shop.example", "localhost"));
        assert_eq!(slow.head().expect("a head").0, 200);
        let h2 = H2::tls(gateway.address(), "localhost", &gateway.root());
        for _ in 0..3 {
            assert_eq!(h2.get("/quick").text(), "quick");
        }
        drop(slow);
        gateway.wait_idle();
    }
}

/// What stands in every answer with a file.
fn check_fields(app: App, response: &Response) {
    assert_eq!(response.header("content-type"), Some("application/pdf"), "{app:?}: the app's");
    assert_eq!(response.header("accept-ranges"), Some("bytes"), "{app:?}");
    let disposition = response.header("content-disposition").unwrap();
    assert!(disposition.starts_with("attachment; filename="), "{app:?} {disposition}");
    let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie").count();
    assert_eq!(cookies, usize::from(app != Flask), "{app:?}");
    for (name, _) in &response.headers {
        assert!(!name.starts_with("x-accel") && !name.contains("sendfile") && name != "location", "{app:?} {name}");
    }
}

#[test]
fn the_apps_fields_survive_and_what_the_client_asks_applies_to_the_file() {
    const TEXT: &str = "0123456789";
    let folder = folder();
    std::fs::write(folder.path().join("report.pdf"), TEXT).unwrap();
    for (app, kind) in [
        (DjangoNginx, Kind::Gthread { threads: 2 }),
        (DjangoXsendfile, Kind::Gthread { threads: 2 }),
        (Flask, Kind::Gthread { threads: 2 }),
    ] {
        let (_gunicorn, gateway) = app.serve(kind, &folder);
        let mut client = gateway.client();
        let mut ask = |method: &str, fields: &str| {
            client.send(format!("{method} /download/report.pdf HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n"));
            client.response(method)
        };
        let whole = ask("GET", "");
        assert_eq!((whole.status, whole.text()), (200, TEXT), "{app:?}");
        check_fields(app, &whole);
        let tag = whole.header("etag").expect("a tag of the edge's").to_owned();
        let head = ask("HEAD", "");
        assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, Some("10"), Some(&*tag)));
        check_fields(app, &head);

        let part = ask("GET", "Range: bytes=2-4\r\n");
        assert_eq!((part.status, part.text(), part.header("content-range")), (206, "234", Some("bytes 2-4/10")));
        check_fields(app, &part);
        let same = ask("GET", &format!("Range: bytes=2-4\r\nIf-Range: {tag}\r\n"));
        assert_eq!((same.status, same.text()), (206, "234"), "{app:?}");
        let other = ask("GET", "Range: bytes=2-4\r\nIf-Range: \"other\"\r\n");
        assert_eq!((other.status, other.text()), (200, TEXT), "{app:?}");
        let known = ask("GET", &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((known.status, known.text()), (304, ""), "{app:?}");
        // Werkzeug answers several ranges itself, with 416.
        if app == Flask {
            continue;
        }
        let parts = ask("GET", "Range: bytes=0-1,8-9\r\n");
        assert_eq!(parts.status, 206, "{app:?}");
        assert!(parts.header("content-type").unwrap().starts_with("multipart/byteranges; boundary="), "{app:?}");
        assert_eq!(parts.text().matches("Content-Type: application/pdf\r\n").count(), 2, "{}", parts.text());
        gateway.wait_idle();
    }
}

#[test]
fn names_beyond_ascii_and_with_signs_in_them_are_found() {
    let folder = folder();
    let names = [
        "my file.pdf",
        "caf\u{e9}.pdf",
        "100%.pdf",
        "a%20b.pdf",
        "a#b?c.pdf",
        "\u{43e}\u{442}\u{447}\u{451}\u{442}.pdf",
    ];
    for name in names {
        std::fs::write(folder.path().join(name), name).unwrap();
    }
    let encoded = |name: &str| name.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for app in [DjangoNginx, DjangoXsendfile, Flask] {
        let (_gunicorn, gateway) = app.serve(Kind::Sync, &folder);
        for name in names {
            // Werkzeug writes what Latin-1 has no letter for as it is, which no WSGI server sends.
            if app == Flask && !name.chars().all(|c| u32::from(c) < 256) {
                continue;
            }
            let response = gateway.client().get(&format!("/download/{}", encoded(name)));
            assert_eq!((response.status, response.text()), (200, name), "{app:?}");
        }
    }
}

#[test]
fn over_uwsgi_tls_and_http2_workers_hand_over_as_well() {
    let folder = folder();
    let file = folder.path().join("film.mp4");
    write_large(&file, 20 * MIB);
    let authority = Ca::new();
    let (cert, key) = authority.files("shop.internal");
    let tls = format!(", tls: {{ ca: \"{}\", server_name: shop.internal }}", authority.file().display());
    let check = |app: App, endpoint: &str, upstream: &str| {
        let gateway = app.gateway(endpoint, &folder, "", upstream);
        let url = url(&gateway, "/download/film.mp4");
        for _ in 0..3 {
            is_same(&url, "", &file, 0, 20 * MIB);
            is_same(&url, "--range 10000000-", &file, 10_000_000, 20 * MIB - 10_000_000);
            assert_eq!(gateway.client().get("/quick").text(), "quick");
        }
        gateway.wait_idle();
        assert_eq!(gateway.failures("app", "eof_in_body"), 0.0, "{app:?} {endpoint}");
    };
    for app in [DjangoNginx, DjangoXsendfile, Flask] {
        let variables = app.variables(&folder);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        check(app, &Uwsgi::serving(app.module(), &variables).endpoint(), "");
        check(app, &app.plan(Kind::Sync, &folder).uwsgi().start().endpoint(), "");
        let over_tcp = |kind: Kind| {
            let plan = Plan::new(kind, 1, Transport::Tcp).serving(app.module());
            variables.iter().fold(plan, |plan, (name, value)| plan.variable(name, value))
        };
        for kind in [Kind::Sync, Kind::Gthread { threads: 2 }] {
            let plan = over_tcp(kind).argument(&format!("--certfile={}", cert.display()));
            let gunicorn = plan.argument(&format!("--keyfile={}", key.display())).start();
            check(app, &gunicorn.endpoint().replace("http://", "https://"), &tls);
        }
        let plan = over_tcp(Kind::Gthread { threads: 2 }).argument("--http-protocols=h2,h1");
        let plan = plan.argument("--http2-cleartext=prior-knowledge").argument("--forwarded-allow-ips=*");
        let gunicorn = plan.start();
        check(app, &gunicorn.endpoint().replace("http://", "h2c://"), "");
    }
}

#[test]
fn a_file_whose_rate_the_app_limits_comes_whole() {
    let folder = folder();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    std::fs::write(folder.path().join("film.mp4"), &bytes).unwrap();
    let worker = Worker::answering(
        Transport::Unix,
        "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /protected/film.mp4\r\nX-Accel-Limit-Rate: 4000000\r\nContent-Length: 0\r\n\r\n",
    );
    let gateway = DjangoNginx.gateway(&worker.endpoint(), &folder, "", "");
    for response in [gateway.client().get("/download"), gateway.h2().get("/download")] {
        assert!(
            response.status == 200 && response.body == bytes,
            "{} {} {:?} {:?}",
            response.status,
            response.body.len(),
            response.cut,
            response.headers
        );
    }
}

#[test]
fn a_file_outside_the_roots_is_refused_by_name_and_the_log_has_the_folders() {
    let folder = folder();
    let roots = folder.path().join("media");
    std::fs::create_dir(&roots).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", roots.join("link")).unwrap();
    let gunicorn = DjangoXsendfile.plan(Kind::Sync, &folder).start();
    let config = format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes:\n      \
         - {{ path: /, proxy: app, sendfile: {{ roots: [{}] }} }}\n",
        gunicorn.endpoint(),
        roots.display()
    );
    let gateway = Gateway::start(&config);
    for (path, status, reason, words) in [
        ("secret", 502, "sendfile_refused", roots.to_str().unwrap()),
        ("media/link", 403, "file_forbidden", "media/link"),
    ] {
        let response = gateway.client().get(&format!("/download/{path}"));
        assert_eq!(response.status, status, "{path}");
        assert!(!response.text().contains("\nsecret"), "{path}");
        assert_eq!(gateway.access_of(&response)["reason"], reason, "{path}");
        gateway.log_event(path, |event| {
            event["reason"] == reason && event["message"].as_str().is_some_and(|text| text.contains(words))
        });
    }
}
