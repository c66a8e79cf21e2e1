//! The byte streams that the edge and the upstreams use: one concrete type each, so that nothing above is generic over IO.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::span::Span;
use super::unread::unread;

/// Less than what one unread byte takes (768 bytes on x86-64), more than the single byte that the kernel still counts of
/// a buffer that it is about to release (`sock_wfree`). It wakes us in that moment, and not again: whoever waited for a
/// plain zero would wait for ever, once in some hundred reads if the two threads are as close as can be.
const NOTHING: u32 = 128;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
}

impl Socket {
    /// Makes the close of this socket a reset: the other end must not take what it has for the whole.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            // Fails only on a socket that is dead already.
            let _ = socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }

    /// Takes [`Self::reset_on_close`] back.
    pub fn close_in_order(&self) {
        if let Self::Tcp(stream) = self {
            // As above.
            let _ = socket2::SockRef::from(stream).set_linger(None);
        }
    }

    /// Has the system ask the other end now and then whether it is still there, and fail reading and writing once it is not:
    /// for connections on which nothing may be said for long. After a minute of silence, and for about one more. A unix socket
    /// knows without asking.
    pub fn keep_alive(&self) {
        if let Self::Tcp(stream) = self {
            let second = std::time::Duration::from_secs(1);
            let keepalive =
                socket2::TcpKeepalive::new().with_time(60 * second).with_interval(15 * second).with_retries(4);
            // Fails only on a socket that is dead already.
            let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
        }
    }

    /// Whether one of these events is there now, or the end of the connection in both directions.
    pub(super) fn has(&self, events: rustix::event::PollFlags) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut descriptor = match self {
            Self::Tcp(stream) => [PollFd::new(stream, events)],
            Self::Unix(stream) => [PollFd::new(stream, events)],
        };
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A system that does not answer must not be asked for ever.
        let asked = poll(&mut descriptor, Some(&at_once));
        asked.is_err() || descriptor[0].revents().intersects(events | PollFlags::HUP)
    }

    /// Whether the other end has closed its side, or reset, whatever lies unread before that. A system call; nothing of it is
    /// waited for.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.has(rustix::event::PollFlags::RDHUP)
    }

    /// Ready once the other end has closed or reset, whatever lies unread before that. Costs a system call each time
    /// something comes.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Forget what lies there before looking: whatever comes after the look wakes us.
            let forget = || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into());
            let _ = match self {
                Self::Tcp(stream) => stream.try_io(Interest::READABLE, forget),
                Self::Unix(stream) => stream.try_io(Interest::READABLE, forget),
            };
            if self.has(rustix::event::PollFlags::RDHUP) {
                return Poll::Ready(());
            }
            let more = match self {
                Self::Tcp(stream) => ready!(stream.poll_read_ready(cx)),
                Self::Unix(stream) => ready!(stream.poll_read_ready(cx)),
            };
            if more.is_err() {
                return Poll::Ready(());
            }
        }
    }

    /// Whether nothing is there to be read, the other end's close included. The event queue's last word costs no
    /// system call, but may be a turn old; with `surely`, or when it says that something may be there, the kernel is
    /// asked.
    #[must_use]
    pub fn is_quiet(&self, surely: bool) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let seems_quiet = match self {
            Self::Tcp(stream) => stream.poll_read_ready(&mut cx).is_pending(),
            Self::Unix(stream) => stream.poll_read_ready(&mut cx).is_pending(),
        };
        if seems_quiet && !surely {
            return true;
        }
        let (mut byte, flags) = ([0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        let peeked = match self {
            Self::Tcp(stream) => recv(stream, &mut byte[..], flags),
            Self::Unix(stream) => recv(stream, &mut byte[..], flags),
        };
        peeked.is_err_and(|error| error == Errno::AGAIN)
    }

    /// Whether ECONNRESET from this socket proves that the other end has not read to the end of what was sent.
    ///
    /// A unix socket answers so when its other end is closed with something unread, or was never accepted, and for no
    /// other cause. TCP resets for many.
    #[must_use]
    pub fn reset_means_unread(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self, Self::Unix(_))
    }

    /// Ready once the other end of a unix socket has read all that was sent, or is gone, or cannot be known. Takes the
    /// place of whoever waits to write.
    ///
    /// Reading the last byte of a buffer raises EPOLLOUT, so nothing is asked again and again.
    pub fn poll_all_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Unix(stream) = self else { return Poll::Ready(()) };
        // An end that takes no more, but keeps what it has unread, is always ready for writing: hence a bound.
        for _ in 0..8 {
            let asked = stream.try_io(Interest::WRITABLE, || match unread(stream) {
                Some(bytes) if bytes >= NOTHING => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            });
            if asked.is_ok() || ready!(stream.poll_write_ready(cx)).is_err() {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Bytes that the kernel holds for the other end: those it has not acknowledged, on TCP. `None` where that is unknown.
    #[must_use]
    pub fn unacknowledged(&self) -> Option<u32> {
        match self {
            Self::Tcp(stream) => unread(stream),
            Self::Unix(stream) => unread(stream),
        }
    }

    /// Says these few bytes and that nothing more will come, without waiting. What has arrived is read, so that the
    /// close does not take the words with it.
    pub fn turn_away(&self, words: &[u8]) {
        self.send_now(words);
        let (mut piece, flags) = ([0_u8; 4096], RecvFlags::DONTWAIT);
        // Whatever fails here, the connection is closed next.
        let _ = match self {
            Self::Tcp(stream) => {
                let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
                recv(stream, &mut piece[..], flags)
            }
            Self::Unix(stream) => {
                let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
                recv(stream, &mut piece[..], flags)
            }
        };
    }

    /// Copies what is there to be read, which stays to be read. Zero at the other end's close.
    ///
    /// Ready again at once for as long as nothing is read.
    ///
    /// # Errors
    /// What the system said.
    pub fn poll_peek(&self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        loop {
            let peeked = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut *bytes, flags)?.0))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || Ok(recv(stream, &mut *bytes, flags)?.0))
                }
            };
            if !matches!(&peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(peeked);
            }
        }
    }

    /// Writes bytes that are followed at once: too few for a packet of their own, they share that of what follows.
    ///
    /// # Errors
    /// What became of the socket.
    pub fn poll_send_more(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::MORE | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            let sent = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, flags)?))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, flags)?))
                }
            };
            if !matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(sent);
            }
        }
    }

    /// Sends from a file without reading it. `None`: the system cannot do that here, or the file has no such bytes: to be
    /// read instead, which tells why.
    ///
    /// # Errors
    /// What became of the socket.
    pub fn poll_send_file(&self, cx: &mut Context<'_>, span: &Span) -> Poll<io::Result<Option<usize>>> {
        loop {
            let mut offset = span.start;
            let sent = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || {
                        Ok(sendfile(stream, &span.file, Some(&mut offset), span.length)?)
                    })
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || {
                        Ok(sendfile(stream, &span.file, Some(&mut offset), span.length)?)
                    })
                }
            };
            return Poll::Ready(match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if is_of_file(&error) => Ok(None),
                // The kernel tells a reset once, and sendfile(2) keeps that to itself when it has sent something before.
                // Nothing else closes our side of a TCP connection.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe && matches!(self, Self::Tcp(_)) => {
                    Err(io::ErrorKind::ConnectionReset.into())
                }
                Err(error) => Err(error),
                Ok(count) => Ok((count > 0).then_some(count)),
            });
        }
    }

    /// Writes what the kernel takes now, whatever the event queue said last. Zero when it takes nothing.
    pub fn send_now(&self, bytes: &[u8]) -> usize {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match self {
            Self::Tcp(stream) => send(stream, bytes, flags),
            Self::Unix(stream) => send(stream, bytes, flags),
        };
        sent.unwrap_or(0)
    }
}

