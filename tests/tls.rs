//! TLS towards clients: files that change while they are served, OCSP, certificates of clients, names that nobody has.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::certificate_shown;
use crate::support::gunicorn::{Kind, Plan};
use crate::support::tls_worker::Ca;
use crate::support::tool::{Output, Tool, curl, h2load, openssl};
use crate::support::uwsgi::Program;
use crate::support::worker::Transport;
use crate::support::{Gateway, Uwsgi, Worker, look_until};

const NAME: &str = "shop.example";
/// Within this time a new certificate is shown to whoever begins a handshake.
const PROMISED: Duration = Duration::from_secs(2);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A site with a certificate of its own, in files that a test may replace.
struct Site {
    ca: Ca,
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { ca: Ca::new(), folder: tempfile::tempdir().unwrap() };
        site.renew();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another certificate in place of the one before. Returns it in DER.
    fn renew(&self) -> Vec<u8> {
        self.ca.write((&self.path("shop.crt"), &self.path("shop.key")), NAME, |_| {})
    }

    /// The same for one that is valid for so long from now on.
    fn renew_for(&self, life: Duration) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let end = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now + life).as_secs());
        self.ca.write((&self.path("shop.crt"), &self.path("shop.key")), NAME, |params| params.not_after = end);
    }

    /// A listener with this certificate and these other keys of `tls`.
    fn gateway(&self, ocsp: &str, tls: &str, rest: &str) -> Gateway {
        Gateway::start(&self.config(ocsp, tls, rest))
    }

    fn config(&self, ocsp: &str, tls: &str, rest: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "listeners:\n  - bind: \"127.0.0.1:0\"\n    tls:\n      certificates: [{{ cert: {folder}/shop.crt, private_key: {folder}/shop.key{ocsp} }}]\n\
             {tls}{rest}"
        )
    }

    fn shown(&self, gateway: &Gateway) -> std::io::Result<Vec<u8>> {
        certificate_shown(gateway.address(), NAME, &self.ca.file())
    }

    /// curl with this certificate of the client's, or without any.
    fn curl(&self, gateway: &Gateway, client: Option<(&Path, &Path)>, more: &[&str]) -> Output {
        let ca = self.ca.file();
        let port = gateway.address().port();
        let (url, to) = (format!("https://{NAME}:{port}/environ"), format!("{NAME}:{port}:127.0.0.1"));
        let mut arguments = vec!["--cacert", ca.to_str().unwrap(), "--resolve", &to, &url];
        if let Some((cert, key)) = client {
            arguments.extend(["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]);
        }
        arguments.extend(more);
        curl(&arguments)
    }
}

const ANSWER: &str = "sites:\n  - routes: [{ path: /, respond: { body: ok } }]\n";

fn s_client(gateway: &Gateway, arguments: &[&str]) -> String {
    let to = format!("127.0.0.1:{}", gateway.address().port());
    let output = openssl(&[&["s_client", "-connect", &to][..], arguments].concat());
    format!("{}\n{}", output.stdout, output.stderr)
}

fn says(gateway: &Gateway, what: &str) -> Value {
    gateway.log_event(what, |event| event["message"].as_str().is_some_and(|message| message.contains(what)))
}

fn times_said(gateway: &Gateway, what: &str) -> usize {
    gateway.log().iter().filter(|line| line.contains(what)).count()
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("hostler_certificate_reloads_total{{listener=\"127.0.0.1:0\",result=\"{result}\"}}"))
}

fn handshakes(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("hostler_tls_handshakes_total{{result=\"{result}\",version=\"unknown\"}}"))
}

