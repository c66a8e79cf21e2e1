//! The users and keys of a configuration: one of each file and address, however many routes go by it.

use std::sync::Arc;

use super::{Keys, UserFile};
use crate::config::{Basic, Jwt, KeySource};

/// All of one configuration.
#[derive(Default)]
pub struct Sources {
    users: Vec<Arc<UserFile>>,
    keys: Vec<Arc<Keys>>,
}

impl Sources {
    /// Those of a configuration that is being compiled. What is the same in the one before goes on: keys that have been
    /// fetched, passwords that were found right.
    #[must_use]
    pub fn following(previous: Option<&Self>) -> Gathering<'_> {
        Gathering { previous, sources: Self::default() }
    }

    /// Keys that have to be fetched.
    pub fn fetched(&self) -> impl Iterator<Item = &Arc<Keys>> {
        self.keys.iter().filter(|keys| !keys.are_a_file())
    }

    /// Whether [`Self::look`] has anything to look at.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.users.is_empty() || self.keys.iter().any(|keys| keys.are_a_file())
    }

    /// How many could not be read, or fetched, the last time.
    #[must_use]
    pub fn failing(&self) -> usize {
        let users = self.users.iter().filter(|users| users.is_failing()).count();
        users + self.keys.iter().filter(|keys| keys.is_failing()).count()
    }

    /// Looks at the files, and puts in force what has changed in them. Blocks.
    pub fn look(&self) {
        self.users.iter().for_each(|users| users.look());
        self.keys.iter().for_each(|keys| keys.look());
    }
}

/// [`Sources`] that are being put together.
pub struct Gathering<'a> {
    previous: Option<&'a Sources>,
    sources: Sources,
}

impl Gathering<'_> {
    /// The users of a route.
    pub fn users(&mut self, basic: &Basic) -> Arc<UserFile> {
        let is_it = |users: &&Arc<UserFile>| users.path() == basic.path && users.has(&basic.users);
        let known = self.sources.users.iter().find(is_it);
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let before = self.previous.and_then(|previous| previous.users.iter().find(is_it));
        let new = || Arc::new(UserFile::new(basic.path.clone(), Arc::clone(&basic.users)));
        let users = before.map_or_else(new, Arc::clone);
        self.sources.users.push(Arc::clone(&users));
        users
    }

    /// The keys of a route.
    pub fn keys(&mut self, jwt: &Jwt) -> Arc<Keys> {
        let is_it = |keys: &&Arc<Keys>| keys.are_of(&jwt.jwks, jwt.refresh);
        if let Some(known) = self.sources.keys.iter().find(is_it) {
            return Arc::clone(known);
        }
        let before = self.previous.and_then(|previous| previous.keys.iter().find(is_it));
        let new = || {
            let keys = Keys::new(jwt.jwks.clone(), jwt.refresh);
            // Another interval is no reason to be without keys for a while.
            let same = |other: &&Arc<Keys>| matches!(jwt.jwks, KeySource::Url(_)) && other.come_from(&jwt.jwks);
            if let Some(other) = self.previous.and_then(|previous| previous.keys.iter().find(same)) {
                keys.begin_with(other);
            }
            Arc::new(keys)
        };
        let keys = before.map_or_else(new, Arc::clone);
        self.sources.keys.push(Arc::clone(&keys));
        keys
    }

    /// All that was asked for.
    #[must_use]
    pub fn gathered(self) -> Sources {
        self.sources
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config;

    fn sources(routes: &[(&str, &str)], folder: &std::path::Path, previous: Option<&Sources>) -> Sources {
        let route = |(jwks, refresh): &(&str, &str)| {
            format!(
                "{{ path: /, respond: {{}}, auth: {{ basic: {{ users: ./users }}, jwt: {{ jwks: '{jwks}', issuer: i, \
                 audience: a, algorithms: [EdDSA], from: 'cookie:t', claims: {{}}, refresh: {refresh} }} }} }}"
            )
        };
        let routes: Vec<String> = routes.iter().map(route).collect();
        let text = format!("sites: [{{ routes: [{}] }}]", routes.join(", "));
        let loaded = config::load_str(&text, "f", folder, &|_| None).unwrap_or_else(|report| panic!("{report}"));
        let mut gathering = Sources::following(previous);
        for auth in loaded.config.sites[0].routes.iter().map(|route| route.auth.as_ref().unwrap()) {
            gathering.users(auth.basic.as_ref().unwrap());
            gathering.keys(auth.jwt.as_ref().unwrap());
        }
        gathering.gathered()
    }

    #[test]
    fn routes_share_what_is_the_same_and_so_do_configurations() {
        const URL: &str = "http://127.0.0.1:1/jwks";
        let folder = tempfile::tempdir().unwrap();
        let write = |password| {
            let line = format!("ann:{}", bcrypt::hash(password, 4).unwrap());
            std::fs::write(folder.path().join("users"), line).unwrap();
        };
        write("secret");
        let before = sources(&[(URL, "60s"), (URL, "60s"), ("http://127.0.0.1:2/", "60s")], folder.path(), None);
        assert_eq!((before.users.len(), before.keys.len(), before.fetched().count()), (1, 2, 2));
        let same = sources(&[("http://127.0.0.1:2/", "60s"), (URL, "60s")], folder.path(), Some(&before));
        assert!(Arc::ptr_eq(&same.users[0], &before.users[0]));
        assert!(Arc::ptr_eq(&same.keys[0], &before.keys[1]) && Arc::ptr_eq(&same.keys[1], &before.keys[0]));
        // Another file is not known by the passwords of the one before.
        write("changed");
        let other = sources(&[(URL, "90s")], folder.path(), Some(&before));
        assert!(!Arc::ptr_eq(&other.users[0], &before.users[0]));
        assert!(!before.keys.iter().any(|keys| Arc::ptr_eq(keys, &other.keys[0])));
        assert!(other.has_files() && !Sources::default().has_files());
    }
}
