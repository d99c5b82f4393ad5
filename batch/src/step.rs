//! Which steps does a run take? Their names, in order, and the points at which a test makes a run fail.

use std::fmt;
use std::str::FromStr;

use crate::failure::RunFailure;

/// The variable that names the step at which the process ends itself, for tests that kill a real server.
pub const FAIL_AT_VARIABLE: &str = "TRUEUP_FAIL_AT";

/// The variable that names the step at which every run waits, and the one that names the file whose coming ends the
/// waiting, for tests that look at a real server in the middle of a run.
pub const HOLD_AT_VARIABLE: &str = "TRUEUP_HOLD_AT";
pub const HOLD_UNTIL_VARIABLE: &str = "TRUEUP_HOLD_UNTIL";

/// How long a held run waits before it looks again, in milliseconds.
const HOLD_LOOK_MS: u64 = 5;

/// The steps of a run, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Cutting the log.
    Cut,
    /// Waiting for the archive to reach the cut.
    Archived,
    /// Finding out what to read and what to replace.
    Plan,
    /// Computing exact values; files are written as their dates are done.
    Recompute,
    /// Waiting for the last files to be durable.
    Write,
    /// Comparing with what was being served.
    Reconcile,
    /// The Delta commit.
    Commit,
    /// Letting the new version answer.
    Publish,
    /// Dropping what speed and the log no longer need to keep.
    Retire,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Step; 9] = [
        Step::Cut,
        Step::Archived,
        Step::Plan,
        Step::Recompute,
        Step::Write,
        Step::Reconcile,
        Step::Commit,
        Step::Publish,
        Step::Retire,
    ];

    /// The step's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Step::Cut => "cut",
            Step::Archived => "archived",
            Step::Plan => "plan",
            Step::Recompute => "recompute",
            Step::Write => "write",
            Step::Reconcile => "reconcile",
            Step::Commit => "commit",
            Step::Publish => "publish",
            Step::Retire => "retire",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Step {
    type Err = ();
    fn from_str(text: &str) -> Result<Step, ()> {
        Step::ALL.into_iter().find(|step| step.name() == text).ok_or(())
    }
}

/// The steps of a compaction, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionStep {
    /// Writing the few files that take the place of many.
    Write,
    /// The Delta commit.
    Commit,
    /// Deleting what was replaced.
    Delete,
}

impl CompactionStep {
    /// The step's name, as [`FAIL_AT_VARIABLE`] has it.
    pub fn name(self) -> &'static str {
        match self {
            CompactionStep::Write => "compaction-write",
            CompactionStep::Commit => "compaction-commit",
            CompactionStep::Delete => "compaction-delete",
        }
    }

    /// A compaction is about to begin the step.
    pub fn reach(self) {
        if std::env::var(FAIL_AT_VARIABLE).is_ok_and(|name| name == self.name()) {
            tracing::error!(step = self.name(), "ending the process because {FAIL_AT_VARIABLE} says so");
            std::process::abort();
        }
    }
}

/// Where runs are made to fail, if anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct FailPoints {
    /// The run fails when it is about to begin this step.
    pub fail_at: Option<Step>,
    /// The process ends, without any cleaning up, when a run is about to begin this step.
    pub abort_at: Option<Step>,
    /// The run waits when it is about to begin this step, for the file that [`HOLD_UNTIL_VARIABLE`] names.
    pub hold_at: Option<Step>,
}

impl FailPoints {
    /// None, but for those that [`FAIL_AT_VARIABLE`] and [`HOLD_AT_VARIABLE`] name.
    pub fn from_environment() -> FailPoints {
        let step = |variable: &str| std::env::var(variable).ok().and_then(|name| name.parse().ok());
        FailPoints { fail_at: None, abort_at: step(FAIL_AT_VARIABLE), hold_at: step(HOLD_AT_VARIABLE) }
    }

    /// A run is about to begin `step`.
    pub fn reach(&self, step: Step) -> Result<(), RunFailure> {
        tracing::debug!(step = step.name(), "batch run goes on");
        if self.abort_at == Some(step) {
            tracing::error!(step = step.name(), "ending the process because {FAIL_AT_VARIABLE} says so");
            std::process::abort();
        }
        if self.hold_at == Some(step) {
            let until = std::env::var_os(HOLD_UNTIL_VARIABLE).unwrap_or_default();
            tokio::task::block_in_place(|| {
                while !std::path::Path::new(&until).exists() {
                    std::thread::sleep(std::time::Duration::from_millis(HOLD_LOOK_MS));
                }
            });
        }
        if self.fail_at == Some(step) { Err(RunFailure::Told(step)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_an_order() {
        assert!(Step::ALL.is_sorted());
        assert!(Step::ALL.iter().all(|step| step.name().parse() == Ok(*step)));
        assert_eq!("commit ".parse::<Step>(), Err(()));
    }
}
