//! Who looks, and who listens? One task per subject that looks every so often and only computes if something moved; its
//! events are written once and shared by all who listen. It ends when nobody has listened for a while.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use shared::limits::{LIVE_FEEDS_MAX, LIVE_IDLE_MS, LIVE_KEPT_BYTES, LIVE_SUBSCRIBERS_MAX, LIVE_WAITING_EVENTS};
use shared::time::Micros;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::differences::Rows;
use super::event::{Frame, parse_id};
use super::subject::Subject;
use crate::admission::{Making, QueryRefusal};
use crate::answer::{AnswerError, answer};
use crate::entity_tag::EntityTag;
use crate::formats::json::{self, About};
use crate::pin::{Pinned, ReadError, pin};
use crate::query::as_of::AsOf;
use crate::query::{Query, Shape};
use crate::state::ServingState;

/// How often a task at least looks whether the server is stopping.
const STOPPING_LOOK: Duration = Duration::from_millis(250);

/// All feeds of the server.
#[derive(Default)]
pub struct Feeds {
    open: Mutex<HashMap<Subject, Arc<Feed>>>,
    subscribers: Arc<AtomicUsize>,
}

/// Why nobody can listen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "{LIVE_SUBSCRIBERS_MAX} readers of live answers are as many as this server takes; ask /rows, or try again later"
    )]
    Subscribers,
    #[error(
        "{LIVE_FEEDS_MAX} different live answers are as many as this server computes; ask for one that others ask for, or /rows"
    )]
    Feeds,
}

/// One subject, and what has been told of it.
struct Feed {
    /// Tells it from an earlier feed of the same subject, also of an earlier process.
    epoch: u64,
    sender: broadcast::Sender<Frame>,
    told: Mutex<Told>,
    /// Has there been a look, or is it over?
    looked: watch::Sender<bool>,
}

#[derive(Default)]
struct Told {
    /// The answer as it is, under the number of the last event; `None` before the first look.
    snapshot: Option<Frame>,
    /// The events before, oldest first, and their bytes.
    kept: VecDeque<Frame>,
    kept_bytes: usize,
    /// Since when nobody listens.
    idle_since: Option<Instant>,
    /// No more events come.
    over: bool,
    /// Why, if the answer cannot be made.
    failure: Option<Arc<AnswerError>>,
}

/// What the task knows between two looks.
#[derive(Default)]
struct Seen {
    tag: Option<EntityTag>,
    rows: Rows,
    /// Definition and columns of the rows: others cannot be compared with them.
    kind: String,
}

/// Somebody who listens.
pub struct Subscription {
    /// What to send first.
    pub first: Vec<Frame>,
    feed: Arc<Feed>,
    receiver: broadcast::Receiver<Frame>,
    subscribers: Arc<AtomicUsize>,
    /// The number of the last event sent.
    last: Option<u64>,
}

impl Feeds {
    /// Listens to `subject`, from the event `last_id` on if the feed still knows it.
    pub fn subscribe(
        self: &Arc<Feeds>,
        state: &ServingState,
        subject: Subject,
        last_id: Option<&str>,
    ) -> Result<Subscription, Refusal> {
        let mut open = self.open.lock();
        if self.subscribers.load(Ordering::SeqCst) >= LIVE_SUBSCRIBERS_MAX {
            return Err(Refusal::Subscribers);
        }
        if let Some(subscription) = open.get(&subject).and_then(|feed| self.listen(feed, last_id)) {
            return Ok(subscription);
        }
        if open.len() >= LIVE_FEEDS_MAX && !open.contains_key(&subject) {
            return Err(Refusal::Feeds);
        }
        let epoch = std::collections::hash_map::RandomState::new().hash_one(&subject);
        let (sender, _) = broadcast::channel(LIVE_WAITING_EVENTS);
        let feed = Arc::new(Feed::new(epoch, sender));
        // Before its task begins, so that no end of it is missed.
        let subscription = self.listen(&feed, last_id).ok_or(Refusal::Feeds)?;
        open.insert(subject.clone(), Arc::clone(&feed));
        gauge_feeds(open.len());
        let (feeds, state) = (Arc::downgrade(self), state.clone());
        tokio::spawn(async move {
            look_after(&state, &subject, &feed).await;
            if let Some(feeds) = Weak::upgrade(&feeds) {
                feeds.close(&subject, &feed);
            }
        });
        Ok(subscription)
    }

    /// Listens to a feed; `None` if no more events of it come.
    fn listen(&self, feed: &Arc<Feed>, last_id: Option<&str>) -> Option<Subscription> {
        // Held throughout: no event, nor the end, comes between what is sent first and what is heard.
        let mut told = feed.told.lock();
        if told.over {
            return None;
        }
        told.idle_since = None;
        let receiver = feed.sender.subscribe();
        let first = told.since(feed.epoch, last_id);
        let last = first.last().or(told.snapshot.as_ref()).map(|frame| frame.number);
        drop(told);
        gauge_subscribers(self.subscribers.fetch_add(1, Ordering::SeqCst) + 1);
        Some(Subscription { first, feed: Arc::clone(feed), receiver, subscribers: Arc::clone(&self.subscribers), last })
    }

