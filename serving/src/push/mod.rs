//! Pushes changes of views to subscribers. A **feed** is one task that polls a view and sends what changed to all its
//! subscribers, so a thousand clients of one query cost one computation.
//!
//! [`live_query`] is what a feed computes, [`row_changes`] the difference between two polls, [`event`] its encoding,
//! [`feed`] the task and its subscribers. The endpoint is in `http/live.rs`.

mod event;
mod feed;
mod live_query;
mod row_changes;

pub use self::event::Frame;
pub use self::feed::{Feeds, SubscribeError, Subscription};
pub use self::live_query::{LiveQuery, LiveQueryError};
