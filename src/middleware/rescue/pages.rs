//! `error_pages`: an operator's pages instead of our own, for browsers.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::config::ErrorPage;

/// The pages of one site.
#[derive(Debug, Default)]
pub struct ErrorPages(Vec<(std::ops::RangeInclusive<u16>, Page)>);

/// A page, and what it is.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) media_type: HeaderValue,
    pub(super) body: Bytes,
}

impl ErrorPages {
    /// Pages in the order in which they are looked for.
    #[must_use]
    pub fn compile(pages: &[ErrorPage]) -> Self {
        // In another encoding the page says itself which.
        let media_type = |body: &[u8]| match std::str::from_utf8(body) {
            Ok(_) => HeaderValue::from_static("text/html; charset=utf-8"),
            Err(_) => HeaderValue::from_static("text/html"),
        };
        let page = |page: &ErrorPage| Page { media_type: media_type(&page.body), body: page.body.clone() };
        Self(pages.iter().map(|of| (of.statuses.clone(), page(of))).collect())
    }

    pub(super) fn of(&self, status: StatusCode) -> Option<&Page> {
        self.0.iter().find(|(statuses, _)| statuses.contains(&status.as_u16())).map(|(_, page)| page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_page_that_has_the_status_is_taken() {
        let page =
            |statuses, body: &'static [u8]| ErrorPage { statuses, file: "p".into(), body: Bytes::from_static(body) };
        let pages = ErrorPages::compile(&[page(502..=502, b"gone"), page(500..=599, b"caf\xe9")]);
        let told =
            |status| pages.of(StatusCode::from_u16(status).unwrap()).map(|page| (&page.body[..], &page.media_type));
        let (utf8, other) =
            (HeaderValue::from_static("text/html; charset=utf-8"), HeaderValue::from_static("text/html"));
        assert_eq!(told(502), Some((&b"gone"[..], &utf8)));
        assert_eq!(told(503), Some((&b"caf\xe9"[..], &other)));
        assert_eq!(told(404), None);
    }
}
