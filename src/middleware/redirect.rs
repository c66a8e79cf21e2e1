//! `redirect` to a target that each request fills in: see [`Template`] for what can stand in it.
//!
//! What comes from the request is kept to its place. A path and a query are told as they were received, which is printable
//! ASCII without `#` (see [`crate::http::Target`]); a group of `path_regex` has matched the decoded path and is encoded again,
//! so that no `?`, `#`, `%` or line end in it means anything. A target that would begin with `//`, another host to browsers,
//! is refused with 400 `bad_target`.

use http::{HeaderValue, StatusCode, header};

use crate::config::{Part, PathPattern, PathRegex, Template, Within};
use crate::error::{Error, Reason};
use crate::http::{Body, Request, Response, Service};

/// A redirect of one route.
#[derive(Debug, Clone)]
pub struct Redirect {
    to: Template,
    status: StatusCode,
    /// The route's pattern, when the target has one of its groups.
    groups: Option<PathRegex>,
}

impl Redirect {
    /// `None` when the status is none, which the configuration has refused before.
    #[must_use]
    pub fn compile(to: &Template, status: u16, path: &PathPattern) -> Option<Self> {
        let has_groups = to.parts().iter().any(|part| matches!(part, Part::Group(..)));
        let groups = match path {
            PathPattern::Regex(regex) if has_groups => Some(regex.clone()),
            _ => None,
        };
        Some(Self { to: to.clone(), status: StatusCode::from_u16(status).ok()?, groups })
    }

    fn location(&self, request: &Request) -> Result<Vec<u8>, Error> {
        let Request { target, exchange, .. } = request;
        // `OPTIONS *` has no path.
        let (path, raw_path) =
            if target.path() == b"*" { (&b"/"[..], "/") } else { (target.path(), target.raw_path()) };
        let captures = self.groups.as_ref().and_then(|regex| regex.captures(path));
        let mut out = Vec::with_capacity(128);
        for part in self.to.parts() {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Scheme => out.extend_from_slice(exchange.scheme().as_str().as_bytes()),
                Part::Host => {
                    let host = exchange.host.as_ref().ok_or(Error::new(Reason::MissingHost))?;
                    out.extend_from_slice(host.name().as_bytes());
                }
                Part::Path(Within::Path) => out.extend_from_slice(raw_path.as_bytes()),
                Part::Path(Within::Query) => append_encoded(&mut out, path, Within::Query),
                Part::Query(within) => append_query(&mut out, target.query_with_mark(), *within),
                Part::Group(number, within) => {
                    let group = captures.as_ref().and_then(|captures| captures.get(*number));
                    append_encoded(&mut out, group.map_or(&b""[..], |group| group.as_bytes()), *within);
                }
            }
        }
        if out.starts_with(b"//") {
            return Err(
                Error::new(Reason::BadTarget).detail("the redirect would lead to another host: it begins with `//`")
            );
        }
        if self.groups.is_some() && has_dot_segment(&out) {
            return Err(Error::new(Reason::BadTarget).detail("the redirect would lead out of its folder: it has `..`"));
        }
        Ok(out)
    }
}

/// Whether the path of a target has a segment that a client resolves: a group can end in one.
fn has_dot_segment(target: &[u8]) -> bool {
    let path = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    path.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b".."))
}

/// Nothing is appended for an empty query, and no mark where the target has written one.
fn append_query(out: &mut Vec<u8>, query: &str, within: Within) {
    let Some(query) = query.strip_prefix('?').filter(|query| !query.is_empty()) else { return };
    match within {
        Within::Path => out.push(b'?'),
        Within::Query if out.ends_with(b"?") || out.ends_with(b"&") => {}
        Within::Query => out.push(b'&'),
    }
    out.extend_from_slice(query.as_bytes());
}

