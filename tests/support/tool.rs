//! Command-line tools that users and operators have: curl, h2load, openssl.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::lines::Lines;
use super::{LIMIT, look_for};

/// A tool that runs. Killed when it is dropped before its end.
pub(crate) struct Tool {
    child: Child,
    name: String,
    stdout: Lines,
    stderr: Lines,
}

/// What a tool has said.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tool {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(name);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{name}: {error} (tests/python/tools.sh installs it)"));
        let (stdout, stderr) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        Self { child, name: name.to_owned(), stdout, stderr }
    }

    /// Waits for its end.
    pub(crate) fn output(self) -> Output {
        self.output_within(LIMIT)
    }

    /// Waits for the end of something that takes its time.
    pub(crate) fn output_within(mut self, limit: Duration) -> Output {
        let status = look_for(limit, || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("{} does not end", self.name));
        let text = |lines: &Lines| lines.to_end().join("\n");
        Output { code: status.code(), stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// curl, silent but for errors.
pub(crate) fn curl(arguments: &[&str]) -> Output {
    let mut all = vec!["--silent", "--show-error", "--max-time", "20"];
    all.extend(arguments);
    Tool::start("curl", &all).output()
}

/// openssl.
pub(crate) fn openssl(arguments: &[&str]) -> Output {
    Tool::start("openssl", arguments).output()
}

/// h2load.
pub(crate) fn h2load(arguments: &[&str]) -> Output {
    Tool::start("h2load", arguments).output()
}
