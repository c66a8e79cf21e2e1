//! `sendfile`: files that the app may hand to clients by name.

use std::path::{Component, Path, PathBuf};

use crate::config::Sendfile;
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Node, Span};

pub(in crate::config::schema) static SENDFILE: Section = Section {
    name: "routes[].sendfile",
    keys: &["roots"],
    later: &[],
    elsewhere: &[("root", "roots"), ("path", "roots"), ("paths", "roots"), ("allow", "roots")],
};

/// The section and the place of each folder; `None`: it cannot be used.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> Option<(Sendfile, Vec<Span>)> {
    let fields = decoder.fields(node, &SENDFILE)?;
    let node = fields.required(decoder, "roots", "write sendfile: { roots: [/srv/media] }")?;
    let items = decoder.list("roots", node)?;
    let (mut roots, mut places) = (Vec::new(), Vec::new());
    for item in items {
        let path = normal(&decoder.path("roots", item)?);
        if path == Path::new("/") {
            decoder
                .warning(&item.span, "the app may send every file that Hostler can read")
                .help("name the folders that have downloads in them");
        }
        roots.push(path);
        places.push(item.span.clone());
    }
    Some((Sendfile { roots }, places))
}

/// Without `..`, as the paths are that apps name.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_called_as_apps_call_it() {
        for (path, expected) in
            [("/srv/media", "/srv/media"), ("/etc/hostler/../media/", "/etc/media"), ("/..", "/"), ("/a//./b", "/a/b")]
        {
            assert_eq!(normal(Path::new(path)).as_os_str(), expected, "{path}");
        }
    }
}