    fn close(&self, subject: &Subject, feed: &Arc<Feed>) {
        let mut open = self.open.lock();
        if open.get(subject).is_some_and(|present| Arc::ptr_eq(present, feed)) {
            open.remove(subject);
        }
        gauge_feeds(open.len());
    }
}

impl Told {
    /// What somebody has to hear who has heard everything up to `last_id`.
    fn since(&self, epoch: u64, last_id: Option<&str>) -> Vec<Frame> {
        let Some(snapshot) = &self.snapshot else { return Vec::new() };
        let heard = last_id.and_then(parse_id).filter(|(of, _)| *of == epoch).map(|(_, number)| number);
        match heard {
            Some(number) if number == snapshot.number => Vec::new(),
            // All that came after it are kept.
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
        while self.kept_bytes > LIVE_KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.bytes.len();
        }
    }
}

impl Subscription {
    /// Waits for the first look; an error if what is asked for cannot be answered.
    pub async fn begun(&self) -> Result<(), Arc<AnswerError>> {
        // The sender lives as long as the feed, which is held here.
        let _ = self.feed.looked.subscribe().wait_for(|looked| *looked).await;
        self.feed.told.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// The next event; `None` when no more come.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.receiver.recv().await {
                Ok(frame) if frame.bytes.is_empty() => return None,
                Ok(frame) if self.last.is_some_and(|last| frame.number <= last) => {}
                Ok(frame) => {
                    self.last = Some(frame.number);
                    return Some(frame);
                }
                // Too slow for the differences: the whole answer, and on from there.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    metrics::counter!("trueup_live_lagged_total").increment(1);
                    let told = self.feed.told.lock();
                    let snapshot = told.snapshot.clone().filter(|_| !told.over)?;
                    drop(told);
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

/// Looks until nobody listens any more, the view is gone or the server stops.
async fn look_after(state: &ServingState, subject: &Subject, feed: &Feed) {
    let mut seen = Seen::default();
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due {
            due = Instant::now() + subject.every;
            match look(state, subject, &mut seen).await {
                Ok(Some(events)) => feed.tell(events),
                Ok(None) => {}
                // The view is gone, or defined otherwise so that it cannot be asked this any more: who comes back is told.
                Err(LookError::Read(ReadError::UnknownView(_) | ReadError::Query(_))) => break,
                // So is who asks for too much.
                Err(LookError::Answer(error)) => {
                    tracing::warn!(view = subject.view, %error, "a live answer could not be made");
                    feed.told.lock().failure = Some(Arc::new(error));
                    break;
                }
                // It may be different next time; who asks for rows is told why.
                Err(error) => tracing::warn!(view = subject.view, %error, "a live answer could not be looked at"),
            }
            feed.looked.send_replace(true);
        }
        if feed.is_forsaken() || !state.ready.load(Ordering::SeqCst) {
            break;
        }
        let pause = due.saturating_duration_since(Instant::now()).min(STOPPING_LOOK);
        tokio::time::sleep(pause).await;
    }
    feed.end();
}

impl Feed {
    fn new(epoch: u64, sender: broadcast::Sender<Frame>) -> Feed {
        Feed { epoch, sender, told: Mutex::default(), looked: watch::Sender::new(false) }
    }

    /// Tells `change`, if there is one, to all who listen; the snapshot is for those who come.
    fn tell(&self, Events { snapshot, change }: Events) {
        let mut told = self.told.lock();
        let number = told.snapshot.as_ref().map_or(0, |snapshot| snapshot.number + 1);
        let snapshot = Frame::new(self.epoch, number, "snapshot", &snapshot);
        let change = change.map(|change| Frame::new(self.epoch, number, "change", &change));
        let said = match change {
            Some(change) => {
                told.keep(change.clone());
                change
            }
            None => {
                // What came before cannot be gone on from.
                told.kept.clear();
                told.kept_bytes = 0;
                snapshot.clone()
            }
        };
        told.snapshot = Some(snapshot);
        metrics::counter!("trueup_live_events_total").increment(self.sender.receiver_count() as u64);
        // Nobody listens: that is no error.
        let _ = self.sender.send(said);
    }

    /// Has nobody listened for long?
    fn is_forsaken(&self) -> bool {
        let mut told = self.told.lock();
        if self.sender.receiver_count() > 0 {
            told.idle_since = None;
            return false;
        }
        let since = *told.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() < Duration::from_millis(LIVE_IDLE_MS) {
            return false;
        }
        // From here on nobody may begin to listen.
        told.over = true;
        true
    }

