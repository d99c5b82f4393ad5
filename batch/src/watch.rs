//! Stops a run and counts what it reads: a flag for blocking and async code, and two counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use polars::prelude::{AllowedOptimizations, DataFrame, LazyFrame, polars_err};
use tokio::sync::Notify;

use crate::failure::RunFailure;
use crate::recompute::failed::FailedLog;

/// A request to stop, shared by all clones. Once set it stays set.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    set: AtomicBool,
    changed: Notify,
}

impl Cancel {
    /// Requests a stop.
    pub fn set(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }

    /// Returns whether a stop was requested.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Waits until a stop is requested.
    pub async fn wait(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_set() {
                return;
            }
            changed.await;
        }
    }

    /// Waits for `work`, or fails with [`RunFailure::Cancelled`] if a stop is requested first.
    pub async fn or_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, RunFailure> {
        tokio::select! {
            result = work => Ok(result),
            () = self.wait() => Err(RunFailure::Cancelled),
        }
    }
}

/// Stops the queries of a run, and counts the rows and bytes that they read.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    pub cancel: Cancel,
    /// Rows read so far by all counted queries.
    pub rows: Arc<AtomicU64>,
    /// Bytes of archive files read so far by all queries.
    pub bytes: Arc<AtomicU64>,
    /// The events that failed for the view.
    pub failed: Arc<Mutex<FailedLog>>,
}

impl Watch {
    /// Counts the rows of `frame` as they are read, and stops it on request. Apply filters after this step, so that every
    /// row is counted.
    pub fn counting(&self, frame: LazyFrame) -> LazyFrame {
        let rows = Arc::clone(&self.rows);
        self.watching(frame, move |height| {
            rows.fetch_add(height as u64, Ordering::Relaxed);
        })
    }

    /// Stops `frame` on request.
    pub fn stopping(&self, frame: LazyFrame) -> LazyFrame {
        self.watching(frame, |_| {})
    }

    fn watching(&self, frame: LazyFrame, count: impl Fn(usize) + Send + Sync + 'static) -> LazyFrame {
        let cancel = self.cancel.clone();
        let pass = move |rows: DataFrame| {
            count(rows.height());
            if cancel.is_set() { Err(polars_err!(ComputeError: "cancelled")) } else { Ok(rows) }
        };
        let allowed = AllowedOptimizations::STREAMING | AllowedOptimizations::PROJECTION_PUSHDOWN;
        frame.map(pass, allowed, None, Some("rows read"))
    }
}
