//! Claims about whatever bytes may come: generated heads, damaged heads, and noise.

mod differential;
mod framing;
pub(crate) mod generate;
mod round_trip;
