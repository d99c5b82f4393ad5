//! Finds, joins and merges sessions: events of a key with less than the gap between each and the next.
//!
//! A session is kept as the times [first, last] of its first and last event. Two sessions of a key meet if the time between
//! them is less than the gap, and join to their hull; sessions(A) is the closure of A's events under joining. Because joining is
//! associative and commutative,
//!
//! ```text
//! sessions(A ∪ B) = join(sessions(A) ∪ sessions(B))
//! ```
//!
//! for any split of the events: at the seam, at the edge of a date, by partition. [`SessionIndex`] finds the sessions that new
//! events meet; [`stitch`] joins sorted ones; [`LiveSessions`] decides which events are late.

use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

use crate::partial::keys::HashedKey;

/// The sessions of every key, by time, and the row of each.
#[derive(Debug)]
pub struct SessionIndex {
    gap: i64,
    /// By number of the key. Most keys have one session, which needs no memory of its own.
    by_key: Vec<SmallVec<[SessionRow; 1]>>,
    sessions: usize,
}

/// A session and its row.
#[derive(Debug, Clone, Copy)]
struct SessionRow {
    first: i64,
    last: i64,
    slot: u32,
}

/// Returns whether an event at `next` is in the session whose last event is at `last`.
#[inline]
pub fn meet(gap: i64, last: i64, next: i64) -> bool {
    next < last.saturating_add(gap)
}

/// The session that some events have joined.
#[derive(Debug, PartialEq, Eq)]
pub struct JoinedSession {
    pub first: i64,
    pub last: i64,
    pub slot: u32,
    /// Whether the events met no session; the new session has the offered row.
    pub is_new: bool,
    /// Whether the first session that was met began later.
    pub starts_earlier: bool,
    /// The rows of further sessions that were met, which are now part of this one.
    pub absorbed: Vec<u32>,
}

impl SessionIndex {
    /// Returns an index without sessions; `gap` in microseconds.
    pub fn new(gap: i64) -> SessionIndex {
        SessionIndex { gap, by_key: Vec::new(), sessions: 0 }
    }

    /// Joins a session of `key` from `first` to `last` with those it meets (I4).
    pub fn join(&mut self, key: u32, first: i64, last: i64, new_slot: u32) -> JoinedSession {
        let gap = self.gap;
        if self.by_key.len() <= key as usize {
            self.by_key.resize_with(key as usize + 1, SmallVec::new);
        }
        let sessions = &mut self.by_key[key as usize];
        let from = sessions.partition_point(|s| s.last.saturating_add(gap) <= first);
        let met = sessions[from..].iter().take_while(|s| s.first < last.saturating_add(gap)).count();
        if met == 0 {
            sessions.insert(from, SessionRow { first, last, slot: new_slot });
            self.sessions += 1;
            return JoinedSession {
                first,
                last,
                slot: new_slot,
                is_new: true,
                starts_earlier: false,
                absorbed: Vec::new(),
            };
        }
        let SessionRow { first: earliest, slot, .. } = sessions[from];
        let (first, last) = (first.min(earliest), last.max(sessions[from + met - 1].last));
        let starts_earlier = first < earliest;
        let absorbed = sessions.drain(from + 1..from + met).map(|s| s.slot).collect::<Vec<_>>();
        self.sessions -= absorbed.len();
        sessions[from] = SessionRow { first, last, slot };
        JoinedSession { first, last, slot, is_new: false, starts_earlier, absorbed }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.by_key.capacity() * size_of::<SmallVec<[SessionRow; 1]>>() + self.sessions * size_of::<SessionRow>()
    }
}

/// A piece of a session in one of several parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionPiece {
    pub key: u32,
    pub first: i64,
    pub last: i64,
    /// Its position in the caller's numbering.
    pub place: u32,
}

