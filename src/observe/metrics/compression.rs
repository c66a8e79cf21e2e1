//! What is counted of compression.

use prometheus::IntCounter;

use super::families::Families;
use crate::http::Coding;

/// The counters of compression.
#[derive(Clone)]
pub struct CompressionMetrics {
    /// By coding.
    codings: [CodingMetrics; Coding::ALL.len()],
    /// `hostler_compression_skipped_total`: answers that went out as they are for want of room.
    pub skipped: IntCounter,
}

/// Those of one coding.
#[derive(Clone)]
pub struct CodingMetrics {
    /// `hostler_compressed_total`: answers.
    pub answers: IntCounter,
    /// `hostler_compressed_in_bytes_total`: their bytes before.
    pub bytes_in: IntCounter,
    /// `hostler_compressed_out_bytes_total`: their bytes after it.
    pub bytes_out: IntCounter,
}

impl CompressionMetrics {
    pub(super) fn new(families: &Families) -> Self {
        let of = |coding: Coding| {
            let label = [coding.as_str()];
            CodingMetrics {
                answers: families.compressed.with_label_values(&label),
                bytes_in: families.compressed_in_bytes.with_label_values(&label),
                bytes_out: families.compressed_out_bytes.with_label_values(&label),
            }
        };
        Self { codings: Coding::ALL.map(of), skipped: families.compression_skipped.clone() }
    }

    /// Those of a coding.
    #[must_use]
    pub fn of(&self, coding: Coding) -> &CodingMetrics {
        &self.codings[coding as usize]
    }
}
