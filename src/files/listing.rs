//! `browse`: the page of what is in a folder.
//!
//! It shows what a request would get, and nothing else: no hidden names, nothing that is neither file nor folder, no link that is
//! not followed, and a file in several codings once. Folders first, then by name, up to [`MOST`] of them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

use super::beneath::{self, LOOK};
use super::folder::Folder;
use super::path::Relative;
use super::stamp::Stamp;

/// Names that are shown. A folder with more has a word about it on its page.
const MOST: usize = 5_000;

struct Row {
    name: Vec<u8>,
    is_folder: bool,
    size: u64,
    modified: i64,
}

/// The page of an open folder. Blocks.
pub(super) fn page(
    folder: &Folder,
    root: BorrowedFd<'_>,
    path: &Relative<'_>,
    opened: OwnedFd,
) -> Result<Bytes, Errno> {
    let (rows, is_cut) = rows(folder, root, path, opened)?;
    Ok(render(path.as_bytes(), &rows, is_cut).into())
}

fn rows(
    folder: &Folder,
    root: BorrowedFd<'_>,
    path: &Relative<'_>,
    opened: OwnedFd,
) -> Result<(Vec<Row>, bool), Errno> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut entries = Dir::new(opened)?;
    let mut is_cut = false;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        // The backslash can be in no request.
        if name.first() == Some(&b'.') || name.contains(&b'\\') {
            continue;
        }
        if names.len() == MOST {
            is_cut = true;
            break;
        }
        names.push(name.to_vec());
    }
    names.sort_unstable();
    let mut rows: Vec<Row> = names
        .iter()
        .filter(|name| !folder.original_of(name).is_some_and(|original| is_among(&names, original)))
        .filter_map(|name| row(folder, root, path, name))
        .collect();
    rows.sort_by_key(|row| !row.is_folder);
    Ok((rows, is_cut))
}

fn is_among(names: &[Vec<u8>], name: &[u8]) -> bool {
    names.binary_search_by(|known| known.as_slice().cmp(name)).is_ok()
}

fn row(folder: &Folder, root: BorrowedFd<'_>, path: &Relative<'_>, name: &[u8]) -> Option<Row> {
    let within = path.as_bytes();
    let whole = if within.is_empty() { name.to_vec() } else { [within, b"/", name].concat() };
    let opened = beneath::open(root, &whole, folder.symlinks(), LOOK).ok()?;
    let (stamp, kind) = Stamp::of(opened).ok()?;
    let is_folder = kind == FileType::Directory;
    let is_shown = is_folder || kind == FileType::RegularFile;
    is_shown.then(|| Row { name: name.to_vec(), is_folder, size: stamp.size, modified: stamp.modified.0 })
}

fn render(path: &[u8], rows: &[Row], is_cut: bool) -> String {
    let title = format!("/{}", escaped(path));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title>\n<style>body{{font:1em/1.6 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em}}\
         td{{padding-right:2em}}td+td{{color:#666;white-space:nowrap}}</style></head>\n<body><h1>{title}</h1>\n<table>\n"
    );
    if !path.is_empty() {
        page.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for row in rows {
        let slash = if row.is_folder { "/" } else { "" };
        let size = if row.is_folder { String::new() } else { row.size.to_string() };
        // Writing to a String cannot fail; here and below.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"./{}{slash}\">{}{slash}</a></td><td>{size}</td><td>{}</td></tr>",
            encoded(&row.name),
            escaped(&row.name),
            date(row.modified)
        );
    }
    page.push_str("</table>\n");
    if is_cut {
        let _ = writeln!(page, "<p>There is more than the {MOST} names that are shown here.</p>");
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// What HTML takes for text.
fn escaped(text: &[u8]) -> String {
    let text = OsStr::from_bytes(text).to_string_lossy();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A segment of a path, every byte but those that need it not (RFC 3986, 2.3) percent-encoded.
fn encoded(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// `2026-11-29 00:31`, UTC.
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400);
    let (hours, minutes) = (seconds.rem_euclid(86_400) / 3600, seconds.rem_euclid(3600) / 60);
    // From days since 1970 to a date of the Gregorian calendar, by years that begin in March.
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year_of_era + 400 * era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use proptest::prelude::*;
    use rustix::fs::OFlags;

    use super::*;
    use crate::config::{self, PathPattern};

    fn listed(root: &Path, path: &str) -> String {
        let files = config::Files { browse: true, ..config::Files::of(root.to_owned()) };
        let folder = Folder::compile(&files, &PathPattern::Prefix("/".into()));
        let opened = beneath::open_root(root, LOOK | OFlags::DIRECTORY).unwrap();
        let relative = Relative::parse(path.as_bytes()).unwrap();
        let inner = beneath::open(opened.as_fd(), relative.as_bytes(), folder.symlinks(), beneath::READ).unwrap();
        String::from_utf8(page(&folder, opened.as_fd(), &relative, inner).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_page_shows_what_a_request_would_get() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("zoo")).unwrap();
        for name in [".env", "b.txt", "b.txt.gz", "a.tar.gz", "back\\slash", "<i>&\"'.txt", "sp ace?#%é"] {
            fs::write(path(name), "x").unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        symlink("b.txt", path("link")).unwrap();
        symlink("/etc/passwd", path("escape")).unwrap();
        symlink("nowhere", path("broken")).unwrap();
        let page = listed(folder.path(), "");
        let shown: Vec<_> = page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let files = ["./%3Ci%3E%26%22%27.txt", "./a.tar.gz", "./b.txt", "./link", "./sp%20ace%3F%23%25%C3%A9"];
        assert_eq!(shown, [&["./zoo/"][..], &files].concat());
        assert!(page.contains(">&lt;i&gt;&amp;&quot;&#39;.txt</a>") && page.contains("<h1>/</h1>"), "{page}");
        let inner = listed(folder.path(), "zoo/");
        assert!(inner.contains("href=\"../\"") && inner.contains("<h1>/zoo</h1>"), "{inner}");
    }

    #[test]
    fn a_folder_with_very_many_names_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        let page = listed(folder.path(), "");
        assert_eq!(page.matches("href").count(), MOST);
        assert!(page.contains("There is more"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_796_000_400, "2026-11-30 01:00"),
            (-1, "1969-12-31 23:59"),
            (4_107_542_399, "2100-02-28 23:59"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_place(name in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!escaped(&name).contains(['<', '>', '"', '\'']));
            prop_assert!(encoded(&name).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
        }

        #[test]
        fn every_time_has_a_date(seconds in any::<i64>()) {
            prop_assert!(date(seconds).len() >= 16);
        }
    }
}
