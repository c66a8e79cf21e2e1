//! `listeners`: where clients connect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::decode::{Decoder, Fields, Section};
use crate::config::node::{Node, Span, Value};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{Bind, Certificate, ClientAuth, Listener, Tls, TlsVersion, certificate};

/// What a path of a unix socket may have at most: `sun_path` less its final NUL.
pub(super) const LONGEST_SOCKET_PATH: usize = 107;

/// A listener whose redirect port is not known yet.
pub(in crate::config) struct ListenerDraft {
    pub(in crate::config) listener: Listener,
    /// The place of `bind`; of the whole file when nothing is written.
    pub(in crate::config) span: Span,
    pub(in crate::config) redirect: Option<(Redirect, Span)>,
    /// The place of `proxy_protocol`, where it is on.
    pub(in crate::config) proxy_protocol: Option<Span>,
}

/// `redirect`, as written.
#[derive(Clone, Copy)]
pub(in crate::config) enum Redirect {
    /// `https`: to the first TLS listener.
    FirstTls,
    /// `{ https: 8443 }`
    Port(u16),
}

pub(super) static LISTENER: Section = Section {
    name: "listeners[]",
    keys: &["bind", "tls", "http2", "proxy_protocol", "redirect"],
    later: &["http3"],
    elsewhere: &[
        ("listen", "bind"),
        ("address", "bind"),
        ("port", "bind"),
        ("ssl", "tls"),
        ("accept_proxy", "proxy_protocol"),
        ("set_real_ip_from", "trusted_proxies"),
    ],
};
pub(super) static TLS: Section = Section {
    name: "listeners[].tls",
    keys: &["certificates", "local", "client_ca", "client_auth", "min_version", "strict_sni"],
    later: &["acme"],
    elsewhere: &[
        ("certificate", "certificates"),
        ("protocols", "min_version"),
        ("ssl_protocols", "min_version"),
        ("ssl_client_certificate", "client_ca"),
        ("ssl_verify_client", "client_auth"),
        ("ssl_reject_handshake", "strict_sni"),
    ],
};
pub(super) static CERTIFICATE: Section = Section {
    name: "listeners[].tls.certificates[]",
    keys: &["cert", "private_key", "ocsp"],
    later: &[],
    elsewhere: &[
        ("key", "private_key"),
        ("ssl_certificate", "cert"),
        ("ssl_certificate_key", "private_key"),
        ("certificate", "cert"),
        ("chain", "cert"),
        ("ssl_stapling_file", "ocsp"),
    ],
};
pub(super) static REDIRECT: Section =
    Section { name: "listeners[].redirect", keys: &["https"], later: &[], elsewhere: &[] };

/// All listeners; without the key one on 127.0.0.1:8080.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: Option<&Node>) -> Vec<ListenerDraft> {
    let Some(node) = node else { return vec![default_listener()] };
    let items = decoder.list("listeners", node).unwrap_or_default();
    items.iter().filter_map(|item| listener(decoder, item)).collect()
}

fn default_listener() -> ListenerDraft {
    let bind = Bind::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080));
    let name = bind.to_string();
    let listener = Listener { name, bind, tls: None, http2: true, proxy_protocol: false, redirect_https: None };
    ListenerDraft { listener, span: 0..0, redirect: None, proxy_protocol: None }
}

fn listener(decoder: &mut Decoder<'_>, node: &Node) -> Option<ListenerDraft> {
    let fields = decoder.fields(node, &LISTENER)?;
    let bind_node = fields.required(decoder, "bind", "write where to listen: bind: 443, or bind: 127.0.0.1:8080");
    let address = bind_node.and_then(|node| bind(decoder, node));
    let tls_entry = fields.entry("tls");
    let tls = tls_entry.and_then(|entry| tls(decoder, &entry.value, &entry.key.span));
    let http2 = fields.boolean(decoder, "http2", true);
    let proxy_protocol = fields.boolean(decoder, "proxy_protocol", false);
    let redirect_entry = fields.entry("redirect");
    if let (Some(tls), Some(redirect)) = (tls_entry, redirect_entry) {
        decoder
            .error(&redirect.key.span, "a listener with `tls` cannot redirect to https")
            .also(&tls.key.span, "its clients speak https already")
            .help("put `redirect` into the listener of port 80");
    }
    let redirect = redirect_entry.and_then(|entry| Some((redirect(decoder, &entry.value)?, entry.value.span.clone())));
    let (name, bind) = address?;
    let listener = Listener { name, bind, tls, http2, proxy_protocol, redirect_https: None };
    let proxy_protocol = fields.entry("proxy_protocol").filter(|_| proxy_protocol).map(|entry| entry.key.span.clone());
    Some(ListenerDraft { listener, span: bind_node?.span.clone(), redirect, proxy_protocol })
}

/// `bind`: the address as written, and as read.
pub(super) fn bind(decoder: &mut Decoder<'_>, node: &Node) -> Option<(String, Bind)> {
    let text = decoder.scalar("bind", node, "an address")?;
    let parsed = Bind::parse(&text).map_err(split_fault);
    let bind = match decoder.fault(&node.span, parsed)? {
        Bind::Unix(path) => Bind::Unix(socket_path(decoder, "bind", &node.span, path)?),
        other => other,
    };
    Some((text, bind))
}

