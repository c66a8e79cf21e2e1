//! Files that are sent from where they lie.

pub mod body;
