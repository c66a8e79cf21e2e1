//! The head of a request as its endpoint's protocol has it.
//!
//! Three settings change what the client has asked for, in the same way for every protocol:
//!
//! | setting | effect |
//! |---|---|
//! | the upstream's `prefix` | stands before the path |
//! | the upstream's `host` | is sent for Host; X-Forwarded-Host stays the client's |
//! | the route's `mount` | HTTP: `SCRIPT_NAME`, as gunicorn takes it from a peer it trusts, with the path whole. uwsgi: SCRIPT_NAME, and PATH_INFO without it |
//!
//! `prefix` and `mount` together make a SCRIPT_NAME of both, because that is how the path begins which the app gets.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;

use super::forwarded::{self, Lines as _};
use super::{Outgoing, Upstream};
use crate::config::EndpointProtocol;
use crate::error::{Error, Reason};
use crate::http::{Request, Target, fields};
use crate::http1::client;
use crate::observe::metrics::{HeaderKind, Metrics};
use crate::uwsgi::vars;

/// Appends the head.
///
/// # Errors
/// [`Reason::VarsTooLarge`]; [`Reason::BadTarget`] when `prefix` does not fit before the path.
pub(super) fn write(
    out: &mut Vec<u8>,
    protocol: EndpointProtocol,
    outgoing: &Outgoing,
    upstream: &Upstream,
    metrics: &Metrics,
) -> Result<(), Error> {
    let terms = Terms {
        host: upstream.config.host.as_deref().map(str::as_bytes),
        is_last: upstream.config.keepalive.idle.is_zero(),
        is_handshake: outgoing.opens_tunnel(),
    };
    let dropped = |why| match header_kind(why) {
        None => {}
        // Not lost: what it says is in the fields that are written anew.
        Some(HeaderKind::Forwarded) if outgoing.request.exchange.claims.get().is_some() => {}
        Some(kind) => {
            metrics.header_dropped(kind);
            if why == fields::Dropped::Forwarded {
                outgoing.request.exchange.is_disbelieved.set(true);
            }
        }
    };
    write_as(out, protocol, outgoing, upstream, terms, dropped)
}

/// What a request of our own has otherwise than a client's.
pub(super) struct Terms<'a> {
    /// Sent instead of the request's Host.
    pub(super) host: Option<&'a [u8]>,
    /// Whether no other follows on its connection.
    pub(super) is_last: bool,
    /// Whether it asks for a WebSocket.
    pub(super) is_handshake: bool,
}

/// Appends the head. `dropped` is told of fields that may not pass.
///
/// # Errors
/// As [`write`].
pub(super) fn write_as(
    out: &mut Vec<u8>,
    protocol: EndpointProtocol,
    outgoing: &Outgoing,
    upstream: &Upstream,
    terms: Terms<'_>,
    dropped: impl FnMut(fields::Dropped),
) -> Result<(), Error> {
    let Request { method, headers, exchange, .. } = &*outgoing.request;
    let place = Place::of(outgoing, upstream.config.prefix.as_deref())?;
    // HTTP/1.0 without Host: HTTP/1.1, which we speak to the worker, needs one, and so do apps.
    let host = terms.host.or_else(|| exchange.host.is_none().then_some(&b"localhost"[..]));
    let length = length(outgoing);
    let identity = &*outgoing.terms.identity_names;
    if protocol == EndpointProtocol::Uwsgi {
        let Place { target, script, mount } = &place;
        let request = vars::Request { method, target, script: *script, headers, identity, host, length, exchange };
        let own = |vars: &mut vars::Vars<'_>| forwarded::append(vars, exchange, *mount);
        return vars::write(out, &upstream.config.uwsgi, &request, own, dropped);
    }
    let place = place.spelled();
    let own = |out: &mut Vec<u8>| {
        if let Some(script) = place.raw_script() {
            out.line("SCRIPT_NAME", |out| out.extend_from_slice(script.as_bytes()));
        }
        forwarded::append(out, exchange, place.mount);
        if terms.is_handshake {
            out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
        } else if terms.is_last {
            out.extend_from_slice(b"connection: close\r\n");
        }
    };
    let request = client::Request { method, target: &place.target, headers, identity, host, length };
    client::write_head(out, &request, own, dropped);
    Ok(())
}

