//! Whole files: what broken ones are told, what good ones become, and that no text can do harm.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

mod auth;
mod upstreams;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn no_env(_: &str) -> Option<String> {
    None
}

/// Every YAML file in a folder and below it, sorted.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A folder with the files that the broken configurations name.
fn folder_with_certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let [shop, other] = [(); 2].map(|()| rcgen::KeyPair::generate().unwrap());
    let certificate = rcgen::CertificateParams::new(vec!["shop.example".into()]).unwrap().self_signed(&shop).unwrap();
    let encrypted = shop.serialize_pem().replace(" PRIVATE KEY", " ENCRYPTED PRIVATE KEY");
    for (name, text) in [
        ("shop.crt", certificate.pem()),
        ("shop.key", shop.serialize_pem()),
        ("other.key", other.serialize_pem()),
        ("encrypted.key", encrypted),
        ("notes.txt", "no PEM here\n".into()),
        ("empty.html", String::new()),
        ("good.users", "ann:$2y$04$uo2tarQNU6Op2maS.faPT.THsG3WgKdOnK5ABlLlsYsjiSFSsTMNa\n".into()),
        ("old.users", "# from the old server\nbob:$apr1$Gp4q1zXv$7lZrA0cYd6m3tZ8yXw5kU1\n".into()),
        ("not_der.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
        (
            "partly.crt",
            certificate.pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" + &certificate.pem(),
        ),
        ("crl.crt", certificate.pem() + "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::create_dir(folder.path().join("folder")).unwrap();
    folder
}

fn assert_told(group: &str, path: &Path, told: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(repository().join("tests/config/snapshots").join(group));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(path.file_stem().unwrap().to_str().unwrap(), told));
}

#[test]
fn every_broken_file_is_explained() {
    let folder = folder_with_certificates();
    let files = yaml_files(&repository().join("tests/config/broken"));
    assert!(files.len() >= 14);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let report = load_str(&text, "hostler.yaml", folder.path(), &no_env).expect_err(&path.display().to_string());
        let told = report.to_string().replace(&folder.path().display().to_string(), "/etc/hostler");
        assert_told("broken", &path, &told);
    }
}

#[test]
fn every_snippet_of_the_readme_loads() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let snippets = readme.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    // Of a variable there is none to fall back to: what everybody can read here is no secret.
    assert!(!readme.contains("_SECRET:-"));
    let env = |name: &str| (name == "HOSTLER_SECRET").then(|| "0123456789abcdef".repeat(2));
    let verdicts = snippets.map(|text| load_str(text, "README.md", Path::new("/etc/hostler"), &env));
    let reports: Vec<String> = verdicts.filter_map(Result::err).map(|report| report.to_string()).collect();
    assert!(reports.is_empty(), "{}", reports.join("\n"));
    assert!(readme.contains("```yaml\n"));
}

#[test]
fn every_doubtful_file_is_used_with_a_warning() {
    for path in yaml_files(&repository().join("tests/config/warnings")) {
        let text = fs::read_to_string(&path).unwrap();
        let loaded = load_str(&text, "hostler.yaml", Path::new("/etc/hostler"), &no_env).unwrap();
        let told: Vec<String> = loaded.warnings.iter().map(Warning::to_string).collect();
        assert!(!told.is_empty());
        assert_told("warnings", &path, &told.join("\n\n"));
    }
}

#[test]
fn every_file_we_ship_can_be_used_without_a_warning() {
    let files = yaml_files(&repository().join("config"));
    assert!(files.len() >= 4);
    for path in files {
        let loaded = load(&path).unwrap_or_else(|report| panic!("{report}"));
        let told: Vec<String> = loaded.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(told, [""; 0], "{}", path.display());
    }
}

