//! Provides the current time: the only file that reads the wall clock. Tests set a clock of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::time::Micros;

/// The source of arrival times and schedules.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present moment.
    fn now(&self) -> Micros;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        Micros(chrono::Utc::now().timestamp_micros())
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Micros) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    /// Makes the clock show `now`.
    pub fn set(&self, now: Micros) {
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}
