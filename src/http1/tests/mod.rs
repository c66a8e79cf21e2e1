//! Claims about whatever bytes may come: generated heads, damaged heads, and noise.

mod differential;
mod framing;
pub(crate) mod generate;
mod reference;
mod round_trip;
mod second_reading;
