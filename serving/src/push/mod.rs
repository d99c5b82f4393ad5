//! How does a reader see figures change without asking again? By a **feed**: one task that looks at the view now and then,
//! and tells all who listen what changed. A thousand readers of one query cost one computation.
//!
//! [`subject`] says what a feed tells of, [`differences`] what changed from one look to the next, [`event`] how that is
//! written, [`feed`] who looks and who listens. The door is in `http/live.rs`.

mod differences;
mod event;
mod feed;
mod subject;

pub use self::event::Frame;
pub use self::feed::{Feeds, Refusal, Subscription};
pub use self::subject::{Subject, SubjectError};
