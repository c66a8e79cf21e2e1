//! Reading a body by its framing, in either role.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::ReadAhead;
use super::chunked::{self, Decoder};
use super::head::Framing;

/// The most that is read at once.
const PIECE: usize = 64 << 10;
/// Less than this is copied out of the piece.
const SMALL: usize = 4 << 10;

/// What cut a body short.
#[derive(Debug)]
pub(super) enum Cut {
    /// The sender closed before the end.
    Eof,
    /// The connection failed before the end.
    Failed(io::Error),
    /// A chunk frame is malformed.
    Malformed,
}

impl Cut {
    /// Whether the sender has reset the connection.
    pub(super) fn is_reset(&self) -> bool {
        matches!(self, Self::Failed(error) if error.kind() == io::ErrorKind::ConnectionReset)
    }
}

/// What is left of a body.
#[derive(Debug)]
pub(super) struct BodyReader {
    left: Left,
    piece: BytesMut,
}

#[derive(Debug)]
enum Left {
    Length(u64),
    Chunked(Box<Decoder>),
    Close,
    Nothing,
}

impl BodyReader {
    pub(super) fn new(framing: Framing) -> Self {
        let left = match framing {
            Framing::None | Framing::Length(0) => Left::Nothing,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::Chunked(Box::default()),
            Framing::Close => Left::Close,
        };
        Self { left, piece: BytesMut::new() }
    }

    /// Whether the end has been read.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.left, Left::Nothing)
    }

    /// The bytes still to come, where the framing tells.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self.left {
            Left::Nothing => Some(0),
            Left::Length(left) => Some(left),
            Left::Chunked(_) | Left::Close => None,
        }
    }

    /// The next piece, `None` at the end.
    pub(super) fn poll_data<S>(
        &mut self,
        io: &mut ReadAhead<S>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Cut>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let data = match &mut self.left {
            Left::Nothing => return Poll::Ready(Ok(None)),
            Left::Length(left) => {
                let wanted = usize::try_from(*left).map_or(PIECE, |left| left.min(PIECE));
                let data = ready!(poll_piece(io, &mut self.piece, wanted, cx))?.ok_or(Cut::Eof)?;
                *left -= data.len() as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
                Some(data)
            }
            Left::Chunked(decoder) => ready!(poll_chunked(io, decoder, cx))?,
            Left::Close => ready!(poll_piece(io, &mut self.piece, PIECE, cx))?,
        };
        if data.is_none() {
            self.left = Left::Nothing;
        }
        Poll::Ready(Ok(data))
    }
}

/// Up to `wanted` bytes: those read ahead first, then straight from the stream into a piece of their own.
fn poll_piece<S>(
    io: &mut ReadAhead<S>,
    piece: &mut BytesMut,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, Cut>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let unread = io.unread();
    if !unread.is_empty() {
        let data = Bytes::copy_from_slice(&unread[..unread.len().min(wanted)]);
        io.consume(data.len());
        return Poll::Ready(Ok(Some(data)));
    }
    // What is left of the allocation is used first: a short read does not keep all of it for itself.
    if piece.capacity() < wanted.min(PIECE / 4) {
        piece.reserve(wanted);
    }
    let room = wanted.min(piece.capacity());
    let Poll::Ready(read) = io.poll_read(cx, &mut (&mut *piece).limit(room)) else {
        // Who waits holds no room for what may come.
        *piece = BytesMut::new();
        return Poll::Pending;
    };
    let read = read.map_err(Cut::Failed)?;
    if read == 0 {
        return Poll::Ready(Ok(None));
    }
    if read >= SMALL {
        return Poll::Ready(Ok(Some(piece.split().freeze())));
    }
    // A few bytes do not keep the rest of the allocation alive.
    let data = Bytes::copy_from_slice(piece);
    piece.clear();
    Poll::Ready(Ok(Some(data)))
}

fn poll_chunked<S>(
    io: &mut ReadAhead<S>,
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, Cut>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match decoder.step(io.unread()).map_err(|chunked::Malformed| Cut::Malformed)? {
            chunked::Step::Data { skip, data } => {
                let bytes = Bytes::copy_from_slice(&io.unread()[skip..skip + data]);
                io.consume(skip + data);
                return Poll::Ready(Ok(Some(bytes)));
            }
            chunked::Step::End { skip } => {
                io.consume(skip);
                return Poll::Ready(Ok(None));
            }
            chunked::Step::More { skip } => {
                io.consume(skip);
                if ready!(io.poll_fill(cx)).map_err(Cut::Failed)? == 0 {
                    return Poll::Ready(Err(Cut::Eof));
                }
            }
        }
    }
}
