//! A request body on its stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;

use super::message::Interim;
use crate::config::MinRate;
use crate::error::{Error, Reason};
use crate::http::Source;
use crate::runtime::{Allowance, Deadline};

/// A request body. Its length, where one was said, is held to by `h2`; its speed by `limits.body_rate`.
pub(super) struct RequestBody {
    stream: RecvStream,
    left: Option<u64>,
    allowance: Allowance,
    deadline: Deadline,
    /// To be set when the body is waited for.
    interim: Option<Interim>,
}

impl RequestBody {
    /// `length` is what Content-Length says.
    pub(super) fn new(stream: RecvStream, length: Option<u64>, rate: MinRate, interim: Option<Interim>) -> Self {
        Self { stream, left: length, allowance: Allowance::new(rate), deadline: Deadline::new(), interim }
    }

    /// Gives the client its window back at once: whoever reads has room for what was read.
    fn take(&mut self, data: Bytes) -> Result<Bytes, Error> {
        self.allowance.moved(data.len() as u64, &self.deadline);
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        match self.stream.flow_control().release_capacity(data.len()) {
            Ok(()) => Ok(data),
            Err(error) => Err(self.refusal(&error)),
        }
    }

    /// Why a body has no end: the client has gone, unless `h2` itself has broken it off.
    fn refusal(&self, error: &h2::Error) -> Error {
        let is_ours = !error.is_remote() && error.reason() == Some(h2::Reason::PROTOCOL_ERROR);
        let reason = if is_ours && self.left.is_some() { Reason::BodyLengthMismatch } else { Reason::ClientGone };
        Error::new(reason).detail(error.to_string())
    }
}

impl Source for RequestBody {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        Poll::Ready(match self.stream.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => Some(self.take(data)),
            Poll::Ready(Some(Err(error))) => Some(Err(self.refusal(&error))),
            // Trailers end here.
            Poll::Ready(None) => None,
            Poll::Pending => {
                if let Some(interim) = self.interim.take() {
                    interim.set(true);
                }
                let waited = self.allowance.poll_wait(&self.deadline, cx);
                return waited.map(|()| Some(Err(Error::new(Reason::BodyTimeout))));
            }
        })
    }

    fn remaining(&self) -> Option<u64> {
        self.left
    }
}