#[test]
fn a_new_certificate_is_shown_without_a_reload_and_a_bad_one_never() {
    let site = Site::new();
    let gateway = site.gateway("", "", ANSWER);
    let new = site.renew();
    assert!(look_until(|| (site.shown(&gateway).unwrap() == new).then_some(())).is_some(), "the new one is not shown");
    let event = says(&gateway, "a new certificate is shown from now on");
    assert_eq!((event["listener"].as_str(), event["name"].as_str()), (Some("127.0.0.1:0"), Some(NAME)));
    assert_eq!(reloads(&gateway, "ok"), 1.0);
    std::fs::write(site.path("shop.crt"), "-----BEGIN CERTIFICATE-----\nhalf of it").unwrap();
    let event = says(&gateway, "a changed file cannot be used, what was shown before stays");
    assert!(event["message"].as_str().unwrap().contains("shop.crt is broken PEM"), "{event}");
    assert_eq!(reloads(&gateway, "failed"), 1.0);
    assert_eq!(site.shown(&gateway).unwrap(), new);
    let newer = site.renew();
    assert!(look_until(|| (site.shown(&gateway).unwrap() == newer).then_some(())).is_some(), "a good one ends it");
    assert_eq!(times_said(&gateway, "a changed file cannot be used"), 1, "told once");
    assert_eq!((reloads(&gateway, "ok"), reloads(&gateway, "failed")), (2.0, 1.0));
    // A reload begins with what is there, and watches it.
    gateway.reload(&site.config("", "", ANSWER));
    let last = site.renew();
    assert!(look_until(|| (site.shown(&gateway).unwrap() == last).then_some(())).is_some(), "after a reload");
}

/// Puts a new certificate where the old one is, in one of the ways that programs have.
fn replace(site: &Site, way: usize) -> Vec<u8> {
    let (cert, key) = (site.path("shop.crt"), site.path("shop.key"));
    let (new_cert, new_key) = (site.path(&format!("{way}.crt")), site.path(&format!("{way}.key")));
    let der = site.ca.write((&new_cert, &new_key), NAME, |_| {});
    match way % 3 {
        // Written over, one after the other.
        0 => {
            std::fs::copy(&new_cert, &cert).unwrap();
            std::fs::copy(&new_key, &key).unwrap();
        }
        // Moved into place.
        1 => {
            std::fs::rename(&new_key, &key).unwrap();
            std::fs::rename(&new_cert, &cert).unwrap();
        }
        // Links that lead elsewhere from now on.
        _ => {
            for (target, link) in [(&new_cert, &cert), (&new_key, &key)] {
                let next = site.path("next");
                std::os::unix::fs::symlink(target, &next).unwrap();
                std::fs::rename(&next, link).unwrap();
            }
        }
    }
    der
}

