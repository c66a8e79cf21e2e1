//! One GET of our own: over a connection of its own, with an end in sight and a limit to what is taken.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::header;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::KeysUrl;
use crate::credentials::LARGEST;

/// For all of it: the name, the connection, the handshake, the answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// The body of the answer, which has the status 200 and at most [`LARGEST`] bytes. Redirects are not followed: whoever
/// answers at an address is not to choose another one.
///
/// # Errors
/// Why there is none, in words for the operator.
pub(super) async fn get(url: &KeysUrl) -> Result<Vec<u8>, String> {
    let fetched = tokio::time::timeout(LIMIT, fetch(url)).await;
    fetched.unwrap_or_else(|_| Err(format!("no whole answer within {LIMIT:?}")))
}

async fn fetch(url: &KeysUrl) -> Result<Vec<u8>, String> {
    let stream = connect(url).await.map_err(|error| format!("no connection: {error}"))?;
    if !url.tls {
        return exchange(stream, url).await;
    }
    let connector = tokio::task::spawn_blocking(connector).await.map_err(|error| error.to_string())??;
    let name = ServerName::try_from(url.host.clone()).map_err(|error| error.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|error| format!("the TLS handshake failed: {error}"))?;
    exchange(stream, url).await
}

/// To the first of its addresses that answers.
async fn connect(url: &KeysUrl) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whom the system trusts, as of now. Reads files.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("no certificate authority is installed (Debian: ca-certificates)".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: S, url: &KeysUrl) -> Result<Vec<u8>, String> {
    let request = http::Request::get(&url.target)
        .header(header::HOST, &url.authority)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("hostler/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async { receive(sender.send_request(request).await.map_err(|error| said(&error))?).await });
    let mut is_over = false;
    poll_fn(|cx| {
        // How it ends is known by the answer as well.
        if !is_over {
            is_over = connection.as_mut().poll(cx).is_ready();
        }
        Poll::Ready(ready!(answer.as_mut().poll(cx)))
    })
    .await
}

async fn receive(response: http::Response<Incoming>) -> Result<Vec<u8>, String> {
    let (head, mut body) = response.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(format!("the answer is {}", head.status));
    }
    let too_large = || "the answer is larger than 1 MiB".to_owned();
    if body.size_hint().lower() > LARGEST {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| said(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if (bytes.len() + data.len()) as u64 > LARGEST {
            return Err(too_large());
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

/// The error and what it came of.
fn said(error: &hyper::Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}
