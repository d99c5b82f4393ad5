//! Keeps archives small: rewrites many small files as few, and drops event dates that retention no longer keeps.

pub mod compaction;
pub mod compactor;
pub mod erasure;
pub mod retention;
pub mod settings;
