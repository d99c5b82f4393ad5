//! Injects faults at the steps of a run, for tests: beyond what
//! [`shared::fail_points`](mod@shared::fail_points) does, a run can fail or wait there.
//! Does nothing unless the crate is built with the feature `fail-points` (or for its own tests).

use crate::failure::RunFailure;
use crate::step::Step;

/// Faults to inject at the steps of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct FailPoints {
    #[cfg(any(test, feature = "fail-points"))]
    points: enabled::Points,
}

impl FailPoints {
    /// Logs that a run is about to begin `step`, and injects the fault for it.
    pub fn reach(&self, step: Step) -> Result<(), RunFailure> {
        tracing::debug!(step = step.name(), "batch run step");
        step.reach();
        #[cfg(any(test, feature = "fail-points"))]
        self.points.reach(step)?;
        Ok(())
    }
}

#[cfg(not(any(test, feature = "fail-points")))]
impl FailPoints {
    /// Returns no faults.
    pub fn from_environment() -> FailPoints {
        FailPoints::default()
    }
}

#[cfg(any(test, feature = "fail-points"))]
mod enabled {
    use std::path::Path;
    use std::time::Duration;

    use super::{FailPoints, RunFailure, Step};

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
        /// The run waits for the file that [`HOLD_UNTIL_VARIABLE`] names when it is about to begin this step.
        hold_at: Option<Step>,
    }

    impl FailPoints {
        /// Returns the faults that [`HOLD_AT_VARIABLE`] names.
        pub fn from_environment() -> FailPoints {
            let hold_at = std::env::var(HOLD_AT_VARIABLE).ok().and_then(|name| name.parse().ok());
            FailPoints { points: Points { fail_at: None, hold_at } }
        }

        /// Returns a fault that makes runs fail when they are about to begin `step`.
        #[cfg(test)]
        pub fn fail_at(step: Step) -> FailPoints {
            FailPoints { points: Points { fail_at: Some(step), ..Points::default() } }
        }
    }

    impl Points {
        pub(super) fn reach(self, step: Step) -> Result<(), RunFailure> {
            if self.hold_at == Some(step) {
                let until = std::env::var_os(HOLD_UNTIL_VARIABLE).unwrap_or_default();
                tokio::task::block_in_place(|| {
                    while !Path::new(&until).exists() {
                        std::thread::sleep(HOLD_PAUSE);
                    }
                });
            }
            if self.fail_at == Some(step) { Err(RunFailure::Injected(step)) } else { Ok(()) }
        }
    }
}
