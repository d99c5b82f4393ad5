//! Reads the body of a request into memory, bounded in bytes, in time, and in the bytes of all bodies together.
//!
//! `encoding` decompresses it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use shared::limits::{BODIES_BYTES_MAX, BODY_BYTES_PER_SECOND_MIN, BODY_PAUSE_MS, BODY_TIME_MS, EVENT_BODY_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes that one permit of the budget stands for: the semaphore counts permits with 32 bits.
const PERMIT_BYTES: usize = 1024;
/// Least memory of a body that comes in pieces, in bytes; it doubles as more arrives. What a client announces reserves
/// nothing.
const FIRST_BYTES: usize = 4 * 1024;

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {EVENT_BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the memory for request bodies is in use")]
    Busy,
    #[error("no data received for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the body arrived too slowly: send at least {} KiB/s", .0 / 1024)]
    Slow(usize),
    #[error("cannot read the body: {0}")]
    Broken(axum::Error),
}

/// A body in memory, and its share of the budget.
#[derive(Debug)]
pub(super) struct BufferedBody {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// How slowly a body may arrive: a slow client must not hold memory that others wait for.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyPatience {
    /// Longest pause between two pieces.
    pub(super) pause: Duration,
    /// Time of any body, however small.
    pub(super) time: Duration,
    /// Bytes that every further second has to bring.
    pub(super) bytes_per_second: usize,
}

impl Default for BodyPatience {
    fn default() -> BodyPatience {
        BodyPatience {
            pause: Duration::from_millis(BODY_PAUSE_MS),
            time: Duration::from_millis(BODY_TIME_MS),
            bytes_per_second: BODY_BYTES_PER_SECOND_MIN,
        }
    }
}

impl BodyPatience {
    /// Returns until when a body that started at `started` may take for its next piece, after `received` bytes.
    fn until(&self, started: Instant, received: usize) -> Instant {
        started + self.time + Duration::from_secs_f64(received as f64 / self.bytes_per_second as f64)
    }
}

/// Limits the bytes of all bodies together, and the time of each.
#[derive(Debug, Clone)]
pub(super) struct BodyBudget {
    permits: Arc<Semaphore>,
    patience: BodyPatience,
}

impl Default for BodyBudget {
    fn default() -> BodyBudget {
        BodyBudget::new(BODIES_BYTES_MAX, BodyPatience::default())
    }
}

impl BodyBudget {
    /// Creates a budget of `bytes`.
    pub(super) fn new(bytes: usize, patience: BodyPatience) -> BodyBudget {
        BodyBudget { permits: Arc::new(Semaphore::new(bytes / PERMIT_BYTES)), patience }
    }

    /// Reads a body of `length` bytes, as announced by the client.
    pub(super) async fn collect(&self, body: Body, length: Option<u64>) -> Result<BufferedBody, BodyError> {
        let announced = length.map_or(Ok(0), usize::try_from).map_err(|_| BodyError::TooLarge)?;
        if announced > EVENT_BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        let mut share = BodyShare { permits: Arc::clone(&self.permits), held: None, bytes: 0 };
        let mut whole = Vec::new();
        let mut frames = body.into_data_stream();
        let started = Instant::now();
        while let Some(frame) = self.next(&mut frames, started, whole.len()).await? {
            let total = whole.len() + frame.len();
            if total > EVENT_BODY_BYTES_MAX {
                return Err(BodyError::TooLarge);
            }
            if announced > 0 && frame.len() == announced && whole.is_empty() {
                // A usual small body is a single frame; it is not copied.
                share.grow(total)?;
                return Ok(BufferedBody { bytes: frame, _share: share.held });
            }
            if total > whole.capacity() {
                let most = if announced >= total { announced } else { EVENT_BODY_BYTES_MAX };
                let capacity = (2 * whole.capacity()).clamp(FIRST_BYTES, EVENT_BODY_BYTES_MAX).clamp(total, most);
                share.grow(capacity)?;
                whole.reserve_exact(capacity - whole.len());
            }
            whole.extend_from_slice(&frame);
        }
        Ok(BufferedBody { bytes: whole.into(), _share: share.held })
    }

    /// Waits for the next piece, as long as the patience with this body allows.
    async fn next(
        &self,
        frames: &mut BodyDataStream,
        started: Instant,
        received: usize,
    ) -> Result<Option<Bytes>, BodyError> {
        let (paused, slow) = (Instant::now() + self.patience.pause, self.patience.until(started, received));
        let late = if slow < paused {
            BodyError::Slow(self.patience.bytes_per_second)
        } else {
            BodyError::Stalled(self.patience.pause)
        };
        // Data that is there already would always win over the time limit.
        if slow <= Instant::now() {
            return Err(late);
        }
        let Ok(frame) = timeout_at(slow.min(paused), frames.next()).await else { return Err(late) };
        frame.transpose().map_err(BodyError::Broken)
    }
}

/// The part of the budget that one body holds.
struct BodyShare {
    permits: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl BodyShare {
    /// Holds as much as `bytes` need, if the other bodies leave room.
    fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let permits = bytes.saturating_sub(self.bytes).div_ceil(PERMIT_BYTES);
        let more = Arc::clone(&self.permits).try_acquire_many_owned(permits as u32).map_err(|_| BodyError::Busy)?;
        self.bytes += permits * PERMIT_BYTES;
        match &mut self.held {
            None => self.held = Some(more),
            Some(held) => held.merge(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of `pieces` single bytes, one every few milliseconds.
    fn dripping(pieces: usize) -> Body {
        Body::from_stream(futures::stream::unfold(pieces, |left| async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let left = left.checked_sub(1)?;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")), left))
        }))
    }

    #[tokio::test]
    async fn a_dripping_body_is_refused_and_returns_its_share() {
        let patience =
            BodyPatience { pause: Duration::from_secs(20), time: Duration::from_millis(50), bytes_per_second: 1 << 20 };
        let budget = BodyBudget::new(4 * PERMIT_BYTES, patience);
        // Without a limit on the whole it would end by itself, after seconds.
        let refused = budget.collect(dripping(1_500), None).await.expect_err("too slow");
        assert!(matches!(refused, BodyError::Slow(_)), "{refused}");
        assert_eq!(budget.permits.available_permits(), 4);
        let paused = BodyPatience { pause: Duration::from_millis(20), ..BodyPatience::default() };
        let budget = BodyBudget::new(4 * PERMIT_BYTES, paused);
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let refused = budget.collect(silent, None).await.expect_err("silent");
        assert!(matches!(refused, BodyError::Stalled(_)), "{refused}");
    }

    #[test]
    fn every_byte_buys_time() {
        let started = Instant::now();
        let until = |received| BodyPatience::default().until(started, received) - started;
        assert_eq!(until(0), Duration::from_secs(60));
        assert_eq!(until(EVENT_BODY_BYTES_MAX), Duration::from_secs(60 + 1024));
    }
}
