//! Maintains partial aggregates of the events since the seam, per view, partition and generation.
//!
//! [`worker`] is the thread of one partition: it takes the items in its [`mailbox`], folds them ([`fold`]) into the open
//! [`generations`] of every view of the stream, and replies to readers between two folds. [`service`] starts the workers,
//! replays the log after a restart and serves readers. This crate reads no archive and speaks no HTTP.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod fold;
pub mod fold_input;
pub mod generations;
pub mod mailbox;
pub mod service;
pub mod worker;
