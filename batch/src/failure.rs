//! Why did a run not publish? Every reason, in words that the run keeps.

use arrow::error::ArrowError;
use lake::LakeError;
use polars::prelude::PolarsError;
use shared::evaluate::EvaluateError;
use shared::handoff::HandoffError;
use shared::partial::codec::CodecError;
use shared::partial::merge::MergeError;
use shared::readers::SpeedError;
use shared::time::Day;

use crate::plan::planner::PlanError;
use crate::step::Step;

/// Why a run ended without a new version. Nothing it did is visible.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    #[error("cancelled")]
    Cancelled,
    #[error("told to fail at the step {0}")]
    Told(Step),
    #[error("the log could not be cut: {0}")]
    Cut(HandoffError),
    #[error("the archive did not reach the cut: {0}")]
    Archive(HandoffError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("{0}")]
    Lake(#[from] LakeError),
    /// The commit may be there or come to be there later, with the files that the run wrote.
    #[error("it is not known whether the version was committed: {0}")]
    Undecided(LakeError),
    #[error("polars: {0}")]
    Polars(#[from] PolarsError),
    #[error("an expression could not be evaluated: {0}")]
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
        "one group of the window date {date} does not fit in batch.memory_limit ({limit}), however many passes are made: \
         raise the limit (--batch-memory), or let the view keep less (a coarser COUNT(DISTINCT) or percentile, a WHERE)"
    )]
    MemoryLimit { limit: String, date: String },
    /// Never kept: whoever folds goes on in passes.
    #[error("the groups do not fit in memory at once")]
    Full,
    #[error("the event date {0} has too many events to remove duplicates in one go")]
    DateTooLarge(String),
    #[error("the speed layer: {0}")]
    Speed(#[from] SpeedError),
    #[error("the speed layer did not reach the cut in time")]
    SpeedBehind,
    #[error("what was being served could not be read: {0}")]
    Served(HandoffError),
    #[error("background work ended: {0}")]
    Background(#[from] tokio::task::JoinError),
    #[error("a defect ended the computation: {0}")]
    Panicked(String),
}

impl RunFailure {
    /// May the same run succeed later, with nothing changed but time? A store that is away comes back; data that does not
    /// fit, and a defect, stay.
    pub fn may_pass(&self) -> bool {
        match self {
            RunFailure::Told(_)
            | RunFailure::Cut(_)
            | RunFailure::Archive(_)
            | RunFailure::Undecided(_)
            | RunFailure::Speed(_)
            | RunFailure::SpeedBehind
            | RunFailure::Served(_) => true,
            RunFailure::Lake(error) => lake_may_pass(error),
            RunFailure::Polars(error) => polars_may_pass(error),
            // A defect; otherwise it was cancelled from outside.
            RunFailure::Background(error) => !error.is_panic(),
            RunFailure::Cancelled
            | RunFailure::Plan(_)
            | RunFailure::Evaluate(_)
            | RunFailure::Codec(_)
            | RunFailure::Merge(_)
            | RunFailure::Arrow(_)
            | RunFailure::RowsOfFile { .. }
            | RunFailure::RowsOfDates { .. }
            | RunFailure::MemoryLimit { .. }
            | RunFailure::Full
            | RunFailure::DateTooLarge(_)
            | RunFailure::Panicked(_) => false,
        }
    }

    /// The failure that a panic's payload tells of.
    pub fn of_panic(payload: &(dyn std::any::Any + Send)) -> RunFailure {
        let text = payload.downcast_ref::<&str>().map(|t| (*t).to_owned());
        RunFailure::Panicked(text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default())
    }
}

/// A lost race and a store that is away pass. A lake that is another's, does not fit or lacks what it needs does not.
fn lake_may_pass(error: &LakeError) -> bool {
    match error {
        LakeError::Conflict { .. }
        | LakeError::AlreadyCommitted { .. }
        | LakeError::InUse { .. }
        | LakeError::Spool { .. }
        | LakeError::Store(_)
        | LakeError::Delta(_)
        | LakeError::Parquet(_) => true,
        LakeError::Location { .. }
        | LakeError::NotOwner { .. }
        | LakeError::Schema { .. }
        | LakeError::SpoolFull { .. }
        | LakeError::NoSpool { .. }
        | LakeError::Arrow(_) => false,
        LakeError::Background(error) => !error.is_panic(),
    }
}

/// Polars wraps what a read met in words on where that was.
fn polars_may_pass(error: &PolarsError) -> bool {
    match error {
        PolarsError::IO { .. } => true,
        PolarsError::Context { error, .. } | PolarsError::ExprContext { error, .. } => polars_may_pass(error),
        _ => false,
    }
}

/// A date as errors name it; none is that of events whose year has not four digits.
pub fn date_name(date: Option<Day>) -> String {
    date.map_or_else(|| "no date".to_owned(), |day| day.to_string())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_time_alone_cannot_mend_does_not_pass() {
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
    async fn a_panic_of_background_work_is_a_defect_too() {
        let panicked = tokio::spawn(async { panic!("a defect") }).await.expect_err("it panics");
        assert!(!RunFailure::from(panicked).may_pass());
    }
}
