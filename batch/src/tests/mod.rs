//! Runs against a real lake in a temporary folder, with a log, an archiver and a speed layer made by hand.

mod any_split;
mod byte_equal;
mod checkpoints;
mod clocks;
mod compaction;
mod dropped_dates;
mod log_rows;
mod runs;
mod service;
mod trouble;
mod values;
mod world;
