//! Bodies held at the edge, so that neither a slow sender nor a slow reader holds a worker.
//!
//! [`receive`] takes a request body whole before a worker is touched; [`pipe`] lets a response be read at the worker's
//! speed and sent on as it comes. Both keep a little in memory and the rest in an unlinked file, within one
//! [`Budget`] for the process. Files are read and written on the runtime's threads for disk.

use std::net::IpAddr;

use crate::error::{Error, Reason};

mod behind;
mod budget;
mod file;
mod pieces;
mod pipe;
mod request;

pub use budget::Budget;
pub use pipe::{Gone, Reader, Writer, pipe};
pub use request::{Spooled, receive};

/// There is no room for a body, or none for those of its client.
#[must_use]
pub fn full() -> Error {
    Error::new(Reason::SpoolFull).detail(
        "see `spool` and the route's `buffer`; of `spool` a client has as much as is left for all others at most",
    )
}

/// How much one body may take of the budget, and who has it then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Share {
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes in a file.
    pub disk: u64,
    /// The client, where it has an address.
    pub client: Option<IpAddr>,
}
