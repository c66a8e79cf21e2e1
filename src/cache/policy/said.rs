//! What a response says of its own freshness, and whose word counts.
//!
//! The first of these that is there, and can be read, is obeyed; the others are as if they were not:
//!
//! 1. `X-Accel-Expires`, which only the edge sees: seconds, `@` and seconds since 1970, or `0` and `off`: not stored. As in
//!    nginx it says how long, and sets `no-store`, `no-cache` and `private` of the others aside, which are then meant for
//!    browsers. Of two lines the shorter time counts; what is none of all this is read as `0`.
//! 2. `CDN-Cache-Control` (RFC 9213): all of it instead of `Cache-Control` and `Expires`.
//! 3. `Surrogate-Control`: the same.
//! 4. `Cache-Control`: `s-maxage`, then `max-age`.
//! 5. `Expires`; what is no date is past (RFC 9111, 5.3).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::cache_control::{CacheControl, Flags, MAX_SECONDS};
use super::{date, targeted};

/// `X-Accel-Expires`.
pub const X_ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

/// Whose word is taken for how long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// Nobody's: it is stale at once.
    Nothing,
    /// `X-Accel-Expires`, in seconds.
    Accel,
    /// `X-Accel-Expires`, a date.
    AccelDate,
    /// `CDN-Cache-Control`.
    Cdn,
    /// `Surrogate-Control`.
    Surrogate,
    /// `s-maxage`.
    SharedMaxAge,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// The route's `default_ttl`.
    Default,
    /// A part of its age (RFC 9111, 4.2.2).
    Heuristic,
}

impl Source {
    /// All of them, each where its number says.
    pub(super) const ALL: [Self; 10] = [
        Self::Nothing,
        Self::Accel,
        Self::AccelDate,
        Self::Cdn,
        Self::Surrogate,
        Self::SharedMaxAge,
        Self::MaxAge,
        Self::Expires,
        Self::Default,
        Self::Heuristic,
    ];

    /// Whether it stands in a field that is not stored: see [`super::fields`].
    pub(super) const fn is_for_the_edge(self) -> bool {
        matches!(self, Self::Accel | Self::AccelDate | Self::Surrogate)
    }
}

/// What a response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What counts, of whichever field it is.
    pub control: CacheControl,
    /// How many seconds it is fresh, and who says so. `None`: nobody does.
    pub lifetime: Option<(Source, u32)>,
    /// `X-Accel-Expires` says that it is not to be stored.
    pub is_off: bool,
    /// Its `Date` in seconds since 1970; when it has none, that of its arrival (RFC 9110, 6.6.1).
    pub date: u64,
}

impl Said {
    /// Reads a response that came at `wall`, in seconds since 1970.
    #[must_use]
    pub fn of(headers: &HeaderMap, wall: u64) -> Self {
        let date = date::only(headers, &header::DATE).unwrap_or(wall);
        let mut said = Self::by_field(headers, date);
        if let Some((source, seconds)) = accel(headers, wall) {
            said.set(source, seconds);
        }
        said
    }

    fn by_field(headers: &HeaderMap, date: u64) -> Self {
        let new = |control, lifetime| Self { control, lifetime, is_off: false, date };
        if let Some(control) = targeted::cdn(headers) {
            let seconds = control.s_maxage.or(control.max_age);
            return new(control, seconds.map(|seconds| (Source::Cdn, seconds)));
        }
        if let Some(control) = targeted::surrogate(headers) {
            let lifetime = control.max_age.map(|seconds| (Source::Surrogate, seconds));
            return new(control, lifetime);
        }
        let control = CacheControl::of(headers.get_all(header::CACHE_CONTROL));
        let lifetime = match (control.s_maxage, control.max_age) {
            (Some(seconds), _) => Some((Source::SharedMaxAge, seconds)),
            (None, Some(seconds)) => Some((Source::MaxAge, seconds)),
            (None, None) => expires(headers, date).map(|seconds| (Source::Expires, seconds)),
        };
        new(control, lifetime)
    }

    fn set(&mut self, source: Source, seconds: u32) {
        self.lifetime = Some((source, seconds));
        self.is_off = seconds == 0 && source == Source::Accel;
        // A time that is over tells nobody to keep what is forbidden otherwise.
        if seconds > 0 {
            self.control.flags = self.control.flags.without(Flags::NO_STORE.and(Flags::NO_CACHE).and(Flags::PRIVATE));
        }
    }

    /// The same, where a response that is made fresh by this one was told by a field that is not stored, and that this one
    /// does not have: that word still counts.
    pub(super) fn inherit(&mut self, source: Source, seconds: u32) {
        let is_told_anew = self.lifetime.is_some_and(|(source, _)| source.is_for_the_edge() || source == Source::Cdn);
        match source {
            _ if is_told_anew || self.is_off => {}
            Source::Accel => self.set(source, seconds),
            // The date was that of the first time; nobody knows whether it is past.
            Source::AccelDate => self.set(source, 0),
            Source::Surrogate => self.lifetime = Some((source, seconds)),
            _ => {}
        }
    }
}

/// The least of all lines: how many seconds lie between the response and its end.
fn expires(headers: &HeaderMap, date: u64) -> Option<u32> {
    let end = |line: &HeaderValue| date::parse(line).unwrap_or(0);
    let end = headers.get_all(header::EXPIRES).iter().map(end).min()?;
    Some(u32::try_from(end.saturating_sub(date)).unwrap_or(MAX_SECONDS).min(MAX_SECONDS))
}

/// The shortest time of all lines.
fn accel(headers: &HeaderMap, wall: u64) -> Option<(Source, u32)> {
    let lines = headers.get_all(X_ACCEL_EXPIRES).iter();
    lines.map(|line| accel_of(line.as_bytes(), wall)).min_by_key(|(_, seconds)| *seconds)
}

/// In seconds from `wall` on. What cannot be read is `0`: not to be stored.
fn accel_of(text: &[u8], wall: u64) -> (Source, u32) {
    let (source, digits) = match text {
        [b'@', digits @ ..] => (Source::AccelDate, digits),
        digits => (Source::Accel, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return (Source::Accel, 0);
    }
    let number = digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into()));
    let seconds = if source == Source::AccelDate { number.saturating_sub(wall) } else { number };
    (source, u32::try_from(seconds).unwrap_or(MAX_SECONDS).min(MAX_SECONDS))
}
