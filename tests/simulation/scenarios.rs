//! Runs scenarios one after the other until there were enough crashes, and says which seed failed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::disk::Disk;
use crate::lake_machine::LakeMachine;
use crate::log_machine::LogMachine;

/// Crashes of one scenario.
const CRASHES: u64 = 25;

/// A machine on which processes live and crash.
pub trait Machine {
    /// Has the trace of the scenario.
    fn disk(&self) -> &Disk;

    /// Events that must be on the machine.
    fn accepted(&self) -> u64;

    /// Lets processes live and crash until there were `crashes`, and checks what is left after each.
    ///
    /// # Panics
    /// An event was lost or doubled.
    fn run(&mut self, crashes: u64);
}

/// The seed of the first scenario; the others follow.
fn first_seed() -> u64 {
    number("TRUEUP_SEED").unwrap_or(1)
}

/// Crashes to simulate, of which a test does `percent` of 100.
fn crashes(percent: u64) -> u64 {
    number("TRUEUP_CRASHES").unwrap_or(500) * percent / 100
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number")))
}

/// Runs scenarios until there were `crashes`. If one fails, prints its seed and its last calls.
fn simulate<M: Machine>(crashes: u64, machine: impl Fn(u64) -> M) {
    let (mut events, mut calls, scenarios) = (0, 0, crashes.div_ceil(CRASHES));
    for seed in first_seed()..first_seed() + scenarios {
        let mut machine = machine(seed);
        let disk = machine.disk().clone();
        if let Err(failure) = catch_unwind(AssertUnwindSafe(|| machine.run(CRASHES))) {
            eprintln!("scenario failed: TRUEUP_SEED={seed} repeats it; the last calls were\n{}", disk.trace_text());
            resume_unwind(failure);
        }
        events += machine.accepted();
        calls += disk.trace_sum().0;
    }
    println!("{scenarios} scenarios, {} crashes, {calls} calls, {events} events", scenarios * CRASHES);
}

/// Runs a scenario twice, and then that of another seed.
fn assert_repeatable<M: Machine>(machine: impl Fn(u64) -> M) {
    let traced = |seed| {
        let mut machine = machine(seed);
        machine.run(CRASHES);
        (machine.disk().trace_sum(), machine.accepted())
    };
    let (seed, other) = (first_seed(), first_seed() + 1);
    let first = traced(seed);
    assert!(first.0.0 > 500 && first.1 > 0, "the scenario does something: {first:?}");
    assert_eq!(traced(seed), first, "seed {seed}");
    assert_ne!(traced(other), first, "another seed is another scenario");
}

#[test]
fn the_same_seed_makes_the_same_calls() {
    assert_repeatable(LogMachine::new);
    assert_repeatable(LakeMachine::new);
    assert_repeatable(LakeMachine::with_view);
    assert_repeatable(LakeMachine::with_checkpoints);
}

#[test]
fn a_log_loses_no_acknowledged_event_and_doubles_none() {
    simulate(crashes(60), LogMachine::new);
}

#[test]
fn an_archive_has_every_acknowledged_event_once() {
    simulate(crashes(25), LakeMachine::new);
}

#[test]
fn topics_of_sinks_are_the_view_and_each_change_is_written_once() {
    simulate(crashes(10), LakeMachine::with_sinks);
    assert_writes(LakeMachine::with_sinks);
}

#[test]
fn topics_of_sinks_have_the_sessions_of_the_view_and_each_change_is_written_once() {
    simulate(crashes(10), LakeMachine::with_sinks_of_sessions);
    assert_writes(LakeMachine::with_sinks_of_sessions);
}

/// Sinks write rows, and some of them again.
fn assert_writes(machine: impl Fn(u64) -> LakeMachine) {
    let (mut records, mut corrections) = (0, 0);
    for seed in first_seed()..first_seed() + 3 {
        let mut machine = machine(seed);
        machine.run(CRASHES);
        let written = machine.written();
        (records, corrections) = (records + written.0, corrections + written.1);
    }
    assert!(records > 100 && corrections > 5, "{records} records, {corrections} corrections");
}

#[test]
fn a_view_counts_every_acknowledged_event_once() {
    simulate(crashes(10), LakeMachine::with_view);
}

#[test]
fn a_view_of_speed_counts_every_acknowledged_event_once() {
    simulate(crashes(5), LakeMachine::with_checkpoints);
}
