//! A file of users as `htpasswd -B` writes it: `name:hash` on a line, with hashes of bcrypt (`$2y$`, `$2b$`, `$2a$`) or argon2
//! (`$argon2id$`, `$argon2i$`, `$argon2d$`).
//!
//! Older hashes are refused: whoever has the file has the passwords of MD5, SHA-1 and DES within hours. What one check may
//! cost is limited as well, because every stranger can ask for one.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use argon2::{Argon2, Params, PasswordHash, PasswordVerifier};
use aws_lc_rs::digest;
use bcrypt::HashParts;

use super::Unusable;

/// About a second on today's machines; each step doubles it.
const MOST_BCRYPT_COST: u32 = 14;
/// In KiB: several checks run at a time, and each takes it.
const MOST_ARGON2_MEMORY: u32 = 256 << 10;
/// KiB that one check may go over, passes counted: about a second.
const MOST_ARGON2_WORK: u64 = 1 << 20;
/// Bytes of a name.
const LONGEST_NAME: usize = 255;
/// Bytes of a password that bcrypt looks at.
const BCRYPT_SEES: usize = 72;

/// Who may come in. Never empty.
#[derive(Clone)]
pub struct Users {
    hashes: HashMap<Box<str>, Arc<Hash>>,
    /// The same, in the order of the file.
    in_order: Vec<Arc<Hash>>,
    /// Of the file: what tells two of them apart.
    digest: [u8; 32],
}

/// What a password is checked against.
pub struct Hash {
    text: Box<str>,
    kind: Kind,
}

enum Kind {
    Bcrypt,
    Argon2(Box<PasswordHash>),
}

impl Users {
    /// Reads the text of a file. `path` is for messages.
    ///
    /// # Errors
    /// The first line that cannot be used, by its number.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, Unusable> {
        let mut hashes: HashMap<Box<str>, Arc<Hash>> = HashMap::new();
        let mut in_order = Vec::new();
        // The mark that some editors put before the first name is no part of it.
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let at = |(what, help): (String, String)| {
                Unusable::new(format!("line {} of {} {what}", index + 1, path.display()), help)
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (name, hash) = entry(line, path).map_err(at)?;
            let hash = Arc::new(hash);
            if hashes.insert(name.into(), Arc::clone(&hash)).is_some() {
                let help = "keep one of the lines: which of them would count is not for a reader to guess";
                return Err(at((format!("names the user `{name}` once more"), help.into())));
            }
            in_order.push(hash);
        }
        if in_order.is_empty() {
            let help = format!("add one: htpasswd -B {} NAME", path.display());
            return Err(Unusable::new(format!("{} names no user", path.display()), help));
        }
        Ok(Self { hashes, in_order, digest: digest_of(bytes) })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.in_order.len()
    }

    /// What the password of a user is checked against.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Hash>> {
        self.hashes.get(name)
    }

    /// What the password of somebody who is no user is checked against, so that it takes as long: always the same hash for
    /// the same `number`.
    #[must_use]
    pub fn stand_in(&self, number: u64) -> &Arc<Hash> {
        // Never empty: `parse`.
        &self.in_order[(number % self.in_order.len() as u64) as usize]
    }
}

/// By what the files said.
impl PartialEq for Users {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// Without a name or a hash: it may get into a log.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Hash {
    /// Whether it is the hash of this password. Takes up to a second of a processor, on purpose.
    #[must_use]
    pub fn is_of(&self, password: &[u8]) -> bool {
        match &self.kind {
            // Of a longer one bcrypt would compare the beginning alone.
            Kind::Bcrypt if password.len() > BCRYPT_SEES => false,
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
        }
    }

    /// As it stands in the file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash")
    }
}

/// What is wrong with a line, and what to do.
type Fault = (String, String);

/// `name:hash`; what stands behind a second colon is a comment, as for nginx.
fn entry<'a>(line: &'a [u8], path: &Path) -> Result<(&'a str, Hash), Fault> {
    let fault = |what: &str, help: &str| (what.to_owned(), help.to_owned());
    let line = std::str::from_utf8(line).map_err(|_| fault("is not UTF-8 text", "save the file as UTF-8"))?;
    let mut parts = line.split(':');
    let (Some(name), Some(hash)) = (parts.next(), parts.next()) else {
        return Err(fault("has no colon", "each line is name:hash, as `htpasswd -B` writes it"));
    };
    if name.is_empty() {
        return Err(fault("has no name before the colon", "each line is name:hash, as `htpasswd -B` writes it"));
    }
    // The name goes to the app in a header.
    if name.len() > LONGEST_NAME || name.chars().any(char::is_control) || name.trim() != name {
        let help = format!("a name has at most {LONGEST_NAME} bytes, no control characters, and no space at its ends");
        return Err((format!("has a name that cannot be used: {name:?}"), help));
    }
    let hash = Hash::parse(hash.trim_end()).map_err(|what| {
        let help = format!("hash it anew: htpasswd -B {} {name}", path.display());
        (format!("has a hash for `{name}` that cannot be used: {what}"), help)
    })?;
    Ok((name, hash))
}

