//! `status`, `pause`, `resume`, `drain`, `purge` and `reload`: what an operator says to the gateway that runs, through the admin
//! listener that its configuration file names.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;

use super::client::{self, Answer, Door, NoAnswer};
use super::purge::Purged;
use super::{BAD_CONFIG, FAILED, say, say_error};
use crate::config::{self, Bind, EndpointAddress, Place};

/// The file that the gateway was started with.
#[derive(Debug, Args)]
pub(super) struct File {
    /// The configuration file that the gateway was started with: its `admin` says where to ask.
    #[arg(short, long, value_name = "FILE", default_value = "hostler.yaml")]
    config: PathBuf,
}

/// What can be said to a gateway that runs.
#[derive(Debug, Subcommand)]
pub(super) enum Operation {
    /// Say how the gateway is: workers, waiting requests, endpoints, and what an operator has stopped.
    Status {
        #[command(flatten)]
        file: File,
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Let no request through to an upstream's workers: they wait, at most waiting_room.timeout.
    Pause {
        /// Its name in the file.
        upstream: String,
        #[command(flatten)]
        file: File,
    },
    /// Let requests through again: to an upstream and all its drained endpoints, or to one endpoint.
    Resume {
        /// The name of an upstream, or the address of an endpoint as in the file.
        #[arg(value_name = "UPSTREAM|ENDPOINT")]
        subject: String,
        /// The upstream whose endpoint is meant, when several have it.
        #[arg(long, value_name = "NAME")]
        upstream: Option<String>,
        #[command(flatten)]
        file: File,
    },
    /// Send no further request to an endpoint; those in flight end.
    Drain {
        /// Its address as in the file, such as unix:/run/gunicorn.sock or http://10.0.0.5:8000.
        endpoint: String,
        /// The upstream whose endpoint is meant, when several have it.
        #[arg(long, value_name = "NAME")]
        upstream: Option<String>,
        #[command(flatten)]
        file: File,
    },
    /// Strike what is kept of the app's answers (`cache`), and say how many objects that were.
    Purge {
        #[command(flatten)]
        purged: Purged,
        #[command(flatten)]
        file: File,
    },
    /// Read the file again and put it in force, as SIGHUP does, and say what is wrong with it.
    Reload {
        #[command(flatten)]
        file: File,
    },
}

/// A request to the admin listener.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    method: Method,
    target: String,
    body: String,
    is_json: bool,
}

impl Operation {
    /// Asks the gateway, and says what it answers.
    pub(super) fn run(self) -> ExitCode {
        let folder = config::folder_of(&self.file().config);
        let (wish, file) = match self.wish(&folder) {
            Ok(asked) => asked,
            Err(sentence) => {
                say_error(&format!("hostler: {sentence}"));
                return ExitCode::from(BAD_CONFIG);
            }
        };
        let admin = match config::load_admin(&file.config) {
            Ok(Some(admin)) => admin,
            Ok(None) => {
                say_error(&no_admin(&file.config));
                return ExitCode::from(BAD_CONFIG);
            }
            Err(report) => {
                say_error(&report.to_string());
                return ExitCode::from(BAD_CONFIG);
            }
        };
        let door = Door { bind: &admin.bind, secret: admin.token.as_ref() };
        match client::ask(door, &wish.method, &wish.target, wish.body, wish.is_json) {
            Ok(answer) => tell(&answer, &file.config),
            Err(failure) => {
                say_error(&unanswered(&failure, &admin.bind));
                ExitCode::from(FAILED)
            }
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::Status { file, .. }
            | Self::Pause { file, .. }
            | Self::Resume { file, .. }
            | Self::Drain { file, .. }
            | Self::Purge { file, .. }
            | Self::Reload { file } => file,
        }
    }

    /// `folder`: where relative paths start, as in the file.
    fn wish(self, folder: &Path) -> Result<(Wish, File), String> {
        let post = |target| Wish { method: Method::POST, target, body: String::new(), is_json: false };
        Ok(match self {
            Self::Status { file, json } => {
                (Wish { method: Method::GET, target: "/status".into(), body: String::new(), is_json: json }, file)
            }
            Self::Pause { upstream, file } => (post(target("/pause", Some(&upstream), None)), file),
            Self::Resume { subject, upstream, file } => {
                // No name of an upstream has a colon, and every address has one.
                let target = match subject.contains(':') {
                    true => target("/resume", upstream.as_deref(), Some(&address(&subject, folder)?)),
                    false if upstream.is_some() => return Err("--upstream goes with the address of an endpoint".into()),
                    false => target("/resume", Some(&subject), None),
                };
                (post(target), file)
            }
            Self::Drain { endpoint, upstream, file } => {
                (post(target("/drain", upstream.as_deref(), Some(&address(&endpoint, folder)?))), file)
            }
            Self::Purge { purged, file } => (Wish { body: purged.form(), ..post("/purge".into()) }, file),
            Self::Reload { file } => (post("/reload".into()), file),
        })
    }
}

/// An address as the gateway knows it: with the whole path of a unix socket.
fn address(text: &str, folder: &Path) -> Result<String, String> {
    let address = EndpointAddress::parse(text)?;
    Ok(match address.place {
        Place::Unix(path) if path.is_relative() => {
            let place = Place::Unix(config::resolve(folder, &path));
            EndpointAddress { place, ..address }.to_string()
        }
        _ => text.to_owned(),
    })
}

