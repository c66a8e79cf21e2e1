//! `routes[].compress`.

use super::ContentCoding;

/// How the answers of a route are compressed that are not so already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compress {
    /// Those that may be used. Of several that a client takes equally gladly, the first. Default all.
    pub codings: Vec<ContentCoding>,
    /// What is compressed beside text and its kin. Default none.
    pub types: Vec<MediaRange>,
    /// Bytes of the smallest answer that is worth it. Default 1 KiB, which is one packet with its head.
    pub min_size: u64,
}

impl Default for Compress {
    fn default() -> Self {
        Self { codings: ContentCoding::ALL.to_vec(), types: Vec::new(), min_size: 1 << 10 }
    }
}

/// `type/subtype` or `type/*`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange {
    /// What stands before the slash.
    pub kind: String,
    /// What stands behind it; `None`: anything.
    pub subtype: Option<String>,
}
