//! How does an event enter?
//!
//! [`http`] is the door, [`decode`] turns a body into Arrow columns, [`event_id`] says which events are the same.

pub mod decode;
pub mod event_id;
pub mod http;
