//! Names the steps of a run and of a compaction, in order.

use std::fmt;
use std::str::FromStr;

/// A step of a run; the order of the variants is the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Cut the log.
    Cut,
    /// Wait until the archive has reached the cut.
    Archived,
    /// Decide what to read and what to replace.
    Plan,
    /// Compute exact values and write the files of each window date that is complete.
    Recompute,
    /// Wait until the last files are durable.
    Write,
    /// Compare with what was served.
    Reconcile,
    /// Commit the Delta table.
    Commit,
    /// Make the new version active.
    Publish,
    /// Release what speed and the log no longer need to keep.
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

    /// Returns the name of the step in lower case.
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

/// A step of a compaction; the order of the variants is the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionStep {
    /// Write a few files in place of many.
    Write,
    /// Commit the Delta table.
    Commit,
    /// Delete the files that were replaced.
    Delete,
}

impl CompactionStep {
    /// Returns the name of the step in lower case.
    pub fn name(self) -> &'static str {
        match self {
            CompactionStep::Write => "compaction-write",
            CompactionStep::Commit => "compaction-commit",
            CompactionStep::Delete => "compaction-delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_distinct_names_and_an_order() {
        assert!(Step::ALL.is_sorted());
        assert!(Step::ALL.iter().all(|step| step.name().parse() == Ok(*step)));
        assert_eq!("commit ".parse::<Step>(), Err(()));
    }
}
