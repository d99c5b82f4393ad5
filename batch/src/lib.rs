//! What is true up to the seam? Exact recomputation of every view over the archive, published in one step.
//!
//! Reading order: [`service`] starts runs (when a schedule says so, or a [`retry`] is due), [`registry`] knows them and
//! [`diary`] remembers them; [`run`] is one run from
//! [`step`] to step. [`plan`] says what to read, [`recompute`] reads it ([`scan`]) and writes window dates: those that
//! Polars can compute ([`query`], [`reductions`], [`pieces`]), and those for which events are folded ([`folding`],
//! [`filling`], [`slices`]), in several [`passes`] where memory is short ([`budget`]); [`reconcile`] compares with what was
//! served; [`publish`] makes the version answer. [`reader`] is how versions are read, [`load`] how a process begins,
//! [`travel`] how an old version ([`kept`]) answers again, [`cleaning`] when its files go. [`compactor`] keeps archives in
//! few files, [`compaction`] says which, and drops the dates that are over ([`dropping`]); [`retain`] says what that means for
//! a run, [`mod@frozen`] which events belong to sessions that began before. Nothing here reads the log.

pub mod archive;
pub mod failure;
pub mod plan;
pub mod recompute;
pub mod reconcile;
pub mod run;
pub mod runs;
pub mod service;
pub mod settings;
pub mod step;
pub mod versions;
pub mod watch;

pub use run::BatchSurroundings;
pub use run::publish::log_reader;
pub use runs::retry::RetrySettings;
pub use service::{Batch, StartError};
pub use settings::{BatchSettings, CompactionSettings};
pub use step::{FailPoints, Step};
pub use versions::load::{Loaded, load_published, old_definition};
pub use versions::reader::Reader;

#[cfg(test)]
mod tests;