#[test]
fn certificates_replaced_twenty_times_under_load_fail_no_handshake() {
    let site = Site::new();
    let gateway = site.gateway("", "", &format!("{ANSWER}runtime: {{ threads: 2 }}\n"));
    let url = format!("https://127.0.0.1:{}/", gateway.address().port());
    let (done, shaken, mut late) = (AtomicBool::new(false), AtomicUsize::new(0), Vec::new());
    let is_done = || done.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_done() {
                    site.shown(&gateway).expect("a handshake and an answer");
                    shaken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Each run has new connections, and keeps them busy.
        scope.spawn(|| {
            while !is_done() {
                let output = h2load(&["--requests=400", "--clients=8", "--max-concurrent-streams=4", &url]);
                assert!(output.stdout.contains("400 succeeded, 0 failed, 0 errored"), "{output:?}");
            }
        });
        for way in 0..20 {
            let new = replace(&site, way);
            let replaced = Instant::now();
            let is_shown = look_until(|| {
                // A handshake is of the time when it begins: how long it takes under load is another matter.
                let begun = replaced.elapsed();
                let is_new = site.shown(&gateway).unwrap() == new;
                if !is_new && begun >= PROMISED {
                    late.push((way, begun));
                }
                is_new.then_some(())
            });
            if is_shown.is_none() {
                done.store(true, Ordering::Relaxed);
                gateway.fail(&format!("certificate {way} is not shown"));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // The gateway takes less than half of the time, and the rest is for the machine, which has much to do here: once or twice
    // that may not be enough.
    late.dedup_by_key(|(way, _)| *way);
    assert!(late.len() <= 2, "the old one was still shown: {late:?}");
    assert!(shaken.load(Ordering::Relaxed) > 40);
    assert_eq!((handshakes(&gateway, "failed"), handshakes(&gateway, "timeout")), (0.0, 0.0));
    assert_eq!(reloads(&gateway, "failed"), 0.0, "a pair that is half replaced is nothing to complain of");
}

#[test]
fn a_certificate_that_ends_is_told_before_and_when_it_does() {
    let site = Site::new();
    site.renew_for(Duration::from_secs(5 * 86_400 + 60));
    let gateway = site.gateway("", "", ANSWER);
    says(&gateway, "this certificate expires in 5 days");
    let checked = gateway.cli(&["check"]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(checked.code == Some(0) && said.contains("this certificate expires in 5 days"), "{said}");
    let series = format!("hostler_certificate_expiry_timestamp_seconds{{listener=\"127.0.0.1:0\",name=\"{NAME}\"}}");
    let left =
        gateway.metric(&series) - SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((4.9..=5.1).contains(&(left / 86_400.0)), "{left} seconds are left");
    site.renew_for(Duration::from_secs(6));
    says(&gateway, "this certificate expires soon");
    let event = says(&gateway, "this certificate has expired");
    assert_eq!((event["name"].as_str(), event["level"].as_str()), (Some(NAME), Some("ERROR")), "{event}");
    assert!(event["file"].as_str().unwrap().ends_with("shop.crt"), "{event}");
    site.renew();
    assert!(look_until(|| site.shown(&gateway).ok()).is_some(), "the next one is taken at once");
    assert_eq!(times_said(&gateway, "this certificate has expired"), 1);
}

/// An OCSP responder's answer about the site's certificate, made by openssl as a fetcher would receive it.
fn fetch(site: &Site, responder: &(PathBuf, PathBuf), status: &str) {
    let path = |name: &str| site.path(name).display().to_string();
    let serial = openssl(&["x509", "-noout", "-serial", "-in", &path("shop.crt")]).stdout;
    let serial = serial.trim().trim_start_matches("serial=").to_owned();
    let line = match status {
        "good" => format!("V\t400101000000Z\t\t{serial}\tunknown\t/CN=shop\n"),
        _ => format!("R\t400101000000Z\t200101000000Z\t{serial}\tunknown\t/CN=shop\n"),
    };
    std::fs::write(site.path("index"), line).unwrap();
    let ca = site.ca.file().display().to_string();
    let (signer, key) = (responder.0.display().to_string(), responder.1.display().to_string());
    let request = ["ocsp", "-issuer", &ca, "-cert", &path("shop.crt"), "-reqout", &path("request"), "-no_nonce"];
    assert_eq!(openssl(&request).code, Some(0));
    let answer = [
        "ocsp",
        "-index",
        &path("index"),
        "-CA",
        &ca,
        "-rsigner",
        &signer,
        "-rkey",
        &key,
        "-reqin",
        &path("request"),
        "-respout",
        &path("fetched"),
        "-ndays",
        "2",
    ];
    let output = openssl(&answer);
    assert_eq!(output.code, Some(0), "{output:?}");
    std::fs::rename(site.path("fetched"), site.path("shop.ocsp")).unwrap();
}

#[test]
fn an_ocsp_response_is_stapled_once_it_is_there_and_says_good() {
    let site = Site::new();
    let responder = (site.path("responder.crt"), site.path("responder.key"));
    site.ca.write((&responder.0, &responder.1), "responder", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::OcspSigning];
    });
    let ocsp = site.path("shop.ocsp").display().to_string();
    let gateway = site.gateway(&format!(", ocsp: {ocsp}"), "", ANSWER);
    let event = says(&gateway, "no OCSP response is shown with the certificate");
    assert!(event["message"].as_str().unwrap().contains("No such file"), "{event}");
    let stapled = |gateway: &Gateway| {
        let ca = site.ca.file();
        s_client(gateway, &["-servername", NAME, "-CAfile", ca.to_str().unwrap(), "-status"])
    };
    assert!(stapled(&gateway).contains("OCSP response: no response sent"));
    fetch(&site, &responder, "good");
    let is_there = look_until(|| stapled(&gateway).contains("OCSP Response Status: successful").then_some(()));
    assert!(is_there.is_some(), "{}", stapled(&gateway));
    assert!(stapled(&gateway).contains("Cert Status: good"));
    std::fs::write(&ocsp, "tryLater").unwrap();
    says(&gateway, "the one before is shown for as long as it holds");
    assert!(stapled(&gateway).contains("Cert Status: good"), "what cannot be used takes nothing away");
    fetch(&site, &responder, "revoked");
    says(&gateway, "it says that the certificate is revoked");
    assert!(stapled(&gateway).contains("OCSP response: no response sent"));
    // The next certificate needs a response of its own.
    fetch(&site, &responder, "good");
    assert!(look_until(|| stapled(&gateway).contains("Cert Status: good").then_some(())).is_some());
    site.renew();
    says(&gateway, "it is not about this certificate");
    assert!(stapled(&gateway).contains("OCSP response: no response sent"));
    std::fs::write(&ocsp, "no OCSP response").unwrap();
    says(&gateway, "it is not an OCSP response in DER");
    let checked = gateway.cli(&["check"]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(checked.code == Some(0) && said.contains("this OCSP response will not be shown"), "{said}");
}

/// The certificate of `till 7` in files of this name, signed by this authority.
fn client_of(site: &Site, ca: &Ca, stem: &str) -> (PathBuf, PathBuf) {
    let files = (site.path(&format!("{stem}.crt")), site.path(&format!("{stem}.key")));
    ca.write((&files.0, &files.1), "till-7", |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop, Inc.");
        params.distinguished_name.push(rcgen::DnType::CommonName, "till 7");
    });
    files
}

const FORGED: [&str; 4] = ["--header", "X-Client-Cert-Subject: CN=root", "--header", "x_client_cert_subject: CN=root"];

#[test]
fn an_app_learns_from_the_edge_alone_whose_certificate_its_client_has() {
    let gunicorn = Plan::new(Kind::Sync, 1, Transport::Unix).variable("SHOP_ALLOWED_HOSTS", NAME).start();
    let (site, clients, strangers) = (Site::new(), Ca::new(), Ca::new());
    let ca = site.path("clients.pem");
    std::fs::copy(clients.file(), &ca).unwrap();
    let app = format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        gunicorn.endpoint()
    );
    let tls = |how: &str| format!("      client_ca: {}\n      client_auth: {how}\n", ca.display());
    let gateway = site.gateway("", &tls("require"), &app);
    let (till, stranger) = (client_of(&site, &clients, "till"), client_of(&site, &strangers, "stranger"));
    let subject = |gateway: &Gateway, client: Option<&(PathBuf, PathBuf)>, more: &[&str]| -> Result<Value, String> {
        let client = client.map(|(cert, key)| (cert.as_path(), key.as_path()));
        let output = site.curl(gateway, client, &[&FORGED[..], more].concat());
        if output.code != Some(0) {
            return Err(output.stderr);
        }
        let environ: Value = serde_json::from_str(&output.stdout).expect(&output.stdout);
        assert!(!output.stdout.contains("CN=root"), "{environ:#}");
        Ok(environ["HTTP_X_CLIENT_CERT_SUBJECT"].clone())
    };
    let expected: Value = r"CN=till 7,O=Shop\, Inc.".into();
    for version in [["--tls-max", "1.2"], ["--tlsv1.3", "--http2"], ["--tlsv1.3", "--http1.1"]] {
        assert_eq!(subject(&gateway, Some(&till), &version), Ok(expected.clone()), "{version:?}");
        for client in [None, Some(&stranger)] {
            assert!(subject(&gateway, client, &version).is_err(), "{version:?}");
        }
    }
    assert_eq!(handshakes(&gateway, "client_certificate"), 6.0);
    says(&gateway, "TLS handshake refused: the client's certificate");
    // Authorities change as certificates do.
    std::fs::copy(strangers.file(), &ca).unwrap();
    assert!(look_until(|| subject(&gateway, Some(&stranger), &[]).ok()).is_some());
    assert!(subject(&gateway, Some(&till), &[]).is_err());
    gateway.reload(&site.config("", &tls("request"), &app));
    assert_eq!(subject(&gateway, Some(&stranger), &[]), Ok(expected));
    assert_eq!(subject(&gateway, None, &[]), Ok(Value::Null), "no certificate, no subject, whatever a client says");
    assert!(subject(&gateway, Some(&till), &[]).is_err(), "a bad one is worse than none");
}

#[test]
fn an_app_behind_uwsgi_learns_it_the_same_way() {
    let app = Uwsgi::start(Program::Uwsgi, Transport::Unix);
    let site = Site::new();
    let config = format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        app.endpoint()
    );
    let tls = format!("      client_ca: {}\n      client_auth: request\n", site.ca.file().display());
    let gateway = site.gateway("", &tls, &config);
    let (cert, key) = client_of(&site, &site.ca, "till");
    for (client, expected) in [(Some((&*cert, &*key)), Value::from(r"CN=till 7,O=Shop\, Inc.")), (None, Value::Null)] {
        let output = site.curl(&gateway, client, &FORGED);
        let environ: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(environ["HTTP_X_CLIENT_CERT_SUBJECT"], expected, "{environ:#}");
        assert!(!output.stdout.contains("CN=root"), "{environ:#}");
    }
}

