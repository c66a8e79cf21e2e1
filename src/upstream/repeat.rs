//! What becomes of a request after an attempt that brought no answer: nothing is lost, and nothing runs twice.
//!
//! | what is known | | |
//! |---|---|---|
//! | nobody answers connect | any method | held until somebody does, or `hold` is over |
//! | the listen backlog is full, or no descriptor is left | any method | at another endpoint, else tried again until the waiting room's timeout |
//! | another failure to connect | any method | at another endpoint, if there is one |
//! | nothing of it was read | any method | again |
//! | it may have been begun | idempotent, or with Idempotency-Key (RFC 9110, 9.2.2) | again |
//! | it may still be worked at, or an answer has begun | | fails |

use crate::error::{Error, Reason, Retry};

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Tell the client.
    Fail,
    /// Send it again, at another endpoint if there is one.
    Again,
    /// Send it to another endpoint, or fail.
    Elsewhere,
    /// Wait until the endpoint answers.
    Hold,
    /// Wait a moment for a place in the endpoint's backlog, or for a descriptor.
    Backlog,
}

/// Decides. `is_idempotent`: doing it twice is as good as once.
pub(super) fn next(error: &Error, is_idempotent: bool) -> Next {
    match (error.retry, error.reason) {
        (Retry::Never, _) => Next::Fail,
        (Retry::Unsent, Reason::ConnectRefused | Reason::SocketMissing) => Next::Hold,
        (Retry::Unsent, Reason::BacklogFull | Reason::NoDescriptors) => Next::Backlog,
        (
            Retry::Unsent,
            Reason::SocketPermission
            | Reason::NameNotResolved
            | Reason::TlsFailed
            | Reason::ConnectTimeout
            | Reason::ConnectFailed,
        ) => Next::Elsewhere,
        (Retry::Unsent, _) => Next::Again,
        // The worker has it and may still be at it.
        (Retry::IfIdempotent, Reason::HeadTimeout | Reason::IdleTimeout) => Next::Fail,
        (Retry::IfIdempotent, _) if is_idempotent => Next::Again,
        (Retry::IfIdempotent, _) => Next::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_decides_and_then_the_method() {
        for (reason, retry, for_post, for_get) in [
            (Reason::ConnectRefused, Retry::Unsent, Next::Hold, Next::Hold),
            (Reason::SocketMissing, Retry::Unsent, Next::Hold, Next::Hold),
            (Reason::BacklogFull, Retry::Unsent, Next::Backlog, Next::Backlog),
            (Reason::NoDescriptors, Retry::Unsent, Next::Backlog, Next::Backlog),
            (Reason::SocketPermission, Retry::Unsent, Next::Elsewhere, Next::Elsewhere),
            (Reason::TlsFailed, Retry::Unsent, Next::Elsewhere, Next::Elsewhere),
            (Reason::ResetBeforeHead, Retry::Unsent, Next::Again, Next::Again),
            (Reason::ResetBeforeHead, Retry::IfIdempotent, Next::Fail, Next::Again),
            (Reason::EofBeforeHead, Retry::IfIdempotent, Next::Fail, Next::Again),
            (Reason::HeadTimeout, Retry::IfIdempotent, Next::Fail, Next::Fail),
            (Reason::EofInHead, Retry::Never, Next::Fail, Next::Fail),
            (Reason::BadHead, Retry::Never, Next::Fail, Next::Fail),
        ] {
            let error = Error::new(reason).retry(retry);
            assert_eq!((next(&error, false), next(&error, true)), (for_post, for_get), "{reason} {retry:?}");
        }
    }
}
