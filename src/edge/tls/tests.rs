use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::by_name::ByName;
use super::files::Pair;
use super::*;
use crate::config::{Certificate, ClientAuth, Tls, TlsVersion};
use crate::x509::{CertificateFacts, ocsp_response};

/// A CA of the test's own, and certificates of it in files.
struct Files {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
    root_pem: String,
}

impl Files {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        let root = params.self_signed(&key).unwrap();
        roots.add(root.der().clone()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key), roots, root_pem: root.pem() }
    }

    fn root_pem(&self) -> &str {
        &self.root_pem
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), contents).unwrap();
        self.path(name)
    }

    /// A certificate for these names, in files named after the first one.
    fn certificate(&self, names: &[&str]) -> Certificate {
        self.certificate_of(&KeyPair::generate().unwrap(), names)
    }

    fn certificate_of(&self, key: &KeyPair, names: &[&str]) -> Certificate {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let stem = format!("{}-{:?}", names[0].replace('*', "any"), key.algorithm());
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Certificate {
            cert: self.write(&format!("{stem}.crt"), certificate.pem()),
            private_key: self.write(&format!("{stem}.key"), key.serialize_pem()),
            ocsp: None,
        }
    }

    fn client(&self, versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(16);
        Arc::new(config)
    }
}

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const ONLY_1_2: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

fn tls(certificates: Vec<Certificate>) -> Tls {
    Tls { certificates, local: false, min_version: TlsVersion::V1_2, client_auth: None, strict_sni: false }
}

fn config(tls: &Tls) -> Arc<ServerConfig> {
    read(tls, true, &TlsShared::new().unwrap())
}

fn read(tls: &Tls, http2: bool, shared: &TlsShared) -> Arc<ServerConfig> {
    Arc::clone(ServerTls::read(tls, http2, shared).unwrap().current().config())
}

fn refused(tls: &Tls) -> TlsError {
    ServerTls::read(tls, true, &TlsShared::new().unwrap()).map(|_| ()).unwrap_err()
}

fn error(certificate: Certificate) -> String {
    refused(&tls(vec![certificate])).to_string()
}

type Handshake = Result<(ClientConnection, ServerConnection), rustls::Error>;

/// A whole handshake in memory, with the tickets that follow it.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, name: &str) -> Handshake {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn names_shown(client: &ClientConnection) -> Vec<String> {
    CertificateFacts::of(&client.peer_certificates().unwrap()[0]).unwrap().dns_names
}

#[test]
fn the_name_asked_for_picks_the_certificate() {
    let files = Files::new();
    let server = config(&tls(vec![
        files.certificate(&["first.example", "10.0.0.1"]),
        files.certificate(&["*.shop.example"]),
        files.certificate(&["Www.Shop.Example"]),
    ]));
    let client = files.client(BOTH, &[]);
    let shown = |name: &str| handshake(&server, &client, name).map(|(client, _)| names_shown(&client));
    assert_eq!(shown("first.example").unwrap(), ["first.example"]);
    assert_eq!(shown("any.shop.example").unwrap(), ["*.shop.example"]);
    assert_eq!(shown("www.shop.example").unwrap(), ["www.shop.example"], "an exact name goes before a wildcard");
    assert_eq!(shown("WWW.shop.example").unwrap(), ["www.shop.example"]);
    assert_eq!(shown("10.0.0.1").unwrap(), ["first.example"], "an address is no name to ask for");
    for unknown in ["shop.example", "a.b.shop.example", "other.example"] {
        assert!(shown(unknown).is_err(), "{unknown} gets the first certificate, which is not for it");
    }
}

