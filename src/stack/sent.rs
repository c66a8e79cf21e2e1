//! Files that apps name (`sendfile`): where the layer that follows them meets what sends them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::config::{self, Symlinks};
use crate::error::{Error, Reason};
use crate::files::{Cache, Files, Relative};
use crate::http::{Request, Response};
use crate::middleware::accel::{Root, SendFile};

/// The files of one folder.
pub struct Sent(Files);

impl Sent {
    /// The folders of a route. `cache` is the calling thread's.
    #[must_use]
    pub(super) fn roots(route: &config::Route, cache: &Rc<Cache>) -> Vec<Root<Self>> {
        let roots = route.sendfile.iter().flat_map(|sendfile| &sendfile.roots);
        let root = |path: &PathBuf| {
            let files = Files::named_by_app(path, Symlinks::Inside, Rc::clone(cache));
            Root { path: path.clone(), files: Self(files) }
        };
        roots.map(root).collect()
    }
}

impl SendFile for Sent {
    async fn send(&self, request: &Request, path: &Path) -> Result<Response, Error> {
        match Relative::parse(path.as_os_str().as_bytes()) {
            Some(path) => self.0.answer(request, &path).await,
            None => Err(Error::new(Reason::FileNotFound)),
        }
    }
}
