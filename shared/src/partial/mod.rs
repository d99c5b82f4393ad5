//! Keeps events as mergeable states, in columns, between reading them and returning a value.
//!
//! Three stages: *observe* values into states, *merge* states, *finish* states into a column. Merging is associative
//! and commutative, with the state of nothing as identity: exactly for counts, integers, decimals, minimum and maximum;
//! to the last bits for float sums. The speed layer, the batch layer and every answer hold the same states, so one
//! merge serves the query, the reconciliation and coarser grains alike.
//!
//! [`states`]: one aggregate's states for many groups. [`keys`]: the dimension values of groups. [`block`]: rows of
//! (window, key, states), and the immutable [`block::Part`] a reader holds. [`accumulate`]: folding events into blocks.
//! [`sketch`]: what a group keeps of values that a number cannot sum up. [`merge`]: several parts into one table,
//! within a [`query_budget`]. [`codec`]: parts as Arrow columns and back.

pub mod accumulate;
pub mod block;
pub mod bucket;
pub mod codec;
pub mod finish;
pub mod keys;
pub mod merge;
pub mod query_budget;
mod rows;
pub mod sessions;
pub mod sketch;
pub mod states;