impl Hash {
    /// Reads one; in words when it cannot be used, without a byte of it.
    fn parse(text: &str) -> Result<Self, String> {
        let kind = match text {
            _ if ["$2y$", "$2b$", "$2a$"].iter().any(|prefix| text.starts_with(prefix)) => {
                bcrypt_cost(text)?;
                Kind::Bcrypt
            }
            _ if text.starts_with("$argon2") => Kind::Argon2(Box::new(argon2_hash(text)?)),
            _ => return Err(foreign(text)),
        };
        Ok(Self { text: text.into(), kind })
    }
}

fn bcrypt_cost(text: &str) -> Result<(), String> {
    let parts: HashParts = text.parse().map_err(|error| format!("it is not a whole bcrypt hash: {error}"))?;
    let is_digits = text.get(4..6).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match parts.get_cost() {
        4..=MOST_BCRYPT_COST if is_digits => Ok(()),
        cost => Err(format!(
            "bcrypt with a cost of {cost}; it can be 4 to {MOST_BCRYPT_COST}, and each step doubles the time"
        )),
    }
}

fn argon2_hash(text: &str) -> Result<PasswordHash, String> {
    let broken = |error: argon2::password_hash::Error| format!("it is not a whole argon2 hash: {error}");
    let hash = PasswordHash::new(text).map_err(|error| format!("it is not a whole argon2 hash: {error}"))?;
    let params = Params::try_from(&hash).map_err(broken)?;
    if !matches!(hash.algorithm.as_str(), "argon2id" | "argon2i" | "argon2d") {
        return Err("it is of no kind of argon2 that is known: argon2id, argon2i, argon2d".into());
    }
    if !matches!(hash.version, Some(16 | 19)) {
        return Err("its version of argon2 is not known: v=19, or the older v=16".into());
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err("it is not a whole argon2 hash: salt or hash is missing".into());
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    if params.m_cost() > MOST_ARGON2_MEMORY || work > MOST_ARGON2_WORK {
        return Err(format!(
            "argon2 with m={},t={}; m (KiB) can be up to {MOST_ARGON2_MEMORY}, and m times t up to {MOST_ARGON2_WORK}",
            params.m_cost(),
            params.t_cost()
        ));
    }
    Ok(hash)
}

/// What a hash of another kind is called.
fn foreign(text: &str) -> String {
    const KNOWN: [(&str, &str); 10] = [
        ("$apr1$", "MD5 (apr1)"),
        ("$1$", "MD5 (crypt)"),
        ("{SHA}", "SHA-1 without salt"),
        ("{SSHA}", "SHA-1"),
        ("$5$", "SHA-256 (crypt)"),
        ("$6$", "SHA-512 (crypt)"),
        ("$2x$", "bcrypt with the error of 2011"),
        ("$y$", "yescrypt"),
        ("$7$", "scrypt"),
        ("{PLAIN}", "a password in the clear"),
    ];
    let known = KNOWN.iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, name)| *name);
    match known {
        Some(name) => format!("it is {name}; only bcrypt and argon2 are taken"),
        None if text.is_empty() => "it is empty".into(),
        None => "it is neither bcrypt nor argon2, but DES (crypt) or a password in the clear".into(),
    }
}

