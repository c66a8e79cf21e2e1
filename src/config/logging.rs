//! `logging`: types and defaults.

use std::path::PathBuf;

/// `logging`.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// The least severe message that is written. Default info.
    pub level: Level,
    /// The form of the operator's log, which goes to stderr. Default text.
    pub format: LogFormat,
    /// Where the access log (JSON lines) goes; `None`: off. Default stdout.
    pub access: Option<AccessTarget>,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: Level::Info, format: LogFormat::Text, access: Some(AccessTarget::Stdout) }
    }
}

/// `logging.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// `logging.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

/// `logging.access.to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTarget {
    /// `stdout`
    Stdout,
    /// `stderr`
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
}
