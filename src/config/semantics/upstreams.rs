//! Checks within one upstream, across its keys and endpoints.

use crate::config::decode::Decoder;
use crate::config::node::Span;
use crate::config::report::{Finding, counted, quoted};
use crate::config::schema::{EndpointDraft, UpstreamDraft, is_server_name};
use crate::config::{ClientAddress, EndpointProtocol, Place, Upstream, Workers};

/// What cannot work.
pub(super) fn refuse(decoder: &mut Decoder<'_>, draft: &UpstreamDraft) {
    only_backups(decoder, draft);
    let Some(upstream) = &draft.upstream else { return };
    proxy_header_before_http2(decoder, draft, upstream);
    names_without_certificate(decoder, draft, upstream);
}

/// What works, but hardly as it was meant. For an upstream without errors.
pub(super) fn hint(decoder: &mut Decoder<'_>, draft: &UpstreamDraft) {
    let Some(upstream) = &draft.upstream else { return };
    sections_of_other_protocols(decoder, draft);
    streams_beyond_workers(decoder, draft, upstream);
    endpoints_beyond_workers(decoder, draft, upstream);
}

fn speaking(draft: &UpstreamDraft, protocol: EndpointProtocol) -> impl Iterator<Item = &EndpointDraft> {
    draft.endpoints.iter().filter(move |draft| draft.endpoint.address.protocol == protocol)
}

/// A backup stands in for an endpoint that is none.
fn only_backups(decoder: &mut Decoder<'_>, draft: &UpstreamDraft) {
    let is_certain = draft.endpoints_are_whole && draft.endpoints.iter().all(|draft| draft.endpoint.backup);
    let Some(at) = draft.endpoints.first().and_then(|draft| draft.backup.as_ref()).filter(|_| is_certain) else {
        return;
    };
    decoder
        .error(at, format!("every endpoint of {} is a backup", quoted(&draft.name)))
        .help("a backup is used only while no other endpoint can be: leave `backup` out of at least one");
}

/// The PROXY protocol tells of one client per connection.
fn proxy_header_before_http2(decoder: &mut Decoder<'_>, draft: &UpstreamDraft, upstream: &Upstream) {
    let Some(at) = &draft.places.client_address else { return };
    let Some(h2c) = speaking(draft, EndpointProtocol::H2c).next() else { return };
    if upstream.client_address == ClientAddress::Headers {
        return;
    }
    decoder
        .error(at, "the PROXY protocol cannot be spoken to an h2c:// endpoint")
        .also(&h2c.span, "one connection to it carries the requests of many clients")
        .help("write client_address: headers, or http:// for this endpoint");
}

/// A certificate is verified against a name that it can hold.
fn names_without_certificate(decoder: &mut Decoder<'_>, draft: &UpstreamDraft, upstream: &Upstream) {
    if upstream.tls.server_name.is_some() {
        return;
    }
    for endpoint in speaking(draft, EndpointProtocol::Https) {
        let Place::Tcp { host, .. } = &endpoint.endpoint.address.place else { continue };
        if !is_server_name(host) {
            decoder
                .error(&endpoint.span, format!("{} cannot be the name in a certificate", quoted(host)))
                .help("write the name that the certificate has: tls: { server_name: api.internal }");
        }
    }
}

fn sections_of_other_protocols(decoder: &mut Decoder<'_>, draft: &UpstreamDraft) {
    let places = &draft.places;
    let speaks = |protocol| speaking(draft, protocol).next().is_some();
    if let Some(at) = places.tls.as_ref().filter(|_| !speaks(EndpointProtocol::Https)) {
        let message = format!("`tls` says nothing here: {} has no https:// endpoint", quoted(&draft.name));
        decoder.warning(at, message).help("write https:// before the address, or take `tls` out");
    }
    if let Some(at) = places.uwsgi.as_ref().filter(|_| !speaks(EndpointProtocol::Uwsgi)) {
        let message = format!("`uwsgi` says nothing here: {} has no uwsgi endpoint", quoted(&draft.name));
        decoder.warning(at, message).help("write uwsgi://10.0.0.6:3031 or uwsgi+unix:/run/uwsgi.sock, or take it out");
    }
    let are_uwsgi = speaking(draft, EndpointProtocol::Uwsgi).count() == draft.endpoints.len();
    if let Some(at) = places.client_address.as_ref().filter(|_| are_uwsgi) {
        decoder
            .warning(at, "`client_address` says nothing to uwsgi endpoints: they always get REMOTE_ADDR")
            .help("take it out");
    }
}

fn streams_beyond_workers(decoder: &mut Decoder<'_>, draft: &UpstreamDraft, upstream: &Upstream) {
    let (Some(at), Some(slots)) = (&draft.places.streaming_max, upstream.workers.slots()) else { return };
    let max = upstream.streaming_max;
    if max > slots {
        let message = format!("`streaming.max` is {max}, but {} has {}", quoted(&draft.name), said(slots));
        also_workers(decoder.warning(at, message), draft.places.workers.as_ref())
            .help("write fewer than there are workers, so that streams leave some for ordinary pages");
    }
}

fn endpoints_beyond_workers(decoder: &mut Decoder<'_>, draft: &UpstreamDraft, upstream: &Upstream) {
    let Workers::Count(slots) = upstream.workers else { return };
    for endpoint in &draft.endpoints {
        let (Some(at), Some(workers)) = (&endpoint.workers, endpoint.endpoint.workers) else { continue };
        if workers > slots {
            let message = format!("this endpoint has {}, but {} only {slots}", said(workers), quoted(&draft.name));
            also_workers(decoder.warning(at, message), draft.places.workers.as_ref()).help(
                "both hold, so the endpoint is never full: `workers` of an upstream counts all its endpoints together",
            );
        }
    }
}

fn said(workers: u32) -> String {
    counted(usize::try_from(workers).unwrap_or(usize::MAX), "worker")
}

fn also_workers<'f>(finding: &'f mut Finding, at: Option<&Span>) -> &'f mut Finding {
    match at {
        Some(at) => finding.also(at, "the workers"),
        None => finding,
    }
}
