//! How does an event enter? Decoded, told apart from its duplicates, stamped with the watermark, durable, then shown to others.

pub mod log;
pub mod partition;
pub mod streams;
