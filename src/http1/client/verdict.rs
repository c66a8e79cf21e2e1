//! What the end of a connection before the answer tells, and whether the request may be sent again.
//!
//! The rule: a request whose method is not idempotent is sent again if, and only if, the app cannot have begun it. What
//! the app may have begun is sent again only if doing it twice is as good as once (RFC 9110, 9.2.2). So the question is
//! what the wire proves:
//!
//! - **An app begins with a whole head.** While the kernel has not taken the last byte of it, nothing has begun.
//! - **A unix socket resets (ECONNRESET) only for what was not read**: its other end was closed with bytes unread, or
//!   was never accepted, a listener that died with its backlog included. As long as no more than the head has been sent,
//!   a reset therefore says that the head was not read to its end. When all was read, the end is a plain one.
//! - **A body in the socket takes that proof away**: what is unread may be the body. So the body of a request that must
//!   not run twice is withheld until the head has been read ([`Withhold::UntilRead`]): the kernel tells that
//!   (`Socket::poll_all_read`), and nothing is lost, because a worker reads the head first anyway.
//! - **TCP tells less.** Its handshake is the kernel's, not the worker's, and acknowledged is not read. A worker may be
//!   asked to say that it has the head ([`Withhold::UntilContinue`]); a reset before that, with only the head sent, is
//!   taken for proof, an end in good order is not. This holds for servers that answer `Expect: 100-continue` before the
//!   app runs (gunicorn, waitress). Others do so when the app first reads the body (mod_wsgi, what is built on hyper):
//!   with those a reset proves nothing, which is why it has to be asked for by configuration.
//!
//! For the connection's first request and for a later one the same holds: what was sent before has been sent before.
//!
//! | sent            | back     | reset                            | other failure of the read | plain end         | deadline |
//! |-----------------|----------|----------------------------------|---------------------------|-------------------|----------|
//! | less than the head | nothing | `reset_before_head`, again     | `reset_before_head`, again | `eof_before_head`, again | `idle_timeout`, never |
//! | the head, a reset proves it unread | nothing | `reset_before_head`, again | `reset_before_head`, if idempotent | `eof_before_head`, if idempotent | `head_timeout`, never |
//! | the head, a reset proves nothing | nothing | `reset_before_head`, if idempotent | the same | `eof_before_head`, if idempotent | `head_timeout`, never |
//! | more, or all of it | nothing | `reset_before_head`, if idempotent | the same | `eof_before_head`, if idempotent | `idle_timeout` in the body, `head_timeout` after it; never |
//! | any             | a byte   | `eof_in_head`, never             | `eof_in_head`, never      | `eof_in_head`, never | as above |
//!
//! After a deadline the worker may still be at it, or begin: it is not sent again, and the slot stays taken. A `100` that
//! was asked for is no byte of the answer, but ends the proof, as does the end of the time for it. Only a worker that is
//! known to send a `100` and does not has certainly not begun: it is reset, and keeps no slot.
//!
//! [`Withhold::UntilRead`]: super::Withhold::UntilRead
//! [`Withhold::UntilContinue`]: super::Withhold::UntilContinue

use crate::error::{Reason, Retry};

/// How much of the request the kernel has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing, or the head in part.
    Part,
    /// The head, and nothing of a body.
    Head,
    /// The head, and some or all of a body.
    More,
}

/// From where on a reset proves, while no more than the head has been sent, that the head was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// On unix sockets.
    UnixReset,
    /// On every socket: the worker has been asked for a 100, has sent none and still has time for it.
    Reset,
    /// Nowhere: it has sent it, or its time for that is over.
    None,
}

/// How the connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// ECONNRESET.
    Reset,
    /// Another error of the read.
    Failed,
    /// In good order.
    Closed,
}

/// The reason, and whether the request may be sent again. `begun`: a byte of the answer had come. `proves`: a reset
/// proves that not all of what was sent has been read.
pub(super) fn verdict(sent: Sent, begun: bool, proves: bool, end: End) -> (Reason, Retry) {
    if begun {
        return (Reason::EofInHead, Retry::Never);
    }
    let reason = if end == End::Closed { Reason::EofBeforeHead } else { Reason::ResetBeforeHead };
    let retry = match (sent, end) {
        (Sent::Part, _) => Retry::Unsent,
        (Sent::Head, End::Reset) if proves => Retry::Unsent,
        _ => Retry::IfIdempotent,
    };
    (reason, retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_called_unsent_only_where_the_app_cannot_have_begun_it() {
        use End::{Closed, Failed, Reset};
        use Reason::{EofBeforeHead as Eof, ResetBeforeHead as Rst};
        use Retry::{IfIdempotent, Unsent};
        use Sent::{Head, More, Part};
        for (sent, proves, end, expected) in [
            (Part, true, Reset, (Rst, Unsent)),
            (Part, true, Failed, (Rst, Unsent)),
            (Part, true, Closed, (Eof, Unsent)),
            (Part, false, Reset, (Rst, Unsent)),
            (Part, false, Failed, (Rst, Unsent)),
            (Part, false, Closed, (Eof, Unsent)),
            (Head, true, Reset, (Rst, Unsent)),
            (Head, true, Failed, (Rst, IfIdempotent)),
            (Head, true, Closed, (Eof, IfIdempotent)),
            (Head, false, Reset, (Rst, IfIdempotent)),
            (Head, false, Failed, (Rst, IfIdempotent)),
            (Head, false, Closed, (Eof, IfIdempotent)),
            (More, true, Reset, (Rst, IfIdempotent)),
            (More, true, Failed, (Rst, IfIdempotent)),
            (More, true, Closed, (Eof, IfIdempotent)),
            (More, false, Reset, (Rst, IfIdempotent)),
            (More, false, Failed, (Rst, IfIdempotent)),
            (More, false, Closed, (Eof, IfIdempotent)),
        ] {
            assert_eq!(verdict(sent, false, proves, end), expected, "{sent:?} {proves} {end:?}");
            assert_eq!(
                verdict(sent, true, proves, end),
                (Reason::EofInHead, Retry::Never),
                "{sent:?} {proves} {end:?}"
            );
        }
    }
}
