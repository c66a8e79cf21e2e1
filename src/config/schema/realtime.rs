//! `realtime`.

use std::time::Duration;

use super::listeners::bind;
use super::process::HOUR;
use crate::config::decode::{Decoder, Section, seconds};
use crate::config::node::{Node, Span};
use crate::config::report::quoted;
use crate::config::{Bind, Grip, Publish, Realtime, Secret};

pub(super) static REALTIME: Section = Section {
    name: "realtime",
    keys: &["publish", "grip", "keep_alive", "buffer"],
    later: &[],
    elsewhere: &[("ping", "keep_alive"), ("message_buffer", "buffer"), ("pushpin", "publish"), ("control", "publish")],
};
pub(super) static PUBLISH: Section = Section {
    name: "realtime.publish",
    keys: &["bind", "secret"],
    later: &[],
    elsewhere: &[("listen", "bind"), ("address", "bind"), ("port", "bind"), ("token", "secret"), ("key", "secret")],
};
pub(super) static GRIP: Section = Section {
    name: "realtime.grip",
    keys: &["secret", "issuer"],
    later: &[],
    elsewhere: &[
        ("key", "secret"),
        ("token", "secret"),
        ("sig_key", "secret"),
        ("iss", "issuer"),
        ("sig_iss", "issuer"),
    ],
};

/// The section, and where `publish.bind` stands.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node) -> (Realtime, Option<Span>) {
    let default = Realtime::default();
    let Some(fields) = decoder.fields(node, &REALTIME) else { return (default, None) };
    let publish = fields.get("publish").and_then(|node| publish(decoder, node));
    let (publish, at) = publish.map_or((None, None), |(publish, at)| (Some(publish), Some(at)));
    let realtime = Realtime {
        publish,
        grip: fields.get("grip").map_or(default.grip, |node| grip(decoder, node)),
        keep_alive: fields.duration(decoder, "keep_alive", seconds(0, HOUR), default.keep_alive),
        buffer: fields.size(decoder, "buffer", 1 << 10..=64 << 20, default.buffer),
    };
    if let Some(node) = fields.get("keep_alive")
        && realtime.keep_alive > Duration::ZERO
        && realtime.keep_alive < Duration::from_secs(1)
    {
        decoder
            .error(&node.span, "`keep_alive` is shorter than a second")
            .help("every held client would be written to all the time: write 25s, or 0s for none");
    }
    (realtime, at)
}

fn publish(decoder: &mut Decoder<'_>, node: &Node) -> Option<(Publish, Span)> {
    let fields = decoder.fields(node, &PUBLISH)?;
    let errors = decoder.error_count();
    let secret = fields.get("secret").and_then(|node| secret(decoder, node));
    let is_without = secret.is_none() && decoder.error_count() == errors && !fields.means("secret");
    let node =
        fields.required(decoder, "bind", "write bind: unix:/run/hostler/publish.sock, or bind: 127.0.0.1:5561")?;
    let (text, bind) = bind(decoder, node)?;
    if bind.is_local() == Some(false) && is_without {
        let port = match &bind {
            Bind::Any(port) => *port,
            Bind::Tcp(address) => address.port(),
            Bind::Unix(_) | Bind::Systemd(_) => 0,
        };
        decoder
            .error(&node.span, format!("`realtime.publish` needs a `secret` to listen on {}", quoted(&text)))
            .label("other machines can reach it")
            .help(
                "whoever reaches it writes to your clients: write secret: \"${HOSTLER_SECRET}\" and set that variable",
            )
            .help(format!("or let only this machine in: 127.0.0.1:{port} or unix:/run/hostler/publish.sock"));
        return None;
    }
    Some((Publish { bind, secret }, node.span.clone()))
}

fn grip(decoder: &mut Decoder<'_>, node: &Node) -> Grip {
    let default = Grip::default();
    let Some(fields) = decoder.fields(node, &GRIP) else { return default };
    let issuer = fields.get("issuer").and_then(|node| {
        let text = decoder.scalar("issuer", node, "a text")?;
        if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
            decoder
                .error(&node.span, "`issuer` is 1 to 256 characters, none of them a control character")
                .help("write what the app expects, such as issuer: hostler");
            return None;
        }
        Some(text)
    });
    Grip {
        secret: fields.get("secret").and_then(|node| secret(decoder, node)),
        issuer: issuer.unwrap_or(default.issuer),
    }
}

/// A key that both sides know, as it stands in the app's `GRIP_URL`. Empty, as an unset variable leaves it: none. No message
/// repeats it.
fn secret(decoder: &mut Decoder<'_>, node: &Node) -> Option<Secret> {
    const LEAST: usize = 16;
    const HELP: &str = "make one with: openssl rand -hex 32";
    let text = decoder.scalar("secret", node, "a text")?;
    if text.is_empty() {
        return None;
    }
    if text.len() < LEAST || text.len() > 1 << 10 {
        decoder.error(&node.span, format!("`secret` has fewer than {LEAST} characters, or more than 1024")).help(HELP);
        return None;
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        decoder
            .error(&node.span, "`secret` holds a character that no header can carry")
            .help("it can have letters, digits and signs of ASCII, without spaces")
            .help(HELP);
        return None;
    }
    let secret = Secret::new(text);
    if secret.key().is_none() {
        decoder
            .error(&node.span, "`secret` begins with base64: and what follows is not base64")
            .help("write it as it stands in the app's GRIP_URL behind key=")
            .help(HELP);
        return None;
    }
    Some(secret)
}
