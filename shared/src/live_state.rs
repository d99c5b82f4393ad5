//! Bounds the memory of the live state of all views. It grows with groups and windows until a batch run takes them over; if
//! runs fail for days, the bound refuses further events before the process runs out of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The live state of all streams of a process, and its bound.
#[derive(Debug, Clone)]
pub struct LiveStates {
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
}

/// The live state of one stream. Its workers report their memory; intake asks whether the bound is exceeded.
#[derive(Debug)]
pub struct LiveState {
    bytes: AtomicU64,
    all: LiveStates,
}

/// The live state of all views takes more memory than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the live state of all views takes {bytes} bytes, at most {bytes_max} are allowed (live_state_bytes_max): events are \
     accepted again when batch runs have published versions"
)]
pub struct LiveStateExceeded {
    pub bytes: u64,
    pub bytes_max: u64,
}

impl LiveStates {
    /// Creates the bound of a process.
    pub fn new(bytes_max: u64) -> LiveStates {
        LiveStates { bytes: Arc::default(), bytes_max }
    }

    /// Returns a stream that counts against the bound.
    pub fn stream(&self) -> Arc<LiveState> {
        Arc::new(LiveState { bytes: AtomicU64::new(0), all: self.clone() })
    }
}

impl LiveState {
    /// Reports that the memory of one worker changed.
    pub fn change(&self, before: u64, now: u64) {
        for bytes in [&self.bytes, &*self.all.bytes] {
            // Each worker takes back only what it reported, so the difference never goes below zero.
            bytes.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Returns an error if the bound is exceeded and this stream contributes to it.
    pub fn check(&self) -> Result<(), LiveStateExceeded> {
        let (bytes, bytes_max) = (self.all.bytes.load(Ordering::Relaxed), self.all.bytes_max);
        if bytes > bytes_max && self.bytes.load(Ordering::Relaxed) > 0 {
            return Err(LiveStateExceeded { bytes, bytes_max });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_with_state_are_refused_together_until_there_is_room_again() {
        let all = LiveStates::new(100);
        let (a, b, without_views) = (all.stream(), all.stream(), all.stream());
        a.change(0, 60);
        b.change(0, 40);
        assert_eq!((a.check(), b.check()), (Ok(()), Ok(())));
        b.change(40, 41);
        let exceeded = Err(LiveStateExceeded { bytes: 101, bytes_max: 100 });
        assert_eq!((a.check(), b.check(), without_views.check()), (exceeded, exceeded, Ok(())));
        a.change(60, 10);
        assert_eq!((a.check(), b.check()), (Ok(()), Ok(())));
    }
}