/// Sorts `pieces` and calls `each` with the pieces of every whole session, and its first and last event (I4).
pub fn stitch(pieces: &mut [SessionPiece], gap: i64, mut each: impl FnMut(&[SessionPiece], i64, i64)) {
    // I4: the order of the pieces does not matter.
    pieces.sort_unstable();
    let mut from = 0;
    while from < pieces.len() {
        let (key, first) = (pieces[from].key, pieces[from].first);
        let mut last = pieces[from].last;
        let mut to = from + 1;
        while to < pieces.len() && pieces[to].key == key && pieces[to].first < last.saturating_add(gap) {
            last = last.max(pieces[to].last);
            to += 1;
        }
        each(&pieces[from..to], first, last);
        from = to;
    }
}

/// The open sessions of one partition, by which late events are recognised.
///
/// An event joins the open sessions it meets. It is late if the end of the joined session, or of the event alone if it meets
/// none, plus allowed lateness is not after the watermark just before the event. A session whose own end plus allowed lateness
/// is not after the watermark is closed and removed. The open sessions follow from the log alone (the events of the partition
/// in log order that were not late), not from cuts and seams, so replay gives the same verdicts (I3).
#[derive(Debug)]
pub struct LiveSessions {
    gap: i64,
    allowed_lateness: i64,
    by_key: HashTable<OpenSessions>,
    watermark: Option<i64>,
    /// Number of keys at which keys without open sessions are removed.
    sweep_at: usize,
}

/// The open sessions of a key. A short key with one session is in the table itself: an event of it reads one place of memory.
#[derive(Debug)]
struct OpenSessions {
    hash: u64,
    key: SmallVec<[u8; 16]>,
    /// The times of the first and last event, in order.
    sessions: SmallVec<[(i64, i64); 1]>,
}

/// Number of keys below which keys are not swept.
const SWEEP_KEYS_MIN: usize = 1024;

impl LiveSessions {
    /// No sessions yet; both in microseconds.
    pub fn new(gap: i64, allowed_lateness: i64) -> LiveSessions {
        LiveSessions { gap, allowed_lateness, by_key: HashTable::new(), watermark: None, sweep_at: SWEEP_KEYS_MIN }
    }

    /// Adds the next event of the log, of `key` at `time`. Returns whether it is late.
    pub fn judge(&mut self, key: HashedKey<'_>, time: i64, watermark: Option<i64>) -> bool {
        self.watermark = self.watermark.max(watermark);
        let LiveSessions { gap, allowed_lateness, .. } = *self;
        let is_over = |last: i64, watermark: Option<i64>| {
            watermark.is_some_and(|w| last.saturating_add(gap).saturating_add(allowed_lateness) <= w)
        };
        let HashedKey { hash, bytes } = key;
        let found = self.by_key.find_mut(hash, |open| open.hash == hash && open.key.as_slice() == bytes);
        let Some(OpenSessions { sessions, .. }) = found else {
            if is_over(time, watermark) {
                return true;
            }
            self.sweep();
            let open = OpenSessions { hash, key: SmallVec::from_slice(bytes), sessions: smallvec![(time, time)] };
            self.by_key.insert_unique(hash, open, |open| open.hash);
            return false;
        };
        sessions.retain(|(_, last)| !is_over(*last, watermark));
        let from = sessions.partition_point(|(_, last)| last.saturating_add(gap) <= time);
        let met = sessions[from..].iter().take_while(|(first, _)| *first < time.saturating_add(gap)).count();
        if met == 0 {
            if is_over(time, watermark) {
                return true;
            }
            sessions.insert(from, (time, time));
            return false;
        }
        let (first, last) = (sessions[from].0.min(time), sessions[from + met - 1].1.max(time));
        sessions.drain(from + 1..from + met);
        sessions[from] = (first, last);
        false
    }

