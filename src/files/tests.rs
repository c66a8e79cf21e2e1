//! The action over a folder on the disk.