#[test]
fn a_listener_that_asks_for_certificates_gives_no_tickets() {
    let site = Site::new();
    let tls = format!("      client_ca: {}\n      client_auth: request\n", site.ca.file().display());
    let asks = site.gateway("", &tls, ANSWER);
    let plain = site.gateway("", "", ANSWER);
    let reconnected = |gateway: &Gateway| s_client(gateway, &["-servername", NAME, "-tls1_2", "-reconnect"]);
    assert!(reconnected(&plain).contains("Reused, TLSv1.2"), "{}", reconnected(&plain));
    assert!(!reconnected(&asks).contains("Reused, TLSv1.2"), "{}", reconnected(&asks));
}

/// A request by openssl, which stays until it is answered: by then it has the tickets that TLS 1.3 sends after the handshake.
fn s_client_asks(gateway: &Gateway, arguments: &[&str]) -> String {
    const ASK: &str = r#"printf 'GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n' | openssl s_client -ign_eof -connect "$0" "$@""#;
    let to = format!("127.0.0.1:{}", gateway.address().port());
    let output = Tool::start("sh", &[&["-c", ASK, &to, "-servername", NAME], arguments].concat()).output();
    let said = format!("{}\n{}", output.stdout, output.stderr);
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
    said
}

#[test]
fn a_ticket_holds_over_reloads_and_new_certificates_and_lets_nobody_ask_early() {
    let site = Site::new();
    let gateway = site.gateway("", "", ANSWER);
    let (ticket, early) = (|version: &str| site.path(version).display().to_string(), site.path("early"));
    std::fs::write(&early, "GET /early HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
    let resumes = |when: &str| {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = s_client_asks(&gateway, &[version, "-sess_in", &ticket(version)]);
            assert!(said.contains("Reused, TLSv1."), "{when}: {said}");
        }
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client_asks(&gateway, &[version, "-sess_out", &ticket(version)]);
        assert!(said.contains("New, TLSv1."), "{said}");
    }
    resumes("at once");
    gateway.reload(&site.config("", "      strict_sni: true\n", ANSWER));
    resumes("after a reload");
    let new = site.renew();
    assert!(look_until(|| (site.shown(&gateway).unwrap() == new).then_some(())).is_some());
    resumes("with a new certificate");
    let said =
        s_client_asks(&gateway, &["-tls1_3", "-sess_in", &ticket("-tls1_3"), "-early_data", early.to_str().unwrap()]);
    assert!(said.contains("Reused, TLSv1.3") && said.contains("Early data was not sent"), "{said}");
    assert!(said.contains("Max Early Data: 0"), "{said}");
}

