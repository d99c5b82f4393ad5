//! Pushes changes of views to subscribers. A **feed** is one task that polls a view and sends what changed to all its
//! subscribers, so a thousand clients of one query cost one computation.
//!
//! [`live_query`] is what a feed computes, [`poll`] the task that computes it, [`row_changes`] the difference between two
//! polls, [`event`] its encoding. [`feed`] holds the events for the subscribers, within [`memory`]; [`feeds`] holds all
//! feeds. The endpoint is in `http/live.rs`.

mod event;
mod feed;
mod feeds;
mod live_query;
mod memory;
mod poll;
mod row_changes;

pub use self::event::Frame;
pub use self::feed::FeedFailure;
pub use self::feeds::{Feeds, SubscribeError, Subscription};
pub use self::live_query::{LiveQuery, LiveQueryError};
