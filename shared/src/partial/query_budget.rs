//! Bounds the time and memory of one query, and cancels it when its client has disconnected.
//!
//! The budget is checked between blocks of rows, so it costs nothing per row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The reason why a query was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("client disconnected")]
    Abandoned,
    #[error("query timed out")]
    Time,
    #[error("query exceeded its memory limit of {bytes_max} bytes")]
    Bytes { bytes_max: usize },
}

/// The time and memory that one query may use.
#[derive(Debug, Clone)]
pub struct QueryBudget {
    /// Set when the client has disconnected.
    pub abandoned: Arc<AtomicBool>,
    /// `None`: without limit.
    pub until: Option<Instant>,
    /// Bytes of the merged table and its keys.
    pub bytes_max: usize,
}

impl QueryBudget {
    /// Returns a budget without limits, for work that is bounded otherwise.
    pub fn unlimited() -> QueryBudget {
        QueryBudget { abandoned: Arc::default(), until: None, bytes_max: usize::MAX }
    }

    /// Fails if the client has disconnected, time is up, or the query holds more than its limit of `bytes`.
    pub fn check(&self, bytes: usize) -> Result<(), Exceeded> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Exceeded::Abandoned);
        }
        if self.until.is_some_and(|until| crate::clock::monotonic_now() >= until) {
            return Err(Exceeded::Time);
        }
        if bytes > self.bytes_max {
            return Err(Exceeded::Bytes { bytes_max: self.bytes_max });
        }
        Ok(())
    }
}

impl Default for QueryBudget {
    fn default() -> QueryBudget {
        QueryBudget::unlimited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_its_own_error() {
        let free = QueryBudget::unlimited();
        assert_eq!(free.check(usize::MAX), Ok(()));
        let small = QueryBudget { bytes_max: 10, ..free.clone() };
        assert_eq!((small.check(10), small.check(11)), (Ok(()), Err(Exceeded::Bytes { bytes_max: 10 })));
        let late = QueryBudget { until: Some(Instant::now()), ..free.clone() };
        assert_eq!(late.check(0), Err(Exceeded::Time));
        free.abandoned.store(true, Ordering::Relaxed);
        assert_eq!(small.check(0), Err(Exceeded::Abandoned), "clones share the flag");
    }
}
