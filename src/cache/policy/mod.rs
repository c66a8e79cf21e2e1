//! The decisions of the cache: RFC 9111 (HTTP Caching), RFC 5861 (stale responses), RFC 9213 (targeted fields), RFC 8246
//! (`immutable`) and RFC 9211 (`Cache-Status`). Pure: no clock, no socket, no lock, no store.
//!
//! | question | asked of |
//! |---|---|
//! | What does a request say? Has it anything to do with the cache? | [`Asked`] |
//! | What does a response say, and whose word counts? | [`said`], [`cache_control`], [`targeted`] |
//! | May it be stored, and which fields of it? | [`storable`](fn@storable), [`fields`] |
//! | Which requests is it good for? | [`vary`], [`super::key`] |
//! | What is a request answered with? | [`serve`](fn@serve), [`conditional`] |
//! | How does one ask the app, and what does its answer mean? | [`validate`] |
//! | What does a POST undo? | [`invalidate`] |
//! | What is the client told? | [`cache_status`] |
//!
//! A hit parses nothing of the response: [`Stored`] has 40 bytes of times and flags, read when it was stored.
//!
//! An answer that the app has handed over to a file or another route, or that holds its client, is not its own page:
//! [`Asked::handed_on`] keeps `default_ttl` away from it.
//!
//! # Who is answered from the cache
//!
//! A client is **anonymous** when its request has no `Authorization`, none of `bypass_cookies`, and the edge itself does not
//! know who it is (`auth`). Others are neither answered from the cache nor is anything that they get stored, unless the response says
//! `public` (for `Authorization` also `must-revalidate` or `s-maxage`: RFC 9111, 3.5) **and** the route allows it.
//!
//! A response with `Set-Cookie` is not stored, unless it says itself that the cookie is the first client's alone
//! (`no-cache="set-cookie"`), which leaves it out.
//!
//! # Cookies, and Django
//!
//! Cookies are of four kinds:
//!
//! 1. `bypass_cookies` stand for somebody (`sessionid`). Their clients are not anonymous. Among the defaults are two that would
//!    otherwise go wrong: `messages`, because the page that shows a message does not say `Vary: Cookie`, and `django_language`,
//!    because pages in the language that it chooses say `Vary: Accept-Language` alone.
//! 2. `ignore_cookies` are nobody's business but some script's (`_ga`). They count nowhere.
//! 3. All **others** count where the response says `Vary: Cookie`, each set of them as a variant of its own.
//! 4. `csrftoken` and its like ([`rules::NEVER_IGNORED`]) are of the third kind whatever the configuration says.
//!
//! Django says `Vary: Cookie` whenever a view has touched the session or made a CSRF token. So its pages are kept, and are not useless:
//! all anonymous clients without other cookies share **one** variant. And they are not leaked:
//!
//! - A page with `{% csrf_token %}` sets the cookie `csrftoken` each time that it is rendered, so it has `Set-Cookie` and is not
//!   stored: two browsers get two tokens, each with its cookie, and both POSTs succeed.
//! - Should an app render a token without setting the cookie (another framework), then the page depends on the cookie that the
//!   client has sent. Where it says `Vary: Cookie`, `csrftoken` counts, so that it is that client's variant, and no client with
//!   another cookie, or with none, ever gets it. A template's own cache around `{% csrf_token %}` hands one token to everybody and
//!   says neither; that is broken without a cache here, too, and nothing here can see it.
//! - What a user with a session sees is never written, nor read, because of 1.
//!
//! Variants by cookies are bounded ([`vary::admit`]): they have a quarter of a key's variants, and push out each other, never the
//! one without cookies.
//!
//! With `default_ttl` (a micro-cache for apps that say nothing) one thing more holds: what a client with cookies of the third
//! kind gets is not written unless it says `Vary: Cookie`. The app has promised nothing, and a page that reads a cookie without saying
//! so (`theme=dark`) must not become everybody's. Such a client is still answered with what one without cookies has left there:
//! list the cookie in `bypass_cookies` where that is wrong, in `ignore_cookies` where no view reads it.
//!
//! # What is decided where the RFC leaves it open
//!
//! - Directives that contradict each other: the most restrictive counts, also of two `max-age` (RFC 9111, 4.2.1 has the first
//!   one or stale; the lesser of both is never fresher than the first).
//! - `s-maxage` forbids stale use (5.2.2.10) and `stale-while-revalidate` permits it: where one response says both, the explicit
//!   permission counts, as in every CDN. The route's own windows do not apply to it. `must-revalidate`, `proxy-revalidate` and `no-cache`
//!   are never overruled.
//! - A failure (500, 502, 503, 504, no answer) lets `stale-while-revalidate` count as `stale-if-error`, if that is shorter.
//! - `no-store` of a request forbids storing (5.2.1.5), not answering from what is stored. The other wishes of clients are advice
//!   (5.2.1), and not taken unless the route says so.
//! - `default_ttl` and `X-Accel-Expires` are counted from the arrival, as in nginx, so that a slow page is worth keeping; what is told to
//!   all caches is counted from the app's clock (4.2.3). `Age` tells the true age in either case.
//! - A 304 to somebody who is not anonymous changes what is stored only if it says `public` itself.
//! - Without a word of its freshness nothing is stored, but what says `no-cache` and can be asked for again.
//!
//! # Optional, and not done
//!
//! - Storing and combining 206 (3.3, 3.4): workers answer whole bodies; ranges are answered from those. So `fwd=partial` is only
//!   for who fetches a whole because of a range.
//! - Updating stored fields from an answer to HEAD (4.3.5): it is held against what is stored, which is asked for again if it differs. Its
//!   fields may be those of a view that does not run for HEAD.
//! - Storing responses to POST (RFC 9110, 9.3.3), and to GET with a body.
//! - One request with the tags of several variants (4.3.1): each variant is asked for by its own.
//! - Answering a GET with `Vary` from another variant that the app would choose as well (`Key`, `Variants`): not standards yet.
//! - `stale-if-error` in requests (RFC 5861, 4): advice of a client, who could keep a broken page alive for nobody but himself.
//! - `Warning` (gone since RFC 9111), `no-store-remote` and ESI.
//! - Invalidating more than the target, `Location` and `Content-Location` (4.4): that is what purging by tag is for.

pub mod cache_control;
pub mod cache_status;
pub mod conditional;
pub mod cookies;
mod date;
pub mod fields;
pub mod freshness;
pub mod invalidate;
pub mod request;
pub mod rules;
pub mod said;
pub mod serve;
pub mod storable;
pub mod targeted;
pub mod validate;
pub mod vary;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use self::cache_control::CacheControl;
pub use self::cache_status::CacheStatus;
pub use self::cookies::Patterns;
pub use self::freshness::{Stored, Times};
pub use self::request::{Asked, Bypass, Context};
pub use self::rules::Rules;
pub use self::serve::{Serve, Why, serve};
pub use self::storable::{Refusal, Storable, storable};
pub use self::validate::{Head, Validated, conditions, head, validated};
