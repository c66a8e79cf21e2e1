//! What is known of a file that can be sent: its forms, their validators and fields, and, of small ones, their bytes.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};

use super::stamp::Stamp;
use crate::http::Coding;
use crate::http::conditional::{EntityTag, Validators, date_value};

/// Files up to this size are kept in memory, and larger ones open.
pub(super) const SMALL: u64 = 64 << 10;
/// The first seconds of 1970, and of 1980, before which zip has no time: archives and images that are made to be the same
/// everywhere have these for all their files.
const NO_TIMES: [i64; 4] = [0, 1, 315_532_800, 315_532_801];

/// The states of a file and of those beside it that hold the same in another coding, in the order of [`Coding::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps {
    pub(super) original: Stamp,
    pub(super) siblings: [Option<Stamp>; 3],
}

/// A file that can be sent.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) stamps: Stamps,
    /// As it is, then in codings that make it smaller, the smallest first.
    forms: Vec<Form>,
    /// Whether it cannot change any more without another stamp. One that can is not kept.
    pub(super) is_settled: bool,
}

/// A file in one coding.
#[derive(Debug)]
pub(super) struct Form {
    /// `None`: as it is.
    pub(super) coding: Option<Coding>,
    pub(super) stamp: Stamp,
    pub(super) content: Content,
    pub(super) tag: HeaderValue,
    modified: Option<u64>,
    modified_is_strong: bool,
    /// What stands on every answer that has its bytes.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
}

/// Where the bytes are.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Bytes),
    Disk(Arc<File>),
}

impl Document {
    /// Of files that have been read or opened, the original first.
    pub(super) fn new(stamps: Stamps, media_type: &HeaderValue, mut loaded: Vec<Loaded>, now: i64) -> Self {
        let is_settled = loaded.iter().all(|loaded| loaded.is_whole && loaded.stamp.is_settled(now));
        if let Some(others) = loaded.get_mut(1..) {
            others.sort_by_key(|loaded| loaded.stamp.size);
        }
        let varies = loaded.len() > 1;
        let forms = loaded.into_iter().map(|loaded| Form::new(loaded, media_type, varies, now)).collect();
        Self { stamps, forms, is_settled }
    }

    /// The form that is sent to whoever takes `codings`. They are asked only if there is a choice.
    pub(super) fn form(&self, codings: impl FnOnce() -> crate::http::Codings) -> Option<&Form> {
        let (original, others) = self.forms.split_first()?;
        if others.is_empty() {
            return Some(original);
        }
        let best = codings().best(others.iter().filter_map(|form| form.coding));
        best.map_or(Some(original), |best| others.iter().find(|form| form.coding == Some(best)))
    }

    /// Whether what is sent depends on what the client takes.
    pub(super) fn varies(&self) -> bool {
        self.forms.len() > 1
    }

    /// Bytes in memory, and open files.
    pub(super) fn weight(&self) -> (usize, usize) {
        self.forms.iter().fold((0, 0), |(bytes, files), form| match &form.content {
            Content::Memory(content) => (bytes + content.len(), files),
            Content::Disk(_) => (bytes, files + 1),
        })
    }
}

/// One file on its way to be a [`Form`].
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) coding: Option<Coding>,
    pub(super) stamp: Stamp,
    content: Content,
    /// Whether it was the same file before it was read and after that.
    pub(super) is_whole: bool,
}

impl Loaded {
    /// Reads a small file; a large one stays open. Blocks.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn read(coding: Option<Coding>, mut file: File, stamp: Stamp) -> io::Result<Self> {
        if stamp.size > SMALL {
            return Ok(Self { coding, stamp, content: Content::Disk(Arc::new(file)), is_whole: true });
        }
        let length = usize::try_from(stamp.size).unwrap_or(0);
        // Room for one byte more, which shows that the file has grown.
        let mut bytes = Vec::with_capacity(length + 1);
        (&mut file).take(stamp.size + 1).read_to_end(&mut bytes)?;
        let is_whole = bytes.len() == length && Stamp::of(&file).is_ok_and(|(now, _)| now == stamp);
        // What is in doubt is sent as a large file is: with its promise kept, or cut.
        let content = if is_whole { Content::Memory(bytes.into()) } else { Content::Disk(Arc::new(file)) };
        Ok(Self { coding, stamp, content, is_whole })
    }
}