/// Of the bytes of a file.
pub(super) fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `htpasswd -nbB -C 4 ann secret`
    const BCRYPT: &str = "$2y$04$uo2tarQNU6Op2maS.faPT.THsG3WgKdOnK5ABlLlsYsjiSFSsTMNa";
    /// `argon2 saltsalt -id -t 1 -k 8 -p 1 -l 16 -e` of `secret`.
    const ARGON2: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$+RsCrdHrAKGEJIDLM0Esow";

    fn users(text: &str) -> Result<Users, Unusable> {
        Users::parse(text.as_bytes(), Path::new("/etc/users"))
    }

    fn is_let_in(users: &Users, name: &str, password: &str) -> bool {
        users.get(name).is_some_and(|hash| hash.is_of(password.as_bytes()))
    }

    #[test]
    fn a_mark_of_an_editor_is_no_part_of_the_first_name() {
        let users = users(&format!("\u{feff}ann:{BCRYPT}\n")).unwrap();
        assert!(is_let_in(&users, "ann", "secret"));
    }

    #[test]
    fn the_password_of_a_user_lets_in_and_no_other() {
        let text = format!("# staff\n\nann:{BCRYPT}\r\nbob:{ARGON2}:Bob of the bar\nzoë:{BCRYPT}\n");
        let users = users(&text).unwrap();
        assert_eq!(users.count(), 3);
        for (name, password, expected) in [
            ("ann", "secret", true),
            ("bob", "secret", true),
            ("zoë", "secret", true),
            ("ann", "Secret", false),
            ("ann", "", false),
            ("ann", "secret ", false),
            ("bob", "secret1", false),
            ("Ann", "secret", false),
            ("", "secret", false),
            ("# staff", "secret", false),
        ] {
            assert_eq!(is_let_in(&users, name, password), expected, "{name} {password}");
        }
    }

    #[test]
    fn every_way_of_bcrypt_to_say_its_version_is_the_same_hash() {
        let rest = BCRYPT.strip_prefix("$2y$").unwrap();
        for version in ["$2a$", "$2b$", "$2y$"] {
            assert!(is_let_in(&users(&format!("ann:{version}{rest}")).unwrap(), "ann", "secret"), "{version}");
        }
    }

    #[test]
    fn every_kind_of_argon2_is_known() {
        for hash in [
            ARGON2,
            "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$YC9+jJCrQhs5R6db7LlN8Q",
            "$argon2d$v=16$m=8,t=1,p=1$c2FsdHNhbHQ$7qBaMO6BZdTb8wknjmOVDA",
        ] {
            let users = users(&format!("ann:{hash}")).unwrap();
            assert!(is_let_in(&users, "ann", "secret") && !is_let_in(&users, "ann", "Secret"), "{hash}");
        }
    }

    #[test]
    fn a_password_beyond_what_bcrypt_sees_is_not_cut() {
        let long = "x".repeat(BCRYPT_SEES);
        let hash = bcrypt::hash(&long, 4).unwrap();
        let users = users(&format!("ann:{hash}")).unwrap();
        assert!(is_let_in(&users, "ann", &long));
        assert!(!is_let_in(&users, "ann", &format!("{long}y")));
    }

    #[test]
    fn what_cannot_be_used_is_told_by_its_line_and_without_the_hash() {
        let good = format!("ann:{BCRYPT}\n");
        for (line, words) in [
            ("bob:$apr1$abcdefgh$0123456789012345678901", "MD5 (apr1)"),
            ("bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
            ("bob:$6$abcdefgh$x", "SHA-512"),
            ("bob:$5$abcdefgh$x", "SHA-256"),
            ("bob:$1$abcdefgh$x", "MD5 (crypt)"),
            ("bob:$2x$04$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234", "2011"),
            ("bob:rqXexS6ZhobKA", "DES (crypt)"),
            ("bob:hunter2", "in the clear"),
            ("bob:", "it is empty"),
            ("bob", "has no colon"),
            (":x", "has no name"),
            ("b\tb:x", "a name that cannot be used"),
            (" bob:x", "a name that cannot be used"),
            ("bob:$2y$04$short", "not a whole bcrypt hash"),
            ("bob:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ", "salt or hash is missing"),
            ("bob:$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ$Y2FsbGVkIGFzaGFzaA", "m (KiB)"),
            ("bob:$argon2id$v=19$m=65536,t=100,p=1$c2FsdHNhbHQ$Y2FsbGVkIGFzaGFzaA", "m times t"),
            ("bob:$argon2id$m=65536,t=1,p=1$c2FsdHNhbHQ$Y2FsbGVkIGFzaGFzaA", "version of argon2"),
            ("bob:$argon2xx$v=19$m=65536,t=1,p=1$c2FsdHNhbHQ$Y2FsbGVkIGFzaGFzaA", "no kind of argon2"),
        ] {
            let fault = users(&format!("{good}{line}\n")).unwrap_err();
            assert!(fault.message.starts_with("line 2 of /etc/users "), "{line}: {fault}");
            assert!(fault.message.contains(words), "{line}: {fault}");
            assert!(!fault.to_string().contains("hunter2") && !fault.to_string().contains("c2FsdHNhbHQ"), "{fault}");
        }
        let expensive = BCRYPT.replace("$04$", "$15$");
        assert!(users(&format!("ann:{expensive}")).unwrap_err().message.contains("cost of 15"));
        let twice = users(&format!("{good}# and again\n{good}")).unwrap_err();
        assert!(twice.message.contains("line 3 of /etc/users names the user `ann` once more"), "{twice}");
        for nobody in ["", "\n\n", "# ann:x\n"] {
            assert!(users(nobody).unwrap_err().message.contains("names no user"));
        }
        assert!(Users::parse(b"ann:\xff", Path::new("f")).unwrap_err().message.contains("UTF-8"));
        assert!(users("bob:$apr1$x").unwrap_err().help.contains("htpasswd -B /etc/users bob"));
    }

    #[test]
    fn neither_names_nor_hashes_get_into_a_log() {
        let told = format!("{:?}", users(&format!("ann:{BCRYPT}")).unwrap());
        assert!(!told.contains("ann") && !told.contains("$2y$"), "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_fall(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(bob:\\$(2y|2b|argon2id|argon2)\\$[v=0-9mtp,$./a-z]{0,80}\n?){0,3}") {
            let _ = Users::parse(&bytes, Path::new("f"));
            let _ = users(&text);
        }

        #[test]
        fn whoever_is_no_user_has_a_stand_in(number: u64) {
            let text = format!("ann:{BCRYPT}\nbob:{ARGON2}\n");
            let users = users(&text).unwrap();
            prop_assert_eq!(users.stand_in(number).as_str(), users.stand_in(number).as_str());
        }
    }
}