/// Whether sendfile(2) failed for the file's sake.
fn is_of_file(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(
            Errno::IO
                | Errno::INVAL
                | Errno::ISDIR
                | Errno::NOSYS
                | Errno::OPNOTSUPP
                | Errno::NOMEM
                | Errno::OVERFLOW
                | Errno::SPIPE
        )
    )
}

/// A connection with or without TLS, either end of it.
#[derive(Debug)]
pub enum Stream {
    /// Bytes as they are.
    Plain(Socket),
    /// Behind rustls.
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// The socket under it.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// [`Socket::is_quiet`] for what is above TLS. Records that are there and are no bytes of the other side's (tickets,
    /// a change of keys) are read, and do not count. A byte that is read here is lost: who is told that it is not quiet
    /// gives the connection up.
    #[must_use]
    pub fn is_quiet(&mut self, surely: bool) -> bool {
        let Self::Tls(stream) = self else { return self.socket().is_quiet(surely) };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // The event queue may not know yet of what the kernel has: then reading changes nothing.
        for _ in 0..2 {
            // First what is decrypted already, or a goodbye that was: the kernel knows nothing of it any more.
            let mut byte = [0];
            if Pin::new(&mut *stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_ready() {
                return false;
            }
            if stream.get_ref().0.is_quiet(surely) {
                return true;
            }
        }
        false
    }
}

macro_rules! delegate {
    ($name:ident: $($variant:ident),*) => {
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_read(cx, buf),)* }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_write(cx, buf),)* }
            }

            fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),)* }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_flush(cx),)* }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(stream) => Pin::new(stream).poll_shutdown(cx),)* }
            }
        }
    };
}

