//! Who asks, as far as the edge knows it: fields for the app that no client can send itself.
//!
//! What clients send under these names is removed before ours is written, on every route: names that are always ours by
//! [`super::fields::request_field`], names that the configuration chooses by `config::Route::identity_names`.

use std::cell::{Ref, RefCell};

use http::{HeaderName, HeaderValue};

/// The name of whoever has logged in: CGI's REMOTE_USER (RFC 3875, 4.1.11), for servers that take no variable.
pub const REMOTE_USER: HeaderName = HeaderName::from_static("remote-user");

/// What the edge says of who asks. Nothing, for most exchanges: that takes no memory.
#[derive(Debug, Default)]
pub struct Identity(RefCell<Vec<(HeaderName, HeaderValue)>>);

impl Identity {
    /// Tells it to the app, instead of what was told under this name before: the app has never two to choose from.
    pub fn tell(&self, name: HeaderName, value: HeaderValue) {
        let mut fields = self.0.borrow_mut();
        match fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => fields.push((name, value)),
        }
    }

    /// Takes back what was told under this name.
    pub fn forget(&self, name: &HeaderName) {
        self.0.borrow_mut().retain(|(known, _)| known != name);
    }

    /// Everything that is told.
    #[must_use]
    pub fn fields(&self) -> Ref<'_, [(HeaderName, HeaderValue)]> {
        Ref::map(self.0.borrow(), Vec::as_slice)
    }

    /// Who has logged in.
    #[must_use]
    pub fn user(&self) -> Option<HeaderValue> {
        self.fields().iter().find(|(name, _)| *name == REMOTE_USER).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_is_told_one_thing_under_one_name() {
        let identity = Identity::default();
        assert!(identity.fields().is_empty() && identity.user().is_none());
        let role = HeaderName::from_static("x-role");
        identity.tell(role.clone(), HeaderValue::from_static("staff"));
        identity.tell(REMOTE_USER, HeaderValue::from_static("ann"));
        identity.tell(REMOTE_USER, HeaderValue::from_static("bob"));
        assert_eq!(identity.user(), Some(HeaderValue::from_static("bob")));
        let told = [(role, HeaderValue::from_static("staff")), (REMOTE_USER, HeaderValue::from_static("bob"))];
        assert_eq!(*identity.fields(), told);
        identity.forget(&told[0].0);
        assert_eq!(*identity.fields(), told[1..]);
    }
}
