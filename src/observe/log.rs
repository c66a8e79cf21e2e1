//! The operator's log (`logging.level`, `logging.format`): one event, one line, on stderr.
//!
//! Events come through `tracing`. Level and form can change while the process runs ([`Log::apply`]). Nobody waits for
//! stderr ([`writer`]): when it is full, or closed, lines are lost and nothing else. Control characters in what an event
//! says are escaped, so that no client can write lines or colours of its own into the log.

mod writer;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use self::writer::LineWriter;
use crate::config::{Level, LogFormat, Logging};

/// Crates below us that tell every frame and every timer when asked for more than warnings.
const NOISY: &[&str] = &["h2", "hyper", "hyper_util", "mio", "rustls", "tokio", "tokio_rustls", "tower"];

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of the process, to change what it says and how. When it is dropped the lines said until then are written, if
/// that takes no longer than a second.
pub struct Log {
    control: Control,
    writer: LineWriter,
}

/// What can be changed.
struct Control {
    filter: reload::Handle<Targets, Registry>,
    json: Arc<AtomicBool>,
}

impl Log {
    /// Changes level and form from the next event on.
    pub fn apply(&self, logging: &Logging) {
        self.control.apply(logging);
    }

    /// Counts lost lines there, those from before included.
    pub fn count_lost_into(&self, counter: IntCounter) {
        self.writer.count_into(counter);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.writer.flush(Instant::now() + LAST_LINES);
    }
}

impl Control {
    fn apply(&self, logging: &Logging) {
        self.json.store(logging.format == LogFormat::Json, Ordering::Relaxed);
        // An error means that the subscriber is gone, and so is everybody who could read the log.
        self.filter.reload(targets(logging.level)).ok();
    }
}

/// Makes this the log of the process.
///
/// # Errors
/// The process has a log already, or the system gives no descriptor or thread.
pub fn init(logging: &Logging) -> io::Result<Log> {
    // A descriptor of our own: std's handle takes a lock that others hold while they wait.
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from)?;
    let writer = LineWriter::start(stderr)?;
    let (subscriber, control) = subscriber(logging, writer.clone());
    tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    Ok(Log { control, writer })
}

fn subscriber<W>(logging: &Logging, to: W) -> (impl Subscriber + Send + Sync, Control)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(logging.level));
    let json = Arc::new(AtomicBool::new(logging.format == LogFormat::Json));
    let layer = tracing_subscriber::fmt::layer()
        .event_format(OneLine::new(Arc::clone(&json)))
        // Else a failed write is told on stderr, by a macro that panics when stderr is what failed.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_writer(to);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    (subscriber, Control { filter: handle, json })
}

fn targets(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    // A filter is the greater, the more it lets through.
    let noisy = NOISY.iter().map(|name| (*name, level.min(LevelFilter::WARN)));
    Targets::new().with_default(level).with_targets(noisy)
}

/// Text or JSON, as the switch says at the time of the event.
struct OneLine {
    json: Arc<AtomicBool>,
    as_text: Format<Full>,
    as_json: Format<Json>,
}

impl OneLine {
    fn new(json: Arc<AtomicBool>) -> Self {
        let as_json = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
        Self { json, as_text: Format::default(), as_json }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, DefaultFields> for OneLine {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        if self.json.load(Ordering::Relaxed) {
            self.as_json.format_event(context, Writer::new(&mut line), event)?;
        } else {
            self.as_text.format_event(context, Writer::new(&mut line), event)?;
        }
        write_one_line(&mut to, line.trim_end_matches('\n'))
    }
}

fn write_one_line(to: &mut Writer<'_>, line: &str) -> fmt::Result {
    let is_harmful = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}');
    let mut rest = line;
    while let Some((at, harmful)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
        // The JSON form has these escaped already, but for C1 and the separators; this escape suits both.
        write!(to, "{}\\u{:04x}", &rest[..at], u32::from(harmful))?;
        rest = &rest[at + harmful.len_utf8()..];
    }
    writeln!(to, "{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logging(level: Level, format: LogFormat) -> Logging {
        Logging { level, format, access: None }
    }

    fn logged(logging: &Logging, events: impl FnOnce(&Control)) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let (subscriber, log) = subscriber(logging, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || events(&log));
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_says_level_message_and_fields() {
        let text = logged(&logging(Level::Info, LogFormat::Text), |_| {
            tracing::info!(upstream = "app", "listening");
            tracing::debug!("not for everybody");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(" INFO ") && text.trim_end().ends_with("listening upstream=\"app\""), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(&logging(Level::Warn, LogFormat::Json), |_| {
            tracing::warn!(path = "a\u{1b}b\u{9b}\nc", count = 3, "told");
            tracing::info!("not told");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["level"], &value["message"], &value["count"]), (&"WARN".into(), &"told".into(), &3.into()));
        assert_eq!(value["path"], "a\u{1b}b\u{9b}\nc");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn no_value_can_start_a_line_or_colour_the_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(&logging(Level::Info, format), |_| {
                tracing::info!(host = %"a\r\nERROR forged\u{1b}[31m\u{9b}31m\u{2028}", "told\nagain");
            });
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{2028}'), "{text:?}");
        }
    }

    #[test]
    fn level_and_form_change_while_running() {
        let text = logged(&logging(Level::Error, LogFormat::Text), |log| {
            tracing::info!("too early");
            log.apply(&logging(Level::Debug, LogFormat::Json));
            tracing::debug!("in time");
            log.apply(&logging(Level::Error, LogFormat::Text));
            tracing::debug!("too late");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with('{') && text.contains("in time"), "{text}");
    }

    #[test]
    fn libraries_below_us_tell_warnings_at_most() {
        let noise = || {
            tracing::debug!(target: "h2::codec", "a frame");
            tracing::info!(target: "hyper::proto", "a head");
            tracing::warn!(target: "rustls::conn", "a warning");
        };
        let text = logged(&logging(Level::Debug, LogFormat::Text), |_| noise());
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("a warning"));
        assert_eq!(logged(&logging(Level::Error, LogFormat::Text), |_| noise()), "");
    }

    #[test]
    fn a_closed_stderr_loses_lines_and_nothing_else() {
        const CHILD: &str = "HOSTLER_TEST_CLOSED_STDERR";
        if std::env::var_os(CHILD).is_some() {
            let _log = init(&Logging::default()).unwrap();
            tracing::error!("into the void");
            return;
        }
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "observe::log::tests::a_closed_stderr_loses_lines_and_nothing_else", "--nocapture"])
            .env(CHILD, "1")
            .stderr(writer)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child ran no test");
    }
}
