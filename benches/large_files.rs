//! What the ways to send a large file over TCP cost, side by side: reading it into memory and writing that, in pieces of several
//! sizes, with the kernel told ahead or not; sendfile(2); and the same behind TLS, which has to read.
//!
//! `cargo bench --bench large_files [FOLDER]`: the file lies in FOLDER, else in the one for temporary files, which should be on
//! the disk that is asked about. CPU time is that of the sending thread alone; the other end reads on another.
//! "Cold": the file's pages were dropped before (`posix_fadvise`), so that the disk takes part, and the thread waits for it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise, sendfile};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const LENGTH: usize = 256 * MIB;
const ROUNDS: usize = 5;
/// How far ahead the kernel is told what will be read.
const AHEAD: u64 = 2 << 20;

#[derive(Clone, Copy)]
enum Way {
    Read { piece: usize, ahead: bool },
    SendFile { piece: usize },
}

impl Way {
    fn name(self) -> String {
        let size =
            |bytes: usize| if bytes < MIB { format!("{} KiB", bytes / KIB) } else { format!("{} MiB", bytes / MIB) };
        match self {
            Self::Read { piece, ahead: false } => format!("read {}", size(piece)),
            Self::Read { piece, ahead: true } => format!("read {}, told ahead", size(piece)),
            Self::SendFile { piece } => format!("sendfile {}", size(piece)),
        }
    }
}

fn main() {
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let folder = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let file = Arc::new(written(&folder));
    let reads =
        [64 * KIB, 256 * KIB, MIB].into_iter().flat_map(|piece| [false, true].map(|ahead| Way::Read { piece, ahead }));
    let sends = [64 * KIB, 256 * KIB, MIB].map(|piece| Way::SendFile { piece });
    let ways: Vec<Way> = reads.clone().chain(sends).collect();
    println!("256 MiB over loopback, median of {ROUNDS} rounds: CPU ms of the sender, ms in all");
    table("plain, in the page cache", &ways, &file, false, &|way, file| plain(way, file));
    table("plain, cold", &ways, &file, true, &|way, file| plain(way, file));
    let tls = Tls::new();
    let reads: Vec<Way> = reads.filter(|way| matches!(way, Way::Read { ahead: false, .. })).collect();
    table("TLS 1.3, in the page cache", &reads, &file, false, &|way, file| tls.send(way, file));
    table("TLS 1.3, cold", &reads, &file, true, &|way, file| tls.send(way, file));
}

fn written(folder: &std::path::Path) -> File {
    let file = tempfile::tempfile_in(folder).expect("a file in the folder");
    let piece: Vec<u8> = (0..MIB).map(|byte| ((byte * 7919) >> 3) as u8).collect();
    for number in 0..LENGTH / MIB {
        file.write_all_at(&piece, (number * MIB) as u64).expect("room for the file");
    }
    // What is not on the disk yet cannot be dropped from the cache.
    file.sync_all().expect("the disk takes it");
    file
}

/// Every way once in each round, so that what the machine does meanwhile meets all of them.
fn table(
    title: &str,
    ways: &[Way],
    file: &Arc<File>,
    is_cold: bool,
    send: &dyn Fn(Way, &File) -> (Duration, Duration),
) {
    let mut all: Vec<Vec<(Duration, Duration)>> = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, times) in ways.iter().zip(&mut all) {
            match is_cold {
                true => fadvise(&**file, 0, None, Advice::DontNeed).expect("a file"),
                false => warm(file),
            }
            times.push(send(*way, file));
        }
    }
    println!("\n{title}");
    for (way, times) in ways.iter().zip(&mut all) {
        let middle = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        };
        let cpu = middle(times.iter().map(|(cpu, _)| *cpu).collect());
        let whole = middle(times.iter().map(|(_, whole)| *whole).collect());
        println!("  {:<26} {cpu:>7.1} {whole:>8.1}", way.name());
    }
}

fn warm(file: &File) {
    let mut piece = vec![0; MIB];
    for number in 0..LENGTH / MIB {
        file.read_exact_at(&mut piece, (number * MIB) as u64).expect("it is there");
    }
}

/// A connection whose other end reads everything, and how long `send` kept this thread busy, and took.
fn measured<S>(end: impl FnOnce(TcpStream) + Send + 'static, send: S) -> (Duration, Duration)
where
    S: FnOnce(TcpStream),
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let reader = std::thread::spawn(move || end(TcpStream::connect(address).expect("somebody accepts")));
    let (stream, _) = listener.accept().expect("the reader connects");
    let (cpu, begun) = (thread_time(), Instant::now());
    send(stream);
    let times = (thread_time() - cpu, begun.elapsed());
    reader.join().expect("all of it came");
    times
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn drain(mut stream: impl Read) {
    let (mut piece, mut left) = (vec![0; MIB], LENGTH);
    while left > 0 {
        let read = stream.read(&mut piece).expect("the sender goes on");
        assert!(read > 0, "{left} bytes are missing");
        left -= read;
    }
}

fn plain(way: Way, file: &File) -> (Duration, Duration) {
    measured(drain, |mut stream| match way {
        Way::Read { piece, ahead } => read_and_write(file, piece, ahead, &mut stream),
        Way::SendFile { piece } => {
            let mut at = 0;
            while at < LENGTH as u64 {
                let sent = sendfile(&stream, file, Some(&mut at), piece).expect("the socket takes it");
                assert!(sent > 0, "the file is shorter");
            }
        }
    })
}

fn read_and_write(file: &File, piece: usize, ahead: bool, to: &mut impl Write) {
    let (mut buffer, mut at, mut told) = (vec![0; piece], 0, 0);
    while at < LENGTH as u64 {
        if ahead && told < at + AHEAD / 2 {
            let length = std::num::NonZeroU64::new(AHEAD);
            fadvise(file, at, length, Advice::WillNeed).expect("a file");
            told = at + AHEAD;
        }
        let read = file.read_at(&mut buffer, at).expect("it can be read");
        to.write_all(&buffer[..read]).expect("the other end takes it");
        at += read as u64;
    }
}

/// Both ends of TLS, with a certificate of our own.
struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    fn new() -> Self {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let certificate = CertificateDer::from(own.cert.der().to_vec());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("it is one");
        let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { server: Arc::new(server.expect("the key fits")), client: Arc::new(client) }
    }

    fn send(&self, way: Way, file: &File) -> (Duration, Duration) {
        let Way::Read { piece, ahead } = way else { unreachable!("what is encrypted is read") };
        let client = Arc::clone(&self.client);
        let end = move |stream| {
            let name = ServerName::try_from("localhost").expect("a name");
            let session = ClientConnection::new(client, name).expect("a session");
            drain(StreamOwned::new(session, stream));
        };
        let session = ServerConnection::new(Arc::clone(&self.server)).expect("a session");
        measured(end, |stream| {
            let mut stream = StreamOwned::new(session, stream);
            read_and_write(file, piece, ahead, &mut stream);
            stream.flush().expect("the other end takes it");
        })
    }
}
