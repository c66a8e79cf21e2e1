//! `body-patch`: changes to a JSON document (RFC 6902), by paths into it (RFC 6901).

use serde_json::Value;

use super::instruct::shown;

/// How far a document may grow by one patch, and how much of it one patch may copy.
const LARGEST: usize = 1 << 20;
/// Bytes of the document that one patch may shift or look through: each change may be cheap to say and dear to make, and a patch is
/// made for every client that waits.
const MOST_TOUCHED: usize = 64 << 20;
/// How deep a document may be: as deep as one is read. Whatever looks at it goes into itself as often.
const DEEPEST: usize = 127;

/// The document with all changes; they are made one after the other, all or none.
///
/// # Errors
/// Which of them cannot be made, and why; or that one of both is no JSON.
pub(super) fn apply(document: &[u8], patch: &[u8]) -> Result<Vec<u8>, String> {
    let mut value: Value =
        serde_json::from_slice(document).map_err(|error| format!("the answer that it changes is no JSON: {error}"))?;
    let changes: Vec<Value> =
        serde_json::from_slice(patch).map_err(|error| format!("the body-patch is no list: {error}"))?;
    let mut work = Work::default();
    for (at, change) in changes.iter().enumerate() {
        make(&mut value, change, &mut work).map_err(|why| format!("body-patch[{at}]: {why}"))?;
    }
    let out = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
    if out.len() > LARGEST {
        return Err(format!("the body-patch makes more than {LARGEST} bytes of it"));
    }
    Ok(out)
}

/// Whether a patch is one at all, for whoever publishes it: `op` and `path` of each change.
///
/// # Errors
/// Which change is none, and why.
pub(in crate::realtime) fn check(changes: &[Value]) -> Result<(), String> {
    const MOST: usize = 1_000;
    if changes.len() > MOST {
        return Err(format!("body-patch has more than {MOST} changes"));
    }
    for (at, change) in changes.iter().enumerate() {
        let why = |why: &str| format!("body-patch[{at}]: {why}");
        let operation = change.get("op").and_then(Value::as_str).ok_or_else(|| why("`op` is no text"))?;
        path(change, "path").map_err(|error| why(&error))?;
        match operation {
            "add" | "replace" | "test" if change.get("value").is_none() => return Err(why("`value` is missing")),
            "move" | "copy" => {
                path(change, "from").map_err(|error| why(&error))?;
            }
            "add" | "replace" | "test" | "remove" => {}
            other => return Err(why(&format!("there is no `op` by the name of `{}`", shown(other)))),
        }
    }
    Ok(())
}

/// What the changes have cost so far.
#[derive(Default)]
struct Work {
    /// About in bytes: a copy of a copy doubles it each time.
    copied: usize,
    touched: usize,
}

impl Work {
    fn copy(&mut self, bytes: usize) -> Result<(), String> {
        self.copied += bytes;
        if self.copied > LARGEST {
            return Err(format!("more than {LARGEST} bytes are copied"));
        }
        Ok(())
    }

    /// So many values are shifted, or looked at.
    fn touch(&mut self, values: usize) -> Result<(), String> {
        self.touched += values * size_of::<Value>();
        if self.touched > MOST_TOUCHED {
            return Err(format!(
                "the changes shift or look through more than {MOST_TOUCHED} bytes together: whatever is put into a long list, or taken out, shifts all behind it"
            ));
        }
        Ok(())
    }
}