#[test]
fn the_reference_shows_the_defaults() {
    let reference = load(&repository().join("config/hostler.yaml")).unwrap().config;
    assert_eq!(reference.limits, Limits::default());
    assert_eq!(reference.shutdown, Shutdown::default());
    assert_eq!(reference.spool, Spool::default());
    assert_eq!(reference.logging, Logging::default());
    assert_eq!(reference.runtime, Runtime::default());
    assert_eq!(Realtime { publish: None, ..reference.realtime.clone() }, Realtime::default());
    let minimal = minimal("");
    let (shown, default) = (&reference.upstreams[0], &minimal.upstreams[0]);
    assert_eq!(shown.waiting_room, default.waiting_room);
    assert_eq!(shown.abandon, default.abandon);
    assert_eq!(shown.keepalive, default.keepalive);
    assert_eq!(shown.timeouts, default.timeouts);
    assert_eq!(shown.retry, default.retry);
    assert_eq!((&shown.balance, shown.slow_start), (&default.balance, default.slow_start));
    assert_eq!((shown.hold, &shown.ejection), (default.hold, &default.ejection));
    assert_eq!((shown.client_address, shown.resolve), (default.client_address, default.resolve));
    let probes = upstreams::with_upstream("workers: 4, health: { path: /healthz }").health;
    assert_eq!(shown.health, probes);
    assert_eq!(reference.upstreams[1].uwsgi, default.uwsgi);
    assert_eq!(reference.upstreams[2].tls, default.tls);
    let endpoint = &shown.endpoints[1];
    assert_eq!((endpoint.weight, endpoint.backup), (1, false));
    let files = reference.sites[0].routes.iter().find(|route| route.name == "/static/").unwrap();
    assert_eq!(files.action, Action::Files(Files::of(repository().join("config/staticfiles"))));
    let news = reference.sites[0].routes.iter().find(|route| route.name == "/news/").unwrap();
    assert_eq!((&news.cache, &reference.cache), (&Some(RouteCache::default()), &Cache::default()));
    let last = reference.sites[0].routes.iter().find(|route| route.name == "/").unwrap();
    let api = reference.sites[1].routes.iter().find(|route| route.name == "/api/").unwrap();
    let default =
        "sites: [{ routes: [{ path: /, respond: {}, cors: { origins: ['https://app.example'], expose: [etag] } }] }]";
    let default = load_str(default, "f", Path::new("/"), &no_env).unwrap().config;
    assert_eq!((&api.cors, api.headers.security), (&default.sites[0].routes[0].cors, false));
    assert!(api.cors.is_some() && !reference.sites[0].default);
    assert_eq!(last.buffer, default_buffer(&minimal));
    assert_eq!(last.compress, minimal.sites[0].routes[0].compress);
}

fn plain(protocol: EndpointProtocol, place: Place) -> Endpoint {
    Endpoint { address: EndpointAddress { protocol, place }, weight: 1, workers: None, backup: false }
}

fn default_buffer(config: &Config) -> Buffer {
    config.sites[0].routes[0].buffer.clone()
}

#[test]
fn the_reference_shows_every_key() {
    let text = fs::read_to_string(repository().join("config/hostler.yaml")).unwrap();
    let is_shown =
        |key: &str| text.match_indices(&format!("{key}:")).any(|(at, _)| !text[..at].ends_with(char::is_alphanumeric));
    for key in schema::all_keys() {
        assert!(is_shown(key), "{key}");
    }
}

/// A file with one upstream and one route, and more at the top level.
fn minimal(more: &str) -> Config {
    try_minimal(more).unwrap_or_else(|report| panic!("{report}"))
}

fn try_minimal(more: &str) -> Result<Config, Report> {
    let text = format!(
        "upstreams: {{ app: {{ endpoints: ['unix:/run/app.sock'], workers: 4 }} }}\n\
         sites: [{{ routes: [{{ path: /, proxy: app }}] }}]\n{more}"
    );
    load_str(&text, "hostler.yaml", Path::new("/etc/hostler"), &no_env).map(|loaded| loaded.config)
}