#[test]
fn with_strict_sni_nobody_gets_in_without_a_name_that_is_known() {
    let site = Site::new();
    let worker = Worker::answering(Transport::Unix, OK);
    let app = format!(
        "upstreams:\n  app: {{ endpoints: [\"{}\"], workers: 1 }}\nsites:\n  - routes: [{{ path: /, proxy: app }}]\n",
        worker.endpoint()
    );
    let strict = site.gateway("", "      strict_sni: true\n", &app);
    for version in ["-tls1_2", "-tls1_3"] {
        for name in [&["-servername", "other.example"][..], &["-noservername"]] {
            let said = s_client(&strict, &[&[version], name].concat());
            assert!(said.contains("unrecognized name"), "{version} {name:?}: {said}");
            assert!(!said.contains("BEGIN CERTIFICATE"), "the names of the sites stay ours: {said}");
        }
        assert!(s_client(&strict, &[version, "-servername", "SHOP.example"]).contains("BEGIN CERTIFICATE"));
    }
    assert_eq!(handshakes(&strict, "unrecognized_name"), 4.0);
    assert_eq!(site.curl(&strict, None, &[]).stdout, "ok");
    let lenient = site.gateway("", "", &app);
    for name in [&["-servername", "other.example"][..], &["-noservername"]] {
        assert!(s_client(&lenient, name).contains("BEGIN CERTIFICATE"), "{name:?}");
    }
}
