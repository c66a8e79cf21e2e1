//! The command line: `serve`, `check`, [`publish`], and what an [`operator`] says to a gateway that runs. Exit codes: 0, 1 failure,
//! 2 usage or bad configuration.

mod client;
mod operator;
mod publish;
mod purge;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::operator::Operation;
use self::publish::Publication;
use crate::app::{self, Failure};
use crate::config;

const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

/// The edge for Python's synchronous web: one binary and one YAML file in front of gunicorn.
#[derive(Debug, Parser)]
#[command(name = "hostler", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as the file says. SIGTERM drains and stops, SIGHUP reloads, SIGUSR1 opens the access log anew.
    Serve {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE", default_value = "hostler.yaml")]
        config: PathBuf,
    },
    /// Say what is wrong with the file, with its certificates, and with the sockets and folders it names.
    ///
    /// Run it as the user that serves: it looks with the rights of whoever runs it.
    Check {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE", default_value = "hostler.yaml")]
        config: PathBuf,
    },
    /// Publish to the clients that are held on a channel, through the gateway's `realtime.publish`.
    Publish(Publication),
    #[command(flatten)]
    Operate(Operation),
}

/// Runs the command that the arguments of this process name. `give_back` gives memory that the calling thread has freed
/// back to the system.
#[must_use]
pub fn main(give_back: fn()) -> ExitCode {
    match Arguments::parse().command {
        Command::Serve { config } => serve(&config, give_back),
        Command::Check { config } => check(&config),
        Command::Publish(publication) => publication.run(),
        Command::Operate(operation) => operation.run(),
    }
}

fn serve(path: &std::path::Path, give_back: fn()) -> ExitCode {
    let Err(failure) = app::serve(path, give_back) else { return ExitCode::SUCCESS };
    let is_terminal = std::io::stderr().is_terminal();
    let (text, code) = match &failure {
        Failure::Config(report) if is_terminal => (report.styled(), BAD_CONFIG),
        Failure::Config(report) => (report.to_string(), BAD_CONFIG),
        Failure::Start(error) => (format!("hostler: {error}"), FAILED),
    };
    say_error(&text);
    ExitCode::from(code)
}

/// A line on stdout. Nothing can be said when it is closed.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A line on stderr. Nothing can be said when it is closed.
fn say_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn check(path: &std::path::Path) -> ExitCode {
    let checked = config::check(path);
    let (ok, mut out): (bool, Box<dyn std::io::Write>) = match checked.is_ok() {
        true => (true, Box::new(std::io::stdout())),
        false => (false, Box::new(std::io::stderr())),
    };
    let is_terminal = if ok { std::io::stdout().is_terminal() } else { std::io::stderr().is_terminal() };
    let text = if is_terminal { checked.styled() } else { checked.to_string() };
    let _ = writeln!(out, "{text}");
    ExitCode::from(if ok { 0 } else { BAD_CONFIG })
}
