//! `sites`: hosts, and the routes under them.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use super::{Given, routes};
use crate::config::decode::{Decoder, Section};
use crate::config::node::{Entry, Node, Span};
use crate::config::report::quoted;
use crate::config::values::Fault;
use crate::config::{Action, ErrorPage, Files, HostPattern, Route, Sendfile, Site, page, punycode};

/// A site and its places.
pub(in crate::config) struct SiteDraft {
    pub(in crate::config) name: String,
    /// The place of the site as a whole.
    pub(in crate::config) span: Span,
    pub(in crate::config) hosts: Vec<(HostPattern, Span)>,
    /// Whether `hosts` is absent: a site with a wrong host is not a site for all of them.
    pub(in crate::config) any_host: bool,
    /// The place of `default: true`.
    pub(in crate::config) default: Option<Span>,
    pub(in crate::config) error_pages: Vec<ErrorPage>,
    pub(in crate::config) routes: Vec<RouteDraft>,
}

/// A route, the place of its path, and others in it.
pub(in crate::config) struct RouteDraft {
    pub(in crate::config) route: Route,
    pub(in crate::config) span: Span,
    /// Of its `files.root`.
    pub(in crate::config) root: Option<Span>,
    /// Of each of its `sendfile.roots`.
    pub(in crate::config) sendfile_roots: Vec<Span>,
    pub(in crate::config) places: RoutePlaces,
}

/// Where a route says what can be wrong together with other routes or its site. Names of fields are in lower case.
#[derive(Debug, Default)]
pub(in crate::config) struct RoutePlaces {
    /// `redirect.to`
    pub(in crate::config) redirect_to: Option<Span>,
    /// `websocket`
    pub(in crate::config) websocket: Option<Span>,
    /// `cache.by`
    pub(in crate::config) cache_by: Option<Span>,
    /// `cache`
    pub(in crate::config) cache: Option<Span>,
    /// Fields that only the edge may send.
    pub(in crate::config) of_the_edge: Vec<(String, Span)>,
    /// Fields that are set on requests.
    pub(in crate::config) set: Vec<(String, Span)>,
    /// Fields that requests are asked for.
    pub(in crate::config) asked: Vec<(String, Span)>,
}

impl SiteDraft {
    /// The folders whose files are served, whether each may be a file itself, and where it is written.
    pub(super) fn roots(&self) -> impl Iterator<Item = (Files, bool, Span)> {
        let served = self.routes.iter().filter_map(|RouteDraft { route, root, .. }| match (&route.action, root) {
            (Action::Files(files), Some(span)) => Some((files.clone(), route.path.is_exact(), span.clone())),
            _ => None,
        });
        let sent = self.routes.iter().flat_map(|draft| {
            let files = draft.route.sendfile.iter().flat_map(Sendfile::files);
            files.zip(&draft.sendfile_roots).map(|(files, span)| (files, false, span.clone()))
        });
        served.chain(sent)
    }

    /// Without the places.
    pub(in crate::config) fn into_site(self) -> Site {
        Site {
            name: self.name,
            hosts: self.hosts.into_iter().map(|(host, _)| host).collect(),
            default: self.default.is_some(),
            error_pages: self.error_pages,
            routes: self.routes.into_iter().map(|draft| draft.route).collect(),
        }
    }
}

pub(super) static SITE: Section = Section {
    name: "sites[]",
    keys: &["hosts", "default", "error_pages", "routes"],
    later: &[],
    elsewhere: &[
        ("default_server", "default"),
        ("error_page", "error_pages"),
        ("host", "hosts"),
        ("server_name", "hosts"),
        ("location", "routes"),
        ("locations", "routes"),
        ("paths", "routes"),
    ],
};