impl Form {
    fn new(loaded: Loaded, media_type: &HeaderValue, varies: bool, now: i64) -> Self {
        let Loaded { coding, stamp, content, .. } = loaded;
        let tag = tag(&stamp, coding);
        // A date to come would have to be another one with every answer (RFC 9110, 8.8.2.1).
        let is_told = has_time(&stamp) && stamp.modified.0 <= now;
        let modified = is_told.then(|| stamp.modified.0.cast_unsigned());
        let date = modified.and_then(date_value);
        let mut fields = vec![
            (header::CONTENT_TYPE, media_type.clone()),
            (header::ETAG, tag.clone()),
            (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        ];
        fields.extend(date.map(|date| (header::LAST_MODIFIED, date)));
        fields.extend(coding.map(|coding| (header::CONTENT_ENCODING, coding.value())));
        fields.extend(varies.then_some((header::VARY, VARY)));
        Self { coding, stamp, content, tag, modified, modified_is_strong: stamp.is_settled(now), fields }
    }

    pub(super) fn length(&self) -> u64 {
        self.stamp.size
    }

    pub(super) fn validators(&self) -> Validators<'_> {
        Validators {
            tag: EntityTag::parse(self.tag.as_bytes()),
            modified: self.modified,
            modified_is_strong: self.modified_is_strong,
        }
    }

    /// Whether a file that is kept open has changed behind our back.
    pub(super) fn has_changed(&self) -> bool {
        match &self.content {
            Content::Memory(_) => false,
            Content::Disk(file) => !self.stamp.is_still_of(file),
        }
    }
}

impl Drop for Form {
    fn drop(&mut self) {
        if let Content::Disk(file) = std::mem::replace(&mut self.content, Content::Memory(Bytes::new())) {
            super::body::let_go(file);
        }
    }
}

/// What stands where there is more than one form.
pub(super) const VARY: HeaderValue = HeaderValue::from_static("accept-encoding");

/// Whether the time of a file tells one version from another.
fn has_time(stamp: &Stamp) -> bool {
    stamp.modified.0 > 0 && !NO_TIMES.contains(&stamp.modified.0)
}

