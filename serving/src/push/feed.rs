//! Holds the current result of a live query and its last changes, for all its subscribers.
//!
//! No subscriber has a queue of its own: each one remembers the number of the event it got last, and takes the next one from
//! here. One that is too far behind gets the whole result instead. So memory does not depend on how fast clients read, but
//! for the events that are being sent, which [`LiveMemory`] bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::limits::{LIVE_FEED_BYTES_MAX, LIVE_IDLE_MS, LIVE_REPLAY_BYTES};
use tokio::sync::watch;
use tokio::time::Instant;

use super::event::{Frame, parse_id};
use super::memory::LiveMemory;
use crate::execute::ExecuteError;
use crate::query::QueryError;

/// One live query and the events sent so far.
pub(super) struct Feed {
    /// Random; distinguishes this feed from earlier ones of the same query, also of earlier processes.
    pub(super) epoch: u64,
    /// Notified of every event and of the end; its receivers are the subscribers.
    news: watch::Sender<()>,
    pub(super) state: Mutex<FeedState>,
    /// True after the first poll, or once the feed has ended.
    pub(super) polled: watch::Sender<bool>,
    pub(super) memory: Arc<LiveMemory>,
}

/// The events that subscribers may still need.
#[derive(Default)]
pub(super) struct FeedState {
    /// Number of the next event.
    next: u64,
    /// The current result, under the number of the last event; `None` before the first poll, and while there is no memory
    /// for it.
    snapshot: Option<Frame>,
    /// Earlier events, oldest first.
    kept: VecDeque<Frame>,
    /// Bytes of the earlier events.
    kept_bytes: usize,
    /// Since when the feed has had no subscriber.
    pub(super) idle_since: Option<Instant>,
    /// True once no more events will be sent.
    pub(super) ended: bool,
    /// The error that ended the feed, if the query cannot be computed.
    pub(super) failure: Option<FeedFailure>,
}

/// Why a feed ended although it has subscribers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FeedFailure {
    #[error(transparent)]
    Query(Arc<ExecuteError>),
    /// The state of the view does not admit the query, such as a window that retention has dropped.
    #[error(transparent)]
    Refused(QueryError),
    #[error(
        "the result of a live query may have {} MiB; use a lower limit, fewer dimensions (group_by) or a shorter time",
        LIVE_FEED_BYTES_MAX >> 20
    )]
    TooLarge,
}

/// The outcome of a poll in which something changed.
pub(super) struct FeedUpdate {
    /// The complete result.
    pub(super) snapshot: Vec<u8>,
    /// The changed rows; `None` if the rows cannot be compared with the last ones.
    pub(super) change: Option<Vec<u8>>,
}

/// The result of [`Feed::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    Sent,
    /// There was no memory for the update: subscribers read too slowly. Nothing was sent.
    Postponed,
}

impl FeedState {
    /// Returns the events that a subscriber with everything up to `last_id` still needs.
    pub(super) fn since(&self, epoch: u64, last_id: Option<&str>) -> Vec<Frame> {
        let Some(snapshot) = &self.snapshot else { return Vec::new() };
        let received = last_id.and_then(parse_id).filter(|(of, _)| *of == epoch).map(|(_, number)| number);
        match received {
            Some(number) if number == snapshot.number => Vec::new(),
            // All events after it are kept.
            Some(number)
                if number < snapshot.number
                    && self.kept.front().is_some_and(|oldest| oldest.number <= number.saturating_add(1)) =>
            {
                self.kept.iter().filter(|frame| frame.number > number).cloned().collect()
            }
            _ => vec![snapshot.clone()],
        }
    }

    /// Returns the event for a subscriber that got `last`; the whole result if the one after it is no longer kept.
    fn after(&self, last: Option<u64>) -> Option<Frame> {
        let snapshot = self.snapshot.as_ref()?;
        let Some(last) = last else { return Some(snapshot.clone()) };
        if last >= snapshot.number {
            return None;
        }
        let oldest = self.kept.front().map_or(u64::MAX, |frame| frame.number);
        let next = (last + 1).checked_sub(oldest).and_then(|at| self.kept.get(at as usize));
        if next.is_none() {
            metrics::counter!("trueup_live_lagged_total").increment(1);
        }
        Some(next.unwrap_or(snapshot).clone())
    }

    /// Returns the number of the last event.
    pub(super) fn last(&self) -> Option<u64> {
        self.snapshot.as_ref().map(|snapshot| snapshot.number)
    }

    fn keep(&mut self, frame: Frame) {
        self.kept_bytes += frame.bytes.len();
        self.kept.push_back(frame);
        while self.kept_bytes > LIVE_REPLAY_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.bytes.len();
        }
    }

    fn forget_kept(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
    }
}

impl Feed {
    pub(super) fn new(epoch: u64, memory: Arc<LiveMemory>) -> Feed {
        Feed { epoch, news: watch::Sender::new(()), state: Mutex::default(), polled: watch::Sender::new(false), memory }
    }

    /// Returns a receiver of the news. The feed is not idle while it lives.
    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Waits for the event after `last`; `None` once the feed has ended.
    pub(super) async fn next(&self, last: Option<u64>, news: &mut watch::Receiver<()>) -> Option<Frame> {
        loop {
            {
                let state = self.state.lock();
                if let Some(frame) = state.after(last) {
                    return Some(frame);
                }
                if state.ended {
                    return None;
                }
            }
            news.changed().await.ok()?;
        }
    }

