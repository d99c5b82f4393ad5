//! Injects faults at the steps of a run, for tests. Does nothing unless the crate is built with the feature `fail-points`
//! (or for its own tests): a release binary reads none of the variables.

use crate::failure::RunFailure;
use crate::step::{CompactionStep, Step};

/// Faults to inject at the steps of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct FailPoints {
    #[cfg(any(test, feature = "fail-points"))]
    points: enabled::Points,
}

#[cfg(not(any(test, feature = "fail-points")))]
impl FailPoints {
    /// Returns no faults.
    pub fn from_environment() -> FailPoints {
        FailPoints::default()
    }

    /// Logs that a run is about to begin `step`.
    pub fn reach(&self, step: Step) -> Result<(), RunFailure> {
        tracing::debug!(step = step.name(), "batch run step");
        Ok(())
    }
}

/// Does nothing: fault injection is not compiled in.
#[cfg(not(any(test, feature = "fail-points")))]
pub fn reach_compaction(_: CompactionStep) {}

#[cfg(any(test, feature = "fail-points"))]
pub use enabled::reach_compaction;

#[cfg(any(test, feature = "fail-points"))]
mod enabled {
    use std::path::Path;
    use std::time::Duration;

    use super::{CompactionStep, FailPoints, RunFailure, Step};

    /// Names the step at which the process aborts, for tests that kill a real server.
    const FAIL_AT_VARIABLE: &str = "TRUEUP_FAIL_AT";

    /// Name the step at which every run waits, and the file whose creation ends the wait, for tests that inspect a real
    /// server in the middle of a run.
    const HOLD_AT_VARIABLE: &str = "TRUEUP_HOLD_AT";
    const HOLD_UNTIL_VARIABLE: &str = "TRUEUP_HOLD_UNTIL";

    /// Pause between two checks whether a held run may continue.
    const HOLD_PAUSE: Duration = Duration::from_millis(5);

    #[derive(Debug, Clone, Copy, Default)]
    pub(super) struct Points {
        /// The run fails when it is about to begin this step.
        fail_at: Option<Step>,
        /// The process aborts when a run is about to begin this step.
        abort_at: Option<Step>,
        /// The run waits for the file that [`HOLD_UNTIL_VARIABLE`] names when it is about to begin this step.
        hold_at: Option<Step>,
    }

    impl FailPoints {
        /// Returns the faults that [`FAIL_AT_VARIABLE`] and [`HOLD_AT_VARIABLE`] name.
        pub fn from_environment() -> FailPoints {
            let step = |variable: &str| std::env::var(variable).ok().and_then(|name| name.parse().ok());
            let points = Points { fail_at: None, abort_at: step(FAIL_AT_VARIABLE), hold_at: step(HOLD_AT_VARIABLE) };
            FailPoints { points }
        }

        /// Returns a fault that makes runs fail when they are about to begin `step`.
        #[cfg(test)]
        pub fn fail_at(step: Step) -> FailPoints {
            FailPoints { points: Points { fail_at: Some(step), ..Points::default() } }
        }

        /// Logs that a run is about to begin `step`, and injects the fault for it.
        pub fn reach(&self, step: Step) -> Result<(), RunFailure> {
            tracing::debug!(step = step.name(), "batch run step");
            let Points { fail_at, abort_at, hold_at } = self.points;
            if abort_at == Some(step) {
                abort(step.name());
            }
            if hold_at == Some(step) {
                let until = std::env::var_os(HOLD_UNTIL_VARIABLE).unwrap_or_default();
                tokio::task::block_in_place(|| {
                    while !Path::new(&until).exists() {
                        std::thread::sleep(HOLD_PAUSE);
                    }
                });
            }
            if fail_at == Some(step) { Err(RunFailure::Injected(step)) } else { Ok(()) }
        }
    }

    /// Injects the fault for a compaction that is about to begin `step`.
    pub fn reach_compaction(step: CompactionStep) {
        if std::env::var(FAIL_AT_VARIABLE).is_ok_and(|name| name == step.name()) {
            abort(step.name());
        }
    }

    /// Ends the process without cleanup.
    fn abort(step: &str) -> ! {
        tracing::error!(step, "aborting: {FAIL_AT_VARIABLE} names this step");
        std::process::abort();
    }
}
