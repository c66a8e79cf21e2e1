//! A worker that does whatever a script says: it answers, lies, stalls, cuts.
//!
//! The script is a function that is called once for every connection, on a thread of its own, and speaks through its
//! [`Visit`]. What it received and how often it was called is kept for the test.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use tempfile::TempDir;

use super::message::{head_end, split_head};
use super::{Address, LIMIT, Stream};

/// Where a worker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
}

/// What a worker is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Uwsgi,
}

/// Every protocol over every transport.
pub(crate) const LINKS: [(Protocol, Transport); 4] = [
    (Protocol::Http1, Transport::Tcp),
    (Protocol::Http1, Transport::Unix),
    (Protocol::Uwsgi, Transport::Tcp),
    (Protocol::Uwsgi, Transport::Unix),
];

/// What a request says of itself before its body, in either protocol.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) method: String,
    /// As the client wrote it.
    pub(crate) target: String,
    /// Of the body, in bytes.
    pub(crate) length: usize,
}

/// A request as a worker got it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// The head, to the byte where it is UTF-8.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// On which connection, counted from 0.
    pub(crate) connection: usize,
}

impl Received {
    /// `GET / HTTP/1.1`.
    pub(crate) fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// All values of a field; names are compared in lower case.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let (_, fields) = split_head(self.head.as_bytes());
        fields.into_iter().filter(|(field, _)| field == name).map(|(_, value)| value).collect()
    }

    /// The names of all fields, in lower case, in the order they came.
    pub(crate) fn names(&self) -> Vec<String> {
        split_head(self.head.as_bytes()).1.into_iter().map(|(name, _)| name).collect()
    }

    /// The one field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() < 2, "several fields {name}: {all:?}");
        all.pop()
    }
}

/// A scripted worker. Ends when it is dropped.
pub(crate) struct Worker {
    address: Address,
    shared: Arc<Shared>,
    _folder: Option<TempDir>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    connections: AtomicUsize,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    requests: Vec<Received>,
    /// Every byte of every connection.
    bytes: Vec<Vec<u8>>,
    /// Connections whose script has come to its end.
    ended: usize,
}

/// One connection to the worker, seen by the script.
pub(crate) struct Visit {
    /// `None` once it has left.
    stream: Option<Stream>,
    unread: Vec<u8>,
    shared: Arc<Shared>,
    /// Which connection it is, counted from 0.
    pub(crate) index: usize,
}

impl Worker {
    pub(crate) fn tcp(script: impl Fn(&mut Visit) + Send + Sync + 'static) -> Self {
        Self::start(Transport::Tcp, script)
    }

    pub(crate) fn unix(script: impl Fn(&mut Visit) + Send + Sync + 'static) -> Self {
        Self::start(Transport::Unix, script)
    }

    pub(crate) fn start(transport: Transport, script: impl Fn(&mut Visit) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let script: Arc<Script> = Arc::new(script);
        match transport {
            Transport::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = Address::Tcp(listener.local_addr().unwrap());
                let serving = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let next = || listener.accept().map(|(stream, _)| Stream::Tcp(stream));
                    accept(next, &serving, &script);
                });
                Self { address, shared, _folder: None }
            }
            Transport::Unix => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("worker.sock");
                let listener = UnixListener::bind(&path).unwrap();
                let serving = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let next = || listener.accept().map(|(stream, _)| Stream::Unix(stream));
                    accept(next, &serving, &script);
                });
                Self { address: Address::Unix(path), shared, _folder: Some(folder) }
            }
        }
    }

    /// Answers every request with these bytes, and goes on while the gateway does.
    pub(crate) fn answering(transport: Transport, answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::start(transport, move |visit| {
            while visit.request().is_some() {
                visit.send(&answer);
            }
        })
    }

    /// On a unix socket: answers every request with these bytes once the latch is open.
    pub(crate) fn held(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> (Self, Latch) {
        let latch = Latch::default();
        let wait = latch.clone();
        let worker = Self::unix(move |visit| {
            while visit.request().is_some() {
                wait.wait();
                visit.send(&answer);
            }
        });
        (worker, latch)
    }

    /// `http://127.0.0.1:1234` or `unix:/path`.
    pub(crate) fn endpoint(&self) -> String {
        self.address.endpoint()
    }

    /// The same when the script speaks uwsgi.
    pub(crate) fn uwsgi_endpoint(&self) -> String {
        self.address.uwsgi_endpoint()
    }

    /// The same when the script speaks this.
    pub(crate) fn endpoint_in(&self, protocol: Protocol) -> String {
        self.address.endpoint_in(protocol)
    }

    /// How many connections it has had.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The whole requests it has had.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.seen.lock().unwrap().requests.clone()
    }

    /// Every byte it has had on this connection.
    pub(crate) fn bytes(&self, connection: usize) -> Vec<u8> {
        self.shared.seen.lock().unwrap().bytes[connection].clone()
    }

    /// Waits for so many whole requests and returns the last of them.
    pub(crate) fn wait_requests(&self, count: usize) -> Received {
        self.wait("requests", |seen| seen.requests.get(count - 1).cloned())
    }

    /// Waits until the scripts of so many connections have come to their end.
    pub(crate) fn wait_ended(&self, count: usize) {
        self.wait("ended connections", |seen| (seen.ended >= count).then_some(()));
    }

    fn wait<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut seen = self.shared.seen.lock().unwrap();
        loop {
            if let Some(found) = look(&seen) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "the worker waits for {what} in vain; {} connections, requests: {:#?}",
                self.connections(),
                seen.requests
            );
            seen = self.shared.changed.wait_timeout(seen, left).unwrap().0;
        }
    }
}