#[test]
fn of_two_certificates_for_a_name_the_client_gets_the_one_it_understands() {
    let files = Files::new();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let (new, old) =
        (files.certificate_of(&ed25519, &["shop.example"]), files.certificate_of(&p256, &["shop.example"]));
    let mut keys = ByName::default();
    for certificate in [&new, &old] {
        let pair = Pair::read(certificate, &provider()).unwrap();
        keys.add(Arc::new(pair.key), &pair.facts.dns_names);
    }
    let algorithm =
        |schemes: &[rustls::SignatureScheme]| keys.pick(Some("shop.example"), schemes).unwrap().key.algorithm();
    use rustls::{SignatureAlgorithm, SignatureScheme};
    assert_eq!(algorithm(&[SignatureScheme::ECDSA_NISTP256_SHA256]), SignatureAlgorithm::ECDSA);
    assert_eq!(
        algorithm(&[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]),
        SignatureAlgorithm::ED25519
    );
    assert_eq!(algorithm(&[SignatureScheme::RSA_PKCS1_SHA256]), SignatureAlgorithm::ED25519, "none: the first");
}

#[test]
fn http2_is_offered_unless_switched_off() {
    let files = Files::new();
    let tls = tls(vec![files.certificate(&["shop.example"])]);
    let agreed = |http2: bool, offers: &[&str]| {
        let server = read(&tls, http2, &TlsShared::new().unwrap());
        let (client, server) = handshake(&server, &files.client(BOTH, offers), "shop.example").unwrap();
        assert_eq!(client.alpn_protocol(), server.alpn_protocol());
        server.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap())
    };
    assert_eq!(agreed(true, &["http/1.1", "h2"]).as_deref(), Some("h2"));
    assert_eq!(agreed(true, &["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(false, &["h2", "http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(true, &[]), None);
}

#[test]
fn a_session_is_resumed_after_a_reload_with_either_version() {
    let files = Files::new();
    let tls = tls(vec![files.certificate(&["shop.example"])]);
    let shared = TlsShared::new().unwrap();
    let before = read(&tls, true, &shared);
    let after = read(&tls, true, &shared);
    let stranger = config(&tls);
    for (versions, version) in [(BOTH, HandshakeVersion::V1_3), (ONLY_1_2, HandshakeVersion::V1_2)] {
        let client = files.client(versions, &["h2"]);
        let outcome = |server: &Arc<ServerConfig>| {
            let (_, connection) = handshake(server, &client, "shop.example").unwrap();
            handshake_outcome(&connection)
        };
        assert_eq!(outcome(&before), (version, HandshakeResult::Full));
        assert_eq!(outcome(&after), (version, HandshakeResult::Resumed));
        assert_eq!(outcome(&stranger), (version, HandshakeResult::Full), "another process has another key");
    }
}

#[test]
fn the_key_of_tickets_is_replaced_from_time_to_time() {
    // The library does it by a clock that nobody can set: what can be seen is that it is the kind of key which does.
    let ticketer = format!("{:?}", TlsShared::new().unwrap().ticketer);
    assert!(ticketer.starts_with("TicketRotator"), "{ticketer}");
}

/// A server, and the time that its looks see.
struct Watched {
    server: ServerTls,
    now: Instant,
    clock: SystemTime,
}

impl Watched {
    fn new(tls: &Tls) -> Self {
        let server = ServerTls::read(tls, true, &TlsShared::new().unwrap()).unwrap();
        Self { server, now: Instant::now(), clock: SystemTime::now() }
    }

    fn look(&self) -> Looked {
        self.server.look(self.now, self.clock)
    }

    /// What has happened when files have changed and stood still.
    fn settle(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        loop {
            let looked = self.look();
            changes.extend(looked.changes);
            if !looked.is_moving {
                return changes;
            }
            self.now += Duration::from_millis(250);
        }
    }

    /// What is told of files that stay as they are.
    fn settle_for_good(&mut self) -> Vec<Change> {
        let mut changes = self.settle();
        self.now += Duration::from_secs(3);
        changes.extend(self.settle());
        changes
    }

    fn shown(&self, files: &Files, name: &str) -> Vec<String> {
        let config = Arc::clone(self.server.current().config());
        names_shown(&handshake(&config, &files.client(BOTH, &["h2"]), name).unwrap().0)
    }
}

#[test]
fn a_new_certificate_is_shown_once_its_files_stand_still() {
    let files = Files::new();
    let pair = files.certificate(&["shop.example"]);
    let mut watched = Watched::new(&tls(vec![pair.clone()]));
    assert!(watched.settle().is_empty(), "nothing has changed");
    let before = watched.server.current();
    assert_eq!(files.certificate(&["shop.example", "new.example"]), pair, "the same files");
    let looked = watched.look();
    assert!(looked.is_moving && looked.changes.is_empty(), "{looked:?}");
    assert_eq!(watched.shown(&files, "shop.example"), ["shop.example"]);
    let changes = watched.settle();
    let [Change::Certificate(shown)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((shown.name.as_str(), shown.cert.as_ref()), ("shop.example", Some(&pair.cert)));
    assert_eq!(watched.shown(&files, "shop.example"), ["shop.example", "new.example"]);
    let begun = handshake(before.config(), &files.client(BOTH, &[]), "shop.example").unwrap();
    assert_eq!(names_shown(&begun.0), ["shop.example"], "what has begun ends with what it began with");
}

#[test]
fn a_bad_new_certificate_keeps_the_old_one() {
    let files = Files::new();
    let pair = files.certificate(&["shop.example"]);
    let mut watched = Watched::new(&tls(vec![pair.clone()]));
    let good = (fs::read(&pair.cert).unwrap(), fs::read(&pair.private_key).unwrap());
    let other = files.certificate(&["other.example"]);
    let of_another = fs::read(&other.private_key).unwrap();
    let (cert, key) = (pair.cert.clone(), pair.private_key.clone());
    let spoil: [(&str, &dyn Fn()); 5] = [
        ("holds no certificate", &|| fs::write(&cert, "").unwrap()),
        ("is broken PEM", &|| fs::write(&cert, "-----BEGIN CERTIFICATE-----\n").unwrap()),
        ("No such file", &|| fs::remove_file(&cert).unwrap()),
        ("is not that of the first certificate", &|| fs::write(&key, &of_another).unwrap()),
        ("has more than 1024 KiB", &|| fs::write(&cert, vec![b'a'; 2 << 20]).unwrap()),
    ];
    for (why, spoil) in spoil {
        spoil();
        let changes = watched.settle_for_good();
        let [Change::Refused(error)] = &changes[..] else { panic!("{why}: {changes:?}") };
        assert!(error.to_string().contains(why), "{error}");
        watched.now += Duration::from_secs(60);
        assert!(watched.settle().is_empty(), "{why}: told once");
        assert_eq!(watched.shown(&files, "shop.example"), ["shop.example"], "{why}");
        // What is good again needs no reload either.
        fs::write(&cert, &good.0).unwrap();
        fs::write(&key, &good.1).unwrap();
        let changes = watched.settle();
        assert!(matches!(changes[..], [Change::Certificate(_)]), "{why}: {changes:?}");
    }
}

#[test]
fn a_pair_that_is_replaced_one_file_after_the_other_is_not_complained_of() {
    let files = Files::new();
    let pair = files.certificate(&["shop.example"]);
    let mut watched = Watched::new(&tls(vec![pair.clone()]));
    let old_key = fs::read(&pair.private_key).unwrap();
    files.certificate(&["shop.example", "new.example"]);
    let new_key = fs::read(&pair.private_key).unwrap();
    fs::write(&pair.private_key, old_key).unwrap();
    assert!(watched.settle().is_empty(), "the new certificate with the old key");
    watched.now += Duration::from_secs(1);
    fs::write(&pair.private_key, new_key).unwrap();
    let changes = watched.settle_for_good();
    assert!(matches!(changes[..], [Change::Certificate(_)]), "{changes:?}");
    assert_eq!(watched.shown(&files, "shop.example"), ["shop.example", "new.example"]);
}

#[test]
fn one_bad_certificate_does_not_keep_the_others_old() {
    let files = Files::new();
    let (one, two) = (files.certificate(&["one.example"]), files.certificate(&["two.example"]));
    let mut watched = Watched::new(&tls(vec![one.clone(), two]));
    fs::write(&one.cert, "").unwrap();
    files.certificate(&["two.example", "new.example"]);
    let changes = watched.settle_for_good();
    assert!(matches!(changes[..], [Change::Certificate(_), Change::Refused(_)]), "{changes:?}");
    assert_eq!(watched.shown(&files, "new.example"), ["two.example", "new.example"]);
    assert_eq!(watched.shown(&files, "one.example"), ["one.example"]);
}

#[test]
fn an_ocsp_response_is_shown_for_as_long_as_it_holds() {
    let files = Files::new();
    let mut pair = files.certificate(&["shop.example"]);
    let ocsp = files.path("shop.ocsp");
    pair.ocsp = Some(ocsp.clone());
    let serial = Pair::read(&pair, &provider()).unwrap().facts.serial;
    let mut watched = Watched::new(&tls(vec![pair]));
    let stapled = |watched: &Watched| {
        let hello = watched.server.current();
        hello.ocsp_of("shop.example")
    };
    let why = |changes: &[Change]| match changes {
        [Change::NotStapled { why, .. }] => why.clone(),
        other => panic!("{other:?}"),
    };
    assert!(why(&watched.settle()).contains("No such file"), "that it is not there yet is said");
    assert_eq!(stapled(&watched), None);
    let hour = Duration::from_secs(3600);
    let good = ocsp_response(&serial, &[0x80, 0], watched.clock - hour, Some(watched.clock + hour));
    fs::write(&ocsp, &good).unwrap();
    let changes = watched.settle();
    assert!(matches!(changes[..], [Change::Stapled { .. }]), "{changes:?}");
    assert_eq!(stapled(&watched), Some(good));
    assert!(watched.settle().is_empty(), "said once");
    watched.clock += hour * 2;
    assert_eq!(why(&watched.settle()), "it has expired");
    assert_eq!(stapled(&watched), None);
    for (bytes, expected) in [
        (b"-----BEGIN OCSP RESPONSE-----".to_vec(), "is not an OCSP response in DER"),
        (vec![0x30, 3, 0x0a, 1, 6], "unauthorized"),
        (vec![0x30; 70_000], "more than 64 KiB"),
        (ocsp_response(&[9], &[0x80, 0], watched.clock, None), "not about this certificate"),
    ] {
        fs::write(&ocsp, bytes).unwrap();
        let why = why(&watched.settle());
        assert!(why.contains(expected), "{why}");
        assert_eq!(stapled(&watched), None);
    }
}

#[test]
fn a_new_certificate_is_not_shown_with_the_response_about_the_old_one() {
    let files = Files::new();
    let mut pair = files.certificate(&["shop.example"]);
    let serial = Pair::read(&pair, &provider()).unwrap().facts.serial;
    pair.ocsp = Some(files.write("shop.ocsp", ocsp_response(&serial, &[0x80, 0], SystemTime::now(), None)));
    let mut watched = Watched::new(&tls(vec![pair]));
    assert!(watched.server.current().ocsp_of("shop.example").is_some());
    watched.settle();
    files.certificate(&["shop.example"]);
    let changes = watched.settle();
    assert!(matches!(changes[..], [Change::Certificate(_), Change::NotStapled { .. }]), "{changes:?}");
    assert_eq!(watched.server.current().ocsp_of("shop.example"), None);
}

/// A handshake of a client with this certificate, or without any: the server's end.
fn as_client(server: &ServerTls, files: &Files, shown: Option<&Certificate>) -> Result<(), rustls::Error> {
    let mut client = Arc::unwrap_or_clone(files.client(BOTH, &["h2"]));
    if let Some(shown) = shown {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let chain = vec![CertificateDer::from_pem_file(&shown.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&shown.private_key).unwrap();
        client = builder.with_root_certificates(files.roots.clone()).with_client_auth_cert(chain, key).unwrap();
    }
    let client = Arc::new(client);
    let config = Arc::clone(server.current().config());
    for _ in 0..2 {
        let (_, server) = handshake(&config, &client, "shop.example")?;
        assert_eq!(handshake_outcome(&server).1, HandshakeResult::Full, "a ticket would skip the certificate");
        assert_eq!(server.peer_certificates().is_some(), shown.is_some());
    }
    Ok(())
}

#[test]
fn clients_show_certificates_of_the_authorities_that_are_named() {
    let (files, strangers) = (Files::new(), Files::new());
    let mut tls = tls(vec![files.certificate(&["shop.example"])]);
    let ca = files.write("clients.pem", files.root_pem());
    let (client, stranger) = (files.certificate(&["till-7"]), strangers.certificate(&["till-7"]));
    tls.client_auth = Some(ClientAuth { ca: ca.clone(), is_required: true });
    let mut watched = Watched::new(&tls);
    let is_in = |watched: &Watched, shown| as_client(&watched.server, &files, shown);
    assert_eq!(is_in(&watched, Some(&client)), Ok(()));
    assert_eq!(is_in(&watched, None), Err(rustls::Error::NoCertificatesPresented));
    assert!(matches!(is_in(&watched, Some(&stranger)), Err(rustls::Error::InvalidCertificate(_))));
    tls.client_auth = Some(ClientAuth { ca: ca.clone(), is_required: false });
    let asked = Watched::new(&tls);
    assert_eq!((is_in(&asked, Some(&client)), is_in(&asked, None)), (Ok(()), Ok(())));
    assert!(matches!(is_in(&asked, Some(&stranger)), Err(rustls::Error::InvalidCertificate(_))));
    // Authorities are watched as certificates are.
    fs::write(&ca, strangers.root_pem()).unwrap();
    let changes = watched.settle();
    assert!(matches!(&changes[..], [Change::Authorities(path)] if *path == ca), "{changes:?}");
    assert_eq!(is_in(&watched, Some(&stranger)), Ok(()));
    assert!(matches!(is_in(&watched, Some(&client)), Err(rustls::Error::InvalidCertificate(_))));
    fs::write(&ca, "").unwrap();
    let changes = watched.settle_for_good();
    assert!(matches!(&changes[..], [Change::Refused(TlsError::NoAuthority(_))]), "{changes:?}");
    assert_eq!(is_in(&watched, Some(&stranger)), Ok(()));
    // Not in part: of those who are left out nobody would hear.
    let partly = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", files.root_pem());
    fs::write(&ca, &partly).unwrap();
    let changes = watched.settle_for_good();
    let [Change::Refused(error @ TlsError::BadAuthorities { .. })] = &changes[..] else { panic!("{changes:?}") };
    assert!(error.to_string().contains("entry 2 of it"), "{error}");
    assert_eq!(is_in(&watched, Some(&stranger)), Ok(()));
    assert!(matches!(is_in(&watched, Some(&client)), Err(rustls::Error::InvalidCertificate(_))));
    assert!(ServerTls::read(&tls, true, &TlsShared::new().unwrap()).is_err());
    fs::write(&ca, files.root_pem()).unwrap();
    watched.settle();
    assert_eq!(is_in(&watched, Some(&client)), Ok(()));
}

#[test]
fn a_ticket_of_another_listener_opens_none_that_asks_for_certificates() {
    let files = Files::new();
    let mut tls = tls(vec![files.certificate(&["shop.example"])]);
    let shared = TlsShared::new().unwrap();
    let open = read(&tls, true, &shared);
    tls.client_auth = Some(ClientAuth { ca: files.write("clients.pem", files.root_pem()), is_required: true });
    let closed = read(&tls, true, &shared);
    for versions in [BOTH, ONLY_1_2] {
        let client = files.client(versions, &["h2"]);
        handshake(&open, &client, "shop.example").unwrap();
        let refused = handshake(&closed, &client, "shop.example").map(|_| ()).unwrap_err();
        assert_eq!(refused, rustls::Error::NoCertificatesPresented);
        handshake(&open, &client, "shop.example").unwrap();
    }
}

/// A handshake over the function that connections use: what the server makes of it, and what the client hears.
async fn accepted(
    tls: &Tls,
    client: Arc<ClientConfig>,
    name: &str,
) -> (Result<Option<Box<str>>, Refused>, Result<(), std::io::Error>) {
    let server = ServerTls::read(tls, true, &TlsShared::new().unwrap()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(client);
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (served, connected) = tokio::join!(accept(&server, far), connector.connect(name, near));
    (served.map(|accepted| accepted.client_subject), connected.map(|_| ()))
}

fn alert(connected: Result<(), std::io::Error>) -> Option<AlertDescription> {
    let error = connected.unwrap_err();
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn with_strict_sni_a_name_without_certificate_is_refused_with_the_alert_for_it() {
    let files = Files::new();
    let mut tls = tls(vec![files.certificate(&["shop.example"]), files.certificate(&["*.shop.example", "127.0.0.1"])]);
    tls.strict_sni = true;
    for versions in [BOTH, ONLY_1_2] {
        let client = || files.client(versions, &["h2"]);
        for known in ["shop.example", "WWW.shop.example"] {
            let (served, connected) = accepted(&tls, client(), known).await;
            assert!(served.is_ok() && connected.is_ok(), "{known}");
        }
        for unknown in ["other.example", "a.b.shop.example"] {
            let (served, connected) = accepted(&tls, client(), unknown).await;
            assert!(matches!(served, Err(Refused::Name(Some(name))) if *name == *unknown));
            assert_eq!(alert(connected), Some(AlertDescription::UnrecognisedName));
        }
        // An address is no name: such a client names nobody.
        let (served, connected) = accepted(&tls, client(), "127.0.0.1").await;
        let refused = served.unwrap_err();
        assert!(matches!(refused, Refused::Name(None)), "{refused}");
        assert_eq!(refused.result(), HandshakeResult::UnrecognizedName);
        assert_eq!(alert(connected), Some(AlertDescription::UnrecognisedName));
    }
    tls.strict_sni = false;
    let (served, _) = accepted(&tls, files.client(BOTH, &[]), "127.0.0.1").await;
    assert!(
        served.is_ok() || matches!(served, Err(Refused::Other(_))),
        "the first certificate, whatever the client says"
    );
}

#[tokio::test]
async fn the_subject_of_a_good_certificate_is_told_and_a_missing_one_has_a_reason() {
    let files = Files::new();
    let mut tls = tls(vec![files.certificate(&["shop.example"])]);
    tls.client_auth = Some(ClientAuth { ca: files.write("clients.pem", files.root_pem()), is_required: true });
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop, Inc.");
    params.distinguished_name.push(rcgen::DnType::CommonName, "till 7");
    let certificate = params.signed_by(&key, &files.issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(files.roots.clone())
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let (served, _) = accepted(&tls, Arc::new(client), "shop.example").await;
    assert_eq!(served.unwrap().as_deref(), Some(r"CN=till 7,O=Shop\, Inc."));
    let (served, _) = accepted(&tls, files.client(BOTH, &[]), "shop.example").await;
    let refused = served.unwrap_err();
    assert!(matches!(refused, Refused::ClientCertificate(_)), "{refused}");
    assert_eq!(refused.result(), HandshakeResult::ClientCertificate);
}

#[test]
fn early_data_is_not_taken() {
    let files = Files::new();
    let server = config(&tls(vec![files.certificate(&["shop.example"])]));
    let mut client = Arc::unwrap_or_clone(files.client(BOTH, &[]));
    client.enable_early_data = true;
    let client = Arc::new(client);
    handshake(&server, &client, "shop.example").unwrap();
    let mut again = ClientConnection::new(client, ServerName::try_from("shop.example").unwrap()).unwrap();
    assert!(again.early_data().is_none());
}

#[test]
fn a_listener_from_1_3_on_refuses_1_2() {
    let files = Files::new();
    let mut tls = tls(vec![files.certificate(&["shop.example"])]);
    let old = files.client(ONLY_1_2, &[]);
    assert!(handshake(&config(&tls), &old, "shop.example").is_ok());
    tls.min_version = TlsVersion::V1_3;
    let refused = handshake(&config(&tls), &old, "shop.example").map(|_| ()).unwrap_err();
    assert!(matches!(refused, rustls::Error::PeerIncompatible(_)), "{refused}");
    assert!(handshake(&config(&tls), &files.client(BOTH, &[]), "shop.example").is_ok());
}

#[test]
fn the_post_quantum_key_exchange_is_preferred() {
    let files = Files::new();
    let server = config(&tls(vec![files.certificate(&["shop.example"])]));
    let (_, server) = handshake(&server, &files.client(BOTH, &[]), "shop.example").unwrap();
    let group = server.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
}

#[test]
fn local_serves_localhost_beside_the_certificates_of_files() {
    let files = Files::new();
    let shared = TlsShared::new().unwrap().with_state_folder(files.path("state"));
    let mut tls = tls(vec![files.certificate(&["shop.example"])]);
    tls.local = true;
    let server = read(&tls, true, &shared);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(LocalCa::below(&files.path("state")).root_path()).unwrap()).unwrap();
    let trusting = Files { roots, ..Files::new() };
    let local = trusting.client(BOTH, &["h2"]);
    for name in ["localhost", "shop.localhost", "shop.localhost", "a.b.localhost"] {
        assert_eq!(names_shown(&handshake(&server, &local, name).unwrap().0), [name]);
    }
    assert!(handshake(&server, &files.client(BOTH, &[]), "shop.example").is_ok());
    // Alone, it also serves clients that go by address.
    tls.certificates.clear();
    let server = read(&tls, true, &shared);
    for name in ["127.0.0.1", "::1"] {
        assert!(handshake(&server, &local, name).is_ok(), "{name}");
    }
}

#[test]
fn every_form_of_private_key_is_taken() {
    let files = Files::new();
    let key = KeyPair::generate().unwrap();
    let mut certificate = files.certificate_of(&key, &["shop.example"]);
    // A chain and a key in one file, as some tools write them.
    let both = [fs::read(&certificate.private_key).unwrap(), fs::read(&certificate.cert).unwrap()].concat();
    certificate.cert = files.write("both.pem", both);
    certificate.private_key = certificate.cert.clone();
    config(&tls(vec![certificate]));
}

#[test]
fn an_error_says_which_file_and_why() {
    let files = Files::new();
    let good = files.certificate(&["shop.example"]);
    let other = files.certificate(&["other.example"]);
    let check = |cert: &Path, private_key: &Path, named: &Path, why: &str| {
        let message = error(Certificate { cert: cert.to_owned(), private_key: private_key.to_owned(), ocsp: None });
        assert!(message.contains(named.to_str().unwrap()) && message.contains(why), "{message}");
    };
    let missing = files.path("missing.pem");
    check(&missing, &good.private_key, &missing, "No such file");
    check(&good.cert, &missing, &missing, "No such file");
    let empty = files.write("empty.pem", "");
    check(&empty, &good.private_key, &empty, "holds no certificate");
    check(&good.cert, &empty, &empty, "holds no private key");
    check(&good.cert, &good.cert, &good.cert, "holds no private key");
    let broken = files.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    check(&broken, &good.private_key, &broken, "broken PEM");
    let odd = files.write("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check(&odd, &good.private_key, &odd, "cannot be used");
    let secret =
        files.write("secret.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    check(&good.cert, &secret, &secret, "has a passphrase");
    let junk = files.write("junk.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    check(&good.cert, &junk, &junk, "cannot be used");
    check(&good.cert, &other.private_key, &other.private_key, "is not that of the first certificate in");
}

#[test]
fn without_any_certificate_there_is_nothing_to_show() {
    assert!(matches!(refused(&tls(vec![])), TlsError::NothingToShow));
}

#[tokio::test]
async fn it_serves_through_the_acceptor_that_connections_use() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let files = Files::new();
    let acceptor = tokio_rustls::TlsAcceptor::from(config(&tls(vec![files.certificate(&["shop.example"])])));
    let connector = tokio_rustls::TlsConnector::from(files.client(BOTH, &["h2"]));
    let (near, far) = tokio::io::duplex(4096);
    let served = async {
        let mut stream = acceptor.accept(far).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        handshake_outcome(stream.get_ref().1)
    };
    let read = async {
        let mut stream = connector.connect(ServerName::try_from("shop.example").unwrap(), near).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let (outcome, text) = tokio::join!(served, read);
    assert_eq!((outcome.0.as_str(), outcome.1.as_str(), text.as_str()), ("1.3", "full", "hello"));
}
