//! What a request to the app has brought, for all who have waited for it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};

use super::crowd::Crowd;
use super::key::Key;
use super::policy::Stored;
use super::store::{Feed, Moment, Object};
use crate::error::{Error, Reason};
use crate::http::Body;

/// What those who wait are told.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A response that may be given to others.
    Landed(Arc<Landing>),
    /// The app has failed, or was not reached: for all who have waited, none of whom asks by himself.
    Failed(Arc<Failure>),
    /// What came is not for others: each asks for himself.
    Alone,
    /// Something younger is there: each looks again.
    Again,
}

/// A response that may be given to others.
#[derive(Debug)]
pub struct Landing {
    /// The key of all its variants.
    pub primary: Key,
    /// By which fields of requests they differ.
    pub names: Box<[HeaderName]>,
    /// The key of this one.
    pub key: Key,
    /// Its status.
    pub status: StatusCode,
    /// Its fields, as they are stored.
    pub fields: HeaderMap,
    /// What it is used by.
    pub stored: Stored,
    /// When it came, by the steady clock, in milliseconds.
    pub received: u64,
    /// When it was asked for, if it has been overtaken since, by a purge or by something younger.
    pub overtaken: Option<Moment>,
    /// Its body.
    pub content: Content,
}

/// Where a body is.
#[derive(Debug)]
pub enum Content {
    /// In the store.
    Object(Arc<Object>),
    /// Here: it is not in the store, or not yet.
    Whole(Bytes, Feed),
    /// Still coming.
    Coming(Feed, Arc<Crowd>),
}

impl Landing {
    /// Whether who has asked at this moment may have it: what has overtaken it came later than his wish, or nothing has. So whoever
    /// waits for what is changed all the time waits for two answers at most.
    #[must_use]
    pub fn is_for(&self, asked: Moment) -> bool {
        self.overtaken.is_none_or(|since| asked <= since)
    }

    /// The body from its beginning, for who has asked at this moment. `None`: that is not there any more, or a purge has struck it
    /// before.
    #[must_use]
    pub fn body(&self, asked: Moment) -> Option<Body> {
        match &self.content {
            Content::Object(object) => Some(object.body()),
            Content::Whole(bytes, feed) => feed.is_for(asked).then(|| Body::Full(bytes.clone())),
            Content::Coming(feed, crowd) => {
                let follower = feed.follow_since(asked)?;
                Some(Body::Stream(Box::new(crowd.join(follower))))
            }
        }
    }
}

/// Why there is no response.
#[derive(Debug)]
pub enum Failure {
    /// There was none.
    Error {
        /// Why.
        reason: Reason,
        /// For the log.
        detail: Box<str>,
        /// Seconds.
        retry_after: Option<u32>,
        /// Whether that has been counted under the upstream's name.
        is_counted: bool,
    },
    /// The app has answered with it.
    Answer {
        /// 500, 502, 503 or 504.
        status: StatusCode,
        /// What of its fields is for anybody.
        fields: HeaderMap,
        /// Its body.
        body: Bytes,
    },
}

impl Failure {
    /// For those who have waited.
    #[must_use]
    pub fn of(error: &Error, is_counted: bool) -> Self {
        let detail = if error.detail.is_empty() {
            "so ended the request that this one waited for".into()
        } else {
            format!("so ended the request that this one waited for: {}", error.detail).into()
        };
        Self::Error { reason: error.reason, detail, retry_after: error.retry_after, is_counted }
    }
}