/// The exact length of the body, where the method has one.
fn length(outgoing: &Outgoing) -> Option<u64> {
    let has_content = !matches!(outgoing.request.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    match &outgoing.body {
        Some(body) => Some(body.length()),
        None => has_content.then_some(0),
    }
}

/// How a removed field is counted. What every connection has of its own is not.
fn header_kind(dropped: fields::Dropped) -> Option<HeaderKind> {
    match dropped {
        fields::Dropped::Hop => None,
        fields::Dropped::Forwarded | fields::Dropped::Traced => Some(HeaderKind::Forwarded),
        fields::Dropped::Internal => Some(HeaderKind::Internal),
        fields::Dropped::Identity => Some(HeaderKind::Identity),
        fields::Dropped::Underscore => Some(HeaderKind::Underscore),
    }
}

/// The target that is sent, and which part of it is the app's SCRIPT_NAME.
struct Place<'a> {
    target: Cow<'a, Target>,
    /// Bytes of the decoded path, `prefix` included; 0 when the request is not under the mount.
    script: usize,
    /// The route's mount, when the request is under it.
    mount: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(outgoing: &'a Outgoing, prefix: Option<&str>) -> Result<Self, Error> {
        let asked = &outgoing.request.target;
        let mount = outgoing.terms.mount.as_deref().filter(|mount| is_under(asked.path(), mount));
        let target = match prefix {
            // `OPTIONS *` has no path.
            Some(prefix) if asked.path() != b"*" => Cow::Owned(joined(prefix, asked.as_str())?),
            _ => Cow::Borrowed(asked),
        };
        let before = target.path().len() - asked.path().len();
        Ok(Self { script: mount.map_or(0, |mount| before + mount.len()), mount, target })
    }

    /// The same with SCRIPT_NAME spelled plainly in the raw path, since gunicorn looks for it there. A client may have
    /// written `/%61pi/` for `/api/`.
    fn spelled(self) -> Self {
        if self.script == 0 || self.raw_script().is_some() {
            return self;
        }
        let script = std::str::from_utf8(&self.target.path()[..self.script]);
        let rest = &self.target.as_str()[self.target.raw_length(self.script)..];
        match script.ok().and_then(|script| joined(script, rest).ok()) {
            Some(target) if target.path() == self.target.path() => Self { target: Cow::Owned(target), ..self },
            _ => self,
        }
    }

    /// SCRIPT_NAME, when the raw path begins with it. gunicorn answers 500 to one that it does not find there.
    fn raw_script(&self) -> Option<&str> {
        if self.script == 0 {
            return None;
        }
        let script = &self.target.path()[..self.script];
        let raw = self.target.raw_path().get(..self.script)?;
        (raw.as_bytes() == script).then_some(raw)
    }
}