/// Makes one change.
fn make(document: &mut Value, change: &Value, work: &mut Work) -> Result<(), String> {
    let operation = change.get("op").and_then(Value::as_str).unwrap_or_default();
    let target = path(change, "path")?;
    let value = || change.get("value").ok_or_else(|| "`value` is missing".to_owned());
    match operation {
        "add" => {
            let added = fitting(&target, value()?, work)?.clone();
            add(document, &target, added, work)
        }
        "remove" => remove(document, &target, work).map(drop),
        "replace" => {
            *find(document, &target)? = fitting(&target, value()?, work)?.clone();
            Ok(())
        }
        "move" => {
            let from = path(change, "from")?;
            if target.len() > from.len() && target.starts_with(&from) {
                return Err("nothing can be moved into itself".into());
            }
            let moved = remove(document, &from, work)?;
            fitting(&target, &moved, work)?;
            add(document, &target, moved, work)
        }
        "copy" => {
            let source = fitting(&target, find(document, &path(change, "from")?)?, work)?;
            work.copy(size(source))?;
            let copy = source.clone();
            add(document, &target, copy, work)
        }
        "test" if *find(document, &target)? == *value()? => Ok(()),
        "test" => Err("what is there is not what `test` says".into()),
        other => Err(format!("there is no `op` by the name of `{}`", shown(other))),
    }
}

/// The value, where the document is not too deep with it at this place.
fn fitting<'a>(target: &[String], value: &'a Value, work: &mut Work) -> Result<&'a Value, String> {
    let mut values = 0;
    let depth = depth(value, &mut values);
    work.touch(values)?;
    if target.len() + depth > DEEPEST {
        return Err(format!("the document would be deeper than {DEEPEST} lists and objects"));
    }
    Ok(value)
}

/// `values` counts what has been looked at.
fn depth(value: &Value, values: &mut usize) -> usize {
    *values += 1;
    match value {
        Value::Array(list) => 1 + list.iter().map(|value| depth(value, values)).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(|value| depth(value, values)).max().unwrap_or(0),
        _ => 0,
    }
}

/// Bytes of it as text, at least.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 2 + list.iter().map(|value| 1 + size(value)).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(name, value)| 4 + name.len() + size(value)).sum::<usize>(),
        Value::String(text) => 2 + text.len(),
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 1,
    }
}

/// The steps of a pointer. None: the whole document.
fn path(change: &Value, name: &str) -> Result<Vec<String>, String> {
    let text = change.get(name).and_then(Value::as_str).ok_or_else(|| format!("`{name}` is no text"))?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let steps = text.strip_prefix('/').ok_or_else(|| format!("`{name}` does not begin with a slash"))?;
    if memchr::memchr_iter(b'/', steps.as_bytes()).count() >= DEEPEST {
        return Err(format!("`{name}` has more than {DEEPEST} steps"));
    }
    Ok(steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect())
}

fn find<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, String> {
    let mut value = document;
    for step in path {
        let next = match value {
            Value::Object(map) => map.get_mut(step),
            Value::Array(list) => index(step).and_then(|at| list.get_mut(at)),
            _ => None,
        };
        value = next.ok_or_else(|| missing(step))?;
    }
    Ok(value)
}

fn add(document: &mut Value, path: &[String], value: Value, work: &mut Work) -> Result<(), String> {
    let Some((last, parents)) = path.split_last() else {
        *document = value;
        return Ok(());
    };
    match find(document, parents)? {
        Value::Object(map) => {
            map.insert(last.clone(), value);
            Ok(())
        }
        Value::Array(list) if last == "-" => {
            list.push(value);
            Ok(())
        }
        Value::Array(list) => match index(last).filter(|at| *at <= list.len()) {
            Some(at) => {
                work.touch(list.len() - at)?;
                list.insert(at, value);
                Ok(())
            }
            None => Err(missing(last)),
        },
        _ => Err(missing(last)),
    }
}

fn remove(document: &mut Value, path: &[String], work: &mut Work) -> Result<Value, String> {
    let Some((last, parents)) = path.split_last() else { return Ok(document.take()) };
    let removed = match find(document, parents)? {
        Value::Object(map) => map.remove(last),
        Value::Array(list) => match index(last).filter(|at| *at < list.len()) {
            Some(at) => {
                work.touch(list.len() - at)?;
                Some(list.remove(at))
            }
            None => None,
        },
        _ => None,
    };
    removed.ok_or_else(|| missing(last))
}

/// Without zeros before it (RFC 6901, 4).
fn index(step: &str) -> Option<usize> {
    let is_plain = step == "0" || !step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| step.parse().ok()).flatten()
}

