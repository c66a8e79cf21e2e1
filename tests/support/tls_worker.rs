//! A worker behind TLS: certificates of a CA of the test's own, and what it learned in each handshake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::message::head_end;
use super::{Address, Stream};

/// A CA of the test's own, its certificate in a file.
pub(crate) struct Ca {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        // Each has a name of its own, by which its certificates are told from another's.
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("{:x?}", &key.public_key_raw()[1..9]));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// For `tls: { ca: … }`.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Files of a certificate for this name, and of its key.
    pub(crate) fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.sign(name, |_| {});
        let (cert_file, key_file) = (self.folder.path().join("site.crt"), self.folder.path().join("site.key"));
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    /// Puts a certificate for this name into a file, and its key into another. Returns the certificate in DER.
    pub(crate) fn write(
        &self,
        (cert, key): (&Path, &Path),
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<u8> {
        let (certificate, secret) = self.sign(name, change);
        std::fs::write(cert, certificate.pem()).unwrap();
        std::fs::write(key, secret.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    /// What a server shows that has a certificate for this name.
    pub(crate) fn server(&self, name: &str) -> ServerConfig {
        self.server_with(name, |_| {})
    }

    /// The same for a certificate that is over.
    pub(crate) fn expired_server(&self, name: &str) -> ServerConfig {
        self.server_with(name, |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1))
    }

    fn server_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> ServerConfig {
        let (certificate, key) = self.sign(name, change);
        server(&certificate, &key)
    }

    /// A certificate for this name that nobody but itself has signed, and its file.
    pub(crate) fn alone(&self, name: &str) -> (ServerConfig, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let file = self.folder.path().join("alone.crt");
        std::fs::write(&file, certificate.pem()).unwrap();
        (server(&certificate, &key), file)
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

fn server(certificate: &rcgen::Certificate, key: &KeyPair) -> ServerConfig {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// What a handshake told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<String>,
    pub(crate) is_resumed: bool,
}

/// A worker that answers every request over TLS with `ok`. Ends when it is dropped.
pub(crate) struct TlsWorker {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    greetings: Mutex<Vec<Greeting>>,
}

/// The length of a body that ends within a record (2^14 bytes), where others fill more than one.
pub(crate) const LONG: usize = 100_000;

/// What a worker does after each answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Takes the next request of the connection.
    Next,
    /// Sends a change of keys, which is no byte of HTTP, and takes the next request.
    Rekey,
    /// Closes without TLS's goodbye.
    Cut,
    /// Has sent another answer behind it, in its last record, and takes the next request. The answer is [`LONG`].
    Surplus,
    /// Has said TLS's goodbye with it, and leaves the socket open.
    Goodbye,
}

impl TlsWorker {
    pub(crate) fn start(config: ServerConfig, after: After) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (serving, config) = (Arc::clone(&shared), Arc::new(config));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (config, shared) = (Arc::clone(&config), Arc::clone(&serving));
                // An error is a gateway that has left.
                std::thread::spawn(move || drop(serve(stream, config, &shared, after)));
            }
        });
        Self { address, shared }
    }

    /// An endpoint with this host.
    pub(crate) fn endpoint(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// What every handshake that succeeded told.
    pub(crate) fn greetings(&self) -> Vec<Greeting> {
        self.shared.greetings.lock().unwrap().clone()
    }
}

impl Drop for TlsWorker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop; an error says that it has ended.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared, after: After) -> std::io::Result<()> {
    let socket = Stream::Tcp(stream);
    socket.prepare();
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    shared.greetings.lock().unwrap().push(Greeting {
        sni: tls.conn.server_name().map(str::to_owned),
        alpn: tls.conn.alpn_protocol().map(text),
        is_resumed: tls.conn.handshake_kind() == Some(HandshakeKind::Resumed),
    });
    // Answers are cut into records as a whole.
    tls.conn.set_buffer_limit(None);
    let mut unread = Vec::new();
    loop {
        while head_end(&unread).is_none() {
            let mut piece = [0; 4096];
            match tls.read(&mut piece)? {
                0 => return Ok(()),
                read => unread.extend_from_slice(&piece[..read]),
            }
        }
        unread.clear();
        tls.conn.writer().write_all(&answer(after))?;
        if after == After::Goodbye {
            tls.conn.send_close_notify();
        }
        tls.flush()?;
        match after {
            After::Next | After::Surplus => {}
            After::Goodbye => {
                // Until the other end has closed.
                while tls.sock.read(&mut [0; 4096])? > 0 {}
                return Ok(());
            }
            After::Rekey => {
                tls.conn.refresh_traffic_keys().unwrap();
                // It is made when the next bytes are given, however few.
                let _ = tls.conn.writer().write(b"")?;
                tls.flush()?;
            }
            After::Cut => return Ok(()),
        }
    }
}

/// Serves a connection that somebody else has accepted.
pub(crate) fn serve_one(stream: TcpStream, config: ServerConfig) {
    // An error is a gateway that has left.
    std::thread::spawn(move || drop(serve(stream, Arc::new(config), &Shared::default(), After::Next)));
}

fn answer(after: After) -> Vec<u8> {
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    if after != After::Surplus {
        return short.to_vec();
    }
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + LONG, b'.');
    answer.extend_from_slice(short);
    answer
}

/// The address of somebody who listens, takes connections and closes them at once.
pub(crate) fn closing() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || while listener.accept().is_ok() {});
    Address::Tcp(address)
}