#[test]
fn the_smallest_file_has_every_default() {
    let config = minimal("");
    assert_eq!(
        config,
        Config {
            listeners: vec![Listener {
                name: "127.0.0.1:8080".into(),
                bind: Bind::Tcp("127.0.0.1:8080".parse().unwrap()),
                tls: None,
                http2: true,
                proxy_protocol: false,
                redirect_https: None,
            }],
            trusted_proxies: TrustedProxies::default(),
            limits: Limits::default(),
            shutdown: Shutdown::default(),
            spool: Spool::default(),
            upstreams: vec![Upstream {
                name: "app".into(),
                endpoints: vec![plain(EndpointProtocol::Http, Place::Unix("/run/app.sock".into()))],
                workers: Workers::Count(4),
                streaming_max: 3,
                waiting_room: WaitingRoom { limit: 100, timeout: Duration::from_secs(30), is_fair: true },
                abandon: Duration::from_secs(60),
                keepalive: KeepAlive::default(),
                timeouts: Timeouts::default(),
                balance: Balance::LeastBusy,
                slow_start: Duration::ZERO,
                hold: Duration::from_secs(30),
                retry: Retry { attempts: 2, expect: false },
                health: None,
                ejection: Ejection::default(),
                client_address: ClientAddress::Headers,
                uwsgi: Uwsgi { buffer_size: 4096, modifier1: 0 },
                tls: UpstreamTls::default(),
                host: None,
                prefix: None,
                resolve: Resolve::Ttl,
            }],
            sites: vec![Site {
                name: "any".into(),
                hosts: vec![],
                default: false,
                error_pages: vec![],
                routes: vec![Route {
                    name: "/".into(),
                    path: PathPattern::Prefix("/".into()),
                    when: None,
                    action: Action::Proxy(0),
                    body_limit: 100 << 20,
                    priority: 0,
                    mount: None,
                    strip_prefix: None,
                    auth: None,
                    buffer: Buffer::default(),
                    compress: Some(Compress::default()),
                    cache: None,
                    rate_limit: None,
                    timeout: None,
                    cors: None,
                    headers: HeaderRules::default(),
                    internal: false,
                    sendfile: None,
                    websocket: None,
                    grip: false,
                }],
            }],
            probe_paths: vec![],
            cache: Cache::default(),
            admin: None,
            realtime: Realtime::default(),
            logging: Logging::default(),
            runtime: Runtime::default(),
        }
    );
}

#[test]
fn files_are_a_folder_and_what_is_said_of_it() {
    let files = |text: &str| {
        let text = format!("sites: [{{ routes: [{{ path: /static/, files: {text} }}] }}]");
        let loaded =
            load_str(&text, "f", Path::new("/etc/hostler"), &no_env).unwrap_or_else(|report| panic!("{report}"));
        let Action::Files(files) = loaded.config.sites[0].routes[0].action.clone() else { panic!() };
        files
    };
    let default = Files::of("/etc/hostler/static".into());
    assert_eq!(files("./static"), default);
    assert_eq!(files("{ root: static }"), default);
    assert_eq!(files("{ root: static, index: false }"), Files { index: None, ..default.clone() });
    assert_eq!(files("{ root: static, precompressed: false }"), Files { precompressed: vec![], ..default.clone() });
    assert_eq!(files("{ root: static, precompressed: true }"), default);
    assert_eq!(
        files("{ root: static, precompressed: [gzip], fallback: /app.html, immutable: false, symlinks: never }"),
        Files {
            precompressed: vec![ContentCoding::Gzip],
            fallback: Fallback::File("app.html".into()),
            immutable: Immutable::Off,
            symlinks: Symlinks::Never,
            ..default.clone()
        }
    );
    assert_eq!(
        files(
            "{ root: static, not_found: /e/404.html, max_age: 5m, browse: true, immutable: hashed, symlinks: follow }"
        ),
        Files {
            not_found: Some("e/404.html".into()),
            max_age: Duration::from_secs(300),
            browse: true,
            immutable: Immutable::Hashed,
            symlinks: Symlinks::Follow,
            ..default
        }
    );
}