/// Whether a path is a prefix itself or below it.
fn is_under(path: &[u8], mount: &str) -> bool {
    path.strip_prefix(mount.as_bytes()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

fn joined(prefix: &str, target: &str) -> Result<Target, Error> {
    let failed = |reason: Reason| Error::new(reason).detail("with the upstream's `prefix` before its path");
    Target::parse(Bytes::from([prefix, target].concat())).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;
    use std::sync::Arc;

    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::super::{Connector, RouteTerms};
    use super::*;
    use crate::config;
    use crate::http::identity::REMOTE_USER;
    use crate::http::{Body, ConnectionInfo, Exchange, Host, Protocol};

    fn outgoing(target: &str, mount: Option<&str>) -> Outgoing {
        let connection = ConnectionInfo::new("443").over_tls(true);
        let host = Host::parse(Bytes::from_static(b"shop.example")).unwrap();
        let exchange =
            Exchange::new(Rc::new(connection), Protocol::Http11, Method::GET, Bytes::new(), Some(host), None);
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("shop.example"));
        let request = Request {
            method: Method::GET,
            target: Target::parse(Bytes::copy_from_slice(target.as_bytes())).unwrap(),
            headers,
            body: Body::Empty,
            exchange: Rc::new(exchange),
            refused: None,
        };
        let terms = RouteTerms { mount: mount.map(Box::from), ..RouteTerms::default() };
        Outgoing { request: Box::new(request), body: None, terms: Rc::new(terms) }
    }

    fn upstream(keys: &str) -> Upstream {
        let text = "upstreams: { app: { endpoints: [\"http://127.0.0.1:1\"] } }\n\
                    sites: [{ routes: [{ path: /, proxy: app }] }]";
        let loaded = config::load_str(text, "hostler.yaml", Path::new("/"), &|_| None).unwrap();
        let mut config = loaded.config.upstreams[0].clone();
        for (key, value) in keys.split_terminator(' ').filter_map(|key| key.split_once('=')) {
            match key {
                "host" => config.host = Some(value.into()),
                "prefix" => config.prefix = Some(value.into()),
                _ => panic!("{key}"),
            }
        }
        let metrics = Metrics::new();
        let connectors =
            config.endpoints.iter().map(|endpoint| Connector::compile(&config, endpoint).unwrap()).collect();
        Upstream::compile(&config, connectors, None, metrics.upstream("app"))
    }

    fn head(protocol: EndpointProtocol, target: &str, mount: Option<&str>, keys: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, protocol, &outgoing(target, mount), &upstream(keys), &Metrics::new()).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_mounted_app_is_told_so_over_http() {
        for (target, mount, keys, line, script, prefix) in [
            ("/api/x?q", Some("/api"), "", "GET /api/x?q ", Some("/api"), Some("/api")),
            ("/api", Some("/api"), "", "GET /api ", Some("/api"), Some("/api")),
            // Another spelling of the same path: gunicorn would not find SCRIPT_NAME in it.
            ("/%61pi/%78?q", Some("/api"), "", "GET /api/%78?q ", Some("/api"), Some("/api")),
            ("/%61pi%2Fx", Some("/api"), "", "GET /api%2Fx ", Some("/api"), Some("/api")),
            ("/apix", Some("/api"), "", "GET /apix ", None, None),
            ("/other", Some("/api"), "", "GET /other ", None, None),
            ("*", Some("/api"), "", "GET * ", None, None),
            ("/x?q", None, "prefix=/stage", "GET /stage/x?q ", None, None),
            ("*", None, "prefix=/stage", "GET * ", None, None),
            ("/api/x", Some("/api"), "prefix=/stage", "GET /stage/api/x ", Some("/stage/api"), Some("/api")),
            ("/x", None, "", "GET /x ", None, None),
        ] {
            let head = head(EndpointProtocol::Http, target, mount, keys);
            assert!(head.starts_with(line), "{head}");
            let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            assert_eq!(
                (field("SCRIPT_NAME"), field("x-forwarded-prefix")),
                (script, prefix),
                "{target} {mount:?} {keys}"
            );
        }
    }

    fn var(name: &str, value: &str) -> String {
        let length = |text: &str| char::from(u8::try_from(text.len()).unwrap());
        format!("{}\0{name}{}\0{value}", length(name), length(value))
    }

    #[test]
    fn a_mounted_app_is_told_so_over_uwsgi() {
        for (target, mount, keys, uri, script, path) in [
            ("/api/x?q", Some("/api"), "", "/api/x?q", "/api", "/x"),
            ("/api", Some("/api"), "", "/api", "/api", ""),
            ("/%61pi/%78", Some("/api"), "", "/%61pi/%78", "/api", "/x"),
            ("/apix", Some("/api"), "", "/apix", "", "/apix"),
            ("*", Some("/api"), "prefix=/stage", "*", "", "*"),
            ("/api/x", Some("/api"), "prefix=/stage", "/stage/api/x", "/stage/api", "/x"),
            ("/x%20y", None, "", "/x%20y", "", "/x y"),
        ] {
            let packet = head(EndpointProtocol::Uwsgi, target, mount, keys);
            for (name, value) in [("REQUEST_URI", uri), ("SCRIPT_NAME", script), ("PATH_INFO", path)] {
                assert!(packet.contains(&var(name, value)), "{name}={value} in {packet:?}");
            }
            let prefix = mount.filter(|_| !script.is_empty()).map(|mount| var("HTTP_X_FORWARDED_PREFIX", mount));
            assert_eq!(packet.contains("X_FORWARDED_PREFIX"), prefix.is_some(), "{packet:?}");
            assert!(prefix.is_none_or(|prefix| packet.contains(&prefix)), "{packet:?}");
        }
    }

    #[test]
    fn the_upstreams_host_is_sent_and_the_clients_is_still_told() {
        let head = super::tests::head(EndpointProtocol::Http, "/", None, "host=api.internal");
        let hosts: Vec<&str> = head.lines().filter(|line| line.contains("host: ")).collect();
        assert_eq!(hosts, ["host: api.internal", "x-forwarded-host: shop.example"]);
        let packet = super::tests::head(EndpointProtocol::Uwsgi, "/", None, "host=api.internal");
        for (name, value) in [("HTTP_HOST", "api.internal"), ("HTTP_X_FORWARDED_HOST", "shop.example")] {
            assert!(packet.contains(&var(name, value)), "{packet:?}");
        }
    }

    #[test]
    fn who_asks_is_told_by_the_edge_alone() {
        let role = HeaderName::from_static("x-role");
        let mut outgoing = outgoing("/", None);
        let names = Arc::from([role.clone()]);
        outgoing.terms = Rc::new(RouteTerms { identity_names: names, ..RouteTerms::default() });
        for name in ["x-role", "remote-user", "x-client-cert-subject", "client-cert", "client-cert-chain"] {
            outgoing.request.headers.append(name, HeaderValue::from_static("forged"));
            outgoing.request.headers.append(name, HeaderValue::from_static("forged"));
        }
        let written = |outgoing: &Outgoing, protocol| {
            let (mut out, metrics) = (Vec::new(), Metrics::new());
            write(&mut out, protocol, outgoing, &upstream(""), &metrics).unwrap();
            String::from_utf8_lossy(&out).into_owned()
        };
        for protocol in [EndpointProtocol::Http, EndpointProtocol::Uwsgi] {
            let text = written(&outgoing, protocol);
            assert!(!text.contains("forged") && !text.contains("REMOTE_USER"), "{text:?}");
        }
        let identity = &outgoing.request.exchange.identity;
        identity.tell(REMOTE_USER, HeaderValue::from_static("ann"));
        identity.tell(role, HeaderValue::from_static("staff"));
        let (head, packet) = (written(&outgoing, EndpointProtocol::Http), written(&outgoing, EndpointProtocol::Uwsgi));
        assert!(head.contains("\r\nremote-user: ann\r\nx-role: staff\r\n") && !head.contains("forged"), "{head}");
        for (name, value) in [("REMOTE_USER", "ann"), ("HTTP_REMOTE_USER", "ann"), ("HTTP_X_ROLE", "staff")] {
            assert!(packet.contains(&var(name, value)), "{name} in {packet:?}");
        }
        assert!(!packet.contains("forged"), "{packet:?}");
    }

    #[test]
    fn both_protocols_tell_the_same_truth() {
        let (outgoing, upstream, metrics) = (outgoing("/", None), upstream(""), Metrics::new());
        let written = |protocol| {
            let mut out = Vec::new();
            write(&mut out, protocol, &outgoing, &upstream, &metrics).unwrap();
            String::from_utf8_lossy(&out).into_owned()
        };
        let (head, packet) = (written(EndpointProtocol::Http), written(EndpointProtocol::Uwsgi));
        let mut told = 0;
        for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
            let name = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
            assert!(packet.contains(&var(&name, value)), "{name}={value} in {packet:?}");
            told += 1;
        }
        assert_eq!(told, 5, "host, proto, host, port, start: {head}");
    }
}
