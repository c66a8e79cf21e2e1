//! What requests are told apart by, wherever the file says so.

/// `client`, `header:NAME` or `cookie:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyBy {
    /// The client's address.
    Client,
    /// The value of a request field, by its name in lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
}
