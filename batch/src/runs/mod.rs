//! Holds the runs of all views: which are queued or running, what became of earlier ones, and when a failed one is retried.

pub mod queue;
pub mod retry;
pub mod run_log;
pub mod schedule_timer;
