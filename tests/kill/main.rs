//! Tests that no event is lost or counted twice, wherever the process is killed and whichever call of the system fails: at
//! every named point of log, archive, runs, compaction, vacuum and historical ingest, and at random moments.
//!
//! [`client`] sends batches and knows what must be counted; [`points`] lists where faults are injected. [`kills`] kills
//! there, and [`errors`] lets the calls fail. By default each point gets one kill and one error; the commands in
//! `docs/testing.md` give it many.

mod client;
mod errors;
mod kills;
mod points;

/// Returns the seed of a test: `TRUEUP_SEED`, or another one for each run. Prints it, to repeat a failure.
fn seed() -> u64 {
    let seed = number("TRUEUP_SEED").unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    seed
}

/// Returns the number in an environment variable.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}
