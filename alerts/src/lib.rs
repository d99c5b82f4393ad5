//! Evaluates alerts over the rows that the speed layer changes, and judges them when a batch run has published.
//!
//! [`affected`] says which rows a change affects; [`fetch`] computes exactly these as a query does, from one batch version and
//! the generations since its seam (of sessions, [`session_starts`] says which), and [`finished`] the values of their columns; [`condition`] evaluates the conditions over them. [`evaluator`] is the task that does so,
//! and [`judge`] what it does with a new version. [`book`] keeps every raised alert durably, [`delivery`] sends notices
//! to a [`webhook`] or a topic ([`notice_topic`]): [`quiet`] says which are not sent, [`template`] in which form. This
//! crate names no other layer: it meets them in the traits of `shared`.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod affected;
pub mod book;
pub mod book_file;
pub mod condition;
pub mod delivery;
pub mod evaluator;
pub mod fetch;
pub mod finished;
pub mod judge;
pub mod notice_topic;
pub mod quiet;
pub mod rule;
pub mod session_starts;
pub mod template;
pub mod webhook;