delegate!(Socket: Tcp, Unix);
delegate!(Stream: Plain, Tls);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    fn pair() -> (Socket, std::os::unix::net::UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = theirs.into_std().unwrap();
        theirs.set_nonblocking(false).unwrap();
        (Socket::Unix(ours), theirs)
    }

    async fn is_all_read(socket: &Socket) -> bool {
        poll_fn(|cx| Poll::Ready(socket.poll_all_read(cx).is_ready())).await
    }

    #[tokio::test]
    async fn what_is_read_in_part_is_not_all_read() {
        let (ours, mut theirs) = pair();
        assert!(is_all_read(&ours).await, "nothing was sent");
        assert_eq!(ours.send_now(b"head"), 4);
        assert!(!is_all_read(&ours).await);
        theirs.read_exact(&mut [0; 3]).unwrap();
        assert!(!is_all_read(&ours).await);
        theirs.read_exact(&mut [0; 1]).unwrap();
        poll_fn(|cx| ours.poll_all_read(cx)).await;
    }

    #[tokio::test]
    async fn an_end_that_has_gone_is_not_waited_for() {
        let (ours, theirs) = pair();
        assert_eq!(ours.send_now(b"head"), 4);
        assert!(!is_all_read(&ours).await);
        theirs.shutdown(std::net::Shutdown::Both).unwrap();
        poll_fn(|cx| ours.poll_all_read(cx)).await;
        drop(theirs);
        poll_fn(|cx| ours.poll_all_read(cx)).await;
    }

    #[tokio::test]
    async fn no_wake_up_is_missed() {
        let (ours, mut theirs) = pair();
        let reader = std::thread::spawn(move || while theirs.read(&mut [0; 256]).is_ok_and(|read| read > 0) {});
        for count in 0..30_000 {
            assert_eq!(ours.send_now(&[b'h'; 200]), 200);
            let all_read = poll_fn(|cx| ours.poll_all_read(cx));
            assert!(tokio::time::timeout(Duration::from_secs(20), all_read).await.is_ok(), "after {count}");
        }
        drop(ours);
        reader.join().unwrap();
    }

    #[tokio::test]
    async fn a_file_is_sent_from_where_it_lies_and_what_is_no_file_is_to_be_read() {
        use std::io::Write as _;
        let (ours, mut theirs) = pair();
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| all)
        });
        let mut span = Span { file: std::sync::Arc::new(file), start: 1, length: bytes.len() - 1 };
        loop {
            let count = poll_fn(|cx| ours.poll_send_file(cx, &span)).await.unwrap();
            if span.advance(count.expect("bytes of the file")) {
                break;
            }
        }
        let past = Span { length: 10, ..span };
        assert_eq!(poll_fn(|cx| ours.poll_send_file(cx, &past)).await.unwrap(), None, "there is nothing");
        let folder = Span { file: std::sync::Arc::new(std::fs::File::open("/").unwrap()), start: 0, length: 10 };
        assert_eq!(poll_fn(|cx| ours.poll_send_file(cx, &folder)).await.unwrap(), None);
        drop(ours);
        assert!(reader.join().unwrap().unwrap() == bytes[1..], "in order and whole");
    }

    #[tokio::test]
    async fn the_other_ends_close_is_seen_behind_bytes_that_nobody_reads() {
        use std::io::Write as _;
        let (ours, mut theirs) = pair();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(ours.poll_closed(&mut cx).is_pending());
        theirs.write_all(b"unread").unwrap();
        tokio::task::yield_now().await;
        assert!(ours.poll_closed(&mut cx).is_pending(), "bytes are no close");
        let closed = poll_fn(|cx| ours.poll_closed(cx));
        let (within, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), closed), async {
            tokio::task::yield_now().await;
            drop(theirs);
        });
        within.unwrap();
    }
}