#[test]
fn files_that_an_app_leads_to_stand_for_themselves_unless_it_is_written_otherwise() {
    for (route, precompressed) in [
        ("files: ./media", vec![]),
        ("files: { root: ./media }", vec![]),
        ("files: { root: ./media, precompressed: true }", ContentCoding::ALL.to_vec()),
        ("files: { root: ./media, precompressed: [gzip] }", vec![ContentCoding::Gzip]),
    ] {
        for keys in [format!("internal: true, {route}"), format!("{route}, internal: true")] {
            let text = format!("sites: [{{ routes: [{{ path: /p/, {keys} }}, {{ path: /, respond: {{}} }}] }}]");
            let loaded = load_str(&text, "f", Path::new("/"), &no_env).unwrap_or_else(|report| panic!("{report}"));
            let Action::Files(files) = &loaded.config.sites[0].routes[0].action else { panic!() };
            assert_eq!(files.precompressed, precompressed, "{keys}");
        }
    }
}

/// The one route of a file, with these keys.
fn route_with(keys: &str) -> Route {
    let text = format!("sites: [{{ routes: [{{ path: /, respond: {{}}, {keys} }}] }}]");
    let loaded = load_str(&text, "hostler.yaml", Path::new("/"), &no_env).unwrap_or_else(|report| panic!("{report}"));
    loaded.config.sites[0].routes[0].clone()
}

#[test]
fn a_rate_limit_is_of_the_client_and_as_much_at_once_as_its_rate_counts() {
    let rate = Rate { count: 300, per: Duration::from_secs(60) };
    let limit = route_with("rate_limit: { rate: 300/m }").rate_limit;
    assert_eq!(limit, Some(RateLimit { rate, burst: 300, by: KeyBy::Client, dry_run: false }));
    let limit = route_with("rate_limit: { rate: 300/m, burst: 20, by: 'cookie:id', dry_run: true }").rate_limit;
    assert_eq!(limit, Some(RateLimit { rate, burst: 20, by: KeyBy::Cookie("id".into()), dry_run: true }));
    assert_eq!(route_with("rate_limit: { rate: 4294967295/s }").rate_limit.unwrap().burst, 1_000_000);
    assert_eq!(route_with("body_limit: 1MiB").rate_limit, None);
}

