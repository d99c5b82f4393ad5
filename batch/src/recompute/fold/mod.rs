//! Computes windows by folding events with the speed layer's own accumulators, in states that keep every value.

pub mod bounded_fold;
pub mod folding;
pub mod passes;
pub mod shards;
pub mod slices;