    /// Lets go of those who listen.
    fn end(&self) {
        let mut told = self.told.lock();
        told.over = true;
        // An empty frame is the end.
        let _ = self.sender.send(Frame { number: 0, bytes: bytes::Bytes::new() });
        self.looked.send_replace(true);
    }
}

/// What one look found.
struct Events {
    /// The whole answer.
    snapshot: Vec<u8>,
    /// What changed; `None`: everything may have.
    change: Option<Vec<u8>>,
}

/// Why a look saw nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Refused(#[from] QueryRefusal),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// Looks once. `None`: nothing moved.
async fn look(state: &ServingState, subject: &Subject, seen: &mut Seen) -> Result<Option<Events>, LookError> {
    let (query, pinned) = pin(&state.doors(), &subject.view, &subject.parameters, state.clock.now()).await?;
    let tag = EntityTag::of(&query, &pinned, "live");
    if seen.tag.as_ref() == Some(&tag) {
        return Ok(None);
    }
    let as_of = match query.as_of {
        Some(AsOf::At(time)) => Micros(time),
        _ => state.clock.now(),
    };
    let before = std::mem::take(seen);
    let work = move |making: &Making| compute(&query, &pinned, making, as_of, tag, before);
    let (after, events) = state.queries.make(std::time::Instant::now(), work).await??;
    *seen = after;
    Ok(Some(events))
}

/// The answer, and how it differs from the one before. Plain work.
fn compute(
    query: &Query,
    pinned: &Pinned,
    making: &Making,
    as_of: Micros,
    tag: EntityTag,
    before: Seen,
) -> Result<(Seen, Events), AnswerError> {
    metrics::counter!("trueup_live_computations_total").increment(1);
    let answer = answer(query, pinned, making)?;
    let about = About { pinned, layer: query.layer, as_of };
    let names = answer.columns.iter().map(|column| format!("{} {:?}", column.name, column.data_type));
    let kind = names.collect::<Vec<_>>().join(",") + &pinned.published.definition_hash;
    let (rows, differences) = before.rows.next(&answer);
    let is_first = before.kind != kind;
    let change = (!is_first)
        .then(|| json::write_change(&differences.changed, &differences.gone, answer.next.as_deref(), &about));
    let snapshot = json::write(&answer, &about, Shape::Document);
    Ok((Seen { tag: Some(tag), rows, kind }, Events { snapshot, change }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_gets_what_is_kept_and_otherwise_everything() {
        let feed = Feed::new(7, broadcast::channel(4).0);
        let events =
            |change: Option<&str>| Events { snapshot: b"{}".to_vec(), change: change.map(|c| c.as_bytes().to_vec()) };
        feed.tell(events(None));
        (0..3).for_each(|_| feed.tell(events(Some("{}"))));
        let numbers = |id: &str| -> Vec<u64> { feed.told.lock().since(7, Some(id)).iter().map(|f| f.number).collect() };
        let id = |number: u64| format!("{:016x}-{number}", 7);
        assert_eq!(numbers(&id(0)), [1, 2, 3]);
        assert_eq!(numbers(&id(2)), [3]);
        assert_eq!(numbers(&id(3)), [0; 0]);
        // What nobody was given: a number that is not there yet, the largest there is, another feed, no id at all.
        for wrong in [id(4), id(u64::MAX), format!("{:016x}-1", 8), "x".to_owned()] {
            let said = feed.told.lock().since(7, Some(&wrong));
            assert!(said.len() == 1 && said[0].bytes.windows(8).any(|bytes| bytes == b"snapshot"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn nobody_listens_to_a_feed_that_is_over() {
        let feeds = Feeds::default();
        let feed = Arc::new(Feed::new(7, broadcast::channel(4).0));
        let mut listening = feeds.listen(&feed, None).expect("it goes on");
        feed.end();
        assert!(listening.next().await.is_none(), "the end is heard");
        assert!(feeds.listen(&feed, None).is_none());
    }

    #[tokio::test]
    async fn who_is_too_slow_gets_the_whole_answer_and_goes_on_from_there() {
        let feeds = Feeds::default();
        let sender = broadcast::channel(LIVE_WAITING_EVENTS).0;
        let feed = Arc::new(Feed::new(7, sender));
        let tell = |change: Option<&str>, snapshot: &str| {
            let change = change.map(|change| change.as_bytes().to_vec());
            feed.tell(Events { snapshot: snapshot.as_bytes().to_vec(), change });
        };
        tell(None, "{}");
        let mut slow = feeds.listen(&feed, None).expect("it goes on");
        let last = LIVE_WAITING_EVENTS as u64 + 5;
        (1..=last).for_each(|n| tell(Some("{}"), &format!("{{\"n\":{n}}}")));
        let frame = slow.next().await.expect("an event");
        let text = String::from_utf8_lossy(&frame.bytes).into_owned();
        assert_eq!(frame.number, last, "{text}");
        assert!(text.contains("event: snapshot") && text.contains(&format!("{{\"n\":{last}}}")), "{text}");
        // What is in the snapshot is not told once more.
        assert!(futures::FutureExt::now_or_never(slow.next()).is_none());
        tell(Some("{\"next\":1}"), "{}");
        assert_eq!(slow.next().await.expect("an event").number, last + 1);
    }
}
