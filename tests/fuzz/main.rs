//! Feeds mutated input to everything that reads bytes of others: the decoder of events, the recovery of the log, SQL,
//! query strings, and HTTP bodies in every encoding.
//!
//! Each target checks a property, not only that nothing panics. It starts from seeds, mutates them, and keeps mutants that
//! show a new behaviour as further seeds ([`fuzzer`]). The number of inputs is fixed, so a run without settings is
//! reproducible; for a long search:
//!
//! `TRUEUP_FUZZ_SECONDS=3600 TRUEUP_SEED=7 cargo test --release --test fuzz sql -- --nocapture`
//!
//! Inputs that ever failed are in `tests/fuzz/failed/TARGET/` and are checked first.

mod appends;
mod bundle;
mod delta_log;
mod foreign_logs;
mod fuzzer;
mod http_bodies;
mod json;
mod json_mutations;
mod keys;
mod log;
mod notes;
mod parquet_files;
mod programs;
mod query_strings;
mod recorded_store;
mod sql;
