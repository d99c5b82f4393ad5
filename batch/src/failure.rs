//! Lists the reasons why a run ends without a new version, as messages that the run keeps, and says which may pass.

use arrow::error::ArrowError;
use lake::LakeError;
use polars::prelude::PolarsError;
use shared::evaluate::EvaluateError;
use shared::handoff::HandoffError;
use shared::ids::StreamName;
use shared::lookup::join::LookupError;
use shared::partial::codec::CodecError;
use shared::partial::merge::MergeError;
use shared::readers::{BatchReadError, SpeedError};
use spark_connect::SparkError;

use crate::plan::planner::PlanError;

/// Why a run ended without a new version. Nothing it did is visible.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    #[error("cancelled")]
    Cancelled,
    /// A fault that a test injected: see [`crate::fail_points`].
    #[cfg(any(test, feature = "fail-points"))]
    #[error("injected failure at step {0}")]
    Injected(crate::step::Step),
    #[error("cannot cut the log: {0}")]
    Cut(HandoffError),
    #[error("the archive did not reach the cut: {0}")]
    Archive(HandoffError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("{0}")]
    Lake(#[from] LakeError),
    /// The commit may exist already or appear later, with the files that the run wrote.
    #[error("commit outcome unknown: {0}")]
    Undecided(LakeError),
    #[error("polars: {0}")]
    Polars(#[from] PolarsError),
    #[error("cannot evaluate an expression: {0}")]
    Evaluate(#[from] EvaluateError),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Merge(#[from] MergeError),
    #[error("{0}")]
    Arrow(#[from] ArrowError),
    #[error("archive file {path} of {date} should hold {expected} rows and holds {found}")]
    RowsOfFile { path: String, date: String, expected: u64, found: u64 },
    #[error("read {found} rows of the event dates {first} to {last}, the archive notes {expected}")]
    RowsOfDates { first: String, last: String, expected: u64, found: u64 },
    #[error(
        "one group of the window date {date} does not fit in batch.memory_limit ({limit}), even with one pass per group: \
         raise the limit (--batch-memory), or let the view keep less (a coarser COUNT(DISTINCT) or percentile, a WHERE)"
    )]
    MemoryLimit { limit: String, date: String },
    #[error(
        "version {version} of {table} lists files that are gone ({count}, the first is {path}): another program deleted them, or \
         a vacuum whose clock was wrong. Restore them from a backup; or give their {rows} events up: trueup repair {stream}"
    )]
    FilesMissing { table: String, stream: String, version: i64, path: String, count: u64, rows: u64 },
    #[error("too many events on {0} to remove duplicates at once")]
    DateTooLarge(String),
    #[error("speed layer: {0}")]
    Speed(#[from] SpeedError),
    #[error("the speed layer did not reach the cut in time")]
    SpeedBehind,
    #[error("cannot read the previously published version: {0}")]
    Served(BatchReadError),
    #[error("{0}")]
    Spark(#[from] SparkError),
    #[error(
        "Spark cannot read {url}: {reason}; the lake must be where every machine of the cluster has it at the same place"
    )]
    SparkCannotRead { url: String, reason: String },
    #[error(
        "Spark reported {written} rows written to {url}, and {found} are there: the lake must be where every machine of the \
         cluster has it at the same place"
    )]
    SparkRows { url: String, written: u64, found: u64 },
    #[error("Spark cannot compute this run: {0}; set engine = 'polars'")]
    NotOnSpark(String),
    #[error("{0}")]
    Lookup(#[from] LookupError),
    #[error("there is no table {0}, which the view is joined with")]
    NoTable(StreamName),
    #[error(
        "the versions of the rows of table {table} take more than {bytes_max} bytes (lookup_bytes_max in [limits]): raise the limit, or let \
         views read fewer columns of the table"
    )]
    LookupTooLarge { table: StreamName, bytes_max: usize },
    #[error("the archive holds {found} changes of table {table} before the cut, the log accepted {accepted}")]
    ChangesMissing { table: StreamName, found: u64, accepted: u64 },
    #[error("background task failed: {0}")]
    Background(#[from] tokio::task::JoinError),
    #[error("internal error: {0}")]
    Panicked(String),
}

