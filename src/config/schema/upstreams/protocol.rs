//! How an endpoint is spoken to: `client_address`, `uwsgi`, `tls`, `resolve`.

use std::path::Path;
use std::time::Duration;

use super::sent;
use crate::config::decode::{Decoder, Section};
use crate::config::node::Node;
use crate::config::schema::process::DAY;
use crate::config::{Authority, ClientAddress, Resolve, UpstreamTls, Uwsgi, certificate};

pub(in crate::config::schema) static UWSGI: Section = Section {
    name: "upstreams.*.uwsgi",
    keys: &["buffer_size", "modifier1"],
    later: &[],
    elsewhere: &[("buffer-size", "buffer_size"), ("uwsgi_modifier1", "modifier1")],
};
pub(in crate::config::schema) static TLS: Section = Section {
    name: "upstreams.*.tls",
    keys: &["server_name", "ca", "verify"],
    later: &[],
    elsewhere: &[
        ("sni", "server_name"),
        ("proxy_ssl_name", "server_name"),
        ("root_ca", "ca"),
        ("proxy_ssl_trusted_certificate", "ca"),
        ("insecure", "verify"),
        ("insecure_skip_verify", "verify"),
        ("proxy_ssl_verify", "verify"),
    ],
};

pub(super) fn client_address(decoder: &mut Decoder<'_>, node: &Node) -> Option<ClientAddress> {
    const WORDS: [(&str, ClientAddress); 3] = [
        ("headers", ClientAddress::Headers),
        ("proxy_v1", ClientAddress::ProxyV1),
        ("proxy_v2", ClientAddress::ProxyV2),
    ];
    decoder.choice("client_address", node, &WORDS)
}

pub(super) fn uwsgi(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Uwsgi {
    let default = Uwsgi::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &UWSGI)) else { return default };
    // uWSGI itself takes no more than 65535: the size of the vars has two bytes in the packet.
    let most = u64::from(u16::MAX);
    let size = fields.size(decoder, "buffer_size", 1 << 10..=most, u64::from(default.buffer_size));
    if let Some(node) = fields.get("modifier1") {
        only_wsgi(decoder, node);
    }
    Uwsgi { buffer_size: u16::try_from(size).unwrap_or(default.buffer_size), modifier1: default.modifier1 }
}

/// Other modifiers are other languages, or commands to uWSGI itself: code to run, signals, the spooler.
fn only_wsgi(decoder: &mut Decoder<'_>, node: &Node) {
    let Some(value) = decoder.number("modifier1", node, 0..=255) else { return };
    if value != 0 {
        decoder
            .error(&node.span, format!("`modifier1` can only be 0, not {value}"))
            .help("Hostler sends WSGI requests, which are 0; other numbers are other languages, or commands to uWSGI");
    }
}

pub(super) fn tls(decoder: &mut Decoder<'_>, node: Option<&Node>) -> UpstreamTls {
    let default = UpstreamTls::default();
    let Some(fields) = node.and_then(|node| decoder.fields(node, &TLS)) else { return default };
    let verify = fields.boolean(decoder, "verify", default.verify);
    if let (Some(node), false) = (fields.get("verify"), verify) {
        decoder
            .warning(&node.span, "certificates of this upstream are not verified")
            .help("anybody on the way can read and change what is sent: name its authority with ca: FILE instead");
    }
    UpstreamTls {
        server_name: fields.get("server_name").and_then(|node| sent::server_name(decoder, node)),
        ca: fields.get("ca").and_then(|node| authority(decoder, node)).unwrap_or(default.ca),
        verify,
    }
}

/// `system`, or a PEM file that is looked at now.
fn authority(decoder: &mut Decoder<'_>, node: &Node) -> Option<Authority> {
    let text = decoder.scalar("ca", node, "system or a path")?;
    if text == "system" {
        return Some(Authority::System);
    }
    let path = decoder.path_from("ca", &node.span, Path::new(&text))?;
    certificate::inspect_authorities(decoder, &path, &node.span);
    Some(Authority::File(path))
}

/// `ttl`, or a duration.
pub(super) fn resolve(decoder: &mut Decoder<'_>, node: &Node) -> Option<Resolve> {
    let text = decoder.scalar("resolve", node, "ttl or a duration")?;
    if text == "ttl" {
        return Some(Resolve::Ttl);
    }
    let range = Duration::from_millis(100)..=Duration::from_secs(DAY);
    decoder.duration("resolve", node, range).map(Resolve::After)
}
