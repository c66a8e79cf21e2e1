//! A WebSocket that ends here (RFC 6455, the server's side): [`wire`] reads it, [`outbox`] is what is still to be written,
//! [`close`] is which codes may stand in a Close.

mod boundary;
pub mod close;
mod outbox;
mod wire;

pub use outbox::{Opcode, Outbox};
pub use wire::{Broken, Received, Wire};
