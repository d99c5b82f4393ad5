//! Contains partial aggregates: mergeable states in columns, between reading events and showing a figure.
//!
//! Three stages: *observe* values into states, *merge* states, *finish* states into a column. Merging is associative and
//! commutative, with the state of no events as identity; [`states`] states the law. The speed layer, the batch layer and every
//! query hold the same states, so one merge serves queries, reconciliation and coarser grains.
//!
//! [`states`]: one aggregate's states for many groups. [`keys`]: the dimension values of groups, [`batch_keys`]: those of a batch of
//! events, [`coded_keys`]: the same by codes. [`block`]: rows of
//! (window, key, states), and the immutable [`block::Part`] that readers hold. [`accumulate`]: folding events into blocks.
//! [`wanted`] finds rows by key, and [`index_cache`] keeps what finds them.
//! [`sketch`]: states of measures that need the values themselves. [`merge`]: several parts into one table, within a
//! [`query_budget`]. [`codec`]: parts as Arrow columns and back.

pub mod accumulate;
pub mod batch_keys;
pub mod block;
pub mod bucket;
pub mod codec;
mod coded_keys;
pub mod finish;
pub mod index_cache;
pub mod keys;
pub mod layers;
pub mod merge;
pub mod query_budget;
mod rows;
pub mod sessions;
pub mod sketch;
pub mod states;
pub mod tracking;
pub mod wanted;
