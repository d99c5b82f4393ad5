//! Limits queries: each in time and memory, all of them in number. Further queries wait in a queue of limited length.
//!
//! If a client disconnects, its query is cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shared::limits;
use shared::partial::query_budget::QueryBudget;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::batch_merge_cache::BatchMergeCache;
use crate::response_budget::ResponseBudget;

/// The limits that an operator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Longest time from the request to the result, including the time in the queue.
    pub time: Duration,
    /// Memory of the merge of one query, in bytes.
    pub bytes_max: usize,
    /// Queries that run at the same time.
    pub at_once: usize,
    /// Queries that wait in the queue.
    pub waiting_max: usize,
}

impl Default for QueryLimits {
    fn default() -> QueryLimits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        QueryLimits {
            time: Duration::from_millis(limits::QUERY_TIME_MS),
            bytes_max: limits::QUERY_MEMORY_BYTES as usize,
            at_once: cores * limits::QUERIES_AT_ONCE_PER_CORE,
            waiting_max: limits::QUERIES_QUEUED_MAX,
        }
    }
}

/// The reason why a query did not start, or did not finish.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error("the query queue is full ({waiting} waiting); retry in a moment")]
    QueueFull { waiting: usize },
    #[error("timed out after {} s waiting in the query queue; retry in a moment", .time.as_secs_f64())]
    QueueTimeout { time: Duration },
    #[error("query task failed: {0}")]
    Failed(#[from] tokio::task::JoinError),
}

/// The budget of one query, and the cache it shares with the others.
#[derive(Debug, Clone)]
pub struct QueryContext {
    pub allowance: QueryBudget,
    pub merge_cache: Arc<BatchMergeCache>,
}

/// A query that may run: it holds one of the permits. Dropping it cancels the query.
#[derive(Debug)]
pub struct AdmittedQuery {
    permit: OwnedSemaphorePermit,
    cancel: CancelOnDrop,
    context: QueryContext,
}

/// Admits queries and counts those that wait.
#[derive(Debug)]
pub struct Admission {
    limits: QueryLimits,
    permits: Arc<Semaphore>,
    /// Permits of live queries. They have their own, so that many of them do not keep other queries waiting.
    live_permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Bytes of the responses that are being sent.
    pub responses: ResponseBudget,
    merge_cache: Arc<BatchMergeCache>,
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new(QueryLimits::default())
    }
}

/// Cancels the query when dropped, unless it has finished.
#[derive(Debug)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A query in the queue; counted while it lives.
struct QueuedQuery<'a>(&'a AtomicUsize);

impl Drop for QueuedQuery<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Admission {
    /// Admits queries within `limits`.
    pub fn new(limits: QueryLimits) -> Admission {
        let permits = Arc::new(Semaphore::new(limits.at_once.max(1)));
        let live_permits = Arc::new(Semaphore::new((limits.at_once / limits::LIVE_COMPUTATIONS_SHARE).max(1)));
        Admission {
            limits,
            permits,
            live_permits,
            waiting: AtomicUsize::new(0),
            responses: ResponseBudget::default(),
            merge_cache: Arc::default(),
        }
    }

    /// Returns the context of a query that is small enough to run on the request's own thread, without admission.
    pub fn inline(&self) -> QueryContext {
        QueryContext { allowance: QueryBudget::unlimited(), merge_cache: Arc::clone(&self.merge_cache) }
    }

