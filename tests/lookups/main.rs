//! Tests views that are joined with tables through the real binary: figures of both layers against a scan of all changes, restarts, their
//! alerts and sinks, and what is refused.

mod event_sinks;
mod followers;
mod histories;
mod recipes;
mod semantics;
mod sessions;
