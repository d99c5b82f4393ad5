//! Limits a query in time and memory, and cancels it if its client disconnects. Checked between blocks
//! of rows, so it costs nothing per row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Why merging stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error("client disconnected")]
    Abandoned,
    #[error("query timed out")]
    Time,
    #[error("the answer takes more than {bytes_max} bytes while it is made")]
    Bytes { bytes_max: usize },
}

/// What one query may take.
#[derive(Debug, Clone)]
pub struct Allowance {
    /// Set once the client has disconnected.
    pub abandoned: Arc<AtomicBool>,
    /// `None`: as long as it takes.
    pub until: Option<Instant>,
    /// Of the merged table and its keys.
    pub bytes_max: usize,
}

impl Allowance {
    /// Everything: for work that is bounded otherwise.
    pub fn unlimited() -> Allowance {
        Allowance { abandoned: Arc::default(), until: None, bytes_max: usize::MAX }
    }

    /// Fails if the query was cancelled, or exceeds its time, or its memory with `bytes` held.
    pub fn check(&self, bytes: usize) -> Result<(), Exceeded> {
        if self.abandoned.load(Ordering::Relaxed) {
            return Err(Exceeded::Abandoned);
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return Err(Exceeded::Time);
        }
        if bytes > self.bytes_max {
            return Err(Exceeded::Bytes { bytes_max: self.bytes_max });
        }
        Ok(())
    }
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance::unlimited()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_told_apart() {
        let free = Allowance::unlimited();
        assert_eq!(free.check(usize::MAX), Ok(()));
        let small = Allowance { bytes_max: 10, ..free.clone() };
        assert_eq!((small.check(10), small.check(11)), (Ok(()), Err(Exceeded::Bytes { bytes_max: 10 })));
        let late = Allowance { until: Some(Instant::now()), ..free.clone() };
        assert_eq!(late.check(0), Err(Exceeded::Time));
        free.abandoned.store(true, Ordering::Relaxed);
        assert_eq!(small.check(0), Err(Exceeded::Abandoned), "whoever shares it is told");
    }
}