/// All sites. At least one is needed: without it every request would be refused.
pub(super) fn decode(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Vec<SiteDraft> {
    let items = decoder.list("sites", node).unwrap_or_default();
    items.iter().filter_map(|item| site(decoder, item, given)).collect()
}

fn site(decoder: &mut Decoder<'_>, node: &Node, given: &Given<'_>) -> Option<SiteDraft> {
    let fields = decoder.fields(node, &SITE)?;
    let mut name = String::from("any");
    let mut hosts = Vec::new();
    if let Some(node) = fields.get("hosts") {
        let items = decoder.list("hosts", node).unwrap_or_default();
        let read = items.iter().filter_map(|item| host(decoder, item)).collect::<Vec<_>>();
        if let Some((written, ..)) = read.first() {
            name.clone_from(written);
        }
        hosts = read.into_iter().map(|(_, pattern, span)| (pattern, span)).collect();
    }
    let default = fields.entry("default").and_then(|entry| {
        let is_default = decoder.boolean("default", &entry.value)?;
        is_default.then(|| entry.key.span.clone())
    });
    let error_pages = fields.get("error_pages").map_or_else(Vec::new, |node| error_pages(decoder, node));
    let routes = match fields.required(decoder, "routes", "write routes: [{ path: /, proxy: app }]") {
        Some(node) => decoder.list("routes", node).unwrap_or_default(),
        None => &[],
    };
    let routes = routes.iter().filter_map(|item| routes::decode(decoder, item, given)).collect();
    let any_host = fields.get("hosts").is_none();
    Some(SiteDraft { name, span: fields.span.clone(), hosts, any_host, default, error_pages, routes })
}

/// Pages by status and by class. A single status comes first, whatever the order written.
fn error_pages(decoder: &mut Decoder<'_>, node: &Node) -> Vec<ErrorPage> {
    let entries = decoder.mapping("error_pages", node, "error_pages: { 502: ./502.html, 5xx: ./error.html }");
    let mut page = |entry: &Entry| {
        let statuses = decoder.fault(&entry.key.span, statuses(&entry.key.text));
        let file = decoder.path("error_pages", &entry.value)?;
        let body = decoder.fault(&entry.value.span, page::read(&file))?;
        Some(ErrorPage { statuses: statuses?, file, body })
    };
    let mut pages: Vec<ErrorPage> = entries.unwrap_or_default().iter().filter_map(&mut page).collect();
    pages.sort_by_key(|page| page.statuses.start() != page.statuses.end());
    pages
}

/// `502`, or `5xx` for the whole class.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    match text {
        "4xx" | "4XX" => return Ok(400..=499),
        "5xx" | "5XX" => return Ok(500..=599),
        _ => {}
    }
    let status = text.parse::<u16>().ok().filter(|status| (400..=599).contains(status) && text.len() == 3);
    status.map(|status| status..=status).ok_or_else(|| {
        let message = format!("{} is not the status of an error", quoted(text));
        Fault::new(
            message,
            "write 400 to 599, or 4xx or 5xx for a whole class; what an app answers itself is left alone",
        )
    })
}

/// Paths that are answered for any Host.
pub(super) fn probe_paths(decoder: &mut Decoder<'_>, node: &Node) -> Vec<(String, Span)> {
    let items = decoder.list("probe_paths", node).unwrap_or_default();
    let mut path = |item: &Node| {
        let text = decoder.scalar("probe_paths", item, "a path")?;
        decoder.fault(&item.span, routes::check_path(&text))?;
        Some((text, item.span.clone()))
    };
    items.iter().filter_map(&mut path).collect()
}

/// The host as written, as compared, and where.
fn host(decoder: &mut Decoder<'_>, node: &Node) -> Option<(String, HostPattern, Span)> {
    let text = decoder.scalar("hosts", node, "a host")?;
    let pattern = decoder.fault(&node.span, host_pattern(&text))?;
    Some((text, pattern, node.span.clone()))
}

