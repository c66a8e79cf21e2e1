//! `publish`: one item for the clients that are held on a channel, through the door that the configuration file names.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use super::client::{self, Answer, Door};
use super::operator::{printable, unanswered};
use super::{BAD_CONFIG, FAILED, say, say_error};
use crate::config;

/// Bytes of what is read from stdin: the door takes no more.
const LARGEST: u64 = 1 << 20;

/// For whom the content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Everybody who is held on the channel.
    All,
    /// Clients that wait for an answer (long-poll): the content is its body.
    HttpResponse,
    /// Clients with a stream: the content is added to it as it is.
    HttpStream,
    /// The same, as an event of an event stream (SSE): the content is its data.
    Sse,
    /// WebSockets: the content is a message.
    WsMessage,
}

/// What is published.
#[derive(Debug, Args)]
pub(super) struct Publication {
    /// The channel.
    channel: String,
    /// The content; without it, what comes from stdin.
    content: Option<String>,
    /// For whom it is.
    #[arg(long, value_enum, default_value = "all")]
    format: Format,
    /// The item's own id.
    #[arg(long)]
    id: Option<String>,
    /// The id of the item before it.
    #[arg(long, value_name = "ID")]
    prev_id: Option<String>,
    /// End streams and WebSockets instead of saying something.
    #[arg(long, conflicts_with_all = ["content", "format"])]
    close: bool,
    /// The configuration file that the gateway was started with: its `realtime.publish` says where to.
    #[arg(short, long, value_name = "FILE", default_value = "hostler.yaml")]
    config: PathBuf,
}

impl Publication {
    /// Publishes, and says what is answered.
    pub(super) fn run(self) -> ExitCode {
        let publish = match config::load_publish(&self.config) {
            Ok(Some(publish)) => publish,
            Ok(None) => {
                let file = self.config.display();
                say_error(&format!(
                    "hostler: no `realtime.publish` in {file}: write `realtime: {{ publish: {{ bind: 127.0.0.1:5561 }} }}` and start Hostler again, for a reload does not open it"
                ));
                return ExitCode::from(BAD_CONFIG);
            }
            Err(report) => {
                say_error(&report.to_string());
                return ExitCode::from(BAD_CONFIG);
            }
        };
        let content = match &self.content {
            Some(content) => content.clone().into_bytes(),
            None if self.close => Vec::new(),
            None => match read_stdin() {
                Ok(content) => content,
                Err(sentence) => {
                    say_error(&format!("hostler: {sentence}"));
                    return ExitCode::from(BAD_CONFIG);
                }
            },
        };
        let door = Door { bind: &publish.bind, secret: publish.secret.as_ref() };
        match client::ask(door, &Method::POST, "/publish/", self.body(&content), false) {
            Ok(answer) => tell(&answer),
            Err(failure) => {
                say_error(&unanswered(&failure, &publish.bind));
                ExitCode::from(FAILED)
            }
        }
    }

    /// The request's body.
    fn body(&self, content: &[u8]) -> String {
        let mut item = json!({ "channel": self.channel });
        for (name, value) in [("id", &self.id), ("prev-id", &self.prev_id)] {
            if let Some(value) = value {
                item[name] = value.as_str().into();
            }
        }
        let format = self.format;
        if self.close {
            item["http-stream"] = json!({ "action": "close" });
            item["ws-message"] = json!({ "action": "close" });
        }
        if matches!(format, Format::All | Format::HttpResponse) && !self.close {
            item["http-response"] = part("body", content);
        }
        if matches!(format, Format::All | Format::HttpStream) && !self.close {
            item["http-stream"] = part("content", content);
        }
        if format == Format::Sse {
            item["http-stream"] = part("content", &event(content));
        }
        if matches!(format, Format::All | Format::WsMessage) && !self.close {
            item["ws-message"] = part("content", content);
        }
        json!({ "items": [item] }).to_string()
    }
}

/// As text where it is, else as base64.
fn part(name: &str, content: &[u8]) -> Value {
    match std::str::from_utf8(content) {
        Ok(text) => json!({ name: text }),
        Err(_) => json!({ format!("{name}-bin"): BASE64_STANDARD.encode(content) }),
    }
}

/// One event: each line of its data behind `data:`.
fn event(content: &[u8]) -> Vec<u8> {
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let mut event = Vec::with_capacity(content.len() + 16);
    for line in content.split(|byte| *byte == b'\n') {
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        event.push(b'\n');
    }
    event.push(b'\n');
    event
}

fn read_stdin() -> Result<Vec<u8>, String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err("write the content behind the channel, or pipe it in".into());
    }
    let mut content = Vec::new();
    stdin.take(LARGEST + 1).read_to_end(&mut content).map_err(|error| format!("stdin cannot be read: {error}"))?;
    if content.len() as u64 > LARGEST {
        return Err(format!("the content is larger than {LARGEST} bytes"));
    }
    Ok(content)
}

/// Says what was answered. The exit code.
fn tell(answer: &Answer) -> ExitCode {
    let body = printable(answer.body.trim_end());
    if answer.status == 200 {
        say(&body);
        return ExitCode::SUCCESS;
    }
    say_error(&format!("hostler: {body}"));
    ExitCode::from(FAILED)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::realtime::publish::items;

    fn body(arguments: &[&str], content: &[u8]) -> String {
        let arguments = [&["hostler", "publish"], arguments].concat();
        match super::super::Arguments::try_parse_from(arguments).unwrap().command {
            super::super::Command::Publish(publication) => publication.body(content),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_sent_is_what_the_door_reads() {
        for (arguments, content, formats) in [
            (&["c", "x"][..], &b"x"[..], [true, true, true]),
            (&["c", "x", "--format", "http-response", "--id", "2", "--prev-id", "1"], b"x", [true, false, false]),
            (&["c", "--format", "sse"], b"a\nb\n", [false, true, false]),
            (&["c", "--format", "http-stream"], b"\xff", [false, true, false]),
            (&["c", "--format", "ws-message"], b"\xff", [false, false, true]),
            (&["c", "--close"], b"", [false, true, true]),
        ] {
            let items = items::read(body(arguments, content).as_bytes()).unwrap();
            let has = [items[0].response.is_some(), items[0].stream.is_some(), items[0].message.is_some()];
            assert_eq!((items.len(), &*items[0].channel, has), (1, "c", formats), "{arguments:?}");
        }
        assert_eq!(event(b"a\r\nb\n"), b"data: a\ndata: b\n\n");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for arguments in [&["publish"][..], &["publish", "c", "x", "--close"], &["publish", "c", "--format", "fax"]] {
            let arguments = [&["hostler"], arguments].concat();
            assert!(super::super::Arguments::try_parse_from(arguments).is_err());
        }
    }
}
