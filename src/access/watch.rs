//! When a watched file is to be read again.

use std::io;
use std::path::Path;

use crate::credentials::Stamp;

/// What was seen of one file. Editors and `htpasswd` write a file in several steps, and so it is read only when it has not
/// changed from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// As it was when it was read last; an error is a state as well.
    read: Option<Seen>,
    /// As it was at the last look, when that was something else.
    changing: Option<Seen>,
}

type Seen = Result<Stamp, io::ErrorKind>;

impl Watch {
    /// Looks at the file. Whether it is to be read now. Blocks.
    pub(super) fn is_due(&mut self, path: &Path) -> bool {
        self.note(Stamp::of(path).map_err(|error| error.kind()))
    }

    fn note(&mut self, seen: Seen) -> bool {
        let is_settled = self.changing.replace(seen) == Some(seen);
        let is_due = is_settled && self.read != Some(seen);
        if is_due {
            self.read = Some(seen);
        }
        is_due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_when_it_has_come_to_rest() {
        let folder = tempfile::tempdir().unwrap();
        let mut content = String::new();
        let mut stamp = || {
            content.push('x');
            std::fs::write(folder.path().join("f"), &content).unwrap();
            Ok(Stamp::of(&folder.path().join("f")).unwrap())
        };
        let mut watch = Watch::default();
        let first = stamp();
        assert_eq!([watch.note(first), watch.note(first), watch.note(first)], [false, true, false]);
        let (writing, written) = (stamp(), stamp());
        assert_eq!([watch.note(writing), watch.note(written), watch.note(written)], [false, false, true]);
        let gone = Err(io::ErrorKind::NotFound);
        assert_eq!([watch.note(gone), watch.note(gone), watch.note(gone)], [false, true, false]);
        assert_eq!([watch.note(written), watch.note(written)], [false, true], "it is back");
        assert_eq!([watch.note(gone), watch.note(written), watch.note(written)], [false, false, false], "for a moment");
    }
}
