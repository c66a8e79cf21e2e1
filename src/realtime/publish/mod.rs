//! `realtime.publish`: the door through which apps publish, as Pushpin's control port has it: `POST /publish/` and
//! `POST /recover`. Served by the control thread.
//!
//! [`door`] decides who may; [`items`] reads what.

mod door;
pub mod items;

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use self::door::Refusal;
use crate::config::{self, Secret};
use crate::edge::inherited::Inherited;
use crate::edge::listener::{self, BindError, Listening};
use crate::edge::side_door::SideDoor;
use crate::http::{Body, Request, Response, Service};
use crate::realtime::hub::Channels;
use crate::runtime::Socket;

/// Bytes of one request's body.
pub const LARGEST: usize = 1 << 20;

/// How often it is looked what has waited long enough.
const SWEEP: Duration = Duration::from_secs(1);

const DOOR: SideDoor = SideDoor {
    listener: "publish",
    called: "realtime.publish",
    places: 256,
    // pubcontrol keeps its connection for the next item, and takes one that has been closed for an error.
    idle_timeout: Duration::from_secs(620),
};

/// Lets go what waits in the hub for an item that does not come, for ever. By one thread.
pub async fn keep_time(channels: Channels) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        channels.sweep();
    }
}

/// Opens the socket.
///
/// # Errors
/// Why it cannot be listened on.
pub fn bind(publish: &config::Publish, inherited: &Inherited) -> Result<(Listening, String), BindError> {
    let (sockets, addresses) = listener::bind_for_group(&publish.bind, inherited)?;
    let failed = |message: &str| BindError { address: publish.bind.to_string(), message: message.into() };
    let (Ok([socket]), Ok([address])) = (<[_; 1]>::try_from(sockets), <[_; 1]>::try_from(addresses)) else {
        return Err(failed("several sockets have this name, and realtime.publish takes one"));
    };
    // What systemd opens is known only now.
    if publish.secret.is_none() && !socket.is_local() {
        return Err(failed(
            "other machines can reach this socket, and whoever reaches it writes to your clients: write realtime.publish.secret",
        ));
    }
    Ok((socket, address))
}

/// Accepts on the socket for ever.
pub async fn listen(socket: Listening, channels: Channels, secret: Option<Secret>) {
    let desk = |socket: &Socket| Desk {
        channels: channels.clone(),
        secret: secret.clone(),
        is_unix: matches!(socket, Socket::Unix(_)),
    };
    DOOR.listen(socket, desk).await;
}

/// Where one connection is answered.
struct Desk {
    channels: Channels,
    secret: Option<Secret>,
    is_unix: bool,
}

impl Service for Desk {
    type Error = Infallible;

    async fn call(&self, request: Box<Request>) -> Result<Response, Infallible> {
        let response = self.answer(request).await;
        if response.status().is_client_error() || response.status().is_server_error() {
            self.channels.metrics().refused();
        }
        Ok(response)
    }
}

impl Desk {
    async fn answer(&self, mut request: Box<Request>) -> Response {
        if let Some(error) = &request.refused {
            return text(StatusCode::BAD_REQUEST, format!("{}\n", error.reason));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let host = request.exchange.host.as_ref();
        match door::refusal(&request.headers, host, self.secret.as_ref(), self.is_unix, now) {
            None => {}
            Some(Refusal::Unproven(why)) => {
                let mut response = text(StatusCode::UNAUTHORIZED, format!("{why}\n"));
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return response;
            }
            Some(Refusal::Foreign(why)) => return text(StatusCode::FORBIDDEN, format!("{why}\n")),
        }
        match (request.target.raw_path(), &request.method) {
            ("/publish" | "/publish/", &Method::POST) => {
                let is_json = wants_json(&request.headers);
                let body = std::mem::take(&mut request.body);
                self.publish(body, is_json).await
            }
            ("/recover" | "/recover/", &Method::POST) => {
                self.channels.recover();
                tracing::info!("publisher: every client that is held asks its app what it has missed (/recover)");
                text(StatusCode::OK, "Recovering\n".into())
            }
            ("/publish" | "/publish/" | "/recover" | "/recover/", _) => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n".into());
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
                response
            }
            ("/", &Method::GET | &Method::HEAD) => text(StatusCode::OK, "Hostler publish API\n".into()),
            _ => text(StatusCode::NOT_FOUND, "here are /publish/ and /recover, for POST\n".into()),
        }
    }

    async fn publish(&self, mut body: Body, is_json: bool) -> Response {
        let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {LARGEST} bytes\n"));
        if body.remaining().is_some_and(|length| length > LARGEST as u64) {
            return too_large();
        }
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            match data {
                Ok(data) if bytes.len() + data.len() > LARGEST => return too_large(),
                Ok(data) => bytes.extend_from_slice(&data),
                Err(error) => return text(StatusCode::BAD_REQUEST, format!("{}\n", error.reason)),
            }
        }
        let items = match items::read(&bytes) {
            Ok(items) => items,
            Err(fault) => return text(StatusCode::BAD_REQUEST, format!("{fault}\n")),
        };
        match self.channels.publish(items) {
            Ok(_) if is_json => {
                answer(StatusCode::OK, "application/json", Bytes::from_static(b"{\"message\":\"Published\"}\n"))
            }
            Ok(_) => text(StatusCode::OK, "Published\n".into()),
            Err(behind) => {
                let mut response = text(StatusCode::SERVICE_UNAVAILABLE, format!("{behind}\n"));
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
        }
    }
}

/// Whether JSON stands before text in what is wanted.
fn wants_json(headers: &http::HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    let at = |wanted: &[u8]| accept.windows(wanted.len()).position(|part| part.eq_ignore_ascii_case(wanted));
    match (at(b"application/json"), at(b"text/plain")) {
        (Some(json), Some(text)) => json < text,
        (json, None) => json.is_some(),
        (None, Some(_)) => false,
    }
}

fn text(status: StatusCode, text: String) -> Response {
    answer(status, "text/plain; charset=utf-8", text.into())
}

fn answer(status: StatusCode, media_type: &'static str, body: Bytes) -> Response {
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
