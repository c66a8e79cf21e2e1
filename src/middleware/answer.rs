//! Routes that the edge answers by itself, always the same: `respond`, and `redirect` to a fixed target.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use crate::error::Error;
use crate::http::{Body, Request, Response, Service};

/// A fixed answer, made when the configuration is compiled.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    field: (header::HeaderName, HeaderValue),
    body: Bytes,
}

impl Answer {
    /// `redirect` without anything of the request. `None` when the target cannot stand in a field, which the configuration has refused before.
    #[must_use]
    pub fn redirect(to: &str, status: u16) -> Option<Self> {
        Some(Self {
            status: StatusCode::from_u16(status).ok()?,
            field: (header::LOCATION, HeaderValue::from_str(to).ok()?),
            body: Bytes::new(),
        })
    }

    /// `respond`. `None` when the status is none, which the configuration has refused before.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Option<Self> {
        Some(Self {
            status: StatusCode::from_u16(status).ok()?,
            field: (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            body: Bytes::copy_from_slice(body.as_bytes()),
        })
    }
}

impl Service for Answer {
    type Error = Error;

    async fn call(&self, _: Box<Request>) -> Result<Response, Error> {
        let mut response =
            Response::new(if self.body.is_empty() { Body::Empty } else { Body::Full(self.body.clone()) });
        *response.status_mut() = self.status;
        response.headers_mut().insert(self.field.0.clone(), self.field.1.clone());
        Ok(response)
    }
}
