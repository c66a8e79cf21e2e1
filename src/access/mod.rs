//! Who may use a route, beyond what a request shows by itself: users and keys in force, and passwords checked beside the
//! event loop.
//!
//! Files are watched and swapped, keys fetched from an issuer again and again, by tasks of the control thread. What is bad
//! or gone changes nothing: what was good before stays in force, and the operator is told.

mod checks;
mod fetch;
mod keys;
mod sources;
mod users;
mod watch;

pub use checks::{Checks, Overloaded};
pub use keys::{Keys, NoKeys};
pub use sources::{Gathering, Sources};
pub use users::UserFile;
