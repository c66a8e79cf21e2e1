//! From a request's path to a path below a root: segments, and nothing that leads up or elsewhere.
//!
//! What the request line may hold is settled before ([`Target`](crate::http::Target)): no NUL, no backslash, no `.` and `..`
//! in any spelling. Here the same is asked once more, because apps name files as well, and because it costs nothing.
//!
//! | in the path | becomes |
//! |---|---|
//! | two slashes in a row, as templates make them | one |
//! | a slash at the end | the folder is meant |
//! | `.` or `..`, NUL | no path: 404 |
//! | more bytes than the system takes | no path: 404 |

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// More bytes than this are no path to Linux (PATH_MAX), its NUL and an ending of ours included.
const LONGEST: usize = 4096 - 8;

/// A path below a root. It does not begin with a slash, has none but one between two segments, and no segment that leads up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative<'a> {
    /// Without a slash at its end. Empty: the root itself.
    bytes: Cow<'a, [u8]>,
    is_folder: bool,
}

impl<'a> Relative<'a> {
    /// Reads what is left of a decoded path behind the prefix of its route. `None`: nothing can be found there.
    #[must_use]
    pub fn parse(rest: &'a [u8]) -> Option<Self> {
        if rest.len() > LONGEST || memchr::memchr(0, rest).is_some() {
            return None;
        }
        let is_folder = rest.is_empty() || rest.ends_with(b"/");
        let path = match rest {
            [b'/', path @ ..] => path,
            path => path,
        };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut is_plain = true;
        for segment in path.split(|byte| *byte == b'/') {
            match segment {
                b"" => is_plain = false,
                b"." | b".." => return None,
                _ => {}
            }
        }
        let bytes = if is_plain || path.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(without_gaps(path)) };
        Some(Self { bytes, is_folder })
    }

    /// A file by its absolute path, of which `root` must be the beginning: how an app names it. `None`: it is not below.
    #[must_use]
    pub fn below(root: &Path, absolute: &'a [u8]) -> Option<Self> {
        let root = root.as_os_str().as_bytes();
        let root = root.strip_suffix(b"/").unwrap_or(root);
        let rest = absolute.strip_prefix(root)?;
        if !rest.starts_with(b"/") { None } else { Self::parse(rest).filter(|path| !path.is_folder) }
    }

    /// The segments, with a slash between two. Empty: the root itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a folder is meant: it ends with a slash, or is the root.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Whether a segment begins with a dot, which hides a file or a folder. What RFC 8615 has at the beginning of a site's
    /// paths is not hidden there.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let path = self.bytes.strip_prefix(b".well-known").filter(|rest| matches!(rest, [] | [b'/', ..]));
        let path = path.unwrap_or(&self.bytes);
        path.first() == Some(&b'.') || memchr::memmem::find(path, b"/.").is_some()
    }

    /// The folder of this name.
    #[must_use]
    pub fn as_folder(&self) -> Relative<'_> {
        Relative { bytes: Cow::Borrowed(&self.bytes), is_folder: true }
    }

    /// The same for longer than the request lives.
    #[must_use]
    pub fn into_owned(self) -> Relative<'static> {
        Relative { bytes: Cow::Owned(self.bytes.into_owned()), is_folder: self.is_folder }
    }
}

fn without_gaps(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for segment in path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()) {
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(segment);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(rest: &[u8]) -> Option<(Vec<u8>, bool)> {
        Relative::parse(rest).map(|path| (path.as_bytes().to_vec(), path.is_folder()))
    }

    #[test]
    fn what_is_left_of_a_path_names_a_file_or_a_folder() {
        for (rest, path, is_folder) in [
            ("", "", true),
            ("/", "", true),
            ("//", "", true),
            ("///", "", true),
            ("a.css", "a.css", false),
            ("/a.css", "a.css", false),
            ("css/a.css", "css/a.css", false),
            ("css/", "css", true),
            ("/css//", "css", true),
            ("//etc/passwd", "etc/passwd", false),
            ("css//a.css", "css/a.css", false),
            ("a/.../b", "a/.../b", false),
            ("..a/b..", "..a/b..", false),
            ("a b/é", "a b/é", false),
        ] {
            assert_eq!(parse(rest.as_bytes()), Some((path.as_bytes().to_vec(), is_folder)), "{rest:?}");
        }
        assert!(parse(b"\xc0\xae\xc0\xae/x").is_some(), "overlong bytes are bytes: no file has such a name");
    }

    #[test]
    fn what_leads_up_or_elsewhere_is_no_path() {
        for rest in ["..", "../a", "/../a", "a/..", "a/../b", ".", "./a", "a/./b", "a/.", "a\0", "\0"] {
            assert_eq!(parse(rest.as_bytes()), None, "{rest:?}");
        }
        assert_eq!(parse(&[b'a'; LONGEST + 1]), None);
        assert!(parse(&[b'a'; LONGEST]).is_some());
    }

    #[test]
    fn an_app_names_files_below_a_root() {
        for (root, absolute, path) in [
            ("/srv/media", "/srv/media/a", Some("a")),
            ("/srv/media/", "/srv/media/a/b", Some("a/b")),
            ("/", "/etc/hosts", Some("etc/hosts")),
            ("/srv/media", "/srv/media//a", Some("a")),
            ("/srv/media", "/srv/media2/a", None),
            ("/srv/media", "/srv/media", None),
            ("/srv/media", "/srv/media/", None),
            ("/srv/media", "/srv/media/a/", None),
            ("/srv/media", "/srv/media/../a", None),
            ("/srv/media", "srv/media/a", None),
            ("/srv/media", "", None),
        ] {
            let found = Relative::below(Path::new(root), absolute.as_bytes());
            assert_eq!(found.as_ref().map(Relative::as_bytes), path.map(str::as_bytes), "{root} {absolute}");
        }
    }

    #[test]
    fn names_with_a_dot_are_hidden() {
        for (rest, is_hidden) in [
            (".env", true),
            ("a/.git/config", true),
            (".git/", true),
            ("...", true),
            ("a.b", false),
            ("a./b", false),
            ("", false),
            (".well-known/security.txt", false),
            (".well-known", false),
            (".well-known/.env", true),
            (".well-knownx", true),
            ("a/.well-known/x", true),
        ] {
            assert_eq!(Relative::parse(rest.as_bytes()).unwrap().is_hidden(), is_hidden, "{rest}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_lead_up_or_elsewhere(rest in prop::collection::vec(prop::sample::select(&b"/./a\0-"[..]), 0..16)) {
            if let Some(path) = Relative::parse(&rest) {
                let segments: Vec<_> = path.as_bytes().split(|byte| *byte == b'/').collect();
                let is_good = |segment: &&[u8]| !matches!(**segment, [] | [b'.'] | [b'.', b'.']) && !segment.contains(&0);
                prop_assert!(path.as_bytes().is_empty() || segments.iter().all(is_good));
                // What was there is there still, in its order.
                let before: Vec<_> = rest.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).collect();
                prop_assert_eq!(before, segments.into_iter().filter(|segment| !segment.is_empty()).collect::<Vec<_>>());
                prop_assert_eq!(path.is_folder(), rest.is_empty() || rest.ends_with(b"/"));
            }
        }
    }
}
