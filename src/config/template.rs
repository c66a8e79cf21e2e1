//! `redirect.to`: where to, with places that each request fills.
//!
//! | in the text | stands for |
//! |---|---|
//! | `{scheme}` | `https` or `http`, as the client speaks |
//! | `{host}` | the request's Host, without its port |
//! | `{path}` | its path as received, from the first slash on |
//! | `{query}` | its query with the `?` before it, or nothing; with `&` instead where the text has a `?` of its own |
//! | `{1}`, `{slug}` | what a group of `path_regex` has matched, by its number or name; nothing if it has taken no part |
//!
//! A request chooses what follows the host, and not the host itself: there nothing may stand but `{host}`, which one of the
//! site's names has answered to. On a site for any host it is whatever the client says. No URL holds a brace as it is, so that braces need no escape.

use super::PathPattern;
use super::report::quoted;
use super::values::{Fault, nearest, whole_number};

/// A target, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// A piece of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As written.
    Text(String),
    /// The scheme that the client speaks.
    Scheme,
    /// The request's Host, without port.
    Host,
    /// The request's path.
    Path(Within),
    /// The request's query.
    Query(Within),
    /// What the group with this number has matched, from 1.
    Group(usize, Within),
}

/// Where in a target a piece stands: what is a delimiter there differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Before any `?` and `#`.
    Path,
    /// After one of them.
    Query,
}

const NAMES: [&str; 4] = ["scheme", "host", "path", "query"];

impl Template {
    /// Reads the target of a route with this path; `None`: it could not be read, and nothing is said of its groups.
    pub(super) fn parse(text: &str, path: Option<&PathPattern>) -> Result<Self, Fault> {
        check_characters(text)?;
        check_beginning(text)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let inside = from.strip_prefix('{').and_then(|from| from.split_once('}'));
            let Some((name, after)) = inside else {
                return Err(Fault::new(
                    format!("{} has a brace without the other one", quoted(text)),
                    "write {path}; a brace that stands for itself is %7B or %7D in a URL",
                ));
            };
            let written = &text[..text.len() - from.len()];
            let within = if written.contains(['?', '#']) { Within::Query } else { Within::Path };
            parts.push(placeholder(name, within, path)?);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Its pieces, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether it leads to a host that the request names.
    pub(super) fn leads_to_named_host(&self) -> bool {
        let mut before = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => before.push_str(text),
                Part::Scheme => before.push_str("https"),
                // It may stand in a path or a query as well.
                Part::Host => {
                    let authority = before.split_once("://").map(|(_, authority)| authority);
                    return authority.is_some_and(|authority| !authority.contains(['/', '?', '#']));
                }
                Part::Path(_) | Part::Query(_) | Part::Group(..) => return false,
            }
        }
        false
    }

    /// The whole, when it is the same for every request.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

fn placeholder(name: &str, within: Within, path: Option<&PathPattern>) -> Result<Part, Fault> {
    if let Some(PathPattern::Regex(regex)) = path
        && NAMES.contains(&name)
        && regex.group(name).is_some()
    {
        return Err(Fault::new(
            format!("{{{name}}} is a part of the request and a group of `path_regex`"),
            "give the group another name",
        ));
    }
    Ok(match name {
        "scheme" => Part::Scheme,
        "host" => Part::Host,
        "path" => Part::Path(within),
        "query" => Part::Query(within),
        _ => Part::Group(group(name, path)?, within),
    })
}

/// The number of a group.
fn group(name: &str, path: Option<&PathPattern>) -> Result<usize, Fault> {
    let number = whole_number(name).ok().and_then(|number| usize::try_from(number).ok());
    let regex = match path {
        None => return Ok(0),
        Some(PathPattern::Regex(regex)) => Some(regex),
        Some(_) => None,
    };
    let named = regex.and_then(|regex| regex.group(name));
    let known = number.filter(|number| (1..=regex.map_or(0, |regex| regex.groups())).contains(number)).or(named);
    known.ok_or_else(|| {
        let groups = regex.map_or(0, |regex| regex.groups());
        let message = format!("{{{name}}} stands for nothing");
        let help = match (number, regex) {
            (Some(_), None) => {
                "numbers stand for the groups of `path_regex`, which this route does not have".to_owned()
            }
            (Some(_), Some(_)) => format!("`path_regex` has {}", super::report::counted(groups, "group")),
            (None, _) => unknown(name, regex.into_iter().flat_map(|regex| regex.names().map(|(name, _)| name))),
        };
        Fault::new(message, help)
    })
}

fn unknown<'a>(name: &str, groups: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = NAMES.into_iter().chain(groups).collect();
    match nearest(name, all.iter().copied()) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => format!("it can be {}", all.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ")),
    }
}

/// What may stand in `Location`.
fn check_characters(to: &str) -> Result<(), Fault> {
    let Some(bad) = to.chars().find(|c| !c.is_ascii_graphic()) else { return Ok(()) };
    let encoded: String = bad.to_string().bytes().map(|b| format!("%{b:02X}")).collect();
    let message = format!("{} cannot stand in a Location header as it is", quoted(to));
    Err(Fault::new(message, format!("percent-encode it: write {encoded} for it")))
}

