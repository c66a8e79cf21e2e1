//! A mark on answers whose body goes on for as long as the client is there.

/// Among the extensions of an answer: its body is a stream that the edge itself goes on with, in pieces that are to go out at
/// once. Layers above neither compress nor keep it.
#[derive(Debug, Clone, Copy)]
pub struct Held;