fn target(path: &str, upstream: Option<&str>, endpoint: Option<&str>) -> String {
    let given = [("upstream", upstream), ("endpoint", endpoint)];
    let pairs = given.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode((*value)?))));
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

pub(super) fn encode(value: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    let encode = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(encode).collect()
}

/// Says what was answered. The exit code.
fn tell(answer: &Answer, file: &Path) -> ExitCode {
    let body = &*printable(answer.body.trim_end());
    match answer.status {
        200 => {
            say(body);
            ExitCode::SUCCESS
        }
        401 => {
            let file = file.display();
            say_error(&format!(
                "hostler: the gateway does not take admin.token of {file}: has it changed since the start, or is its variable set otherwise here?"
            ));
            ExitCode::from(FAILED)
        }
        // The report on a configuration that was refused, as `check` has it.
        422 => {
            say_error(body);
            ExitCode::from(BAD_CONFIG)
        }
        _ => {
            say_error(&format!("hostler: {body}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Whoever has the port may answer: what would steer a terminal is replaced.
pub(super) fn printable(text: &str) -> String {
    let is_steering = |symbol: char| symbol.is_control() && symbol != '\n';
    text.replace(is_steering, "\u{FFFD}")
}

fn no_admin(file: &Path) -> String {
    let file = file.display();
    format!(
        "hostler: no `admin` in {file}: write `admin: {{ bind: 127.0.0.1:9180 }}` and start Hostler again, for a reload does not open it"
    )
}

pub(super) fn unanswered(failure: &NoAnswer, bind: &Bind) -> String {
    let address = match bind {
        Bind::Any(port) => format!("port {port}"),
        bind => bind.to_string(),
    };
    match failure {
        NoAnswer::Unreachable(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            format!("hostler: this user may not connect to {address}: {error}")
        }
        NoAnswer::Unreachable(_) => format!("hostler: nothing answers at {address}: is Hostler running? ({failure})"),
        NoAnswer::Lost(_) | NoAnswer::Foreign(_) => format!("hostler: {address}: {failure}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn wish(arguments: &[&str]) -> Result<Wish, String> {
        let arguments = [&["hostler"], arguments].concat();
        match super::super::Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?.command {
            super::super::Command::Operate(operation) => {
                operation.wish(Path::new("/etc/hostler")).map(|(wish, _)| wish)
            }
            other => Err(format!("{other:?}")),
        }
    }

    fn asked(arguments: &[&str]) -> Result<(String, String), String> {
        wish(arguments).map(|wish| (wish.method.to_string(), wish.target))
    }

    #[test]
    fn what_is_to_be_purged_is_no_part_of_a_head_which_has_bounds() {
        let tags: Vec<String> = (100..356).map(|number| format!("--tag={}{number}", "t".repeat(57))).collect();
        let arguments: Vec<&str> = ["purge", "--soft"].into_iter().chain(tags.iter().map(String::as_str)).collect();
        let wish = wish(&arguments).unwrap();
        assert_eq!((&wish.method, &*wish.target, wish.body.len()), (&Method::POST, "/purge", 256 * 65 + 6));
    }

    #[test]
    fn each_command_is_one_request() {
        for (arguments, method, target) in [
            (&["status"][..], "GET", "/status"),
            (&["status", "--json", "-c", "f"], "GET", "/status"),
            (&["pause", "app"], "POST", "/pause?upstream=app"),
            (&["resume", "app"], "POST", "/resume?upstream=app"),
            (&["resume", "unix:/run/a.sock"], "POST", "/resume?endpoint=unix:/run/a.sock"),
            (&["drain", "uwsgi+unix:/a b"], "POST", "/drain?endpoint=uwsgi%2Bunix:/a%20b"),
            (&["drain", "unix:./app.sock"], "POST", "/drain?endpoint=unix:/etc/hostler/app.sock"),
            (&["resume", "uwsgi+unix:a.sock"], "POST", "/resume?endpoint=uwsgi%2Bunix:/etc/hostler/a.sock"),
            (
                &["drain", "http://10.0.0.5:80", "--upstream", "app"],
                "POST",
                "/drain?upstream=app&endpoint=http://10.0.0.5:80",
            ),
            (&["purge", "--soft", "https://a.example/b"], "POST", "/purge"),
            (&["reload"], "POST", "/reload"),
        ] {
            assert_eq!(asked(arguments), Ok((method.to_owned(), target.to_owned())), "{arguments:?}");
        }
    }

    #[test]
    fn an_answer_does_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\nb\rc\u{9b}\u{7}é"), "a\u{FFFD}[2J\nb\u{FFFD}c\u{FFFD}\u{FFFD}é");
    }

    #[test]
    fn what_cannot_be_meant_is_not_sent() {
        for arguments in
            [&["pause"][..], &["drain", "app"], &["drain", "unix:"], &["resume", "app", "--upstream", "b"], &["dance"]]
        {
            assert!(asked(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_sent_is_what_the_listener_reads() {
        let target = target("/drain", Some("a.b-c_d"), Some("uwsgi+unix:/run/é &=%.sock"));
        let (_, query) = target.split_once('?').unwrap();
        let read = crate::admin::Parameters::parse(&[query.as_bytes()]).unwrap();
        assert_eq!(read.upstream.as_deref(), Some("a.b-c_d"));
        assert_eq!(read.endpoint.as_deref(), Some("uwsgi+unix:/run/é &=%.sock"));
    }
}