type Script = dyn Fn(&mut Visit) + Send + Sync;

fn accept(next: impl Fn() -> std::io::Result<Stream>, shared: &Arc<Shared>, script: &Arc<Script>) {
    while let Ok(stream) = next() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        stream.prepare();
        let index = shared.connections.fetch_add(1, Ordering::SeqCst);
        shared.seen.lock().unwrap().bytes.push(Vec::new());
        let (shared, script) = (Arc::clone(shared), Arc::clone(script));
        std::thread::spawn(move || {
            let mut visit = Visit { stream: Some(stream), unread: Vec::new(), shared: Arc::clone(&shared), index };
            script(&mut visit);
            visit.leave();
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop; an error says that it has ended.
        let _ = self.address.connect();
    }
}

impl Visit {
    /// Reads a whole request: head and Content-Length body. `None` when the gateway closes instead.
    pub(crate) fn request(&mut self) -> Option<Received> {
        let head = self.head()?;
        let (_, fields) = split_head(head.as_bytes());
        let length = fields.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
        while self.unread.len() < length {
            self.fill()?;
        }
        let body = self.unread.drain(..length).collect();
        let received = Received { head, body, connection: self.index };
        self.shared.seen.lock().unwrap().requests.push(received.clone());
        self.shared.changed.notify_all();
        Some(received)
    }

    /// Reads the packet that stands before a uwsgi request's body: its vars. `None` when the gateway closes instead.
    pub(crate) fn packet(&mut self) -> Option<HashMap<String, String>> {
        let header = self.body(4);
        let size = u16::from_le_bytes([*header.get(1)?, *header.get(2)?]);
        let block = self.body(size.into());
        let mut parts = Vec::new();
        let mut rest = &block[..];
        while let Some((length, tail)) = rest.split_first_chunk() {
            let (part, tail) = tail.split_at_checked(u16::from_le_bytes(*length).into())?;
            parts.push(String::from_utf8_lossy(part).into_owned());
            rest = tail;
        }
        Some(parts.chunks_exact(2).map(|var| (var[0].clone(), var[1].clone())).collect())
    }

    /// Reads what stands before the body in this protocol. `None` when the gateway closes instead.
    pub(crate) fn opening(&mut self, protocol: Protocol) -> Option<Opening> {
        if protocol == Protocol::Uwsgi {
            let mut vars = self.packet()?;
            let length = vars.get("CONTENT_LENGTH").map_or(0, |length| length.parse().unwrap_or(0));
            return Some(Opening {
                method: vars.remove("REQUEST_METHOD")?,
                target: vars.remove("REQUEST_URI")?,
                length,
            });
        }
        let head = self.head()?;
        let (line, fields) = split_head(head.as_bytes());
        let mut words = line.split(' ').map(str::to_owned);
        let length = fields.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
        Some(Opening { method: words.next()?, target: words.next()?, length })
    }

    /// Reads a whole request in this protocol, without a record. `None` when the gateway closes instead.
    pub(crate) fn whole(&mut self, protocol: Protocol) -> Option<Opening> {
        let opening = self.opening(protocol)?;
        (self.body(opening.length).len() == opening.length).then_some(opening)
    }

    /// Reads a head and leaves the body where it is.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = head_end(&self.unread) {
                let head: Vec<u8> = self.unread.drain(..end).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.fill()?;
        }
    }

    /// Reads so many bytes of the body. Fewer when the gateway closes before.
    pub(crate) fn body(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count && self.fill().is_some() {}
        let count = count.min(self.unread.len());
        self.unread.drain(..count).collect()
    }

    /// Waits for the request to begin and leaves all but its first byte unread.
    pub(crate) fn touch(&mut self) {
        if let Some(stream) = &mut self.stream {
            // The end of the connection is as good: the script goes on either way.
            let _ = stream.read(&mut [0]);
        }
    }

    /// Waits for the request to begin and takes nothing of it.
    pub(crate) fn wait_readable(&mut self) {
        if let Some(stream) = &self.stream {
            stream.peek();
        }
    }

    /// Whether nothing has been read that is not used.
    pub(crate) fn is_drained(&self) -> bool {
        self.unread.is_empty()
    }

    fn fill(&mut self) -> Option<()> {
        let mut piece = vec![0; 64 << 10];
        let read = self.stream.as_mut()?.read(&mut piece).ok().filter(|read| *read > 0)?;
        self.unread.extend_from_slice(&piece[..read]);
        self.shared.seen.lock().unwrap().bytes[self.index].extend_from_slice(&piece[..read]);
        Some(())
    }

    /// Sends these bytes. Whether the gateway took them.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.write_all(bytes.as_ref()).is_ok())
    }

    /// Waits until the gateway has closed, reading what it still sends.
    pub(crate) fn wait_closed(&mut self) {
        while self.fill().is_some() {}
    }

    /// Closes with a reset. On a unix socket the gateway sees one only while bytes are unread here.
    pub(crate) fn reset(&mut self) {
        if let Some(stream) = &self.stream {
            stream.reset_on_close();
        }
        self.leave();
    }

    /// Closes. The script's end does it as well.
    pub(crate) fn leave(&mut self) {
        if self.stream.take().is_some() {
            self.shared.seen.lock().unwrap().ended += 1;
            self.shared.changed.notify_all();
        }
    }
}

/// Something that is waited for, by any number of threads, until it is let go. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Latch(Arc<(Mutex<bool>, Condvar)>);

impl Latch {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Returns once it is open, or after [`LIMIT`], so that no script outlives a failed test for long.
    pub(crate) fn wait(&self) {
        let is_open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(is_open, LIMIT, |is_open| !*is_open).unwrap());
    }
}
