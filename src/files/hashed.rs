//! `immutable: hashed`: names in which a bundler has put a hash of the content.
//!
//! | the name | by |
//! |---|---|
//! | `main.0123abcd.js`, `base.fd28f1b5e5a4.css`: 8 to 64 hexadecimal digits, with a letter and a figure among them | webpack, Parcel, Django, Sprockets |
//! | `app-B2kd93Ls.js`, `index-C-_4xkqF.js`: 8 signs of base64 behind a dash at the end, with large and small letters | Vite, Rollup |
//! | `chunk-7XK2WQAB.js`: 8 large letters and figures | esbuild |
//! | `main.1k9x0bq7.js`: 8 to 40 small letters and figures, figures in two places at least | base36 |
//!
//! Words (`datepicker`), versions (`3.7.1`) and dates (`20240131`) are none of these. A word of eight letters with a large one
//! within, behind a dash, would be: the rule is for folders that a bundler has filled.

/// Whether the name of a file has a hash of its content in it.
#[must_use]
pub(super) fn is_hashed(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let Some(dot) = memchr::memrchr(b'.', name) else { return false };
    let mut stem = &name[..dot];
    // `app.0123abcd.js.map`: of the ending before as well.
    if let Some(inner) = stem.strip_suffix(b".js").or_else(|| stem.strip_suffix(b".css")) {
        stem = inner;
    }
    let tokens = stem.split(|byte| matches!(byte, b'.' | b'-'));
    ends_with_base64(stem) || tokens.into_iter().any(is_hash)
}

fn ends_with_base64(stem: &[u8]) -> bool {
    let Some((_, [b'-', hash @ ..])) = stem.split_last_chunk::<9>() else { return false };
    let is_sign = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    hash.iter().all(is_sign) && hash.iter().any(u8::is_ascii_uppercase) && hash.iter().any(u8::is_ascii_lowercase)
}

fn is_hash(token: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| token.iter().any(is);
    let all = |is: fn(&u8) -> bool| token.iter().all(is);
    if !has(u8::is_ascii_digit) || !has(u8::is_ascii_alphabetic) {
        return false;
    }
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_small = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_large = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    match token.len() {
        8..=64 if all(is_hex) => true,
        8 if all(is_large) => true,
        8..=40 if all(is_small) => figures(token) >= 2,
        _ => false,
    }
}

/// In how many places there are figures.
fn figures(token: &[u8]) -> usize {
    token.split(|byte| !byte.is_ascii_digit()).filter(|run| !run.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bundlers_write_is_told_from_what_people_write() {
        for name in [
            "main.0123abcd.js",
            "main.0123abcd.js.map",
            "css/base.fd28f1b5e5a4.css",
            "application-4d4f1a1e0c7b8b2ad3b1cbb3d64ae7a0c7a2f19d11d5a0a2ce0f7e1b32c9a0b1.js",
            "0a1b2c3d.js",
            "app-B2kd93Ls.js",
            "app-DiwrgTda.css",
            "index-C-_4xkqF.js",
            "chunk-7XK2WQAB.js",
            "main.1k9x0bq7.js",
            "_app-0a1b2c3d4e5f6071.js",
        ] {
            assert!(is_hashed(name.as_bytes()), "{name}");
        }
        for name in [
            "",
            "app.js",
            "jquery-3.7.1.min.js",
            "bootstrap-datepicker.js",
            "bootstrap-datepicker3.min.css",
            "report-20240131.pdf",
            "deadbeef.js",
            "facade-effaced.js",
            "main.0123abcd",
            "0123abcd",
            "html5shiv.js",
            "app-main2024.js",
            "DatePicker.js",
            "chunk-ABCDEFGH.js",
            "folder.0123abcd/app.js",
            "a-b-c.js",
            "main.0123abc.js",
        ] {
            assert!(!is_hashed(name.as_bytes()), "{name}");
        }
    }
}