#[test]
fn answers_are_compressed_unless_the_file_says_otherwise() {
    let compress = |value: &str| route_with(&format!("compress: {value}")).compress;
    assert_eq!(route_with("body_limit: 1MiB").compress, Some(Compress::default()));
    assert_eq!((compress("true"), compress("false")), (Some(Compress::default()), None));
    let types = vec![MediaRange { kind: "text".into(), subtype: Some("event-stream".into()) }];
    let written = Compress { codings: vec![ContentCoding::Gzip, ContentCoding::Brotli], types, min_size: 0 };
    assert_eq!(compress("{ codings: [gzip, br], types: [text/Event-Stream], min_size: 0 }"), Some(written));
    assert_eq!(compress("{ min_size: 256 }"), Some(Compress { min_size: 256, ..Compress::default() }));
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let folder = folder_with_certificates();
    let text = r#"
listeners:
  - { bind: 80, redirect: https }
  - { bind: ":81", redirect: { https: 8443 } }
  - bind: "[::1]:443"
    http2: false
    tls: { certificates: [{ cert: shop.crt, private_key: ./shop.key }], min_version: 1.3, client_ca: shop.crt, strict_sni: true }
  - { bind: "unix:run/h.sock" }
limits: { header_size: 8KiB, header_count: "50", body: 1GB, header_timeout: 5s, idle_timeout: 1m, streams: 10 }
shutdown: { delay: 500ms, timeout: 1h }
spool: { dir: ../spool, memory: 1MiB, disk: 0 }
upstreams:
  app:
    endpoints: ["unix:app.sock", { address: "http://${HOST}:8000/" }]
    workers: ${WORKERS}
    waiting_room: { timeout: 5s }
    abandon: 0s
    keepalive: { idle: 0s, max: 1 }
    timeouts: { connect: 1s, head: 2s, idle: 3s }
    retry: { attempts: 0 }
  other: { endpoints: ["http://[::1]"], workers: unlimited, waiting_room: { limit: 7 } }
sites:
  - hosts: [Shop.Example, "*.shop.example"]
    routes:
      - { path_exact: /old, redirect: { to: "https://shop.example/new", status: "301" } }
      - { path_exact: /up, respond: { status: 503, body: 1.0 } }
      - { path: /café/, proxy: other, body_limit: 1KiB, buffer: { response: false, memory: 1KiB, disk: 2KiB } }
  - routes: [{ path: /, proxy: app }]
admin: { bind: "localhost:9180" }
logging: { level: debug, format: json, access: { to: ./access.log, format: combined, sample: 0.25, query: false } }
runtime: { threads: 2 }
"#;
    let env = |name: &str| match name {
        "HOST" => Some("app".to_owned()),
        "WORKERS" => Some("30".to_owned()),
        _ => None,
    };
    let base = folder.path();
    let config = load_str(text, "hostler.yaml", base, &env).unwrap_or_else(|report| panic!("{report}")).config;

    let names: Vec<&str> = config.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["80", ":81", "[::1]:443", "unix:run/h.sock"]);
    assert_eq!(
        config.listeners.iter().map(|l| l.redirect_https).collect::<Vec<_>>(),
        [Some(443), Some(8443), None, None]
    );
    let tls = config.listeners[2].tls.as_ref().unwrap();
    let pair = Certificate { cert: base.join("shop.crt"), private_key: base.join("shop.key"), ocsp: None };
    let expected = Tls {
        certificates: vec![pair],
        local: false,
        min_version: TlsVersion::V1_3,
        client_auth: Some(ClientAuth { ca: base.join("shop.crt"), is_required: true }),
        strict_sni: true,
    };
    assert_eq!(tls, &expected);
    assert!(!config.listeners[2].http2);
    assert_eq!(config.listeners[3].bind, Bind::Unix(base.join("run/h.sock")));

    let limits = &config.limits;
    assert_eq!((limits.header_size, limits.header_count, limits.body, limits.streams), (8192, 50, 1_000_000_000, 10));
    assert_eq!((limits.header_timeout, limits.idle_timeout), (Duration::from_secs(5), Duration::from_secs(60)));
    assert_eq!(config.shutdown, Shutdown { delay: Duration::from_millis(500), timeout: Duration::from_secs(3600) });
    assert_eq!(config.spool, Spool { dir: base.join("../spool"), memory: 1 << 20, disk: 0 });

    let [app, other] = &config.upstreams[..] else { panic!() };
    let tcp = plain(EndpointProtocol::Http, Place::Tcp { host: "app".into(), port: 8000 });
    assert_eq!(app.endpoints, [plain(EndpointProtocol::Http, Place::Unix(base.join("app.sock"))), tcp]);
    assert_eq!((app.workers, app.abandon, app.retry.attempts), (Workers::Count(30), Duration::ZERO, 0));
    assert_eq!(app.waiting_room, WaitingRoom { limit: 300, timeout: Duration::from_secs(5), is_fair: true });
    assert_eq!(app.keepalive, KeepAlive { idle: Duration::ZERO, max: 1 });
    let [connect, head, idle] = [1, 2, 3].map(Duration::from_secs);
    assert_eq!(app.timeouts, Timeouts { connect, head, idle });
    assert_eq!((other.workers, other.waiting_room.limit), (Workers::Unlimited, 7));

    let [shop, any] = &config.sites[..] else { panic!() };
    assert_eq!((shop.name.as_str(), any.name.as_str()), ("Shop.Example", "any"));
    let hosts = [HostPattern::Exact("shop.example".into()), HostPattern::Wildcard(".shop.example".into())];
    assert_eq!(shop.hosts, hosts);
    let [old, up, cafe] = &shop.routes[..] else { panic!() };
    let Action::Redirect { to, status: 301 } = &old.action else { panic!() };
    assert_eq!(to.fixed(), Some("https://shop.example/new"));
    assert_eq!(old.body_limit, 1_000_000_000);
    assert_eq!(up.action, Action::Respond { status: 503, body: "1.0".into() });
    assert_eq!((cafe.name.as_str(), &cafe.path), ("/café/", &PathPattern::Prefix("/café/".into())));
    assert_eq!((cafe.action.clone(), cafe.body_limit), (Action::Proxy(1), 1024));
    assert_eq!(cafe.buffer, Buffer { response: false, memory: 1024, disk: 2048 });

    assert_eq!(config.admin, Some(Admin { bind: Bind::Tcp("127.0.0.1:9180".parse().unwrap()), token: None }));
    let to = AccessTarget::File(base.join("access.log"));
    let access = Some(Access { to, format: AccessFormat::Combined, sample: 0.25, query: false });
    assert_eq!(config.logging, Logging { level: Level::Debug, format: LogFormat::Json, access });
    assert_eq!(config.runtime.threads, Some(2));
}

