//! How much may queries take, each and all together? A query has its time and its bytes, so many are made at once, and so
//! many wait; one that nobody waits for any more stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::limits;
use shared::partial::query_budget::Allowance;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::batch_merge_cache::BatchShares;

/// The caps of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// From the request to the answer, waiting included.
    pub time: Duration,
    /// Of what one query adds up.
    pub bytes_max: usize,
    /// Queries that are made at the same time, and that wait for it.
    pub at_once: usize,
    pub waiting_max: usize,
}

impl Default for QueryLimits {
    fn default() -> QueryLimits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        QueryLimits {
            time: Duration::from_millis(limits::QUERY_TIME_MS),
            bytes_max: limits::QUERY_MEMORY_BYTES as usize,
            at_once: cores * limits::QUERIES_AT_ONCE_PER_CORE,
            waiting_max: limits::QUERIES_WAITING_MAX,
        }
    }
}

/// Why a query was not begun, or did not end.
#[derive(Debug, thiserror::Error)]
pub enum QueryRefusal {
    #[error("{waiting} queries are waiting already; ask again in a moment")]
    TooMany { waiting: usize },
    #[error("the query did not come to its turn within {} s; ask again in a moment", .time.as_secs_f64())]
    NoTurn { time: Duration },
    #[error("the query ended without an answer: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// What a query is made with.
#[derive(Debug, Clone)]
pub struct Making {
    pub allowance: Allowance,
    pub shares: Arc<BatchShares>,
}

/// All queries under way.
#[derive(Debug)]
pub struct Queries {
    limits: QueryLimits,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    shares: Arc<BatchShares>,
}

impl Default for Queries {
    fn default() -> Queries {
        Queries::new(QueryLimits::default())
    }
}

/// Tells the query that nobody waits for it any more, unless it is over.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts one who waits for its turn.
struct InLine<'a>(&'a AtomicUsize);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Queries {
    /// None yet.
    pub fn new(limits: QueryLimits) -> Queries {
        let turns = Arc::new(Semaphore::new(limits.at_once.max(1)));
        Queries { limits, turns, waiting: AtomicUsize::new(0), shares: Arc::default() }
    }

    /// What a query is made with that is so small that it is answered where it came in.
    pub fn at_once(&self) -> Making {
        Making { allowance: Allowance::unlimited(), shares: Arc::clone(&self.shares) }
    }

    /// Makes a query that came in at `since`, on a thread that may block, as soon as it is its turn. If this future is dropped,
    /// the query stops.
    pub async fn make<T: Send + 'static>(
        &self,
        since: Instant,
        make: impl FnOnce(&Making) -> T + Send + 'static,
    ) -> Result<T, QueryRefusal> {
        let until = since + self.limits.time;
        let turn = self.turn(until).await?;
        let waiting = Waiting(Arc::default());
        let abandoned = Arc::clone(&waiting.0);
        let allowance = Allowance { abandoned, until: Some(until), bytes_max: self.limits.bytes_max };
        let making = Making { allowance, shares: Arc::clone(&self.shares) };
        let made = tokio::task::spawn_blocking(move || {
            // Held until the work is over, also if nobody waits for it.
            let _turn = turn;
            make(&making)
        });
        Ok(made.await?)
    }

    async fn turn(&self, until: Instant) -> Result<OwnedSemaphorePermit, QueryRefusal> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Ok(turn);
        }
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _in_line = InLine(&self.waiting);
        if waiting >= self.limits.waiting_max {
            metrics::counter!("trueup_queries_refused_total", "reason" => "too_many").increment(1);
            return Err(QueryRefusal::TooMany { waiting });
        }
        match tokio::time::timeout_at(until.into(), Arc::clone(&self.turns).acquire_owned()).await {
            Ok(turn) => Ok(turn.expect("the semaphore is never closed")),
            Err(_) => {
                metrics::counter!("trueup_queries_refused_total", "reason" => "time").increment(1);
                Err(QueryRefusal::NoTurn { time: self.limits.time })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use shared::partial::query_budget::Exceeded;

    use super::*;

    fn limits() -> QueryLimits {
        QueryLimits { time: Duration::from_secs(60), bytes_max: 10, at_once: 1, waiting_max: 1 }
    }

    #[tokio::test]
    async fn a_query_that_nobody_waits_for_stops_and_gives_its_turn_to_the_next() {
        let queries = Queries::new(limits());
        let (begun, mut has_begun) = tokio::sync::oneshot::channel();
        let (told, why) = mpsc::channel();
        let endless = queries.make(Instant::now(), move |making| {
            begun.send(()).expect("somebody listens");
            let why = loop {
                if let Err(why) = making.allowance.check(0) {
                    break why;
                }
                std::thread::yield_now();
            };
            told.send(why).expect("somebody listens");
        });
        tokio::select! {
            _ = endless => panic!("it cannot end by itself"),
            _ = &mut has_begun => {}
        }
        assert_eq!(queries.make(Instant::now(), |_| 7).await.expect("its turn"), 7);
        assert_eq!(why.recv().expect("told"), Exceeded::Abandoned);
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_and_who_waits_too_long_is_told() {
        let queries = Queries::new(limits());
        let turn = queries.turn(Instant::now()).await.expect("free");
        let soon = || Instant::now() + Duration::from_millis(20);
        let (one, other) = tokio::join!(queries.turn(soon()), queries.turn(soon()));
        assert!(matches!(one, Err(QueryRefusal::NoTurn { .. })), "{one:?}");
        assert!(matches!(other, Err(QueryRefusal::TooMany { waiting: 1 })), "{other:?}");
        drop(turn);
        drop(queries.turn(soon()).await.expect("free again"));
        assert_eq!(queries.waiting.load(Ordering::SeqCst), 0);
    }
}
