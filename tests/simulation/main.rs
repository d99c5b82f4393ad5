//! Simulates crashes of log, archiver, lake, runs, seam and sinks: every call of disk and store is made by code of this test, in
//! an order that a seed decides.
//!
//! A scenario is a machine on which processes live and crash: its [`disk`] loses, tears and reorders what was not synced,
//! its [`store`] loses answers, and any call may fail or never return. After every crash the [`model`] of accepted events
//! says what must be there: each acknowledged event exactly once, each other one at most once.
//!
//! A scenario is a function of its seed. A failure prints the seed and the last calls, and
//! `TRUEUP_SEED=n cargo test --release -p trueup --test simulation NAME -- --nocapture` repeats it; `TRUEUP_CRASHES=10000`
//! simulates more.

mod archivers;
mod clients;
mod dice;
mod disk;
mod lake_contents;
mod lake_machine;
mod log_machine;
mod logs;
mod model;
mod scenarios;
mod served_view;
mod sinks;
mod store;
mod trace;