#[test]
fn what_chooses_a_route_and_what_it_is_answered_arrives() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gone.html"), "<p>gone").unwrap();
    let text = r#"
sites:
  - hosts: [shop.example]
    default: true
    error_pages: { 5xx: ./gone.html, 502: gone.html }
    routes:
      - path_regex: '^/p/(\d+)$'
        when: { methods: [GET, HEAD], headers: { X-Beta: 1 }, query: { v: 2, q: "a b" } }
        redirect: { to: "/items/{1}{query}", status: 301 }
      - { path: /api/, strip_prefix: /api/, proxy: app }
probe_paths: [/up, /api/café]
upstreams: { app: { endpoints: ["unix:app.sock"], workers: 4 } }
"#;
    let loaded = load_str(text, "f", folder.path(), &no_env).unwrap_or_else(|report| panic!("{report}"));
    let config = loaded.config;
    let site = &config.sites[0];
    let pages: Vec<_> = site.error_pages.iter().map(|page| (page.statuses.clone(), &page.body[..])).collect();
    assert_eq!(pages, [(502..=502, &b"<p>gone"[..]), (500..=599, b"<p>gone")]);
    assert!(site.default && site.error_pages[0].file == folder.path().join("gone.html"));
    let [item, api] = &site.routes[..] else { panic!() };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (methods, headers) = (vec!["GET".into(), "HEAD".into()], vec![pair("x-beta", "1")]);
    assert_eq!(item.when, Some(When { methods, headers, query: vec![pair("v", "2"), pair("q", "a b")] }));
    let Action::Redirect { to, status: 301 } = &item.action else { panic!() };
    let parts = [Part::Text("/items/".into()), Part::Group(1, Within::Path), Part::Query(Within::Path)];
    assert_eq!((item.name.as_str(), to.parts()), (r"^/p/(\d+)$", &parts[..]));
    assert_eq!((api.strip_prefix.as_deref(), api.mount.as_deref()), (Some("/api"), None));
    assert_eq!(config.probe_paths, ["/up", "/api/café"]);
}

#[test]
fn an_empty_token_is_none_and_does_not_open_the_door() {
    let token = |text: &str| try_minimal(text).map(|config| config.admin.unwrap().token);
    let unset = "token: \"${HOSTLER_ADMIN_TOKEN:-}\"";
    assert_eq!(token(&format!("admin: {{ bind: 127.0.0.1:9180, {unset} }}")).unwrap(), None);
    let report = token(&format!("admin: {{ bind: 9180, {unset} }}")).unwrap_err();
    assert_eq!(report.errors().collect::<Vec<_>>(), ["`admin` needs a `token` to listen on `9180`"]);
}

#[test]
fn a_section_without_keys_has_its_defaults() {
    let config = minimal("limits:\nshutdown: {}\nspool:\nlogging:\nruntime:\n");
    assert_eq!(config, minimal(""));
}

#[test]
fn the_access_log_can_be_off() {
    assert_eq!(minimal("logging: { access: off }").logging.access, None);
    assert_eq!(minimal("logging: { access: }").logging.access, Some(Access::default()));
}

#[test]
fn every_error_of_a_file_is_reported_at_once() {
    let report =
        try_minimal("limits: { header_size: x, streams: x }\nruntime: { threads: x }\nnothing: 1").unwrap_err();
    assert_eq!(report.error_count(), 4);
    assert_eq!(report.errors().count(), 4);
    assert!(report.to_string().ends_with("4 errors in hostler.yaml"));
}

