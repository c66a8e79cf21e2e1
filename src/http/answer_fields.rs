//! Fields for whatever answer an exchange has: the app's, the edge's own, a page that says what failed.
//!
//! A layer below `rescue` has no hold on the page that comes of a failure further down, nor on that of its own refusal. It
//! says here what it wants on the answer, and `rescue`, which sees every answer, puts it there.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};

/// What has been asked for. Nothing, for most exchanges: that takes no memory.
#[derive(Debug, Default)]
pub struct AnswerFields(RefCell<Vec<(Manner, HeaderName, HeaderValue)>>);

/// How a field stands to those by its name that the answer has.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Set,
    Add,
    Offer,
}

impl AnswerFields {
    /// Instead of whatever the answer has by this name.
    pub fn set(&self, name: HeaderName, value: HeaderValue) {
        self.0.borrow_mut().push((Manner::Set, name, value));
    }

    /// Beside what the answer has by this name: for lists, such as `Vary`.
    pub fn add(&self, name: HeaderName, value: HeaderValue) {
        self.0.borrow_mut().push((Manner::Add, name, value));
    }

    /// Only if the answer has nothing by this name.
    pub fn offer(&self, name: HeaderName, value: HeaderValue) {
        self.0.borrow_mut().push((Manner::Offer, name, value));
    }

    /// Leaves them to another exchange, whose answer it is to be.
    pub fn leave_to(&self, other: &Self) {
        other.0.borrow_mut().append(&mut self.0.borrow_mut());
    }

    /// Puts them on the answer, in the order in which they were asked for.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (manner, name, value) in self.0.take() {
            match manner {
                Manner::Set => {
                    headers.insert(name, value);
                }
                Manner::Add => {
                    headers.append(name, value);
                }
                Manner::Offer => {
                    headers.entry(name).or_insert(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn a_field_stands_instead_of_others_beside_them_or_not_at_all() {
        let value = HeaderValue::from_static;
        let fields = AnswerFields::default();
        fields.set(header::SERVER, value("first"));
        fields.set(header::SERVER, value("ours"));
        fields.add(header::VARY, value("origin"));
        fields.add(header::ALLOW, value("GET"));
        fields.offer(header::REFERRER_POLICY, value("ours"));
        fields.offer(header::X_FRAME_OPTIONS, value("DENY"));
        fields.offer(header::X_FRAME_OPTIONS, value("SAMEORIGIN"));
        let mut headers = HeaderMap::new();
        headers.append(header::SERVER, value("app"));
        headers.append(header::SERVER, value("app again"));
        headers.append(header::VARY, value("cookie"));
        headers.append(header::REFERRER_POLICY, value("app"));
        fields.apply(&mut headers);
        let told =
            |name: &HeaderName| headers.get_all(name).iter().map(|v| v.to_str().unwrap_or("")).collect::<Vec<_>>();
        assert_eq!(told(&header::SERVER), ["ours"]);
        assert_eq!(told(&header::VARY), ["cookie", "origin"]);
        assert_eq!(told(&header::ALLOW), ["GET"]);
        assert_eq!(told(&header::REFERRER_POLICY), ["app"]);
        assert_eq!(told(&header::X_FRAME_OPTIONS), ["DENY"]);
        let mut again = HeaderMap::new();
        fields.apply(&mut again);
        assert!(again.is_empty(), "once");
    }
}
