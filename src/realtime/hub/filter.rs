//! Filters: whether an item is for a client, and whether its content is made for that client alone.
//!
//! | filter | effect |
//! |---|---|
//! | `skip-self` | not if the item's `sender` is the client's `user` |
//! | `skip-users` | not if the client's `user` is in the item's `skip_users`, a list with commas |
//! | `require-sub` | not if the item's `require_sub` names a channel on which the client is not held |
//! | `build-id` | `%I` in the content is the id that the client's `id_format` says: see [`super::render`] |
//! | `var-subst` | `%(name)s` in the content is the client's value of that name |
//!
//! A name that is not among them is ignored, as Pushpin does it.

use super::item::{Item, Meta};

/// One filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Filter {
    SkipSelf = 1,
    SkipUsers = 2,
    RequireSub = 4,
    BuildId = 8,
    VarSubst = 16,
}

impl Filter {
    /// Every filter.
    pub const ALL: [Self; 5] = [Self::SkipSelf, Self::SkipUsers, Self::RequireSub, Self::BuildId, Self::VarSubst];

    /// By its name; `None`: there is none by that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|filter| filter.as_str() == name)
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SkipSelf => "skip-self",
            Self::SkipUsers => "skip-users",
            Self::RequireSub => "require-sub",
            Self::BuildId => "build-id",
            Self::VarSubst => "var-subst",
        }
    }
}

/// A set of filters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filters(u8);

impl Filters {
    /// Stands for all that are not known here.
    const UNKNOWN: u8 = 0x80;
    /// Those that change content.
    const OF_CONTENT: u8 = Filter::BuildId as u8 | Filter::VarSubst as u8;

    /// The filters by these names; others are ignored.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Filter::named).collect()
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, filter: Filter) -> bool {
        self.0 & filter as u8 != 0
    }

    /// Those of them that change content.
    #[must_use]
    pub const fn of_content(self) -> Self {
        Self(self.0 & Self::OF_CONTENT)
    }

    /// These and those.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Those that an item's `content-filters` names. With one that is not known here, no client has exactly these.
    pub fn of_item<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let of = |name| Filter::named(name).map_or(Self(Self::UNKNOWN), |filter| Self(filter as u8));
        names.into_iter().map(of).fold(Self::default(), Self::with)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether an item is for a client with this metadata. `is_held_on`: whether it is held on a channel.
    pub(super) fn pass(self, item: &Item, meta: &Meta, is_held_on: impl Fn(&str) -> bool) -> bool {
        if self.0 & !Self::OF_CONTENT == 0 {
            return true;
        }
        let user = || value(meta, "user").filter(|user| !user.is_empty());
        if self.has(Filter::SkipSelf)
            && let (Some(user), Some(sender)) = (user(), item.meta("sender"))
            && user == sender
        {
            return false;
        }
        if self.has(Filter::SkipUsers)
            && let (Some(user), Some(skipped)) = (user(), item.meta("skip_users"))
            && skipped.split(',').any(|skipped| skipped.trim() == user)
        {
            return false;
        }
        if self.has(Filter::RequireSub)
            && let Some(channel) = item.meta("require_sub").filter(|channel| !channel.is_empty())
            && !is_held_on(channel)
        {
            return false;
        }
        true
    }
}

impl FromIterator<Filter> for Filters {
    fn from_iter<I: IntoIterator<Item = Filter>>(filters: I) -> Self {
        Self(filters.into_iter().fold(0, |all, filter| all | filter as u8))
    }
}

/// A name's value.
pub(super) fn value<'a>(meta: &'a Meta, name: &str) -> Option<&'a str> {
    meta.iter().find(|(known, _)| &**known == name).map(|(_, value)| &**value)
}