    /// Makes the update the current result, and its change the next event.
    pub(super) fn publish(&self, FeedUpdate { snapshot, change }: FeedUpdate) -> Published {
        let mut state = self.state.lock();
        let number = state.next;
        // The previous result makes room for the new one.
        state.snapshot = None;
        let frame = |name: &str, data: &[u8]| Frame::new(self.epoch, number, name, data, &self.memory);
        let Some(snapshot) = frame("snapshot", &snapshot) else {
            state.forget_kept();
            return Published::Postponed;
        };
        // Without memory for the change, subscribers get the result instead.
        match change.and_then(|change| frame("change", &change)) {
            Some(change) => state.keep(change),
            // Earlier events lead to rows of another layout.
            None => state.forget_kept(),
        }
        state.snapshot = Some(snapshot);
        state.next = number + 1;
        drop(state);
        metrics::counter!("trueup_live_events_total").increment(self.news.receiver_count() as u64);
        self.news.send_replace(());
        Published::Sent
    }

    /// Returns true, and ends the feed, if it has had no subscriber for a while.
    pub(super) fn is_idle(&self) -> bool {
        let mut state = self.state.lock();
        if self.news.receiver_count() > 0 {
            state.idle_since = None;
            return false;
        }
        let since = *state.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() < Duration::from_millis(LIVE_IDLE_MS) {
            return false;
        }
        // From here on, new subscribers are refused.
        state.ended = true;
        true
    }

    /// Ends the feed and releases its subscribers.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.news.send_replace(());
        self.polled.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(bytes_max: usize) -> Feed {
        Feed::new(7, LiveMemory::new(bytes_max, None))
    }

    fn update(change: Option<&str>, snapshot: &str) -> FeedUpdate {
        FeedUpdate { snapshot: snapshot.as_bytes().to_vec(), change: change.map(|change| change.as_bytes().to_vec()) }
    }

    #[test]
    fn a_returning_subscriber_gets_missed_events_or_a_snapshot() {
        let feed = feed(1 << 20);
        feed.publish(update(None, "{}"));
        (0..3).for_each(|_| assert_eq!(feed.publish(update(Some("{}"), "{}")), Published::Sent));
        let numbers =
            |id: &str| -> Vec<u64> { feed.state.lock().since(7, Some(id)).iter().map(|f| f.number).collect() };
        let id = |number: u64| format!("{:016x}-{number}", 7);
        assert_eq!(numbers(&id(0)), [1, 2, 3]);
        assert_eq!(numbers(&id(2)), [3]);
        assert_eq!(numbers(&id(3)), [0; 0]);
        // Ids this feed never issued: a future number, the largest number, another feed, not an id.
        for wrong in [id(4), id(u64::MAX), format!("{:016x}-1", 8), "x".to_owned()] {
            let sent = feed.state.lock().since(7, Some(&wrong));
            assert!(sent.len() == 1 && sent[0].bytes.windows(8).any(|bytes| bytes == b"snapshot"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_slow_subscriber_gets_the_snapshot_and_continues_from_there() {
        let feed = feed(64 << 20);
        let mut news = feed.listen();
        feed.publish(update(None, "{}"));
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(LIVE_REPLAY_BYTES / 4));
        for n in 1..=9 {
            feed.publish(update(Some(&long), &format!("{{\"n\":{n}}}")));
        }
        // Events that are kept come one by one.
        assert_eq!(feed.next(Some(7), &mut news).await.expect("an event").number, 8);
        let frame = feed.next(Some(2), &mut news).await.expect("an event");
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        assert!(frame.number == 9 && text.contains("event: snapshot") && text.contains("{\"n\":9}"), "{text}");
        // Changes that the snapshot includes are not sent again.
        assert!(futures::FutureExt::now_or_never(feed.next(Some(9), &mut news)).is_none());
        feed.publish(update(Some("{\"next\":1}"), "{}"));
        assert_eq!(feed.next(Some(9), &mut news).await.expect("an event").number, 10);
        assert!(feed.memory.held() < 2 * LIVE_REPLAY_BYTES, "the events of slow subscribers are not held");
    }

    #[tokio::test]
    async fn events_that_clients_do_not_read_stop_their_feed_at_its_limit() {
        let feed = feed(1 << 20);
        let mut news = feed.listen();
        let result = format!("{{\"text\":\"{}\"}}", "x".repeat(200 << 10));
        let mut unread = Vec::new();
        let mut last = None;
        let mut postponed = 0;
        for _ in 0..20 {
            match feed.publish(update(None, &result)) {
                Published::Sent => {
                    let frame = feed.next(last, &mut news).await.expect("an event");
                    last = Some(frame.number);
                    unread.push(frame);
                }
                Published::Postponed => postponed += 1,
            }
            assert!(feed.memory.held() <= 1 << 20);
        }
        assert!(unread.len() >= 3 && postponed > 10, "{} sent, {postponed} postponed", unread.len());
        unread.clear();
        assert_eq!(feed.publish(update(None, &result)), Published::Sent);
        assert!(feed.next(last, &mut news).await.is_some_and(|frame| Some(frame.number) > last));
    }
}
