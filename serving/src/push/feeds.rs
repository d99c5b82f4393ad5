//! Holds all feeds of the server, and subscribes clients to them.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use shared::limits::{LIVE_FEEDS_MAX, LIVE_SUBSCRIBERS_MAX};
use tokio::sync::watch;

use super::event::Frame;
use super::feed::{Feed, FeedFailure};
use super::live_query::LiveQuery;
use super::memory::LiveMemory;
use super::poll::run_feed;
use crate::state::ServingState;

/// All feeds of the server.
pub struct Feeds {
    open: Mutex<HashMap<LiveQuery, Arc<Feed>>>,
    subscribers: Arc<AtomicUsize>,
    memory: Arc<LiveMemory>,
}

impl Default for Feeds {
    fn default() -> Feeds {
        Feeds { open: Mutex::default(), subscribers: Arc::default(), memory: LiveMemory::of_all() }
    }
}

/// The reason why a subscription was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    #[error("the limit of {LIVE_SUBSCRIBERS_MAX} live subscribers is reached; use /rows or retry later")]
    Subscribers,
    #[error("the limit of {LIVE_FEEDS_MAX} different live queries is reached; use one that is already open, or /rows")]
    Feeds,
    #[error("the memory of live queries is in use; use /rows or retry later")]
    Memory,
}

/// One subscriber of a feed.
pub struct Subscription {
    /// The events to send first.
    pub first: Vec<Frame>,
    feed: Arc<Feed>,
    news: watch::Receiver<()>,
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
        if self.memory.is_nearly_full() {
            return Err(SubscribeError::Memory);
        }
        let epoch = std::collections::hash_map::RandomState::new().hash_one(&query);
        let feed = Arc::new(Feed::new(epoch, LiveMemory::of_feed(&self.memory)));
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
        let news = feed.listen();
        let first = state.since(feed.epoch, last_id);
        let last = first.last().map(|frame| frame.number).or(state.last());
        drop(state);
        gauge_subscribers(self.subscribers.fetch_add(1, Ordering::SeqCst) + 1);
        metrics::gauge!("trueup_live_bytes").set(self.memory.held() as f64);
        Some(Subscription { first, feed: Arc::clone(feed), news, subscribers: Arc::clone(&self.subscribers), last })
    }

    fn close(&self, query: &LiveQuery, feed: &Arc<Feed>) {
        let mut open = self.open.lock();
        if open.get(query).is_some_and(|present| Arc::ptr_eq(present, feed)) {
            open.remove(query);
        }
        gauge_feeds(open.len());
    }
}

impl Subscription {
    /// Waits for the first poll; returns the error if the query cannot be computed.
    pub async fn ready(&self) -> Result<(), FeedFailure> {
        // The sender lives as long as the feed, which is held here.
        let _ = self.feed.polled.subscribe().wait_for(|polled| *polled).await;
        self.feed.state.lock().failure.clone().map_or(Ok(()), Err)
    }

    /// Returns the next event; `None` once the feed has ended.
    pub async fn next(&mut self) -> Option<Frame> {
        let frame = self.feed.next(self.last, &mut self.news).await?;
        self.last = Some(frame.number);
        Some(frame)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ended_feed_accepts_no_subscriber() {
        let feeds = Feeds::default();
        let feed = Arc::new(Feed::new(7, LiveMemory::of_feed(&feeds.memory)));
        let mut subscription = feeds.attach(&feed, None).expect("the feed is open");
        feed.end();
        assert!(subscription.next().await.is_none(), "the subscriber sees the end");
        assert!(feeds.attach(&feed, None).is_none());
    }
}
