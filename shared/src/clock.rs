//! Provides the current time: the only file that reads the machine's clocks. Tests set a clock of their own.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::time::Micros;

/// The source of arrival times and schedules.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present moment.
    fn now(&self) -> Micros;

    /// The time that has passed since some moment, the same one for the whole process. Setting the clock does not change it.
    fn uptime(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads the wall clock")]
    fn now(&self) -> Micros {
        Micros(chrono::Utc::now().timestamp_micros())
    }

    fn uptime(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(monotonic_now).elapsed()
    }
}

/// Returns the time of the monotonic clock, for measuring durations and for timeouts; it never goes back.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the monotonic clock")]
pub fn monotonic_now() -> Instant {
    Instant::now()
}

/// A clock that stands still until it is set or advanced.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug, Default)]
struct Hands {
    now: AtomicI64,
    /// In microseconds.
    uptime: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Micros) -> Self {
        let clock = ManualClock::default();
        clock.set(now);
        clock
    }

    /// Makes the clock show `now`: it was set, and no time has passed.
    pub fn set(&self, now: Micros) {
        self.0.now.store(now.0, Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
        self.0.uptime.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.0.now.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.uptime.load(Ordering::SeqCst))
    }
}
