//! `routes[].websocket`: whether a route takes WebSockets, and what is asked of them before.

use std::time::Duration;

/// What a route says of WebSockets. Without the key, and with `off`, it takes none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// Who speaks WebSocket.
    pub mode: WebSocketMode,
    /// Whose pages may open one. Default [`PageOrigins::Same`].
    pub origins: PageOrigins,
    /// After how long without a word the client is sent a ping; whoever answers none of three
    /// (`over_http`: of two) is given up. `None`: never,
    /// which is the default of `tunnel`, where the app has pings of its own. Default of `over_http`: 25 s.
    pub ping: Option<Duration>,
    /// Bytes of one message of a client (`over_http`). Default 1 MiB.
    pub max_message: u64,
    /// WebSockets open on the route at a time. Default 10000.
    pub max: u32,
}

/// `websocket.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebSocketMode {
    /// The app: its bytes pass through.
    Tunnel,
    /// The edge: the app gets plain requests.
    OverHttp,
}

/// `websocket.origins`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PageOrigins {
    /// Pages of the host and port that the WebSocket is asked of.
    Same,
    /// Any page of the web.
    Any,
    /// Pages of these origins, as browsers write them: `https://app.example`.
    Listed(Vec<String>),
}

impl WebSocket {
    /// One of this mode with nothing else said.
    #[must_use]
    pub fn of(mode: WebSocketMode) -> Self {
        let ping = match mode {
            WebSocketMode::Tunnel => None,
            WebSocketMode::OverHttp => Some(Duration::from_secs(25)),
        };
        Self { mode, origins: PageOrigins::Same, ping, max_message: 1 << 20, max: 10_000 }
    }
}