/// A path of this host or a whole URL, whose host the operator has chosen.
fn check_beginning(to: &str) -> Result<(), Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(to)), help));
    if to.starts_with("//") {
        return fault("leads to another host", "write https:// before it, or one slash for a path of this host");
    }
    let after_scheme = ["https://", "http://", "{scheme}://"].iter().find_map(|scheme| to.strip_prefix(scheme));
    let Some(rest) = after_scheme else {
        return if to.starts_with('/') || to.starts_with("{path}") {
            Ok(())
        } else {
            fault("is neither a path nor a URL", "write /new, or https://shop.example/new")
        };
    };
    let ends = [rest.find(['/', '?', '#']), rest.find("{path}"), rest.find("{query}")];
    let authority = &rest[..ends.into_iter().flatten().min().unwrap_or(rest.len())];
    if authority.is_empty() {
        return fault("has no host", "write https://shop.example/new");
    }
    let fixed = authority.replacen("{host}", "", 1);
    if fixed.contains(['{', '}']) {
        return fault(
            "lets a request choose the host that it leads to",
            "nothing but {host} can stand there; write a `/` after the host, before what the request fills in",
        );
    }
    if authority.starts_with("{host}") && !(fixed.is_empty() || fixed.starts_with(':')) {
        return fault("has something of its own after {host}", "write a `/` after it, or a port: {host}:8443");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::path_regex::PathRegex;
    use super::*;

    fn parse(text: &str) -> Result<Template, Fault> {
        let regex = PathRegex::parse("^/(\\d+)/(?P<slug>[^/]+)").unwrap();
        Template::parse(text, Some(&PathPattern::Regex(regex)))
    }

    #[test]
    fn a_group_with_the_name_of_a_part_of_the_request_is_refused() {
        let regex = PathRegex::parse("^/(?P<path>[a-z]+)/old").unwrap();
        let parsed = Template::parse("/new/{path}", Some(&PathPattern::Regex(regex)));
        assert_eq!(parsed.unwrap_err().help, "give the group another name");
    }

    #[test]
    fn a_host_leads_somewhere_only_where_hosts_stand() {
        for (text, leads) in [
            ("https://{host}{path}", true),
            ("{scheme}://{host}:8443/", true),
            ("https://www.{host}/", true),
            ("https://shop.example/{host}", false),
            ("https://shop.example?from={host}", false),
            ("/login?from={host}", false),
            ("{path}?{host}", false),
            ("https://shop.example{path}", false),
            ("/", false),
        ] {
            assert_eq!(parse(text).map(|template| template.leads_to_named_host()), Ok(leads), "{text}");
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_url() {
        for text in [
            "/",
            "/new?a=b#c",
            "https://shop.example",
            "http://shop.example:8080/x",
            "https://{host}{path}{query}",
            "{scheme}://{host}:8443/{1}",
            "https://www.{host}/",
            "{path}.html",
            "https://shop.example?{1}",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
        for text in [
            "",
            "new",
            "//evil.example",
            "https://",
            "https:///x",
            "ftp://a",
            "/a b",
            "/a\r\nSet-Cookie: x",
            "/é",
            "{1}",
            "{query}",
            "{host}/x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_request_fills_in_never_names_the_host() {
        for text in [
            "https://shop.example{1}",
            "https://{1}.shop.example/",
            "https://{1}/",
            "https://{slug}",
            "{scheme}://{scheme}/",
            "https://{host}{host}/",
            "https://{host}{1}/",
            "https://{host}.evil.example/",
            "https://{path}",
            "https://{query}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pieces_know_where_they_stand() {
        let text = |text: &str| Part::Text(text.into());
        let whole = parse("https://{host}/{slug}/{2}{query}?from={path}&id={1}{query}").unwrap();
        let expected = [
            text("https://"),
            Part::Host,
            text("/"),
            Part::Group(2, Within::Path),
            text("/"),
            Part::Group(2, Within::Path),
            Part::Query(Within::Path),
            text("?from="),
            Part::Path(Within::Query),
            text("&id="),
            Part::Group(1, Within::Query),
            Part::Query(Within::Query),
        ];
        assert_eq!(whole.parts(), expected);
        assert_eq!(whole.fixed(), None);
        assert_eq!(parse("/new?a").unwrap().fixed(), Some("/new?a"));
    }

    #[test]
    fn what_stands_for_nothing_is_told() {
        for (text, help) in [
            ("/{3}", "`path_regex` has 2 groups"),
            ("/{0}", "`path_regex` has 2 groups"),
            ("/{pth}", "did you mean {path}?"),
            ("/{slog}", "did you mean {slug}?"),
            ("/{uuuuri}", "it can be {scheme}, {host}, {path}, {query}, {slug}"),
            ("/{", "write {path}; a brace that stands for itself is %7B or %7D in a URL"),
            ("/}", "write {path}; a brace that stands for itself is %7B or %7D in a URL"),
            ("/{}", "it can be {scheme}, {host}, {path}, {query}, {slug}"),
        ] {
            assert_eq!(parse(text).unwrap_err().help, help, "{text}");
        }
        let without = Template::parse("/{1}", Some(&PathPattern::Prefix("/".into()))).unwrap_err();
        assert_eq!(without.help, "numbers stand for the groups of `path_regex`, which this route does not have");
        assert!(Template::parse("/{1}", None).is_ok(), "the path is told first");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_taken_can_be_written_again(text in "(https?://|/)?[a-z{}/?#:12é \\r]{0,20}(\\{path\\}|\\{query\\})?") {
            if let Ok(template) = parse(&text) {
                let again: String = template.parts().iter().map(|part| match part {
                    Part::Text(text) => text.clone(),
                    Part::Scheme => "{scheme}".into(),
                    Part::Host => "{host}".into(),
                    Part::Path(_) => "{path}".into(),
                    Part::Query(_) => "{query}".into(),
                    Part::Group(number, _) => format!("{{{number}}}"),
                }).collect();
                prop_assert_eq!(again, text);
            }
        }
    }
}
