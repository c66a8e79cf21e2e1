//! `routes[].auth`: who may use a route. Types and defaults.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::TrustedProxies;
use crate::credentials::jwt::Expected;
use crate::credentials::{KeySet, Users};

/// `auth`: all that are written must hold, in this order. At least one is.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// `auth.allow`: where the client may come from.
    pub allow: Option<AllowedClients>,
    /// `auth.basic`: a name and a password.
    pub basic: Option<Basic>,
    /// `auth.jwt`: a signed token.
    pub jwt: Option<Jwt>,
    /// `auth.forward`: another service that says so.
    pub forward: Option<Forward>,
}

impl Auth {
    /// Fields that only the edge may send, in lower case: by which the app is told who asks, and the auth service what is
    /// asked for.
    pub fn identity_names(&self) -> impl Iterator<Item = &str> {
        let claims = self.jwt.iter().flat_map(|jwt| &jwt.claims).map(|(_, name)| name.as_str());
        let forward = self.forward.iter();
        let told = forward.clone().flat_map(|forward| &forward.headers).map(String::as_str);
        claims.chain(told).chain(forward.flat_map(|_| Forward::ORIGINAL))
    }
}

/// `auth.allow`: clients by their addresses, in the words of `trusted_proxies`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedClients(pub(super) TrustedProxies);

impl AllowedClients {
    /// Whether nobody may.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this client may come in; `None` is one without an address, on a unix socket.
    #[must_use]
    pub fn has(&self, client: Option<IpAddr>) -> bool {
        self.0.is_trusted(client)
    }
}

/// `auth.basic` (RFC 7617).
#[derive(Debug, Clone, PartialEq)]
pub struct Basic {
    /// What browsers show when they ask for a password: printable ASCII without `"` and `\`. Default `Restricted`.
    pub realm: String,
    /// The file of users.
    pub path: PathBuf,
    /// What it said when the configuration was read.
    pub users: Arc<Users>,
}

/// `auth.jwt` (RFC 7519, RFC 6750).
#[derive(Debug, Clone, PartialEq)]
pub struct Jwt {
    /// Where the keys are.
    pub jwks: KeySource,
    /// What a token must be.
    pub expected: Expected,
    /// Where a request has its token. Default `bearer`.
    pub from: TokenSource,
    /// Claims, and the fields in lower case by which the app is told them. Default `sub` as `remote-user`.
    pub claims: Vec<(String, String)>,
    /// How often keys are fetched from a URL. Default 10 min.
    pub refresh: Duration,
    /// As [`Basic::realm`].
    pub realm: String,
}

/// `auth.jwt.jwks`.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// A file, watched.
    File {
        /// The file.
        path: PathBuf,
        /// What it said when the configuration was read.
        keys: Arc<KeySet>,
    },
    /// Fetched in the background.
    Url(KeysUrl),
}

/// An address that keys are fetched from. `Display` writes it as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeysUrl {
    /// The whole of it.
    pub(super) text: String,
    /// Whether over TLS: without it only from this machine.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What is sent for Host.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `auth.forward`: an upstream is asked before anything else of a request is received or sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Its index in [`Config::upstreams`](super::Config::upstreams).
    pub upstream: usize,
    /// The path that it is asked for, perhaps with a query.
    pub path: String,
    /// Fields of its answer that the app is told, in lower case. Default none.
    pub headers: Vec<String>,
    /// How long a worker that has been asked may take to begin its answer. Default 5 s.
    pub timeout: Duration,
}

impl Forward {
    /// Fields in lower case by which the auth service is told what is asked for, beside those of `X-Forwarded-*`, which no
    /// client can send anyway: the method, path and query, and the whole URL.
    pub const ORIGINAL: [&str; 3] = ["x-original-method", "x-original-uri", "x-original-url"];
}

/// `auth.jwt.from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer` (RFC 6750, 2.1).
    Bearer,
    /// The whole value of this field, by its name in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
}
