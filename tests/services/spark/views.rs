//! Every window with every measure, over random histories with nulls, extremes, disorder and duplicates, around clock changes of
//! several zones, equals the oracle.

use std::collections::BTreeSet;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use shared::sql::parse_definitions;
use shared::time::{Day, Micros};
use world::oracle::events::{Event, Log, PATIENT, SECOND};
use world::oracle::histories::{Near, PLACES, event, views};
use world::oracle::table::{Coverage, compare};
use world::oracle::views::View;
use world::oracle::windows::{Length, Window};
use world::oracle_check::{definitions, micros};

use super::archive::{Archived, write};
use super::driver::shared;

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> usize {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(PLACES.len())
}

/// Accepted events around an instant, in log order, with copies of some that an archive may hold, later in it.
fn history(now: i64, random: &mut StdRng) -> (Log, Vec<Archived>) {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &random.random::<[u8; 32]>());
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let (mut log, mut archived) = (Log::new(PATIENT), Vec::new());
    for i in 0..random.random_range(50..400) {
        let Near(event, distance) = event().new_tree(&mut runner).expect("an event").current();
        let event = Event { at: now + i * SECOND + distance, ..event };
        if !log.post(&event) {
            continue;
        }
        let place = archived.len() as i64;
        archived.push((event.clone(), random.random_range(0..3), place));
        if random.random_bool(0.1) {
            // A copy of the same day in the historical partition.
            let copy = Event { amount: Some(999), region: Some("copy".to_owned()), ..event };
            archived.push((copy, 1_000_000, place));
        }
    }
    (log, archived)
}

/// The panes of SLIDE are windows of the resolution.
fn with_panes(view: View) -> (String, View) {
    match view.window {
        Window::Slide { size } => {
            let pane = size / 20;
            let sql = view.sql().replace(
                &Window::Slide { size }.sql(),
                &format!("SLIDE(at, {}, INTERVAL '{pane}' MICROSECOND)", Length::Fixed(size).sql()),
            );
            (sql, View { window: Window::Tumble { size: Length::Fixed(pane), offset: 0 }, ..view })
        }
        _ => (view.sql(), view),
    }
}

#[test]
fn every_window_and_measure_equals_the_oracle_on_spark() {
    let Some(mut spark) = shared() else { return };
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut compared = 0;
    for case in 0..cases() {
        let (zone, instant) = PLACES[case % PLACES.len()];
        let (log, mut archived) = history(micros(instant), &mut random);
        let views: Vec<(String, View)> = views(zone, &mut random).into_iter().map(with_panes).collect();
        let sql = definitions(PATIENT, &[]) + &views.iter().map(|(sql, _)| sql.as_str()).collect::<String>();
        let parsed = parse_definitions(&[("test.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{errors:?}"));
        let stream = &parsed.streams[0];
        let folder = tempfile::tempdir().expect("a folder");
        archived.shuffle(&mut random);
        let chunks: Vec<&[Archived]> = archived.chunks(archived.len() / 3 + 1).collect();
        let files = write(folder.path(), stream, &chunks);
        let days: BTreeSet<Day> = log.accepted.iter().map(|a| Micros(a.event.at).day()).collect();
        let days: Vec<Day> = days.into_iter().collect();
        for ((sql, oracle), view) in views.iter().zip(&parsed.views) {
            let rows = spark.rows(view, stream, &files, &days).unwrap_or_else(|error| panic!("{sql}\n{error}"));
            let by: Vec<usize> = (0..oracle.dimensions.len()).collect();
            let counted = oracle.counted(&log, log.accepted.len(), true, false);
            let expected = oracle.groups(&counted, &by, 0);
            compared += expected.len();
            if let Err(error) = compare(&rows, oracle, &by, &expected, &mut Coverage::default()) {
                let query = spark::statement(view, stream).expect("possible").query;
                panic!("case {case} in {zone}: {error}\n{sql}\n{query}");
            }
        }
    }
    println!("{compared} rows equal");
}
