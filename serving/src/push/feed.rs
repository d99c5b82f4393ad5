//! Runs one polling task per live query, shared by all its subscribers.
//!
//! A poll computes only if the state of the view has moved. Events are encoded once. The task ends when the feed has had no
//! subscriber for a while, when the view no longer accepts the query, or when the server stops.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use shared::limits::{
    LIVE_FEEDS_MAX, LIVE_IDLE_MS, LIVE_REPLAY_BYTES, LIVE_SUBSCRIBER_QUEUE_EVENTS, LIVE_SUBSCRIBERS_MAX,
};
use shared::time::Micros;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::event::{Frame, parse_id};
use super::live_query::LiveQuery;
use super::row_changes::RowHashes;
use crate::admission::{AdmissionError, QueryContext};
use crate::entity_tag::EntityTag;
use crate::execute::{ExecuteError, execute};
use crate::formats::json::{self, ResponseContext};
use crate::pin::{Arrival, PinnedQuery, ReadError, ViewPin, pin};
use crate::query::Shape;
use crate::query::bound::BoundQuery;
use crate::state::ServingState;

/// Longest time until a task notices that the server is stopping.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// All feeds of the server.
#[derive(Default)]
pub struct Feeds {
    open: Mutex<HashMap<LiveQuery, Arc<Feed>>>,
    subscribers: Arc<AtomicUsize>,
}

/// The reason why a subscription was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error("the limit of {LIVE_SUBSCRIBERS_MAX} live subscribers is reached; use /rows or retry later")]
    Subscribers,
    #[error("the limit of {LIVE_FEEDS_MAX} different live queries is reached; use one that is already open, or /rows")]
    Feeds,
}

/// One live query and the events sent so far.
struct Feed {
    /// Random; distinguishes this feed from earlier ones of the same query, also of earlier processes.
    epoch: u64,
    sender: broadcast::Sender<Frame>,
    state: Mutex<FeedState>,
    /// True after the first poll, or once the feed has ended.
    polled: watch::Sender<bool>,
}

/// The events that subscribers may still need.
#[derive(Default)]
struct FeedState {
    /// The current result, under the number of the last event; `None` before the first poll.
    snapshot: Option<Frame>,
    /// Earlier events, oldest first.
    kept: VecDeque<Frame>,
    /// Bytes of the earlier events.
    kept_bytes: usize,
    /// Since when the feed has had no subscriber.
    idle_since: Option<Instant>,
    /// True once no more events will be sent.
    ended: bool,
    /// The error that ended the feed, if the query cannot be computed.
    failure: Option<Arc<ExecuteError>>,
}

/// What the task remembers of its last poll.
#[derive(Default)]
struct LastPoll {
    tag: Option<EntityTag>,
    rows: RowHashes,
    /// Definition and columns of the rows; rows of another layout cannot be compared with them.
    layout: String,
}

/// One subscriber of a feed.
pub struct Subscription {
    /// The events to send first.
    pub first: Vec<Frame>,
    feed: Arc<Feed>,
    receiver: broadcast::Receiver<Frame>,
    subscribers: Arc<AtomicUsize>,
    /// The number of the last event sent.
    last: Option<u64>,
}

impl Feeds {
    /// Subscribes to `query`, from the event `last_id` on if the feed still has it.
    #[expect(clippy::disallowed_methods, reason = "the task ends with the last subscriber of the feed")]
    pub fn subscribe(
        self: &Arc<Feeds>,
        state: &ServingState,
        query: LiveQuery,
        last_id: Option<&str>,
    ) -> Result<Subscription, SubscribeError> {
        let mut open = self.open.lock();
        if self.subscribers.load(Ordering::SeqCst) >= LIVE_SUBSCRIBERS_MAX {
            return Err(SubscribeError::Subscribers);
        }
        if let Some(subscription) = open.get(&query).and_then(|feed| self.attach(feed, last_id)) {
            return Ok(subscription);
        }
        if open.len() >= LIVE_FEEDS_MAX && !open.contains_key(&query) {
            return Err(SubscribeError::Feeds);
        }
        let epoch = std::collections::hash_map::RandomState::new().hash_one(&query);
        let (sender, _) = broadcast::channel(LIVE_SUBSCRIBER_QUEUE_EVENTS);
        let feed = Arc::new(Feed::new(epoch, sender));
        // Before the task starts, so that its end cannot be missed.
        let subscription = self.attach(&feed, last_id).ok_or(SubscribeError::Feeds)?;
        open.insert(query.clone(), Arc::clone(&feed));
        gauge_feeds(open.len());
        let (feeds, state) = (Arc::downgrade(self), state.clone());
        tokio::spawn(async move {
            run_feed(&state, &query, &feed).await;
            if let Some(feeds) = Weak::upgrade(&feeds) {
                feeds.close(&query, &feed);
            }
        });
        Ok(subscription)
    }

