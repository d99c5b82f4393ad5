//! Names the steps of a run, and the other points of the batch layer at which tests inject faults.

use std::fmt;
use std::str::FromStr;

shared::fail_points! {
    /// A step of a run; the order of the variants is the order of the steps.
    #[derive(PartialOrd, Ord)]
    pub enum Step {
        /// Cut the log.
        Cut = "cut",
        /// Wait until the archive has reached the cut.
        Archived = "archived",
        /// Decide what to read and what to replace.
        Plan = "plan",
        /// Compute exact values and write the files of each window date that is complete.
        Recompute = "recompute",
        /// Wait until the last files are durable.
        Write = "write",
        /// Compare with what was served.
        Reconcile = "reconcile",
        /// Commit the Delta table.
        Commit = "commit",
        /// Make the new version active.
        Publish = "publish",
        /// Release what speed and the log no longer need to keep.
        Retire = "retire",
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
        Step::ALL.iter().copied().find(|step| step.name() == text).ok_or(())
    }
}

shared::fail_points! {
    /// A step of the work on archives, or a change of the run log. All are reached before what they name.
    pub enum UpkeepStep {
        /// Write a few files in place of many.
        CompactionWrite = "compaction-write",
        /// Commit the Delta table.
        CompactionCommit = "compaction-commit",
        /// Delete the files that were replaced.
        CompactionDelete = "compaction-delete",
        /// Drop the dates that retention no longer keeps.
        RetentionCommit = "retention-commit",
        /// Write files of an archive without erased events.
        ErasureWrite = "erase-files",
        /// Commit the Delta table.
        ErasureCommit = "erase-commit",
        /// Record the state of a run.
        RunLog = "run-log",
    }
}

shared::fail_points! {
    /// A step of a run that Spark computes, within [`Step::Recompute`]. All are reached before what they name.
    pub enum SparkStep {
        /// Open a session.
        Session = "spark-session",
        /// Let Spark read a file that Trueup has written.
        Exchange = "spark-exchange",
        /// Declare the files to read, and count their rows.
        Declare = "spark-declare",
        /// Compute and write the states.
        Compute = "spark-compute",
        /// Read the states.
        Collect = "spark-collect",
        /// Delete what was exchanged.
        Discard = "spark-discard",
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