    fn sweep(&mut self) {
        if self.by_key.len() < self.sweep_at {
            return;
        }
        let (gap, lateness, watermark) = (self.gap, self.allowed_lateness, self.watermark);
        let is_live = |last: i64| watermark.is_none_or(|w| last.saturating_add(gap).saturating_add(lateness) > w);
        self.by_key.retain(|open| open.sessions.last().is_some_and(|(_, last)| is_live(*last)));
        self.sweep_at = (2 * self.by_key.len()).max(SWEEP_KEYS_MIN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GAP: i64 = 10;

    /// Sessions of sorted times, one by one.
    fn naive(mut times: Vec<i64>) -> Vec<(i64, i64)> {
        times.sort_unstable();
        let mut sessions: Vec<(i64, i64)> = Vec::new();
        for time in times {
            match sessions.last_mut() {
                Some((_, last)) if time < *last + GAP => *last = time,
                _ => sessions.push((time, time)),
            }
        }
        sessions
    }

    fn indexed(times: &[i64], base: u32) -> Vec<SessionPiece> {
        let mut index = SessionIndex::new(GAP);
        for (slot, time) in times.iter().enumerate() {
            index.join(3, *time, *time, base + slot as u32);
        }
        index
            .by_key
            .iter()
            .flatten()
            .map(|s| SessionPiece { key: 3, first: s.first, last: s.last, place: s.slot })
            .collect()
    }

    proptest! {
        #[test]
        fn sessions_do_not_depend_on_order_or_cuts(times in prop::collection::vec(-200i64..200, 0..40), cut in 0usize..40) {
            let cut = cut.min(times.len());
            let mut pieces = indexed(&times[..cut], 0);
            pieces.extend(indexed(&times[cut..], 1000));
            let mut found = Vec::new();
            stitch(&mut pieces, GAP, |_, first, last| found.push((first, last)));
            prop_assert_eq!(found, naive(times));
        }

        #[test]
        fn lateness_depends_only_on_the_log_before(events in prop::collection::vec((-100i64..100, 0usize..3), 1..60)) {
            let mut live = LiveSessions::new(GAP, 5);
            let mut watermark: Option<i64> = None;
            let mut before: Vec<Vec<i64>> = vec![Vec::new(); 3];
            for (time, key) in events {
                let is_over = |last: i64| watermark.is_some_and(|w| last + GAP + 5 <= w);
                // Forget the events of the sessions that are over.
                let over: Vec<(i64, i64)> =
                    naive(before[key].clone()).into_iter().filter(|(_, last)| is_over(*last)).collect();
                before[key].retain(|time| !over.iter().any(|(a, b)| a <= time && time <= b));
                before[key].push(time);
                let joined = naive(before[key].clone()).into_iter().find(|(a, b)| *a <= time && time <= *b);
                let expected = is_over(joined.expect("the event is in a session").1);
                if expected {
                    before[key].pop();
                }
                prop_assert_eq!(live.judge(HashedKey::new(&[key as u8]), time, watermark), expected);
                watermark = watermark.max(Some(time - 20));
            }
        }
    }

    #[test]
    fn a_session_ends_a_gap_after_its_last_event() {
        assert!(meet(GAP, 0, 9));
        assert!(!meet(GAP, 0, 10));
    }

    #[test]
    fn an_event_between_two_sessions_makes_them_one() {
        let mut index = SessionIndex::new(GAP);
        index.join(0, 0, 0, 0);
        index.join(0, 15, 16, 1);
        let bridged = index.join(0, 8, 8, 2);
        assert_eq!(
            bridged,
            JoinedSession { first: 0, last: 16, slot: 0, is_new: false, starts_earlier: false, absorbed: vec![1] }
        );
    }

    #[test]
    fn keys_whose_sessions_are_over_are_forgotten() {
        let mut live = LiveSessions::new(GAP, 0);
        for key in 0..100_000i64 {
            live.judge(HashedKey::new(&key.to_le_bytes()), key * 100, Some(key * 100 - 1));
        }
        assert!(live.by_key.len() <= SWEEP_KEYS_MIN);
    }
}