    /// Adds a subscriber to a feed; `None` if the feed has ended.
    fn attach(&self, feed: &Arc<Feed>, last_id: Option<&str>) -> Option<Subscription> {
        // Locked throughout: no event, nor the end, may fall between the first events and the receiver.
        let mut state = feed.state.lock();
        if state.ended {
            return None;
        }
        state.idle_since = None;
        let receiver = feed.sender.subscribe();
        let first = state.since(feed.epoch, last_id);
        let last = first.last().or(state.snapshot.as_ref()).map(|frame| frame.number);
        drop(state);
        gauge_subscribers(self.subscribers.fetch_add(1, Ordering::SeqCst) + 1);
        Some(Subscription { first, feed: Arc::clone(feed), receiver, subscribers: Arc::clone(&self.subscribers), last })
    }

    fn close(&self, query: &LiveQuery, feed: &Arc<Feed>) {
        let mut open = self.open.lock();
        if open.get(query).is_some_and(|present| Arc::ptr_eq(present, feed)) {
            open.remove(query);
        }
        gauge_feeds(open.len());
    }
}

impl FeedState {
    /// Returns the events that a subscriber with everything up to `last_id` still needs.
    fn since(&self, epoch: u64, last_id: Option<&str>) -> Vec<Frame> {
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

    fn keep(&mut self, frame: Frame) {
        self.kept_bytes += frame.bytes.len();
        self.kept.push_back(frame);
        while self.kept_bytes > LIVE_REPLAY_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.bytes.len();
        }
    }
}

impl Subscription {
    /// Waits for the first poll; returns the error if the query cannot be computed.
    pub async fn ready(&self) -> Result<(), Arc<ExecuteError>> {
        // The sender lives as long as the feed, which is held here.
        let _ = self.feed.polled.subscribe().wait_for(|polled| *polled).await;
        self.feed.state.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Returns the next event; `None` once the feed has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.receiver.recv().await {
                Ok(frame) if frame.bytes.is_empty() => return None,
                Ok(frame) if self.last.is_some_and(|last| frame.number <= last) => {}
                Ok(frame) => {
                    self.last = Some(frame.number);
                    return Some(frame);
                }
                // Too slow for the changes: send the complete result and continue from there.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    metrics::counter!("trueup_live_lagged_total").increment(1);
                    let state = self.feed.state.lock();
                    let snapshot = state.snapshot.clone().filter(|_| !state.ended)?;
                    drop(state);
                    self.last = Some(snapshot.number);
                    return Some(snapshot);
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        gauge_subscribers(self.subscribers.fetch_sub(1, Ordering::SeqCst) - 1);
    }
}

fn gauge_subscribers(count: usize) {
    metrics::gauge!("trueup_live_subscribers").set(count as f64);
}

fn gauge_feeds(count: usize) {
    metrics::gauge!("trueup_live_feeds").set(count as f64);
}

/// Polls until the feed is idle, the view no longer accepts the query, or the server stops.
async fn run_feed(state: &ServingState, query: &LiveQuery, feed: &Feed) {
    let mut last = LastPoll::default();
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due {
            due = Instant::now() + query.every;
            match poll(state, query, &mut last).await {
                Ok(Some(update)) => feed.publish(update),
                Ok(None) => {}
                // The view was removed or redefined; a new subscription gets the error.
                Err(PollError::Read(ReadError::UnknownView(_) | ReadError::Query(_))) => break,
                Err(PollError::QueryResult(error)) => {
                    tracing::warn!(view = query.view, %error, "live query failed");
                    feed.state.lock().failure = Some(Arc::new(error));
                    break;
                }
                // The next poll may succeed.
                Err(error) => tracing::warn!(view = query.view, %error, "could not refresh live query"),
            }
            feed.polled.send_replace(true);
        }
        if feed.is_idle() || !state.ready.load(Ordering::SeqCst) {
            break;
        }
        let pause = due.saturating_duration_since(Instant::now()).min(STOP_CHECK);
        tokio::time::sleep(pause).await;
    }
    feed.end();
}

impl Feed {
    fn new(epoch: u64, sender: broadcast::Sender<Frame>) -> Feed {
        Feed { epoch, sender, state: Mutex::default(), polled: watch::Sender::new(false) }
    }

    /// Sends the change, or the snapshot if there is none, to all subscribers; keeps the snapshot for new ones.
    fn publish(&self, FeedUpdate { snapshot, change }: FeedUpdate) {
        let mut state = self.state.lock();
        let number = state.snapshot.as_ref().map_or(0, |snapshot| snapshot.number + 1);
        let snapshot = Frame::new(self.epoch, number, "snapshot", &snapshot);
        let change = change.map(|change| Frame::new(self.epoch, number, "change", &change));
        let sent = match change {
            Some(change) => {
                state.keep(change.clone());
                change
            }
            None => {
                // Earlier events lead to rows of another layout.
                state.kept.clear();
                state.kept_bytes = 0;
                snapshot.clone()
            }
        };
        state.snapshot = Some(snapshot);
        metrics::counter!("trueup_live_events_total").increment(self.sender.receiver_count() as u64);
        // Sending without subscribers is not an error.
        let _ = self.sender.send(sent);
    }

