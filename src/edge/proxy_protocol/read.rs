//! Takes a header from a socket, and not one byte more: what follows is TLS or HTTP, and somebody else reads it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::{Malformed, parse};
use crate::http::Sender;
use crate::runtime::Socket;

/// What is looked at in one go: more than a header has without long TLVs.
const PIECE: usize = 256;

/// Why there is no header.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The peer has closed after so many bytes. After none it was a probe that only connects.
    Closed(usize),
    /// The bytes are no header.
    Malformed(Malformed),
}

/// Reads a header. What has been taken of it is in `begun`: who drops the future before its end may go on with that.
///
/// # Errors
/// See [`ReadError`]. The connection is of no use then.
pub async fn read(socket: &mut Socket, begun: &mut Vec<u8>) -> Result<Sender, ReadError> {
    poll_fn(|cx| poll_read(socket, begun, cx)).await
}

/// Looks at what is there, then takes of it what belongs to the header.
fn poll_read(socket: &mut Socket, header: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<Result<Sender, ReadError>> {
    loop {
        let mut piece = [0; PIECE];
        let before = header.len();
        let Ok(here @ 1..) = ready!(socket.poll_peek(cx, &mut piece)) else {
            return Poll::Ready(Err(ReadError::Closed(before)));
        };
        header.extend_from_slice(&piece[..here]);
        let whole = match parse(header) {
            Ok(whole) => whole,
            Err(malformed) => return Poll::Ready(Err(ReadError::Malformed(malformed))),
        };
        let own = whole.map_or(here, |whole| whole.length - before);
        if !matches!(poll_take(socket, &mut piece[..own], cx), Poll::Ready(Ok(()))) {
            return Poll::Ready(Err(ReadError::Closed(before)));
        }
        if let Some(whole) = whole {
            return Poll::Ready(Ok(whole.sender));
        }
    }
}

/// Takes bytes that have been seen in the socket.
fn poll_take(socket: &mut Socket, seen: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut left = ReadBuf::new(seen);
    while left.remaining() > 0 {
        let before = left.filled().len();
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut left))?;
        if left.filled().len() == before {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        (Socket::Unix(ours), theirs.into_std().unwrap())
    }

    #[tokio::test]
    async fn not_one_byte_of_the_client_is_taken() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n";
        for cut in 0..line.len() {
            let ((mut ours, mut theirs), mut begun) = (pair(), Vec::new());
            theirs.write_all(&line[..cut]).unwrap();
            let (sender, ()) = tokio::join!(read(&mut ours, &mut begun), async {
                // The reader is polled first, and waits now for the rest.
                theirs.write_all(&[&line[cut..], b"GET / HTTP/1.1\r\n"].concat()).unwrap();
            });
            let Ok(Sender::Behind { source, .. }) = sender else { panic!("{sender:?} at {cut}") };
            assert_eq!(source, "192.0.2.1:56324".parse().unwrap());
            drop(theirs);
            let mut rest = Vec::new();
            ours.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "at {cut}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_closes_is_told_from_one_that_lies() {
        for (bytes, expected) in [
            (&b""[..], ReadError::Closed(0)),
            (b"PROXY TCP4", ReadError::Closed(10)),
            (b"GET / HTTP/1.1\r\n\r\n", ReadError::Malformed(Malformed::NoHeader)),
        ] {
            let (mut ours, mut theirs) = pair();
            theirs.write_all(bytes).unwrap();
            drop(theirs);
            assert_eq!(read(&mut ours, &mut Vec::new()).await, Err(expected));
        }
    }
}