    /// Runs a query that arrived at `since` on a blocking thread, once it is admitted. Dropping the future cancels the query.
    pub async fn run<T: Send + 'static>(
        &self,
        since: Instant,
        work: impl FnOnce(&QueryContext) -> T + Send + 'static,
    ) -> Result<T, AdmissionError> {
        self.admit(since).await?.run(work).await
    }

    /// Waits until a query that arrived at `since` may run.
    pub async fn admit(&self, since: Instant) -> Result<AdmittedQuery, AdmissionError> {
        let until = since + self.limits.time;
        let permit = self.permit(until).await?;
        Ok(self.admitted(permit, until))
    }

    /// Waits until a poll of a live query, which started at `since`, may run: beside all other queries. The number of live
    /// queries is limited elsewhere.
    pub async fn admit_live(&self, since: Instant) -> Result<AdmittedQuery, AdmissionError> {
        let patience = self.limits.time;
        let permit = tokio::time::timeout_at((since + patience).into(), Arc::clone(&self.live_permits).acquire_owned());
        let permit = permit.await.map_err(|_| AdmissionError::QueueTimeout { time: patience })?;
        // The time in the queue does not count: a poll that had to wait would fail for its neighbours.
        let until = shared::clock::monotonic_now() + patience;
        Ok(self.admitted(permit.expect("the semaphore is never closed"), until))
    }

    fn admitted(&self, permit: OwnedSemaphorePermit, until: Instant) -> AdmittedQuery {
        let cancel = CancelOnDrop(Arc::default());
        let abandoned = Arc::clone(&cancel.0);
        let allowance = QueryBudget { abandoned, until: Some(until), bytes_max: self.limits.bytes_max };
        let context = QueryContext { allowance, merge_cache: Arc::clone(&self.merge_cache) };
        AdmittedQuery { permit, cancel, context }
    }

    async fn permit(&self, until: Instant) -> Result<OwnedSemaphorePermit, AdmissionError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst);
        let _queued = QueuedQuery(&self.waiting);
        if waiting >= self.limits.waiting_max {
            metrics::counter!("trueup_queries_refused_total", "reason" => "too_many").increment(1);
            return Err(AdmissionError::QueueFull { waiting });
        }
        match tokio::time::timeout_at(until.into(), Arc::clone(&self.permits).acquire_owned()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                metrics::counter!("trueup_queries_refused_total", "reason" => "time").increment(1);
                Err(AdmissionError::QueueTimeout { time: self.limits.time })
            }
        }
    }
}

impl AdmittedQuery {
    /// Returns what the query may use.
    pub fn allowance(&self) -> &QueryBudget {
        &self.context.allowance
    }

    /// Runs the query on a blocking thread. Dropping the future cancels it.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&QueryContext) -> T + Send + 'static,
    ) -> Result<T, AdmissionError> {
        let AdmittedQuery { permit, cancel: _cancel, context } = self;
        let result = tokio::task::spawn_blocking(move || {
            // Held until the work ends, even if the client has disconnected.
            let _permit = permit;
            work(&context)
        });
        Ok(result.await?)
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
    async fn a_disconnected_client_cancels_its_query_and_frees_its_permit() {
        let admission = Admission::new(limits());
        let (started, mut has_started) = tokio::sync::oneshot::channel();
        let (ended, reason) = mpsc::channel();
        let endless = admission.run(Instant::now(), move |context| {
            started.send(()).expect("the test waits");
            let reason = loop {
                if let Err(reason) = context.allowance.check(0) {
                    break reason;
                }
                std::thread::yield_now();
            };
            ended.send(reason).expect("the test waits");
        });
        tokio::select! {
            _ = endless => panic!("the query cannot end by itself"),
            _ = &mut has_started => {}
        }
        assert_eq!(admission.run(Instant::now(), |_| 7).await.expect("admitted"), 7);
        assert_eq!(reason.recv().expect("a reason"), Exceeded::Abandoned);
    }

    #[tokio::test]
    async fn live_queries_do_not_keep_other_queries_waiting() {
        let admission = Admission::new(limits());
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let live = async {
            let admitted = admission.admit_live(Instant::now()).await?;
            let work = move |_: &QueryContext| {
                started.send(()).expect("the test waits");
                let _ = released.recv();
            };
            admitted.run(work).await
        };
        let other = async {
            has_started.await.expect("the live query runs");
            let answer = admission.run(Instant::now(), |_| 7).await.expect("admitted");
            drop(release);
            answer
        };
        let (live, answer) = tokio::join!(live, other);
        assert!(live.is_ok() && answer == 7);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_long_wait_times_out() {
        let admission = Admission::new(limits());
        let permit = admission.permit(Instant::now()).await.expect("free");
        let soon = || Instant::now() + Duration::from_millis(20);
        let (one, other) = tokio::join!(admission.permit(soon()), admission.permit(soon()));
        assert!(matches!(one, Err(AdmissionError::QueueTimeout { .. })), "{one:?}");
        assert!(matches!(other, Err(AdmissionError::QueueFull { waiting: 1 })), "{other:?}");
        drop(permit);
        drop(admission.permit(soon()).await.expect("free again"));
        assert_eq!(admission.waiting.load(Ordering::SeqCst), 0);
    }
}
