//! Counts the bytes that live queries hold, each up to a limit and all together.
//!
//! A share lasts as long as the bytes it stands for: those of an event until the last subscriber has read it. So a client
//! that does not read costs its feed, and then all of them, a bounded amount.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use shared::limits::{LIVE_BYTES_MAX, LIVE_FEED_BYTES_MAX};

/// The bytes that one feed holds, or all of them.
#[derive(Debug)]
pub struct LiveMemory {
    held: AtomicUsize,
    bytes_max: usize,
    /// The memory that this one is a part of.
    whole: Option<Arc<LiveMemory>>,
}

/// A part of the memory; returned when dropped.
#[derive(Debug)]
pub struct MemoryShare {
    memory: Arc<LiveMemory>,
    bytes: usize,
}

/// Bytes and their share.
struct Held {
    bytes: Vec<u8>,
    _share: MemoryShare,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl LiveMemory {
    /// Makes the memory of all feeds.
    pub fn of_all() -> Arc<LiveMemory> {
        LiveMemory::new(LIVE_BYTES_MAX, None)
    }

    /// Makes the memory of one feed, a part of `all`.
    pub fn of_feed(all: &Arc<LiveMemory>) -> Arc<LiveMemory> {
        LiveMemory::new(LIVE_FEED_BYTES_MAX, Some(Arc::clone(all)))
    }

    pub(super) fn new(bytes_max: usize, whole: Option<Arc<LiveMemory>>) -> Arc<LiveMemory> {
        Arc::new(LiveMemory { held: AtomicUsize::new(0), bytes_max, whole })
    }

    /// Returns the bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns true if `bytes` would never fit.
    pub fn is_beyond(&self, bytes: usize) -> bool {
        bytes > self.bytes_max
    }

    /// Returns true if less than a tenth is free.
    pub fn is_nearly_full(&self) -> bool {
        self.held() > self.bytes_max - self.bytes_max / 10
    }

    /// Reserves `bytes`; `None` if they do not fit at the moment.
    pub fn reserve(self: &Arc<LiveMemory>, bytes: usize) -> Option<MemoryShare> {
        // Dropping the share returns what was added to each.
        let share = MemoryShare { memory: Arc::clone(self), bytes };
        let mut fits = true;
        share.each(|memory| fits &= memory.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= memory.bytes_max);
        fits.then_some(share)
    }
}

impl MemoryShare {
    /// Returns `bytes` with this share: it is returned once the last copy of them is dropped.
    pub fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }

    fn each(&self, mut visit: impl FnMut(&LiveMemory)) {
        let mut next = Some(&self.memory);
        while let Some(memory) = next {
            visit(memory);
            next = memory.whole.as_ref();
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.each(|memory| {
            memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_their_last_copy_is_dropped() {
        let all = LiveMemory::new(100, None);
        let (one, other) = (LiveMemory::new(60, Some(Arc::clone(&all))), LiveMemory::new(60, Some(Arc::clone(&all))));
        let frame = one.reserve(50).expect("fits").hold(vec![0; 50]);
        assert!(one.reserve(20).is_none(), "the feed is full");
        assert!(other.reserve(60).is_none(), "all together are full");
        assert_eq!((one.held(), other.held(), all.held()), (50, 0, 50), "a refusal reserves nothing");
        let copy = frame.clone();
        drop(frame);
        assert_eq!(all.held(), 50);
        drop(copy);
        assert_eq!((one.held(), all.held()), (0, 0));
        assert!(other.reserve(60).is_some());
    }
}
