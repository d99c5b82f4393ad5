//! Tests that the merged result equals the oracle at every moment: random events in random order, duplicates, late
//! events, NULLs, several partitions, successful and failed runs, kills and restarts. The scenarios are in
//! `tests/world/src/scenarios.rs`; `tests/object_store.rs` runs them over object storage.

use proptest::prelude::*;
use world::{World, scenarios};

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn merged_equals_the_oracle_at_every_step(steps in scenarios::steps()) {
        scenarios::equals_the_oracle_at_every_step(&World::new, &steps);
    }

    #[test]
    fn several_partitions_merge_to_the_oracle(bodies in scenarios::bodies()) {
        scenarios::several_partitions_merge(&World::new, &bodies);
    }
}

#[test]
fn a_changed_definition_answers_as_before_until_its_first_version_is_out() {
    scenarios::changed_definition_answers_as_before(&World::new);
}

#[test]
fn a_run_that_dies_at_any_step_changes_nothing() {
    scenarios::run_that_dies_changes_nothing(&World::new);
}
