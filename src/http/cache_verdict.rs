//! What the cache has made of a request, for log and metrics.

/// A closed set: the names are public interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheVerdict {
    /// What is stored was the answer.
    Hit,
    /// What is stored was the answer although it is stale: while a new one is fetched, or because the app has failed.
    Stale,
    /// What is stored was the answer, after the app had said that it is still good.
    Revalidated,
    /// It was answered with what another request has brought.
    Collapsed,
    /// The app was asked, and what it said may be stored, or might have been.
    Miss,
    /// The app was asked, and it is known that what it says is not to be stored.
    Pass,
    /// The cache had nothing to do with it.
    Bypass,
    /// Only what is stored was asked for, and there is nothing.
    Unavailable,
}

impl CacheVerdict {
    /// Each where its number says.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Collapsed,
        Self::Miss,
        Self::Pass,
        Self::Bypass,
        Self::Unavailable,
    ];

    /// The name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Pass => "pass",
            Self::Bypass => "bypass",
            Self::Unavailable => "unavailable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_where_its_number_says_and_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = CacheVerdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
        assert_eq!(names.len(), CacheVerdict::ALL.len());
        assert!(CacheVerdict::ALL.iter().enumerate().all(|(at, verdict)| *verdict as usize == at));
    }
}