/// `what is wrong: what to write` as address parsers say it.
pub(super) fn split_fault(sentence: String) -> Fault {
    match sentence.rsplit_once(": write ") {
        Some((message, help)) => Fault::new(message, format!("write {help}")),
        None => match sentence.split_once(": ") {
            Some((message, help)) => Fault::new(message, help),
            None => Fault::new(sentence, ""),
        },
    }
}

/// An absolute path that fits into a socket address.
pub(super) fn socket_path(decoder: &mut Decoder<'_>, key: &str, at: &Span, path: PathBuf) -> Option<PathBuf> {
    let path = decoder.path_from(key, at, &path)?;
    let length = path.as_os_str().len();
    if length > LONGEST_SOCKET_PATH {
        decoder
            .error(
                at,
                format!(
                    "the path of this unix socket has {length} bytes; the system takes at most {LONGEST_SOCKET_PATH}"
                ),
            )
            .help("choose a shorter folder, such as /run/app");
        return None;
    }
    Some(path)
}

fn tls(decoder: &mut Decoder<'_>, node: &Node, key: &Span) -> Option<Tls> {
    let fields = decoder.fields(node, &TLS)?;
    let local = fields.boolean(decoder, "local", false);
    let min_version = fields.get("min_version").and_then(|node| min_version(decoder, node)).unwrap_or(TlsVersion::V1_2);
    let client_auth = client_auth(decoder, &fields);
    let strict_sni = fields.boolean(decoder, "strict_sni", false);
    if fields.get("certificates").is_none() && !local {
        decoder
            .error(key, "`tls` has no certificate")
            .help("write certificates: [{ cert: shop.crt, private_key: shop.key }], or local: true for development");
        return None;
    }
    let items = fields.get("certificates").and_then(|node| decoder.list("certificates", node)).unwrap_or_default();
    let certificates = items.iter().filter_map(|item| certificate(decoder, item)).collect();
    Some(Tls { certificates, local, min_version, client_auth, strict_sni })
}

/// `client_ca` and `client_auth`.
fn client_auth(decoder: &mut Decoder<'_>, fields: &Fields<'_>) -> Option<ClientAuth> {
    let how = fields.entry("client_auth");
    let Some(ca) = fields.entry("client_ca") else {
        if let Some(how) = how {
            decoder
                .error(&how.key.span, "`client_auth` has no authority to go by")
                .help("write client_ca: clients.pem, with the certificates that sign those of the clients");
        }
        return None;
    };
    let choices = [("require", true), ("request", false)];
    let is_required = how.map_or(Some(true), |how| decoder.choice("client_auth", &how.value, &choices));
    let path = decoder.path("client_ca", &ca.value)?;
    certificate::inspect_client_authorities(decoder, &path, &ca.value.span);
    Some(ClientAuth { ca: path, is_required: is_required? })
}

fn min_version(decoder: &mut Decoder<'_>, node: &Node) -> Option<TlsVersion> {
    let text = decoder.scalar("min_version", node, "a TLS version")?;
    match text.trim_start_matches("TLSv").trim_start_matches("TLS") {
        "1.2" => Some(TlsVersion::V1_2),
        "1.3" => Some(TlsVersion::V1_3),
        _ => {
            let message = format!("{} is not a TLS version that can be served", quoted(&text));
            decoder.error(&node.span, message).help("`min_version` can be \"1.2\" or \"1.3\"");
            None
        }
    }
}

fn certificate(decoder: &mut Decoder<'_>, node: &Node) -> Option<Certificate> {
    let fields = decoder.fields(node, &CERTIFICATE)?;
    let cert_node = fields.required(decoder, "cert", "write the PEM file with the certificate and its chain");
    let key_node = fields.required(decoder, "private_key", "write the PEM file with the certificate's private key");
    let cert = cert_node.and_then(|node| decoder.path("cert", node));
    let private_key = key_node.and_then(|node| decoder.path("private_key", node));
    let ocsp_node = fields.get("ocsp");
    let ocsp = ocsp_node.and_then(|node| decoder.path("ocsp", node));
    let pair = Certificate { cert: cert?, private_key: private_key?, ocsp };
    let facts = certificate::inspect(decoder, &pair, &cert_node?.span, &key_node?.span);
    if let (Some(facts), Some(path), Some(node)) = (facts, &pair.ocsp, ocsp_node) {
        certificate::inspect_response(decoder, path, &facts, &node.span);
    }
    Some(pair)
}

fn redirect(decoder: &mut Decoder<'_>, node: &Node) -> Option<Redirect> {
    if let Value::Map(_) = node.value {
        let fields = decoder.fields(node, &REDIRECT)?;
        let port = fields.required(decoder, "https", "write redirect: https, or redirect: { https: 8443 }")?;
        let port = decoder.number("https", port, 1..=65535)?;
        return u16::try_from(port).ok().map(Redirect::Port);
    }
    let text = decoder.scalar("redirect", node, "https")?;
    if text != "https" {
        let message = format!("{} is not a value of `redirect`", quoted(&text));
        decoder.error(&node.span, message).help("write redirect: https, or redirect: { https: 8443 }");
        return None;
    }
    Some(Redirect::FirstTls)
}
