//! The codes of a Close (RFC 6455, 7.4, and IANA's register).

/// The client is told to come back later: the edge stops, or the server behind it.
pub const GOING_AWAY: u16 = 1001;
/// The bytes are no WebSocket.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A text is not UTF-8.
pub const INVALID_TEXT: u16 = 1007;
/// Nobody may stay who breaks a rule of this server, such as to read what it asks for.
pub const POLICY: u16 = 1008;
/// The message is larger than is taken here.
pub const TOO_BIG: u16 = 1009;
/// The app has failed.
pub const INTERNAL_ERROR: u16 = 1011;
/// There is too much to do.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// Bytes of a reason: a control frame has 125 in all, of which the code takes two.
pub const MAX_REASON: usize = 123;

/// Whether a code may stand on the wire: neither what only tells of the wire (1005, 1006, 1015), nor what nobody has given a
/// meaning.
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a client gets for what an app says. 1005 is how it may say that there is no code; 1006 that its side was lost. A code
/// that may not be sent is the app's mistake, and not the client's.
#[must_use]
pub fn for_client(code: Option<u16>) -> Option<u16> {
    match code? {
        1005 => None,
        code if may_be_sent(code) => Some(code),
        _ => Some(INTERNAL_ERROR),
    }
}

/// As much of a reason as fits, whole characters only.
#[must_use]
pub fn reason_that_fits(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_app_says_becomes_what_may_be_sent() {
        for (said, sent) in [
            (None, None),
            (Some(1000), Some(1000)),
            (Some(1001), Some(1001)),
            (Some(1004), Some(1011)),
            (Some(1005), None),
            (Some(1006), Some(1011)),
            (Some(1012), Some(1012)),
            (Some(1014), Some(1014)),
            (Some(1015), Some(1011)),
            (Some(999), Some(1011)),
            (Some(1016), Some(1011)),
            (Some(2999), Some(1011)),
            (Some(3000), Some(3000)),
            (Some(4999), Some(4999)),
            (Some(5000), Some(1011)),
        ] {
            assert_eq!(for_client(said), sent, "{said:?}");
        }
    }

    #[test]
    fn a_reason_is_cut_between_two_characters() {
        assert_eq!(reason_that_fits("bye"), "bye");
        let long = "é".repeat(100);
        assert_eq!(reason_that_fits(&long), "é".repeat(61));
        assert_eq!(reason_that_fits(&"x".repeat(124)).len(), 123);
    }
}
