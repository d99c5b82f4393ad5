//! Computes the exact results of every view up to the seam: recomputes them from the archive and publishes them in one
//! step. Nothing here reads the log.
//!
//! Stages, from the request to the result:
//! - A **run** is what a schedule, a request or a failed run asks for: `full` or not, and for which dates ([`runs`]).
//! - An **attempt** is one execution of a run, against the version that is active at that moment ([`run`]).
//! - A **plan** says what the attempt reads and what it replaces ([`plan`]).
//! - A **version** is what it publishes: one commit of the view's table, with its seam, ledger and comparison
//!   ([`versions`]).
//!
//! How a run flows:
//! 1. [`service`] starts runs when a schedule or a retry is due, or on request; [`runs`] queues and remembers them.
//! 2. [`run`] cuts the log, and takes one complete value after the other to the new version.
//! 3. [`plan`] decides, [`recompute`] computes exact files, [`reconcile`] compares them with what was served.
//! 4. [`versions`] reads, keeps and vacuums what was published.
//!
//! [`archive`] compacts the archives that runs read, and drops the dates that retention no longer keeps. Whatever is
//! deleted by its age is deleted by the time of the [`deletion_clock`].

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod archive;
pub mod blocking;
pub mod deletion_clock;
pub mod engines;
pub mod fail_points;
pub mod failure;
pub mod layers;
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

pub use archive::settings::CompactionSettings;
pub use engines::{Engines, SparkUse};
pub use fail_points::FailPoints;
pub use layers::{LayerHandles, log_reader};
pub use runs::retry::RetrySettings;
pub use service::{Batch, StartError};
pub use settings::BatchSettings;
pub use step::Step;
pub use versions::load::{LoadedView, load_published, old_definition};
pub use versions::reader::VersionReader;

#[cfg(test)]
mod tests;
