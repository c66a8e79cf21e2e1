//! `/purge`, for POST: what is kept of apps' answers is struck.
//!
//! | parameter | strikes |
//! |---|---|
//! | `url` | what is stored for one URL, with http and https, in all variants |
//! | `prefix` | for all URLs that begin so |
//! | `host` | for all of a host |
//! | `tag`, perhaps several | what has any of these tags |
//! | `all=1` | everything |
//! | `soft=1` beside one of them | the same, but it is made stale, and may still stand in |
//!
//! The answer comes when none of it is given out any more, and says how many objects that were.

use http::StatusCode;

use super::control::{self, bad, refuse};
use super::door::Caller;
use super::parameters::pairs;
use super::{Admin, json, text, wants_text};
use crate::cache::purge::{Order, What};
use crate::cache::store::Manner;
use crate::http::{Request, Response};
use crate::observe::json::Object;

/// The longest query or form: there can be many tags.
const LONGEST: usize = 64 << 10;
const NAMES: &str = "`url`, `prefix`, `host`, `tag`, `all` and `soft`";

/// Does what is asked for, and says what has been done.
pub(super) async fn obey(admin: &Admin, caller: &Caller, mut request: Box<Request>) -> Response {
    let wants_text = wants_text(&request.headers);
    let order = match control::form(&mut request, LONGEST).await {
        Ok(form) => order(&[control::query(&request), &form]).map_err(bad),
        Err(refusal) => Err(refusal),
    };
    let order = match order {
        Ok(order) => order,
        Err(refusal) => return refuse(refusal),
    };
    let cache = admin.running.cache();
    let is_indexed = cache.store.numbers().is_indexed;
    let done = order.carry_out(&cache.store).await;
    let (Ok(objects) | Err(objects)) = done.as_ref().copied().map_err(|failed| failed.count);
    tracing::info!(what = %order.what, soft = order.manner == Manner::Soft, by = %caller, objects, "purged by the operator");
    match done {
        Err(failed) => refuse((StatusCode::INTERNAL_SERVER_ERROR, failed.to_string())),
        Ok(count) if wants_text => text(StatusCode::OK, sentence(order.manner, count, is_indexed, cache.is_used)),
        Ok(count) => json(StatusCode::OK, report(order.manner, count, is_indexed)),
    }
}

/// Reads what is to be purged, from all `pieces` together: `name=value` pairs with `&` between them, encoded as forms are.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn order(pieces: &[&[u8]]) -> Result<Order, String> {
    let (mut what, mut tags, mut manner) = (None, Vec::new(), Manner::Hard);
    for (name, value) in pairs(pieces, b' ') {
        let Some(name) = ["url", "prefix", "host", "tag", "all", "soft"].iter().find(|known| known.as_bytes() == name)
        else {
            let name = String::from_utf8_lossy(&name[..name.len().min(64)]);
            return Err(format!(
                "`{}` is not a parameter: there are {NAMES}; what is in a URL has to be encoded (& as %26)",
                name.escape_debug()
            ));
        };
        let value = value.ok_or_else(|| format!("the value of `{name}` cannot be read"))?;
        let one = match *name {
            "url" => What::url(&value),
            "prefix" => What::prefix(&value),
            "host" => What::host(&value),
            "tag" => {
                tags.push(value);
                continue;
            }
            switch => {
                if !matches!(&*value, "1" | "true") {
                    return Err(format!("`{switch}` is 1 or is not there"));
                }
                if switch == "soft" {
                    manner = Manner::Soft;
                    continue;
                }
                Ok(What::All)
            }
        };
        let one = one.map_err(|sentence| format!("`{name}`: {sentence}"))?;
        if what.replace(one).is_some() {
            return Err(ONE.into());
        }
    }
    if !tags.is_empty() {
        let tagged = What::tags(tags.iter().map(String::as_bytes)).map_err(|sentence| format!("`tag`: {sentence}"))?;
        if what.replace(tagged).is_some() {
            return Err(ONE.into());
        }
    }
    let what = what.ok_or("say what is to be purged: url=URL, prefix=URL, host=HOST, tag=TAG or all=1")?;
    Ok(Order { what, manner })
}

