//! What client, log and metrics are told of what the cache has done: `Cache-Status` (RFC 9211) and the verdict.

use http::StatusCode;

use super::caching::Caching;
use crate::cache::policy::CacheStatus;
use crate::cache::policy::cache_status::CACHE_STATUS;
use crate::cache::policy::targeted::SURROGATE_CONTROL;
use crate::error::Error;
use crate::http::{CacheVerdict, Exchange, Response, fields};

/// An answer, with what is told of it; of a failure, the page that comes of it tells.
pub(super) fn told(
    caching: &Caching,
    exchange: &Exchange,
    result: Result<Response, Error>,
    status: CacheStatus,
    verdict: CacheVerdict,
) -> Result<Response, Error> {
    exchange.cached(verdict);
    caching.metrics().request(verdict);
    said(exchange, result, status)
}

/// The same without a verdict: nothing was asked for that could be stored.
pub(super) fn said(
    exchange: &Exchange,
    result: Result<Response, Error>,
    status: CacheStatus,
) -> Result<Response, Error> {
    match result {
        Ok(mut response) => {
            // What has taken the connection over is no answer of HTTP any more.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let headers = response.headers_mut();
                // It was said to this cache, and to none that comes after it.
                if fields::has(headers, &SURROGATE_CONTROL) {
                    headers.remove(&SURROGATE_CONTROL);
                }
                headers.append(CACHE_STATUS, status.value());
            }
            Ok(response)
        }
        Err(error) => {
            exchange.answer_fields.add(CACHE_STATUS, status.value());
            Err(error)
        }
    }
}