    /// Returns true, and ends the feed, if it has had no subscriber for a while.
    fn is_idle(&self) -> bool {
        let mut state = self.state.lock();
        if self.sender.receiver_count() > 0 {
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
    fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        // An empty frame marks the end.
        let _ = self.sender.send(Frame { number: 0, bytes: bytes::Bytes::new() });
        self.polled.send_replace(true);
    }
}

/// The outcome of a poll in which something changed.
struct FeedUpdate {
    /// The complete result.
    snapshot: Vec<u8>,
    /// The changed rows; `None` if the rows cannot be compared with the last ones.
    change: Option<Vec<u8>>,
}

/// The reason why a poll failed.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Refused(#[from] AdmissionError),
    #[error(transparent)]
    QueryResult(#[from] ExecuteError),
}

/// Polls once. `None` if nothing changed.
async fn poll(state: &ServingState, live: &LiveQuery, last: &mut LastPoll) -> Result<Option<FeedUpdate>, PollError> {
    let arrival = Arrival { admission: &state.admission, since: shared::clock::monotonic_now() };
    let pin = pin(&state.readers(), &live.view, &live.parameters, state.clock.now(), arrival).await?;
    let PinnedQuery { query, pinned, admitted } = pin;
    let tag = EntityTag::of(&query, &pinned, "live");
    if last.tag.as_ref() == Some(&tag) {
        return Ok(None);
    }
    let as_of = query.instant.unwrap_or_else(|| state.clock.now());
    let before = std::mem::take(last);
    let work = move |context: &QueryContext| compute(&query, &pinned, context, as_of, tag, before);
    let admitted = match admitted {
        Some(admitted) => admitted,
        None => state.admission.admit(arrival.since).await?,
    };
    let (after, update) = admitted.run(work).await??;
    *last = after;
    Ok(Some(update))
}

/// Computes the result and its changes from the last one. Blocks.
fn compute(
    query: &BoundQuery,
    pinned: &ViewPin,
    context: &QueryContext,
    as_of: Micros,
    tag: EntityTag,
    before: LastPoll,
) -> Result<(LastPoll, FeedUpdate), ExecuteError> {
    metrics::counter!("trueup_live_computations_total").increment(1);
    let result = execute(query, pinned, context)?;
    let about = ResponseContext { pinned, layer: query.layer, as_of };
    let names = result.columns.iter().map(|column| format!("{} {:?}", column.name, column.data_type));
    let layout = names.collect::<Vec<_>>().join(",") + &pinned.published.definition_hash;
    let (rows, changes) = before.rows.next(&result);
    let is_first = before.layout != layout;
    let change =
        (!is_first).then(|| json::write_change(&changes.changed, &changes.gone, result.next.as_deref(), &about));
    let snapshot = json::write(&result, &about, Shape::Document);
    Ok((LastPoll { tag: Some(tag), rows, layout }, FeedUpdate { snapshot, change }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returning_subscriber_gets_missed_events_or_a_snapshot() {
        let feed = Feed::new(7, broadcast::channel(4).0);
        let update = |change: Option<&str>| FeedUpdate {
            snapshot: b"{}".to_vec(),
            change: change.map(|change| change.as_bytes().to_vec()),
        };
        feed.publish(update(None));
        (0..3).for_each(|_| feed.publish(update(Some("{}"))));
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
    async fn an_ended_feed_accepts_no_subscriber() {
        let feeds = Feeds::default();
        let feed = Arc::new(Feed::new(7, broadcast::channel(4).0));
        let mut subscription = feeds.attach(&feed, None).expect("the feed is open");
        feed.end();
        assert!(subscription.next().await.is_none(), "the subscriber sees the end");
        assert!(feeds.attach(&feed, None).is_none());
    }

    #[tokio::test]
    async fn a_slow_subscriber_gets_the_snapshot_and_continues_from_there() {
        let feeds = Feeds::default();
        let sender = broadcast::channel(LIVE_SUBSCRIBER_QUEUE_EVENTS).0;
        let feed = Arc::new(Feed::new(7, sender));
        let publish = |change: Option<&str>, snapshot: &str| {
            let change = change.map(|change| change.as_bytes().to_vec());
            feed.publish(FeedUpdate { snapshot: snapshot.as_bytes().to_vec(), change });
        };
        publish(None, "{}");
        let mut slow = feeds.attach(&feed, None).expect("the feed is open");
        let last = LIVE_SUBSCRIBER_QUEUE_EVENTS as u64 + 5;
        (1..=last).for_each(|n| publish(Some("{}"), &format!("{{\"n\":{n}}}")));
        let frame = slow.next().await.expect("an event");
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        assert_eq!(frame.number, last, "{text}");
        assert!(text.contains("event: snapshot") && text.contains(&format!("{{\"n\":{last}}}")), "{text}");
        // Changes that the snapshot includes are not sent again.
        assert!(futures::FutureExt::now_or_never(slow.next()).is_none());
        publish(Some("{\"next\":1}"), "{}");
        assert_eq!(slow.next().await.expect("an event").number, last + 1);
    }
}
