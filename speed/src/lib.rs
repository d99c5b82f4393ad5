//! What happened since the seam? Partial aggregates of live events, per view, partition and generation.
//!
//! [`worker`] is one partition's thread: it takes what waits in its [`mailbox`], folds it ([`fold`]) into the open
//! [`generations`] of every view of the stream, and answers readers between two folds. [`service`] starts the workers,
//! replays the log after a restart and is the door for readers. Nothing here reads the archive or speaks HTTP.

pub mod fold;
pub mod generations;
pub mod mailbox;
pub mod service;
pub mod worker;