/// Percent-encodes what means something where it stands (RFC 3986, 3.3 and 3.4; in a query also what forms read).
fn append_encoded(out: &mut Vec<u8>, text: &[u8], within: Within) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let more: &[u8] = match within {
        Within::Path => b"/-._~!$&'()*+,;=:@",
        Within::Query => b"/-._~",
    };
    for byte in text {
        if byte.is_ascii_alphanumeric() || more.contains(byte) {
            out.push(*byte);
        } else {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
}

impl Service for Redirect {
    type Error = Error;

    async fn call(&self, request: Box<Request>) -> Result<Response, Error> {
        let location = HeaderValue::try_from(self.location(&request)?).map_err(|_| Error::new(Reason::BadTarget))?;
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::LOCATION, location);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::*;
    use crate::config;
    use crate::http::{ConnectionInfo, Exchange, Host, Protocol, Target};

    fn redirect(path: &str, to: &str) -> Redirect {
        let text = format!("sites: [{{ routes: [{{ {path}, redirect: {{ to: \"{to}\" }} }}] }}]");
        let loaded =
            config::load_str(&text, "f", Path::new("/"), &|_| None).unwrap_or_else(|report| panic!("{report}"));
        let route = &loaded.config.sites[0].routes[0];
        let config::Action::Redirect { to, status } = &route.action else { panic!() };
        Redirect::compile(to, *status, &route.path).unwrap()
    }

    fn request(host: Option<&'static str>, target: &str) -> Option<Request> {
        let connection = Rc::new(ConnectionInfo::new("443").over_tls(true));
        let host = host.map(|host| Host::parse(Bytes::from_static(host.as_bytes())).unwrap());
        let target = Target::parse(Bytes::copy_from_slice(target.as_bytes())).ok()?;
        let exchange = Exchange::new(connection, Protocol::Http11, Method::GET, target.bytes(), host, None);
        let (headers, exchange) = (HeaderMap::new(), Rc::new(exchange));
        Some(Request { method: Method::GET, target, headers, body: Body::Empty, exchange, refused: None })
    }

    fn led(redirect: &Redirect, request: &Request) -> Result<String, Reason> {
        let location = redirect.location(request).map_err(|error| error.reason)?;
        Ok(String::from_utf8(location).unwrap())
    }

    #[test]
    fn a_group_does_not_lead_out_of_its_folder() {
        let redirect = redirect("path_regex: '^/x(.*)$'", "/public/{1}");
        assert_eq!(led(&redirect, &request(None, "/xa..b").unwrap()).as_deref(), Ok("/public/a..b"));
        assert_eq!(led(&redirect, &request(None, "/x../private").unwrap()), Err(Reason::BadTarget));
    }

    #[test]
    fn a_target_is_filled_from_the_request() {
        const NUMBERED: &str = "path_regex: '^/p/([0-9]+)/(?P<slug>.*)$'";
        for (path, to, target, location) in [
            ("path: /", "https://{host}{path}{query}", "/a%20b?x=1", "https://Shop.Example/a%20b?x=1"),
            ("path: /", "{scheme}://www.{host}:8443{path}", "/a?x", "https://www.Shop.Example:8443/a"),
            ("path: /", "/new{query}", "/old?a=b&c", "/new?a=b&c"),
            ("path: /", "/new{query}", "/old", "/new"),
            ("path: /", "/new{query}", "/old?", "/new"),
            ("path: /", "/new?v=2{query}", "/old?a=b", "/new?v=2&a=b"),
            ("path: /", "/new?v=2{query}", "/old", "/new?v=2"),
            ("path: /", "/new?{query}", "/old?a=b", "/new?a=b"),
            ("path: /", "/new?v=2&{query}", "/old?a=b", "/new?v=2&a=b"),
            ("path: /", "/login?next={path}", "/a&b=c%26", "/login?next=/a%26b%3Dc%26"),
            ("path: /", "{path}.html", "/a", "/a.html"),
            ("path: /", "https://shop.example{path}", "*", "https://shop.example/"),
            (NUMBERED, "/items/{1}?name={slug}", "/p/12/a%20b%26c", "/items/12?name=a%20b%26c"),
            (NUMBERED, "/{2}/{1}", "/p/12/x;y=z", "/x;y=z/12"),
            (NUMBERED, "/items/{2}", "/p/12/%0D%0ASet-Cookie:%20a=b", "/items/%0D%0ASet-Cookie:%20a=b"),
            (NUMBERED, "/items/{2}", "/p/12/a%3Fb%23c%25d", "/items/a%3Fb%23c%25d"),
            (NUMBERED, "/items/{2}", "/p/12/caf%C3%A9", "/items/caf%C3%A9"),
            ("path_regex: '^/(a)|^/(b)'", "/x{1}{2}", "/b", "/xb"),
        ] {
            let request = request(Some("Shop.Example.:443"), target).unwrap();
            assert_eq!(led(&redirect(path, to), &request).as_deref(), Ok(location), "{to} {target}");
        }
    }

    #[test]
    fn no_path_leads_to_another_host() {
        for (path, to, target) in [
            ("path: /", "{path}", "//evil.example/"),
            ("path_regex: '^/out/(.*)$'", "/{1}", "/out//evil.example"),
            ("path_regex: '^/out/(.*)$'", "/{1}", "/out/%2Fevil.example"),
        ] {
            let request = request(Some("shop.example"), target).unwrap();
            assert_eq!(led(&redirect(path, to), &request), Err(Reason::BadTarget), "{to} {target}");
        }
        let without_host = request(None, "/").unwrap();
        assert_eq!(led(&redirect("path: /", "https://{host}/"), &without_host), Err(Reason::MissingHost));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_in_a_request_breaks_out_of_its_place(rest in "(%[0-9A-F]{2}|[!-~]){0,20}", query in "[!-~]{0,10}") {
            let Some(request) = request(Some("shop.example"), &format!("/out/{rest}?{query}")) else { return Ok(()) };
            let path = "path_regex: '^/out/(.*)$'";
            for to in ["/{1}", "{path}{query}", "https://shop.example/{1}?a={1}&p={path}{query}"] {
                let Ok(location) = led(&redirect(path, to), &request) else { continue };
                prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
                prop_assert!(!location.split('?').next().unwrap().contains('\\'), "{}", location);
                prop_assert!(location.starts_with("https://shop.example/") || !location.starts_with("//"), "{}", location);
                prop_assert!(HeaderValue::from_str(&location).is_ok());
            }
            let filled = led(&redirect(path, "/a/{1}?n={1}"), &request).unwrap();
            prop_assert_eq!(filled.matches(['?', '#']).count(), 1, "{}", filled);
        }
    }
}
