use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::*;

/// A CA of the test's own, and certificates of it in files.
struct Files {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    roots: RootCertStore,
}

impl Files {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key), roots }
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
    Tls { certificates, local: false, min_version: TlsVersion::V1_2 }
}

fn config(tls: &Tls) -> Arc<ServerConfig> {
    server_config(tls, true, &TlsShared::new().unwrap()).unwrap()
}

fn error(certificate: Certificate) -> String {
    server_config(&tls(vec![certificate]), true, &TlsShared::new().unwrap()).unwrap_err().to_string()
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
        let (key, facts) = load(certificate, &provider()).unwrap();
        keys.add(Arc::new(key), &facts.dns_names);
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
        let server = server_config(&tls, http2, &TlsShared::new().unwrap()).unwrap();
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
    let before = server_config(&tls, true, &shared).unwrap();
    let after = server_config(&tls, true, &shared).unwrap();
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
fn new_files_are_shown_from_the_next_handshake_on_and_bad_ones_never() {
    let files = Files::new();
    let old = files.certificate(&["shop.example"]);
    let shared = TlsShared::new().unwrap();
    let server = ServerTls::read(&tls(vec![old.clone()]), true, &shared).unwrap();
    let shown = || names_shown(&handshake(&server.current(), &files.client(BOTH, &["h2"]), "shop.example").unwrap().0);
    let new = files.certificate(&["shop.example", "new.example"]);
    assert_eq!(new, old, "the same files");
    assert_eq!(shown(), ["shop.example"], "nobody has looked at them");
    server.read_again(&shared).unwrap();
    assert_eq!(shown(), ["shop.example", "new.example"]);
    fs::write(&new.cert, "").unwrap();
    assert!(matches!(server.read_again(&shared), Err(TlsError::NoCertificate(_))));
    assert_eq!(shown(), ["shop.example", "new.example"]);
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
    let server = server_config(&tls, true, &shared).unwrap();
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
    let server = server_config(&tls, true, &shared).unwrap();
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
        let message = error(Certificate { cert: cert.to_owned(), private_key: private_key.to_owned() });
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
    let refused = server_config(&tls(vec![]), true, &TlsShared::new().unwrap()).unwrap_err();
    assert!(matches!(refused, TlsError::NothingToShow));
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
