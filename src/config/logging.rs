//! `logging`: types and defaults.

use std::path::PathBuf;

/// `logging`.
#[derive(Debug, Clone, PartialEq)]
pub struct Logging {
    /// The least severe message that is written. Default info.
    pub level: Level,
    /// The form of the operator's log, which goes to stderr. Default text.
    pub format: LogFormat,
    /// The access log; `None`: off. Default JSON lines on stdout.
    pub access: Option<Access>,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: Level::Info, format: LogFormat::Text, access: Some(Access::default()) }
    }
}

/// `logging.access`.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Where it goes. Default stdout.
    pub to: AccessTarget,
    /// The form of a line. Default JSON.
    pub format: AccessFormat,
    /// How many of the exchanges that went well have a line: 0 to 1. Those that failed always have one. Default 1.
    pub sample: f64,
    /// Whether lines tell the query of a target, and of the page that led to it. Default true.
    pub query: bool,
}

impl Default for Access {
    fn default() -> Self {
        Self { to: AccessTarget::Stdout, format: AccessFormat::Json, sample: 1.0, query: true }
    }
}

/// `logging.access.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// An object with all that is known.
    Json,
    /// The combined format of Apache httpd and nginx.
    Combined,
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
