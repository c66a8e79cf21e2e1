//! Files that apps name (`sendfile`): where the layer that follows them meets what sends them.

use std::path::Path;

use crate::config;
use crate::error::{Error, Reason};
use crate::http::{Request, Response};
use crate::middleware::accel::{Root, SendFile};

/// The files of one folder.
pub struct Sent;

impl Sent {
    /// The folders of a route.
    #[must_use]
    pub(super) fn roots(route: &config::Route) -> Vec<Root<Self>> {
        let files = route.sendfile.iter().flat_map(config::Sendfile::files);
        files.map(|files| Root { path: files.root.clone(), files: Self }).collect()
    }
}

impl SendFile for Sent {
    async fn send(&self, _request: &Request, _path: &Path) -> Result<Response, Error> {
        Err(Error::new(Reason::Internal))
    }
}
