//! `client`, `header:NAME` or `cookie:NAME`: what requests are told apart by, whatever the key is called.

use crate::config::KeyBy;
use crate::config::report::quoted;
use crate::config::values::Fault;

/// Reads it as the value of `key`.
pub(super) fn key_by(key: &str, text: &str) -> Result<KeyBy, Fault> {
    let fault = |message: &str, help: &str| Err(Fault::new(format!("{} {message}", quoted(text)), help));
    if text == "client" {
        return Ok(KeyBy::Client);
    }
    let Some((kind @ ("header" | "cookie"), name)) = text.split_once(':') else {
        return fault(&format!("is not a value of `{key}`"), "it can be client, header:NAME or cookie:NAME");
    };
    if !is_token(name) {
        let help = format!("write {kind}:NAME; names have letters, digits and any of !#$%&'*+-.^_`|~");
        return fault(&format!("has no valid name of a {kind}"), &help);
    }
    if kind == "cookie" {
        return Ok(KeyBy::Cookie(name.to_owned()));
    }
    if name.contains('_') {
        let help = format!("did you mean header:{}?", name.replace('_', "-"));
        return fault("never arrives: header names with an underscore are removed", &help);
    }
    super::field_name::of_condition(name).map(KeyBy::Header)
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_is_the_client_a_header_or_a_cookie() {
        assert_eq!(key_by("hash", "client"), Ok(KeyBy::Client));
        assert_eq!(key_by("hash", "header:X-User"), Ok(KeyBy::Header("x-user".into())));
        assert_eq!(key_by("hash", "cookie:SessionID"), Ok(KeyBy::Cookie("SessionID".into())));
        assert_eq!(key_by("hash", "cookie:my_id"), Ok(KeyBy::Cookie("my_id".into())));
        for text in [
            "",
            "Client",
            "header",
            "header:",
            "header: x",
            "cookie:a=b",
            "cookie:é",
            "query:x",
            "header:a:b",
            "header:x_user",
            "header:X-Forwarded-For",
            "header:Remote-User",
            "header:Connection",
            "client:",
        ] {
            assert!(key_by("hash", text).is_err(), "{text}");
        }
        assert_eq!(key_by("by", "ip").unwrap_err().message, "`ip` is not a value of `by`");
        assert_eq!(key_by("hash", "header:X_User").unwrap_err().help, "did you mean header:X-User?");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_taken_names_a_token(text in "(header|cookie|client)?:?\\PC{0,12}") {
            match key_by("by", &text) {
                Ok(KeyBy::Client) => prop_assert_eq!(text, "client"),
                Ok(KeyBy::Header(name)) => {
                    prop_assert!(is_token(&name) && text.to_ascii_lowercase() == ["header:", &name].concat());
                }
                Ok(KeyBy::Cookie(name)) => prop_assert!(is_token(&name) && text == ["cookie:", &name].concat()),
                Err(fault) => prop_assert!(!fault.message.is_empty() && !fault.help.is_empty()),
            }
        }
    }
}
