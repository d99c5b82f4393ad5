//! What is true up to the seam? Exact recomputation of every view over the archive, published in one step.
//!
//! Reading order: [`service`] starts runs (when a schedule says so, or a [`retry`] is due), [`registry`] knows them and
//! [`diary`] remembers them; [`run`] is one run from
//! [`step`] to step. [`plan`] says what to read, [`recompute`] reads it ([`scan`]) and writes window dates: those that
//! Polars can compute ([`query`], [`reductions`], [`pieces`]), and those for which events are folded ([`folding`],
//! [`filling`], [`slices`]), in several [`passes`] where memory is short ([`budget`]); [`reconcile`] compares with what was
//! served; [`publish`] makes the version answer. [`reader`] is how versions are read, [`load`] how a process begins,
//! [`travel`] how an old version ([`kept`]) answers again, [`cleaning`] when its files go. [`compactor`] keeps archives in
//! few files, [`compaction`] says which. Nothing here reads the log.

mod align;
pub mod budget;
pub mod cache;
pub mod cancel;
pub mod cleaning;
pub mod compaction;
pub mod compactor;
pub mod comparisons;
pub mod diary;
mod difference;
pub mod duplicates;
mod events;
pub mod explain;
pub mod facts;
pub mod failure;
mod filling;
pub mod folding;
mod json_cell;
pub mod kept;
mod left_out;
pub mod load;
mod passes;
pub mod pieces;
pub mod plan;
pub mod publish;
pub mod query;
mod reach;
pub mod reader;
pub mod recompute;
pub mod reconcile;
pub mod reductions;
pub mod registry;
pub mod retain;
pub mod retry;
pub mod run;
pub mod scan;
pub mod service;
pub mod settings;
pub mod slices;
pub mod step;
pub mod travel;

pub use load::{Loaded, load_published};
pub use publish::log_reader;
pub use reader::Reader;
pub use retry::RetrySettings;
pub use run::BatchSurroundings;
pub use service::{Batch, StartError};
pub use settings::{BatchSettings, CompactionSettings};
pub use step::{FailPoints, Step};

#[cfg(test)]
mod tests;
