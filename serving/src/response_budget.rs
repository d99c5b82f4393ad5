//! Bounds the bytes of all responses that are being sent: clients that do not read them keep them in memory.
//!
//! Small responses do not count: they fit into the buffers of their connections, whose number is limited.

use std::sync::Arc;

use bytes::Bytes;
use shared::limits::{RESPONSE_BYTES_UNCOUNTED, RESPONSES_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that one permit stands for: the semaphore counts permits with 32 bits.
const PERMIT_BYTES: usize = 1024;

/// The memory of responses that are being sent.
#[derive(Debug)]
pub struct ResponseBudget {
    permits: Arc<Semaphore>,
    permits_max: usize,
}

/// The responses that other clients have not read yet use the whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory for responses is in use by clients that read slowly; retry in a moment, or lower limit")]
pub struct ResponsesExceeded;

/// Bytes and their share of the budget.
struct Held {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Default for ResponseBudget {
    fn default() -> ResponseBudget {
        ResponseBudget::new(RESPONSES_BYTES_MAX)
    }
}

impl ResponseBudget {
    /// Makes a budget of `bytes`.
    pub fn new(bytes: usize) -> ResponseBudget {
        let permits_max = (bytes / PERMIT_BYTES).min(u32::MAX as usize);
        ResponseBudget { permits: Arc::new(Semaphore::new(permits_max)), permits_max }
    }

    /// Returns the body, which counts until its last copy is dropped. One that is larger than the budget is sent if no
    /// other is being sent.
    pub fn hold(&self, bytes: Bytes) -> Result<Bytes, ResponsesExceeded> {
        if bytes.len() <= RESPONSE_BYTES_UNCOUNTED {
            return Ok(bytes);
        }
        let permits = bytes.len().div_ceil(PERMIT_BYTES).min(self.permits_max) as u32;
        let share = Arc::clone(&self.permits).try_acquire_many_owned(permits).map_err(|_| {
            metrics::counter!("trueup_responses_refused_total").increment(1);
            ResponsesExceeded
        })?;
        Ok(Bytes::from_owner(Held { bytes, _share: share }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_responses_are_bounded_and_small_ones_always_pass() {
        let budget = ResponseBudget::new(1 << 20);
        let body = |bytes: usize| Bytes::from(vec![0; bytes]);
        let held = budget.hold(body(700 << 10)).expect("fits");
        let copy = held.slice(10..20);
        drop(held);
        assert_eq!(budget.hold(body(700 << 10)), Err(ResponsesExceeded));
        assert!(budget.hold(body(RESPONSE_BYTES_UNCOUNTED)).is_ok());
        drop(copy);
        assert_eq!(budget.hold(body(5 << 20)).map(|body| body.len()), Ok(5 << 20), "alone, it may be larger");
    }
}