/// The same for the same file on every machine that it was copied to with its times, and another for each coding. Where
/// the file has no time, that of its last change on this machine stands for it.
fn tag(stamp: &Stamp, coding: Option<Coding>) -> HeaderValue {
    let (seconds, nanos) = if has_time(stamp) { stamp.modified } else { stamp.changed };
    let (dash, coding) = coding.map_or(("", ""), |coding| ("-", coding.as_str()));
    let fraction = if nanos == 0 { String::new() } else { format!(".{nanos:x}") };
    let text = format!("\"{seconds:x}{fraction}-{:x}{dash}{coding}\"", stamp.size);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, UNIX_EPOCH};

    use http::HeaderMap;

    use super::*;
    use crate::http::Codings;

    fn written(bytes: &[u8], modified: u64) -> (File, Stamp) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(modified)).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let stamp = Stamp::of(&file).unwrap().0;
        (file, stamp)
    }

    fn loaded(coding: Option<Coding>, size: usize, modified: u64) -> Loaded {
        let (file, stamp) = written(&vec![b'x'; size], modified);
        Loaded::read(coding, file, stamp).unwrap()
    }

    fn document(loaded: Vec<Loaded>, now: i64) -> Document {
        let stamps = Stamps { original: loaded[0].stamp, siblings: [None; 3] };
        Document::new(stamps, &HeaderValue::from_static("text/css"), loaded, now)
    }

    fn field(form: &Form, name: &HeaderName) -> Option<String> {
        form.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn small_files_are_kept_in_memory_and_large_ones_open() {
        let small = SMALL as usize;
        for (size, in_memory) in [(0, true), (1, true), (small, true), (small + 1, false)] {
            let document = document(vec![loaded(None, size, 1_000_000)], 2_000_000);
            let weight = if in_memory { (size, 0) } else { (0, 1) };
            assert_eq!((document.weight(), document.is_settled), (weight, true), "{size}");
            assert_eq!(document.form(|| Codings::NONE).unwrap().length(), size as u64);
        }
    }

    #[test]
    fn a_file_that_was_another_after_reading_is_not_kept() {
        let (file, stamp) = written(b"abc", 1_000_000);
        file.set_len(2).unwrap();
        let loaded = Loaded::read(None, file, stamp).unwrap();
        assert!(!loaded.is_whole);
        let document = document(vec![loaded], 2_000_000);
        assert!(!document.is_settled && document.form(|| Codings::NONE).unwrap().has_changed());
        assert!(!super::tests::document(vec![self::loaded(None, 1, 1_000_000)], 1_000_001).is_settled, "just written");
    }

    #[test]
    fn who_takes_codings_gets_the_one_it_likes_best_and_of_two_the_smallest() {
        let files = vec![
            loaded(None, 100, 1_000_000),
            loaded(Some(Coding::Gzip), 40, 1_000_000),
            loaded(Some(Coding::Brotli), 30, 1_000_000),
            loaded(Some(Coding::Zstd), 20, 1_000_000),
        ];
        let document = document(files, 2_000_000);
        for (asked, coding) in [
            ("", None),
            ("br", Some(Coding::Brotli)),
            ("gzip, br", Some(Coding::Brotli)),
            ("gzip, br, zstd", Some(Coding::Zstd)),
            ("gzip, br;q=0.5", Some(Coding::Gzip)),
            ("identity, br;q=0.5", None),
            ("deflate", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(asked).unwrap());
            let form = document.form(|| Codings::of(&headers)).unwrap();
            assert_eq!(form.coding, coding, "{asked}");
            assert_eq!(field(form, &header::CONTENT_ENCODING).as_deref(), coding.map(Coding::as_str));
            assert_eq!(field(form, &header::VARY).as_deref(), Some("accept-encoding"));
        }
        assert!(document.varies());
        assert_eq!(document.forms.iter().map(|form| &form.tag).collect::<std::collections::HashSet<_>>().len(), 4);
    }

    #[test]
    fn a_tag_is_made_of_time_and_size() {
        let tag_of = |size, modified| tag(&loaded(None, size, modified).stamp, None);
        assert_eq!(tag_of(26, 0x1234_5678), "\"12345678-1a\"");
        let mut stamp = loaded(None, 26, 0x1234_5678).stamp;
        stamp.modified.1 = 0xabc;
        assert_eq!(tag(&stamp, Some(Coding::Brotli)), "\"12345678.abc-1a-br\"");
        assert_ne!(tag_of(26, 1), "\"1-1a\"", "no time");
        assert_ne!(tag_of(26, 315_532_801), "\"12cea601-1a\"", "no time");
        assert_eq!(tag_of(26, 315_532_802), "\"12cea602-1a\"");
        let form = |modified, now| document(vec![loaded(None, 1, modified)], now).forms.remove(0);
        assert_eq!(form(784_111_777, 2_000_000_000).validators().modified, Some(784_111_777));
        assert_eq!(
            field(&form(784_111_777, 2_000_000_000), &header::LAST_MODIFIED).unwrap(),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        let later = 2_000_000_000;
        for (modified, now) in [(0, 100), (1, 100), (200, 100), (315_532_800, later), (315_532_801, later)] {
            let form = form(modified, now);
            assert_eq!((form.validators().modified, field(&form, &header::LAST_MODIFIED)), (None, None), "{modified}");
        }
        assert!(!form(1_000_000, 1_000_001).validators().modified_is_strong);
        assert!(form(1_000_000, 1_000_010).validators().modified_is_strong);
    }
}
