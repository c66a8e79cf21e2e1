//! What proves who somebody is: users and the hashes of their passwords, public keys, signed tokens.
//!
//! Formats alone: bytes come in, and users, keys or a verdict go out. Who reads the files, and when, is `access`; what a
//! file of the operator's has wrong in it is told by `config`, at the place that names it.

mod file;
pub mod htpasswd;
mod json;
pub mod jwk;
pub mod jwt;

pub use file::{Contents, LARGEST, Stamp, Unusable, read};
pub use htpasswd::Users;
pub use jwk::{Algorithm, KeySet};
