//! How does a request's body come into memory? Bounded in bytes, in time, and in what all requests hold together.
//!
//! Decompression is `encoding`'s.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use shared::limits::EVENT_BODY_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes of all bodies that are being read or decoded. Beyond it a request gets 429.
pub(super) const BODIES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bodies are counted in pieces of this many bytes: the semaphore's permits are 32-bit.
const PIECE_BYTES: usize = 1024;
/// Longest pause between two pieces of a body; a sender that stalls must not hold memory others wait for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {EVENT_BODY_BYTES_MAX} bytes")]
    TooLarge,
    #[error("too many bodies are being read")]
    Busy,
    #[error("the body paused for more than {} s", PAUSE_MAX.as_secs())]
    Stalled,
    #[error("the body broke off: {0}")]
    Broken(axum::Error),
}

/// A body in memory, and its share of what all of them may hold.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// What all bodies together may still take.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    /// Bodies may take `bytes` together.
    pub(super) fn new(bytes: usize) -> Budget {
        Budget(Arc::new(Semaphore::new(bytes / PIECE_BYTES)))
    }

    /// Reads a body that says it has `length` bytes.
    pub(super) async fn collect(&self, body: Body, length: Option<u64>) -> Result<Collected, BodyError> {
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
                let pieces = (total - shared_bytes).div_ceil(PIECE_BYTES);
                let more = Arc::clone(&self.0).try_acquire_many_owned(pieces as u32).map_err(|_| BodyError::Busy)?;
                shared_bytes += pieces * PIECE_BYTES;
                match &mut share {
                    None => share = Some(more),
                    Some(share) => share.merge(more),
                }
            }
            if whole.is_empty() {
                if announced > 0 && frame.len() == announced {
                    // The usual small body: one frame is all of it, and nothing is copied.
                    return Ok(Collected { bytes: frame, _share: share });
                }
                whole.reserve_exact(announced);
            }
            whole.extend_from_slice(&frame);
        }
        Ok(Collected { bytes: whole.into(), _share: share })
    }
}