#[test]
fn what_an_alias_repeats_is_told_once() {
    let report = try_minimal("limits: &a { body: x }\nspool: { memory: &b 1x }\nshutdown: { delay: 1, timeout: *b }");
    assert_eq!(report.unwrap_err().error_count(), 4);
    let text = "upstreams: { a: &a { endpoints: ['unix:/a'], workers: 0 }, b: *a }\nsites: [{ routes: [{ path: /, proxy: a }] }]";
    assert_eq!(load_str(text, "f", Path::new("/"), &no_env).unwrap_err().error_count(), 1);
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let report = try_minimal("\"a\\e[31m\": 1\nlogging: { level: \"\\e[2J\", access: { to: \"./\\0\" } }").unwrap_err();
    assert!(!report.to_string().contains(|c: char| c.is_control() && c != '\n'));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_harmless() {
    let text = "\u{feff}sites:\r\n  - routes:\r\n      - { path: /, respond: { body: ok } }\r\n";
    let loaded = load_str(text, "f", Path::new("/"), &no_env).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.config.sites[0].routes[0].action, Action::Respond { status: 200, body: "ok".into() });
    let report = load_str(&text.replace("body", "bdy"), "f", Path::new("/"), &no_env).unwrap_err().to_string();
    assert!(report.contains("f:3:31\n") && !report.contains('␍'), "{report}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostler.yaml");
    let told = || load(&path).unwrap_err().to_string();
    assert!(told().contains("No such file"), "{}", told());
    fs::write(&path, b"a: \xff").unwrap();
    assert!(told().contains("UTF-8"), "{}", told());
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(told().contains("1 MiB"), "{}", told());
}

