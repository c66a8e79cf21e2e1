//! `logging`: the operator's log and the access log.

use std::path::Path;

use super::Places;
use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Node, Value};
use crate::config::report::quoted;
use crate::config::values;
use crate::config::{Access, AccessFormat, AccessTarget, Level, LogFormat, Logging};

pub(super) static LOGGING: Section = Section {
    name: "logging",
    keys: &["level", "format", "access"],
    later: &[],
    elsewhere: &[("access_log", "access"), ("error_log", "level")],
};
pub(super) static ACCESS: Section = Section {
    name: "logging.access",
    keys: &["to", "format", "sample", "query"],
    later: &[],
    elsewhere: &[("path", "to"), ("file", "to"), ("log_format", "format"), ("sampling", "sample")],
};

/// The section.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, places: &mut Places) -> Logging {
    const LEVELS: [(&str, Level); 4] =
        [("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug)];
    const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let default = Logging::default();
    let Some(fields) = decoder.fields(node, &LOGGING) else { return default };
    Logging {
        level: fields.get("level").and_then(|n| decoder.choice("level", n, &LEVELS)).unwrap_or(default.level),
        format: fields.get("format").and_then(|n| decoder.choice("format", n, &FORMATS)).unwrap_or(default.format),
        access: match fields.get("access") {
            Some(node) => access(decoder, node, places),
            None => default.access,
        },
    }
}

/// `off`, or a mapping.
fn access(decoder: &mut Decoder<'_>, node: &Node, places: &mut Places) -> Option<Access> {
    const FORMATS: [(&str, AccessFormat); 2] = [("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
    match &node.value {
        Value::Map(_) | Value::List(_) | Value::Null => {}
        Value::Text(text) if text == "off" => return None,
        _ => {
            let help = "write access: off, or access: { to: stdout }; `to` can be stdout, stderr or a file";
            decoder.error(&node.span, "`access` takes `off` or a mapping").help(help);
            return None;
        }
    }
    let default = Access::default();
    let fields = decoder.fields(node, &ACCESS)?;
    Some(Access {
        to: to(decoder, &fields, places).unwrap_or(default.to),
        format: fields.get("format").and_then(|n| decoder.choice("format", n, &FORMATS)).unwrap_or(default.format),
        sample: fields.get("sample").and_then(|node| sample(decoder, node)).unwrap_or(default.sample),
        query: fields.boolean(decoder, "query", default.query),
    })
}

fn to(decoder: &mut Decoder<'_>, fields: &Fields<'_>, places: &mut Places) -> Option<AccessTarget> {
    let to = fields.get("to")?;
    let text = decoder.scalar("to", to, "stdout, stderr or a path")?;
    match text.as_str() {
        "stdout" => Some(AccessTarget::Stdout),
        "stderr" => Some(AccessTarget::Stderr),
        path if path.contains('/') => {
            places.access = Some(to.span.clone());
            decoder.path_from("to", &to.span, Path::new(path)).map(AccessTarget::File)
        }
        word => {
            decoder
                .error(&to.span, format!("{} is not a value of `to`", quoted(word)))
                .help("it can be stdout, stderr or a path with a `/`, such as ./access.log");
            None
        }
    }
}

/// The share of lines that are written.
fn sample(decoder: &mut Decoder<'_>, node: &Node) -> Option<f64> {
    let text = decoder.scalar("sample", node, "a number from 0 to 1")?;
    decoder.fault(&node.span, values::share("sample", &text))
}
