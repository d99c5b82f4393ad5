//! Reads the body of a request into memory, bounded in bytes, in time, and in the bytes of all bodies together.
//!
//! `encoding` decompresses it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use shared::limits::EVENT_BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of all bodies being read or decoded; beyond it, a request gets 429.
pub(super) const BODIES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes that one permit of the budget stands for: the semaphore counts permits with 32 bits.
const PERMIT_BYTES: usize = 1024;
/// Longest pause between two pieces of a body: a stalled client must not hold memory that others wait for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {EVENT_BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the memory for request bodies is in use")]
    Busy,
    #[error("no data received for {} s", PAUSE_MAX.as_secs())]
    Stalled,
    #[error("cannot read the body: {0}")]
    Broken(axum::Error),
}

/// A body in memory, and its share of the budget.
#[derive(Debug)]
pub(super) struct BufferedBody {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Limits the bytes of all bodies together.
#[derive(Debug, Clone)]
pub(super) struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    /// Creates a budget of `bytes`.
    pub(super) fn new(bytes: usize) -> BodyBudget {
        BodyBudget(Arc::new(Semaphore::new(bytes / PERMIT_BYTES)))
    }

    /// Reads a body of `length` bytes, as announced by the client.
    pub(super) async fn collect(&self, body: Body, length: Option<u64>) -> Result<BufferedBody, BodyError> {
        let announced = length.map_or(Ok(0), usize::try_from).map_err(|_| BodyError::TooLarge)?;
        if announced > EVENT_BODY_BYTES_MAX {
            return Err(BodyError::TooLarge);
        }
        let mut share = None;
        let mut shared_bytes = 0;
        let mut whole = Vec::new();
        let mut frames = body.into_data_stream();
        while let Some(frame) = timeout(PAUSE_MAX, frames.next()).await.map_err(|_| BodyError::Stalled)? {
            let frame = frame.map_err(BodyError::Broken)?;
            let total = whole.len() + frame.len();
            if total > EVENT_BODY_BYTES_MAX {
                return Err(BodyError::TooLarge);
            }
            if total > shared_bytes {
                let permits = (total - shared_bytes).div_ceil(PERMIT_BYTES);
                let more = Arc::clone(&self.0).try_acquire_many_owned(permits as u32).map_err(|_| BodyError::Busy)?;
                shared_bytes += permits * PERMIT_BYTES;
                match &mut share {
                    None => share = Some(more),
                    Some(share) => share.merge(more),
                }
            }
            if whole.is_empty() {
                if announced > 0 && frame.len() == announced {
                    // A usual small body is a single frame; it is not copied.
                    return Ok(BufferedBody { bytes: frame, _share: share });
                }
                whole.reserve_exact(announced);
            }
            whole.extend_from_slice(&frame);
        }
        Ok(BufferedBody { bytes: whole.into(), _share: share })
    }
}
