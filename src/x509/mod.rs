//! What certificates and their kin say, read from DER: the dates and names of a certificate (RFC 5280), its subject as
//! text (RFC 4514), what an OCSP response says of it (RFC 6960), and what a file of authorities holds.
//!
//! The TLS library validates; it does not tell contents. These walk to the places needed, strictly, and interpret nothing
//! else. Pure: bytes in, facts out.

mod bundle;
mod der;
mod facts;
mod name;
mod ocsp;

pub use bundle::{BadBundle, authorities};
pub use der::Malformed;
pub use facts::CertificateFacts;
pub use name::{LONGEST_SUBJECT, SubjectError, subject};
pub use ocsp::{LARGEST_RESPONSE, NotStapled, Staple};

#[cfg(test)]
pub(crate) use ocsp::tests::response as ocsp_response;