#[test]
fn an_expired_certificate_is_a_warning() {
    let folder = folder_with_certificates();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    fs::write(folder.path().join("old.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(folder.path().join("old.key"), key.serialize_pem()).unwrap();
    let text = "listeners: [{ bind: 443, tls: { certificates: [{ cert: old.crt, private_key: old.key }] } }]\n\
                sites: [{ routes: [{ path: /, respond: {} }] }]";
    let loaded = load_str(text, "f", folder.path(), &no_env).unwrap_or_else(|report| panic!("{report}"));
    let [warning] = &loaded.warnings[..] else { panic!() };
    assert!(warning.message().starts_with("this certificate expired"), "{warning}");
    assert_eq!(warning.line(), Some(1));
}

#[test]
fn what_comes_to_its_end_soon_is_a_warning() {
    let folder = folder_with_certificates();
    let in_days = |days: u64| {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs() + days * 86_400 + 60)
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = |days: u64| {
        let mut params = rcgen::CertificateParams::new(vec!["shop.example".into()]).unwrap();
        params.not_after = in_days(days);
        params.self_signed(&key).unwrap().pem()
    };
    fs::write(folder.path().join("soon.key"), key.serialize_pem()).unwrap();
    let text = "listeners: [{ bind: 443, tls: { certificates: [{ cert: soon.crt, private_key: soon.key }], client_ca: clients.pem } }]\n\
                sites: [{ routes: [{ path: /, respond: {} }] }]";
    for (chain, authorities, expected) in [
        (vec![20], vec![14], &[][..]),
        (vec![13], vec![20], &["this certificate expires in 13 days"]),
        (vec![0], vec![20], &["this certificate expires in less than a day"]),
        (vec![20, 20, 5], vec![20], &["certificate 3 of this chain expires in 5 days"]),
        (vec![20], vec![20, 1], &["authority 2 of this file expires in 1 day"]),
    ] {
        let joined = |all: &[u64]| all.iter().map(|days| pem(*days)).collect::<String>();
        fs::write(folder.path().join("soon.crt"), joined(&chain)).unwrap();
        fs::write(folder.path().join("clients.pem"), joined(&authorities)).unwrap();
        let loaded = load_str(text, "f", folder.path(), &no_env).unwrap_or_else(|report| panic!("{report}"));
        let told: Vec<&str> = loaded.warnings.iter().map(|warning| warning.message()).collect();
        assert_eq!(told, expected, "{chain:?} {authorities:?}");
    }
}

#[test]
fn an_ocsp_response_that_will_not_be_shown_is_a_warning() {
    let folder = folder_with_certificates();
    for (file, expected) in [
        ("missing.ocsp", "cannot read the OCSP response"),
        ("notes.txt", "this OCSP response will not be shown: it is not an OCSP response in DER"),
        ("folder", "is not a file"),
    ] {
        let text = format!(
            "listeners: [{{ bind: 443, tls: {{ certificates: [{{ cert: shop.crt, private_key: shop.key, ocsp: {file} }}] }} }}]\n\
             sites: [{{ routes: [{{ path: /, respond: {{}} }}] }}]"
        );
        let loaded = load_str(&text, "f", folder.path(), &no_env).unwrap_or_else(|report| panic!("{report}"));
        let [warning] = &loaded.warnings[..] else { panic!("{file}: {:?}", loaded.warnings) };
        assert!(warning.message().contains(expected), "{warning}");
    }
}

/// Loads and renders. Whatever the text, this returns, and soon.
fn load_any(text: &str) {
    let began = Instant::now();
    match load_str(text, "f", Path::new("/nowhere"), &|name| (name.len() > 2).then(|| name.into())) {
        Ok(loaded) => loaded.warnings.iter().for_each(|warning| drop((warning.to_string(), warning.line()))),
        Err(report) => assert!(report.error_count() > 0 && !report.to_string().is_empty()),
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?} for {} bytes", began.elapsed(), text.len());
}

/// Real files, to be damaged.
fn real_files() -> Vec<String> {
    let folders = ["config", "tests/config/broken", "tests/config/warnings"];
    let paths = folders.into_iter().flat_map(|folder| yaml_files(&repository().join(folder)));
    paths.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// What YAML and our values are made of.
const PIECES: &[&str] = &[
    "a",
    "sites",
    "routes",
    "listeners",
    "bind",
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    " ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "#",
    "&a ",
    "*a",
    "<<: *a",
    "|",
    ">",
    "!x ",
    "---\n",
    "...\n",
    "~",
    "${A",
    "${AAA}",
    "$${",
    "443",
    "-1",
    "é",
    "\u{0}",
    "\t",
    "\r\n",
    "? ",
    "%",
    "@",
    "unix:/",
    "http://",
    "*.x",
    "30s",
    "1GiB",
    "200-399",
    "header:x",
    "\u{feff}",
    "\u{2028}",
    "😀",
    "true",
    "1e999",
    ".nan",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,200}") {
        load_any(&text);
    }

    #[test]
    fn no_pieces_of_yaml_make_the_loader_panic(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        load_any(&pieces.concat());
    }

    #[test]
    fn no_damage_to_a_real_file_makes_the_loader_panic(
        file in prop::sample::select(real_files()),
        damages in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, prop::sample::select(PIECES)), 1..6),
    ) {
        let mut chars: Vec<char> = file.chars().collect();
        for (at, length, piece) in damages {
            let at = at.index(chars.len() + 1);
            let end = (at + length).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        load_any(&chars.into_iter().collect::<String>());
    }
}

#[test]
fn the_largest_files_are_read_in_bounded_time() {
    let many_keys: String = (0..60_000).map(|n| format!("k{n}: 1\n")).collect();
    let one_line = format!("{{ {} }}", "kk: 1, ".repeat(90_000));
    let many_errors = format!("sites:\n{}", "- {a: *.x}\n".repeat(40_000));
    let long_text = format!("sites: \"{}\"", "${X".repeat(300_000));
    let deep = "[".repeat(1 << 19);
    let many_routes: String = (0..20_000).map(|n| format!("  - {{path: /{n}, proxy: appp}}\n")).collect();
    let many_routes = format!("upstreams: {{ app: {{ endpoints: ['unix:/a'] }} }}\nsites:\n- routes:\n{many_routes}");
    for text in [many_keys, one_line, many_errors, long_text, deep, many_routes] {
        load_any(&text);
    }
}
