//! `X-Accel-Charset`: what a text says it is written in. Nothing is written anew.

use http::header::{self, HeaderMap, HeaderValue};

use crate::http::Charset;

/// Puts the charset on a text; `Off` takes away what the edge itself has put there. `is_apps`: the type is the app's own.
pub(super) fn apply(headers: &mut HeaderMap, charset: &Charset, is_apps: bool) {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return };
    let (essence, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
    let name = match charset {
        Charset::Named(name) if is_text(essence.trim()) => Some(name),
        Charset::Off if !is_apps => None,
        _ => return,
    };
    let mut value = essence.trim().to_owned();
    for parameter in split(parameters).filter(|parameter| !is_charset(parameter)) {
        value.push_str("; ");
        value.push_str(parameter);
    }
    if let Some(name) = name {
        value.push_str("; charset=");
        value.push_str(name);
    }
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(header::CONTENT_TYPE, value);
    }
}

/// Whether a charset says anything of this type.
fn is_text(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    let is_named = matches!(essence.as_str(), "application/javascript" | "application/xml" | "application/xml-dtd");
    essence.starts_with("text/") || essence.ends_with("+xml") || is_named
}

fn is_charset(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
}

/// The parameters, each without the semicolon before it. One within quotes ends nothing.
fn split(parameters: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let ends = move |c: char| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match c {
            '\\' if is_quoted && !was_escaped => is_escaped = true,
            '"' if !was_escaped => is_quoted = !is_quoted,
            ';' => return !is_quoted,
            _ => {}
        }
        false
    };
    parameters.split(ends).map(str::trim).filter(|parameter| !parameter.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn applied(value: &str, charset: &Charset, is_apps: bool) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
        apply(&mut headers, charset, is_apps);
        headers[header::CONTENT_TYPE].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_text_says_what_it_is_written_in() {
        let named = Charset::Named("koi8-r".into());
        for (value, expected) in [
            ("text/html", "text/html; charset=koi8-r"),
            ("text/html; charset=utf-8", "text/html; charset=koi8-r"),
            ("Text/Plain ;Charset=\"utf-8\"; format=flowed", "Text/Plain; format=flowed; charset=koi8-r"),
            ("text/x; a=\"b; charset=c\\\" ;\"", "text/x; a=\"b; charset=c\\\" ;\"; charset=koi8-r"),
            ("application/atom+xml", "application/atom+xml; charset=koi8-r"),
            ("application/json", "application/json"),
            ("image/png", "image/png"),
            ("text", "text"),
        ] {
            assert_eq!(applied(value, &named, true), expected, "{value}");
        }
        let mut none = HeaderMap::new();
        apply(&mut none, &named, true);
        assert!(none.is_empty());
    }

    #[test]
    fn off_takes_away_only_what_the_edge_has_put_there() {
        for (value, is_apps, expected) in [
            ("text/css; charset=utf-8", false, "text/css"),
            ("text/css; charset=utf-8", true, "text/css; charset=utf-8"),
            ("image/png", false, "image/png"),
        ] {
            assert_eq!(applied(value, &Charset::Off, is_apps), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn there_is_one_charset_in_the_end(value in "text/[a-z]{1,5}( ?; ?([a-z]{1,8}|charset|CHARSET)=([a-z0-9]{0,5}|\"[a-z;=]{0,5}\")){0,4}") {
            let value = applied(&value, &Charset::Named("x".into()), true);
            prop_assert_eq!(split(&value).filter(|parameter| is_charset(parameter)).count(), 1);
            prop_assert!(value.ends_with("; charset=x"));
        }
    }
}
