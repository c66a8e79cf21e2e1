//! The files of `error_pages`, read with the configuration: one that is missing is found before it is needed, and a reload
//! that does not find it changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;

use super::certificate::said_by_system;
use super::values::Fault;

/// A page that says what went wrong is smaller.
const LARGEST: u64 = 1 << 20;

/// The bytes of a page.
pub(super) fn read(path: &Path) -> Result<Bytes, Fault> {
    let cannot = |error: io::Error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path; a relative one starts at the folder of this file",
            io::ErrorKind::PermissionDenied => {
                "let the user that Hostler runs as read it, and enter every folder above it"
            }
            _ => "",
        };
        Fault::new(format!("cannot read the page {}: {}", path.display(), said_by_system(&error)), help)
    };
    // Looked at before it is opened: to open a pipe is to wait for somebody who writes.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(Fault::new(format!("{} is not a file", path.display()), "name an HTML file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(LARGEST + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.is_empty() {
        return Err(Fault::new(format!("the page {} is empty", path.display()), "write an HTML page into it"));
    }
    if bytes.len() as u64 > LARGEST {
        let help = "pages are kept in memory: 1 MiB at most. Let it link to what is large";
        return Err(Fault::new(format!("the page {} is larger than 1 MiB", path.display()), help));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_file_of_at_most_a_mebibyte() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let largest = usize::try_from(LARGEST).unwrap();
        for (name, size, told) in [
            ("page", 5, None),
            ("most", largest, None),
            ("more", largest + 1, Some("larger than")),
            ("none", 0, Some("empty")),
        ] {
            std::fs::write(path(name), vec![b'p'; size]).unwrap();
            match (read(&path(name)), told) {
                (Ok(bytes), None) => assert_eq!(bytes.len(), size),
                (Err(fault), Some(told)) => assert!(fault.message.contains(told), "{}", fault.message),
                (other, _) => panic!("{name}: {other:?}"),
            }
        }
        assert!(read(folder.path()).unwrap_err().message.ends_with("is not a file"));
        let missing = read(&path("missing")).unwrap_err();
        assert!(missing.message.contains("missing: No such file") && missing.help.contains("relative"), "{missing:?}");
    }
}
