//! Requests that lack the slash at the end of a route's prefix: `/static` for `path: /static/` is sent on to `/static/`.
//!
//! The bottom of a stack of its own, below what the route wants on its answers and above nothing: the redirect asks nobody
//! who he is, and what it leads to does.

use http::{HeaderValue, StatusCode, header};

use crate::error::{Error, Reason};
use crate::http::{Body, Request, Response, Service};

/// Redirects to the same path with a slash.
#[derive(Debug, Clone, Copy)]
pub struct MissingSlash;

impl Service for MissingSlash {
    type Error = Error;

    /// 308 keeps method and body (RFC 9110, 15.4.9).
    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let to = format!("{}/{}", request.target.raw_path(), request.target.query_with_mark());
        let location = HeaderValue::from_str(&to).map_err(|_| Error::new(Reason::BadTarget))?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(header::LOCATION, location);
        Ok(response)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::http::{ConnectionInfo, Exchange, Protocol, Target};

    #[tokio::test]
    async fn the_path_stays_as_it_was_spelled_and_the_query_with_it() {
        for (asked, location) in
            [("/static", "/static/"), ("/a%20b?x=y", "/a%20b/?x=y"), ("/%61pi?", "/%61pi/?"), ("/a?b/c", "/a/?b/c")]
        {
            let target = Target::parse(Bytes::from_static(asked.as_bytes())).unwrap();
            let connection = Rc::new(ConnectionInfo::new("80"));
            let exchange = Exchange::new(connection, Protocol::Http11, Method::PUT, target.bytes(), None, None);
            let (headers, exchange) = (HeaderMap::new(), Rc::new(exchange));
            let request = Request { method: Method::PUT, target, headers, body: Body::Empty, exchange, refused: None };
            let response = MissingSlash.call(Box::new(request)).await.unwrap();
            assert_eq!(response.status().as_u16(), 308);
            assert_eq!(response.headers()[header::LOCATION], location);
        }
    }
}