impl RunFailure {
    /// Returns whether the same run may succeed later without any change: an unavailable store comes back, but data that
    /// does not fit and defects stay.
    pub fn may_pass(&self) -> bool {
        match self {
            #[cfg(any(test, feature = "fail-points"))]
            RunFailure::Injected(_) => true,
            RunFailure::Cut(_)
            | RunFailure::Archive(_)
            | RunFailure::Undecided(_)
            | RunFailure::Speed(_)
            | RunFailure::SpeedBehind
            | RunFailure::Served(BatchReadError::Unavailable(_) | BatchReadError::Exceeded(_)) => true,
            RunFailure::Lake(error) => lake_may_pass(error),
            RunFailure::Polars(error) => polars_may_pass(error),
            RunFailure::Spark(error) => error.may_pass(),
            // A panic is a defect; otherwise the task was cancelled from outside.
            RunFailure::Background(error) => !error.is_panic(),
            // Until the folder is back or the archive is repaired.
            RunFailure::FilesMissing { .. } => true,
            // Only a full run helps, which does not read it.
            RunFailure::Served(BatchReadError::Gone(_)) => false,
            RunFailure::Cancelled
            | RunFailure::Plan(_)
            | RunFailure::Evaluate(_)
            | RunFailure::Codec(_)
            | RunFailure::Merge(_)
            | RunFailure::Arrow(_)
            | RunFailure::RowsOfFile { .. }
            | RunFailure::RowsOfDates { .. }
            | RunFailure::MemoryLimit { .. }
            | RunFailure::DateTooLarge(_)
            | RunFailure::SparkCannotRead { .. }
            | RunFailure::SparkRows { .. }
            | RunFailure::NotOnSpark(_)
            | RunFailure::Lookup(_)
            | RunFailure::NoTable(_)
            | RunFailure::LookupTooLarge { .. }
            | RunFailure::ChangesMissing { .. }
            | RunFailure::Panicked(_) => false,
        }
    }

    /// Returns the failure for the payload of a panic.
    pub fn of_panic(payload: &(dyn std::any::Any + Send)) -> RunFailure {
        let text = payload.downcast_ref::<&str>().map(|t| (*t).to_owned());
        RunFailure::Panicked(text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default())
    }
}

/// Lost races and unavailable stores pass. A lake with another owner, another schema or without what it needs does not.
fn lake_may_pass(error: &LakeError) -> bool {
    match error {
        LakeError::Conflict { .. }
        | LakeError::AlreadyCommitted { .. }
        | LakeError::InUse { .. }
        | LakeError::FilesMissing { .. }
        | LakeError::Spool { .. }
        | LakeError::Store(_)
        | LakeError::Delta(_)
        | LakeError::File { .. }
        | LakeError::Parquet(_) => true,
        LakeError::Location { .. }
        | LakeError::NotOwner { .. }
        | LakeError::Schema { .. }
        | LakeError::Panicked { .. }
        | LakeError::SpoolFull { .. }
        | LakeError::NoSpool { .. }
        | LakeError::Arrow(_) => false,
        LakeError::Background(error) => !error.is_panic(),
    }
}

/// Polars wraps the error of a read in the context where it happened.
fn polars_may_pass(error: &PolarsError) -> bool {
    match error {
        PolarsError::IO { .. } => true,
        PolarsError::Context { error, .. } | PolarsError::ExprContext { error, .. } => polars_may_pass(error),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_failures_that_time_can_fix_are_transient() {
        let table = || "views/a".to_owned();
        let away = || PolarsError::IO { error: Arc::new(io::Error::other("away")), msg: None };
        let context = |error| PolarsError::Context { error: Box::new(error), msg: "reading".into() };
        for (failure, passes) in [
            (LakeError::Conflict { table: table(), reason: String::new() }.into(), true),
            (LakeError::Spool { path: String::new(), source: io::Error::other("full") }.into(), true),
            (LakeError::NotOwner { table: table(), epoch: 1, owner: 2 }.into(), false),
            (LakeError::Schema { table: table(), reason: String::new() }.into(), false),
            (LakeError::NoSpool { table: table() }.into(), false),
            (RunFailure::Undecided(LakeError::Conflict { table: table(), reason: String::new() }), true),
            (away().into(), true),
            (context(away()).into(), true),
            (context(PolarsError::ComputeError("overflow".into())).into(), false),
            (RunFailure::MemoryLimit { limit: "1 MiB".to_owned(), date: "2001-01-01".to_owned() }, false),
            (RunFailure::Panicked("a defect".to_owned()), false),
        ] {
            let failure: RunFailure = failure;
            assert_eq!(failure.may_pass(), passes, "{failure}");
        }
    }

    #[tokio::test]
    async fn a_panic_of_a_background_task_is_permanent() {
        let panicked = tokio::spawn(async { panic!("a defect") }).await.expect_err("it panics");
        assert!(!RunFailure::from(panicked).may_pass());
    }
}
