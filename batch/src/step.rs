//! Which steps does a run take? Their names, in order, and the points at which a test makes a run fail.

use std::fmt;
use std::str::FromStr;

use crate::failure::RunFailure;

/// The variable that names the step at which the process ends itself, for tests that kill a real server.
pub const FAIL_AT_VARIABLE: &str = "TRUEUP_FAIL_AT";

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

/// Where runs are made to fail, if anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct FailPoints {
    /// The run fails when it is about to begin this step.
    pub fail_at: Option<Step>,
    /// The process ends, without any cleaning up, when a run is about to begin this step.
    pub abort_at: Option<Step>,
}

impl FailPoints {
    /// None, but for the one that [`FAIL_AT_VARIABLE`] names.
    pub fn from_environment() -> FailPoints {
        let abort_at = std::env::var(FAIL_AT_VARIABLE).ok().and_then(|name| name.parse().ok());
        FailPoints { fail_at: None, abort_at }
    }

    /// A run is about to begin `step`.
    pub fn reach(&self, step: Step) -> Result<(), RunFailure> {
        tracing::debug!(step = step.name(), "batch run goes on");
        if self.abort_at == Some(step) {
            tracing::error!(step = step.name(), "ending the process because {FAIL_AT_VARIABLE} says so");
            std::process::abort();
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
