//! `routes[].compress`.

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

/// A content coding (RFC 9110, 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCoding {
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
    /// `gzip` (RFC 1952).
    Gzip,
}

impl ContentCoding {
    /// In the order of preference that a route has without the key: what costs least for its size first, and what browsers of
    /// before 2024 take last.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
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