fn missing(step: &str) -> String {
    format!("there is no `{}`", shown(step))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_made_as_rfc_6902_has_them() {
        for (document, patch, expected) in [
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":[2]}]"#, r#"{"a":1,"b":[2]}"#),
            (r#"[1,3]"#, r#"[{"op":"add","path":"/1","value":2},{"op":"add","path":"/-","value":4}]"#, "[1,2,3,4]"),
            (r#"{"a":1,"b":2}"#, r#"[{"op":"remove","path":"/a"}]"#, r#"{"b":2}"#),
            (r#"{"a":{"b":1}}"#, r#"[{"op":"replace","path":"/a/b","value":null}]"#, r#"{"a":{"b":null}}"#),
            (r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/b"}]"#, r#"{"b":1}"#),
            (r#"{"a":[1]}"#, r#"[{"op":"copy","from":"/a/0","path":"/b"}]"#, r#"{"a":[1],"b":1}"#),
            (
                r#"{"a/b":1,"c~d":2}"#,
                r#"[{"op":"test","path":"/a~1b","value":1},{"op":"remove","path":"/c~0d"}]"#,
                r#"{"a/b":1}"#,
            ),
            ("1", r#"[{"op":"replace","path":"","value":"x"}]"#, "\"x\""),
            ("[]", "[]", "[]"),
        ] {
            assert_eq!(apply(document.as_bytes(), patch.as_bytes()).as_deref(), Ok(expected.as_bytes()), "{patch}");
            check(serde_json::from_str::<Vec<Value>>(patch).unwrap().as_slice()).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_made_is_told() {
        for (document, patch, why) in [
            ("<p>", "[]", "the answer that it changes is no JSON"),
            ("{}", "{}", "the body-patch is no list"),
            ("{}", r#"[{"op":"remove","path":"/a"}]"#, "body-patch[0]: there is no `a`"),
            ("[]", r#"[{"op":"add","path":"/1","value":1}]"#, "body-patch[0]: there is no `1`"),
            ("[1,2]", r#"[{"op":"remove","path":"/01"}]"#, "there is no `01`"),
            ("{}", r#"[{"op":"test","path":"","value":1}]"#, "not what `test` says"),
            (r#"{"a":{}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#, "into itself"),
            (
                "{}",
                r#"[{"op":"add","path":"/a","value":1},{"op":"dance","path":"/a"}]"#,
                "body-patch[1]: there is no `op`",
            ),
            ("{}", r#"[{"path":"/a"}]"#, "there is no `op`"),
            ("{}", r#"[{"op":"add","path":"a","value":1}]"#, "does not begin with a slash"),
            ("{}", r#"[{"op":"add","path":"/a"}]"#, "`value` is missing"),
        ] {
            let told = apply(document.as_bytes(), patch.as_bytes()).unwrap_err();
            assert!(told.contains(why), "{patch}: {told}");
        }
    }

    #[test]
    fn a_patch_makes_a_document_neither_large_nor_deep_by_copies_of_copies() {
        let copies = |path: &str, count: usize| {
            let all: Vec<String> = (0..count)
                .map(|at| format!(r#"{{"op":"copy","from":"","path":"{}"}}"#, path.replace('#', &at.to_string())))
                .collect();
            format!("[{}]", all.join(","))
        };
        for (path, count, why) in
            [("/#", 60, "bytes are copied"), ("/a", 200, "deeper than 127"), ("/a/a", 200, "deeper than 127")]
        {
            let told = apply(br#"{"a":{"a":1}}"#, copies(path, count).as_bytes()).unwrap_err();
            assert!(told.contains(why), "{path}: {told}");
        }
        let told = apply(b"[[[1]]]", copies("/0", 1_000).as_bytes()).unwrap_err();
        assert!(told.contains("bytes are copied") || told.contains("deeper"), "{told}");
        let pointer = |steps: usize| format!(r#"[{{"op":"remove","path":"{}"}}]"#, "/a".repeat(steps));
        let told = check(&serde_json::from_str::<Vec<Value>>(&pointer(128)).unwrap()).unwrap_err();
        assert!(told.contains("more than 127 steps"), "{told}");
        assert_eq!(check(&serde_json::from_str::<Vec<Value>>(&pointer(127)).unwrap()), Ok(()));
        // As deep as it is read, and no deeper by a value of the patch or by a move.
        let deep = |count: usize| format!("{}{}", "[".repeat(count), "]".repeat(count));
        let add = |count: usize| format!(r#"[{{"op":"add","path":"/0","value":{}}}]"#, deep(count));
        assert!(serde_json::from_slice::<Value>(&apply(b"[]", add(124).as_bytes()).unwrap()).is_ok());
        let document = format!(r#"[{}, {}]"#, deep(100), deep(100));
        let pointer = "/0".repeat(60);
        let change = format!(r#"[{{"op":"move","from":"/1","path":"{pointer}"}}]"#);
        assert!(apply(document.as_bytes(), change.as_bytes()).unwrap_err().contains("deeper than 127"));
    }

    #[test]
    fn many_changes_to_a_long_list_are_not_made_whatever_they_are() {
        let list = |count: usize| serde_json::to_vec(&vec![1; count]).unwrap();
        let changes = |change: &str| format!("[{}]", [change].repeat(1_000).join(","));
        for change in [
            r#"{"op":"move","from":"/0","path":"/-"}"#,
            r#"{"op":"move","from":"/0","path":"/0"}"#,
            r#"{"op":"add","path":"/0","value":1}"#,
            r#"{"op":"remove","path":"/0"}"#,
            // All of it has to be looked through each time.
            r#"{"op":"move","from":"","path":""}"#,
        ] {
            let told = apply(&list(40_000), changes(change).as_bytes()).unwrap_err();
            assert!(told.contains("shift or look through more than 67108864 bytes"), "{change}: {told}");
            let at: usize = told["body-patch[".len()..].split(']').next().unwrap().parse().unwrap();
            assert!((10..200).contains(&at), "{change}: {told}");
            assert!(apply(&list(1_000), changes(change).as_bytes()).is_ok(), "{change}");
        }
        let last = r#"{"op":"move","from":"/39999","path":"/39999"}"#;
        assert!(apply(&list(40_000), changes(last).as_bytes()).is_ok(), "what shifts nothing costs nothing");
    }

    #[test]
    fn a_patch_that_is_none_is_refused_when_it_is_published() {
        for (patch, why) in [
            (r#"[1]"#, "body-patch[0]: `op` is no text"),
            (r#"[{"op":"add"}]"#, "`path` is no text"),
            (r#"[{"op":"add","path":"/a"}]"#, "`value` is missing"),
            (r#"[{"op":"copy","path":"/a"}]"#, "`from` is no text"),
            (r#"[{"op":"dance","path":"/a"}]"#, "no `op` by the name of `dance`"),
        ] {
            let told = check(serde_json::from_str::<Vec<Value>>(patch).unwrap().as_slice()).unwrap_err();
            assert!(told.contains(why), "{patch}: {told}");
        }
    }

    proptest! {
        #[test]
        fn no_patch_does_harm(
            document in r#"(\{"a":[0-9],"b":\[1,2\]\}|\[1,\{"a":2\}\]|"x")"#,
            patch in proptest::collection::vec(
                (r#"(add|remove|replace|move|copy|test)"#, r"(/[ab0-9~-]{0,2}){0,3}", r"(/[ab0-9]){0,2}"), 0..6),
        ) {
            let changes: Vec<String> = patch.iter().map(|(op, path, from)| {
                format!(r#"{{"op":"{op}","path":"{path}","from":"{from}","value":[1]}}"#)
            }).collect();
            let patch = format!("[{}]", changes.join(","));
            if let Ok(changed) = apply(document.as_bytes(), patch.as_bytes()) {
                prop_assert!(serde_json::from_slice::<Value>(&changed).is_ok());
            }
        }
    }
}