const ONE: &str = "one order is for one of `url`, `prefix`, `host` and `all`, or for tags";

/// `{"purged":…,"soft":…,"indexed":…}`.
fn report(manner: Manner, count: u64, is_indexed: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut object = Object::begin(&mut out);
    object.integer("purged", count).boolean("soft", manner == Manner::Soft).boolean("indexed", is_indexed);
    object.end();
    out.push(b'\n');
    out
}

/// The same for a terminal.
fn sentence(manner: Manner, count: u64, is_indexed: bool, is_used: bool) -> String {
    let objects = if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
    let done = match manner {
        Manner::Hard => "purged",
        Manner::Soft => "made stale",
    };
    let more = match (is_used, is_indexed) {
        (false, _) => "; no route has a cache",
        (true, false) => "; files that have not been found since the start are struck as well, and not counted",
        (true, true) => "",
    };
    format!("{done}: {objects}{more}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<(String, bool), String> {
        order(&[text.as_bytes()]).map(|order| (order.what.to_string(), order.manner == Manner::Soft))
    }

    #[test]
    fn each_kind_is_read() {
        for (text, what, soft) in [
            ("url=https://Shop.example:8443/a%3Fb=1%26c=2", "shop.example/a?b=1&c=2", false),
            ("soft=1&url=shop.example/a", "shop.example/a", true),
            ("prefix=https://shop.example/blog/*", "shop.example/blog/*", false),
            ("host=shop.example&soft=true", "all of shop.example", true),
            ("tag=a&tag=b", "tags a, b", false),
            ("tag=a,b%20c", "tags a, b, c", false),
            ("tag=a+b%2Bc", "tags a, b+c", false),
            ("url=shop.example/a+b?c%2Bd", "shop.example/a%20b?c+d", false),
            ("all=1", "everything", false),
        ] {
            assert_eq!(read(text), Ok((what.to_owned(), soft)), "{text}");
        }
        let both = order(&[b"soft=1", b"all=1"]).map(|order| order.manner);
        assert_eq!(both, Ok(Manner::Soft), "the query and the form go together");
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (text, said) in [
            ("", "say what is to be purged"),
            ("soft=1", "say what is to be purged"),
            ("url=https://shop.example/a?b&c=2", "`c` is not a parameter"),
            ("url=/a", "`url`: `/a` has no host"),
            ("url=", "`url`: nothing is named"),
            ("url=%ff", "the value of `url` cannot be read"),
            ("host=a/b", "`host`: `a/b` is not a host"),
            ("tag=", "`tag`: there is no tag"),
            ("all=0", "`all` is 1 or is not there"),
            ("all", "`all` is 1 or is not there"),
            ("all=1&soft=0", "`soft` is 1 or is not there"),
            ("all=1&all=1", "one order is for one"),
            ("all=1&tag=a", "one order is for one"),
            ("url=a/b&prefix=a/b", "one order is for one"),
            ("\u{1b}=1", "is not a parameter"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said) && !error.contains('\u{1b}'), "{text}: {error}");
        }
    }

    #[test]
    fn an_answer_says_what_has_become_of_how_many() {
        assert_eq!(report(Manner::Soft, 3, false), b"{\"purged\":3,\"soft\":true,\"indexed\":false}\n");
        assert_eq!(sentence(Manner::Hard, 1, true, true), "purged: 1 object\n");
        assert_eq!(sentence(Manner::Soft, 0, true, false), "made stale: 0 objects; no route has a cache\n");
        assert!(
            sentence(Manner::Hard, 2, false, true).starts_with("purged: 2 objects; files that have not been found")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = order(&[&bytes]);
            let url = [b"url=".as_slice(), &bytes].concat();
            let _ = order(&[&url]);
        }

        #[test]
        fn encoded_tags_read_back(tag in "[^\\p{Cc}, ]{1,40}") {
            let encoded: String = tag.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let order = order(&[format!("tag={encoded}").as_bytes()]).map(|order| order.what);
            prop_assert_eq!(order, Ok(What::Tags(vec![tag.as_bytes().into()])));
        }
    }
}
