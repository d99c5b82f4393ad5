//! Reads published versions: loads them at the start, caches their rows, finds older ones again, and deletes files
//! that no kept version needs.

pub mod cache;
pub mod kept;
pub mod load;
pub mod reader;
pub mod time_travel;
pub mod vacuum;
