//! `realtime`: types and defaults.

use std::time::Duration;

use super::{Bind, Secret};

/// `realtime`: clients that are held at the edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Realtime {
    /// Where apps publish; `None`: nowhere.
    pub publish: Option<Publish>,
    /// How requests to apps are signed.
    pub grip: Grip,
    /// A stream of events (`text/event-stream`) for which the app asks for no keep-alive gets a comment after it was silent for so
    /// long. Zero: it does not. Default 25 s.
    pub keep_alive: Duration,
    /// Bytes that may wait for one client that is held, before it is given up. Default 200 KB.
    pub buffer: u64,
}

/// `realtime.publish`.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// A loopback address or a unix socket; any address with a secret.
    pub bind: Bind,
    /// What whoever publishes must bring; `None`: everybody who can connect may.
    pub secret: Option<Secret>,
}

/// `realtime.grip`.
#[derive(Debug, Clone, PartialEq)]
pub struct Grip {
    /// What `Grip-Sig` is signed with (HS256); `None`: with a key that nobody knows, for apps that do not verify.
    pub secret: Option<Secret>,
    /// `iss` of it. Default `hostler`.
    pub issuer: String,
}

impl Default for Realtime {
    fn default() -> Self {
        Self { publish: None, grip: Grip::default(), keep_alive: Duration::from_secs(25), buffer: 200_000 }
    }
}

impl Default for Grip {
    fn default() -> Self {
        Self { secret: None, issuer: "hostler".into() }
    }
}
