//! `routes[].cors`: which pages of other origins may read answers.

use std::time::Duration;

/// What the Fetch standard lets a server say (CORS protocol). Without the key a route says nothing of it, and apps do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Origins,
    /// Methods that a preflight allows. Default GET, HEAD, POST, PUT, PATCH, DELETE.
    pub methods: Vec<String>,
    /// Request fields that a preflight allows, in lower case; `None` (`"*"`): those that it asks for.
    pub headers: Option<Vec<String>>,
    /// Response fields that scripts may read beside those they always may. Default none.
    pub expose: Vec<String>,
    /// Whether requests may come with cookies. Default false.
    pub credentials: bool,
    /// How long a browser may keep what a preflight was told. Default 10 minutes.
    pub max_age: Duration,
}

/// `cors.origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// `"*"`: of any origin.
    Any,
    /// Of these, as browsers write them: `https://app.example`, `null`.
    Listed(Vec<String>),
}