/// Reads `shop.example`, `*.shop.example`, `10.0.0.1` or `[::1]`.
fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    let fault = |message: &str, help: &str| Fault::new(format!("{} {message}", quoted(text)), help);
    if text.is_empty() {
        return Err(Fault::new("an empty host", "write a name, or leave `hosts` out to serve any host"));
    }
    if !text.is_ascii() {
        let help = match punycode::to_ascii(text) {
            Some(name) => format!("write the name as browsers send it: {name}"),
            None => "write the name as browsers send it, in its xn-- form: python3 -c 'import idna; print(idna.encode(\"...\").decode())'".into(),
        };
        return Err(fault("is not written in ASCII", &help));
    }
    let lower = text.to_ascii_lowercase();
    if let Some((scheme, rest)) = lower.split_once("://") {
        return Err(fault(
            &format!("begins with {scheme}://"),
            &format!("write the host alone: {}", rest.trim_end_matches('/')),
        ));
    }
    if let Some(literal) = lower.strip_prefix('[') {
        let address = literal.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        let address = address
            .ok_or_else(|| fault("is not an IPv6 address", "write it like \"[2001:db8::1]\", without a port"))?;
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    if let Ok(address) = lower.parse::<Ipv6Addr>() {
        return Err(fault("has no brackets", &format!("write \"[{address}]\"")));
    }
    if let Some((name, port)) = lower.split_once(':') {
        let help = format!("write {name}: a site is served on every listener, whatever the port (`{port}`)");
        return Err(fault("has a port", &help));
    }
    if lower == "*" {
        return Err(fault("is not a host", "leave `hosts` out to serve any host"));
    }
    if let Some(name) = lower.strip_suffix('.') {
        return Err(fault("ends with a dot", &format!("write {name}; clients that send the dot are served as well")));
    }
    let (name, is_wildcard) = match lower.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (lower.as_str(), false),
    };
    if name.contains('*') {
        return Err(fault(
            "has its * in the wrong place",
            "only a whole first label can be a wildcard: \"*.shop.example\"",
        ));
    }
    if let Some(name) = name.strip_prefix('.') {
        return Err(fault("begins with a dot", &format!("write both: {name} and \"*.{name}\"")));
    }
    check_labels(name).map_err(|what| fault(&what, "a host is made of letters, digits and `-`, with dots between"))?;
    if is_wildcard { Ok(HostPattern::Wildcard(format!(".{name}"))) } else { Ok(HostPattern::Exact(lower)) }
}

/// What is wrong with a name, if anything.
fn check_labels(name: &str) -> Result<(), String> {
    if name.len() > 253 {
        return Err("is longer than a host can be (253 characters)".into());
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err("has nothing between two dots".into());
        }
        if label.len() > 63 {
            return Err("has a part of more than 63 characters".into());
        }
        if let Some(c) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            return Err(format!("is not a host: {} cannot be part of one", quoted(&c.to_string())));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("has a part that begins or ends with `-`".into());
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_in_one_form() {
        let exact = |text: &str| Ok(HostPattern::Exact(text.into()));
        assert_eq!(host_pattern("Shop.Example"), exact("shop.example"));
        assert_eq!(host_pattern("localhost"), exact("localhost"));
        assert_eq!(host_pattern("10.0.0.1"), exact("10.0.0.1"));
        assert_eq!(host_pattern("[2001:DB8:0::1]"), exact("[2001:db8::1]"));
        assert_eq!(host_pattern("xn--caf-dma.example"), exact("xn--caf-dma.example"));
        assert_eq!(host_pattern("*.Shop.example"), Ok(HostPattern::Wildcard(".shop.example".into())));
    }

    #[test]
    fn a_host_outside_ascii_is_told_as_browsers_send_it() {
        let help = |text: &str| host_pattern(text).unwrap_err().help;
        assert_eq!(help("café.example"), "write the name as browsers send it: xn--caf-dma.example");
        assert_eq!(help("*.Bücher.example"), "write the name as browsers send it: *.xn--bcher-kva.example");
        assert!(help("straße.example").contains("in its xn-- form"));
    }

    #[test]
    fn a_page_has_a_status_or_a_class() {
        for (text, range) in [("502", 502..=502), ("400", 400..=400), ("5xx", 500..=599), ("4XX", 400..=499)] {
            assert_eq!(statuses(text), Ok(range), "{text}");
        }
        for text in ["", "200", "3xx", "600", "5x", "50x", "0502", "+502", "error", "502 503"] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_no_client_can_send_is_refused() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127) + "a";
        for text in [
            "",
            "*",
            "*.",
            ".shop.example",
            "shop.example.",
            "shop.example:443",
            "https://shop.example",
            "a..b",
            "*shop.example",
            "a.*.b",
            "*.*.b",
            "café.example",
            "a b",
            "a/b",
            "-a.example",
            "a-.example",
            "::1",
            "[::1]:80",
            "[nope]",
            &long_label,
            &long_name,
        ] {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }
}
