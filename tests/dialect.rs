//! Tests all windows with all measures against the oracle, in every layer and at every moment: random histories with
//! disorder and late events, over clock changes of several zones, cut anywhere; sessions cut at each event, several
//! partitions, coarser grains, and predicates over measures. `large_groups.rs` tests large groups.

use chrono_tz::Tz;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;
use world::oracle::events::{DAY, Event, HOUR, Log, MINUTE, PATIENT, SECOND, STRICT};
use world::oracle::histories::{Near, PLACES, event, views};
use world::oracle::plain::{CODE_DIMENSION, REGION_DIMENSION};
use world::oracle::table::Coverage;
use world::oracle::views::View;
use world::oracle::windows::{Length, Window};
use world::oracle_check::{
    Layer, PATIENT_ALONE, Question, check, check_causes, definitions, micros, must, post, published, view,
};

/// Number of random histories; `TRUEUP_CASES` sets it for a longer search.
fn cases() -> u32 {
    std::env::var("TRUEUP_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(8)
}

#[derive(Debug, Clone)]
enum Step {
    Post(Vec<Near>),
    /// The views whose bit is set.
    Run {
        which: u16,
        full: bool,
    },
    Kill,
    Stop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => prop::collection::vec(event(), 1..40).prop_map(Step::Post),
        5 => (any::<u16>(), prop::bool::weighted(0.3)).prop_map(|(which, full)| Step::Run { which, full }),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 4..12)
}

/// Checks the merged result of every view, and further queries of some.
fn check_all(world: &World, log: &Log, views: &[View], random: &mut StdRng) -> Result<(), String> {
    let mut coverage = Coverage::default();
    for view in views {
        let mut ask = |question: &Question| check(world, log, view, question, &mut coverage).map(|_| ());
        let mut merged = Question::of(Layer::Merged);
        ask(&merged)?;
        let layer = *[Layer::Batch, Layer::Speed].choose(random).expect("one");
        let mut other = Question::of(layer);
        if matches!(view.window, Window::Slide { .. }) && !log.accepted.is_empty() {
            // Just before, at and just after an event or its end, and at other instants.
            let Window::Slide { size } = view.window else { unreachable!("just checked") };
            let at = log.accepted.choose(random).expect("one").event.at;
            let near = [at, at + 1, at + size, at + size + 1, at + random.random_range(-size..2 * size)];
            merged.as_of = near.choose(random).copied();
            other.as_of = merged.as_of;
            ask(&merged)?;
        }
        if random.random_bool(0.5) {
            ask(&other)?;
        }
        if !view.dimensions.is_empty() && random.random_bool(0.3) {
            let count = random.random_range(0..view.dimensions.len());
            let mut by: Vec<usize> = (0..view.dimensions.len()).collect();
            by.shuffle(random);
            by.truncate(count);
            let layer = *[Layer::Merged, Layer::Batch, Layer::Speed].choose(random).expect("one");
            ask(&Question { by: Some(by), as_of: merged.as_of, ..Question::of(layer) })?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn every_window_and_measure_equals_the_oracle_at_every_step(
        place in prop::sample::select(PLACES.to_vec()),
        seed in any::<u64>(),
        steps in steps(),
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let views = views(place.0, &mut random);
        let mut world = World::new(&definitions(STRICT, &views));
        let mut log = Log::new(STRICT);
        let mut now = micros(place.1);
        for (i, step) in steps.iter().enumerate() {
            match step {
                Step::Post(events) => {
                    let placed = events.iter().map(|Near(event, distance)| Event { at: now + distance, ..event.clone() });
                    post(&world, &mut log, &placed.collect::<Vec<_>>());
                    now += 35 * SECOND;
                }
                Step::Run { which, full } => {
                    for view in views.iter().enumerate().filter(|(i, _)| which >> i & 1 == 1).map(|(_, view)| view) {
                        let run = world.run(&view.name, *full);
                        prop_assert_eq!(&run["state"], &json!("published"), "step {}: {}\n{}", i, run, view.sql());
                        let batch = check(&world, &log, view, &Question::of(Layer::Batch), &mut Coverage::default());
                        let causes = batch.and_then(|_| check_causes(&world, &view.name));
                        prop_assert!(causes.is_ok(), "step {}: after a run: {}\n{}", i, causes.unwrap_err(), view.sql());
                    }
                }
                Step::Kill => {
                    world.kill();
                    world.start();
                }
                Step::Stop => {
                    prop_assert_eq!(world.stop(), Some(0));
                    world.start();
                }
            }
            if let Err(error) = check_all(&world, &log, &views, &mut random) {
                let name = error.split(' ').next().unwrap_or_default();
                let sql = views.iter().find(|v| v.name == name).map_or_else(String::new, View::sql);
                prop_assert!(false, "step {}: {}\n{}", i, error, sql);
            }
        }
    }
}

/// An event of a user at a second.
fn visit(i: usize, at: i64, region: &str) -> Event {
    Event {
        id: Some(format!("e{i}")),
        at,
        region: Some(region.to_owned()),
        amount: Some(i as i64),
        price: Some(i as f64 * 0.5),
        ..Event::default()
    }
}

/// Many views of one stream have the same sessions, each view cut after another event; all must equal those of the uncut stream.
#[test]
fn sessions_cut_at_any_event_are_those_of_the_uncut_stream() {
    const GAP: i64 = 10 * SECOND;
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let midnight = micros("2001-09-10T00:00:00Z");
    // Bridges, exact gaps, ties, and sessions across midnight, in any order.
    let mut events: Vec<Event> = [-31, -21, -12, -11, -3, 2, 5, 15, 16, 16, 26, 45, 53, 62, 72]
        .iter()
        .chain(&[-86_400 - 4, -86_400 + 4, 86_400 - 1, 86_400 + 9])
        .enumerate()
        .map(|(i, second)| visit(i, midnight + second * SECOND, ["a", "a", "a", "b"].choose(&mut random).expect("one")))
        .collect();
    events.shuffle(&mut random);
    let names = ["n", "total", "first_amount", "last_price", "different_amounts", "median_amount", "price_dev_samp"];
    let views: Vec<View> = (0..events.len())
        .map(|i| view(&format!("cut{i}"), Window::Session { gap: GAP }, &[REGION_DIMENSION], &names))
        .collect();
    let mut world = World::new(&definitions(PATIENT_ALONE, &views));
    let mut log = Log::new(PATIENT_ALONE);
    let mut coverage = Coverage::default();
    for (event, view) in events.iter().zip(&views) {
        post(&world, &mut log, std::slice::from_ref(event));
        published(&world.run(&view.name, false));
    }
    let mut all = |world: &World, log: &Log, layers: &[Layer]| {
        for view in &views {
            for layer in layers {
                must(check(world, log, view, &Question::of(*layer), &mut coverage));
            }
            let merged = Question { by: Some(vec![]), ..Question::of(Layer::Merged) };
            must(check(world, log, view, &merged, &mut coverage));
        }
    };
    all(&world, &log, &[Layer::Merged, Layer::Batch, Layer::Speed]);
    world.kill();
    world.start();
    all(&world, &log, &[Layer::Merged]);
    // A second run, up to the end, incremental from each of the cuts.
    for view in &views {
        published(&world.run(&view.name, false));
        check_causes(&world, &view.name).unwrap_or_else(|e| panic!("{e}"));
    }
    all(&world, &log, &[Layer::Merged, Layer::Batch]);
    // An event that bridges two sessions before the seam of every view.
    let bridge = visit(1000, midnight + 36 * SECOND, "a");
    let other = visit(1001, midnight + 86_400 * SECOND + 500_000, "b");
    post(&world, &mut log, &[bridge, other]);
    all(&world, &log, &[Layer::Merged, Layer::Batch, Layer::Speed]);
}

/// The session that an event joins decides whether it is late, even if that session consists of late events.
#[test]
fn an_event_is_late_with_the_session_it_would_join() {
    let gap = 10 * SECOND;
    let begin = micros("2001-09-09T00:00:00Z");
    let views = [
        view("visits", Window::Session { gap }, &[REGION_DIMENSION], &["n", "total"]),
        view("all_visits", Window::Session { gap }, &[], &["n", "total"]),
    ];
    let world = World::new(&definitions(STRICT, &views));
    let mut log = Log::new(STRICT);
    let at = |second: i64| begin + second * SECOND;
    // The watermark is 10 s behind, lateness 20 s: at 100 s, ends up to 70 s are late.
    let seconds = [("a", 55), ("b", 52), ("a", 100), ("a", 60), ("a", 61), ("b", 59), ("a", 40), ("b", 60), ("a", 69)];
    let mut coverage = Coverage::default();
    for (i, (region, second)) in seconds.iter().enumerate() {
        post(&world, &mut log, &[visit(i, at(*second), region)]);
        for view in &views {
            must(check(&world, &log, view, &Question::of(Layer::Merged), &mut coverage));
        }
        if i == 5 {
            published(&world.run("visits", false));
        }
    }
    let late = views[0].late(&log);
    assert!(late.contains(&true) && late[3..].contains(&false), "the test has lost its point: {late:?}");
}

/// Lateness depends on the partition: here nothing is late, and the order between partitions is arbitrary.
#[test]
fn several_partitions_merge_in_every_window() {
    let mut random = StdRng::seed_from_u64(3);
    let begin = micros("2024-10-27T00:30:00Z");
    let mut views = views(Tz::Europe__Berlin, &mut random);
    views.iter_mut().for_each(|view| view.having = None);
    let mut world = World::new(&definitions(PATIENT, &views));
    let mut log = Log::new(PATIENT);
    let mut some = |from: usize, to: usize| -> Vec<Event> {
        let event = |i: usize| Event {
            id: (!i.is_multiple_of(10)).then(|| format!("e{i}")),
            // No two have the same time: their order would depend on their partitions.
            at: begin + random.random_range(-90i64..90) * 37 * SECOND + i as i64,
            region: (!i.is_multiple_of(7)).then(|| format!("r{}", i % 3)),
            amount: (!i.is_multiple_of(5)).then(|| random.random_range(-9..9)),
            price: (!i.is_multiple_of(4)).then(|| random.random_range(-9.0..9.0)),
            cost_cents: (!i.is_multiple_of(6)).then(|| random.random_range(-999..999)),
            code: Some(random.random_range(-1..2)),
            flag: (!i.is_multiple_of(3)).then(|| random.random_bool(0.5)),
            day: Some(random.random_range(0..4)),
        };
        (from..to).map(event).collect()
    };
    let mut coverage = Coverage::default();
    let mut ask = |world: &World, log: &Log, layer| {
        for view in &views {
            must(check(world, log, view, &Question::of(layer), &mut coverage));
        }
    };
    post(&world, &mut log, &some(0, 150));
    ask(&world, &log, Layer::Merged);
    world.kill();
    world.start();
    post(&world, &mut log, &some(150, 300));
    ask(&world, &log, Layer::Speed);
    for view in &views {
        published(&world.run(&view.name, false));
        check_causes(&world, &view.name).unwrap_or_else(|e| panic!("{e}"));
    }
    ask(&world, &log, Layer::Merged);
    ask(&world, &log, Layer::Batch);
}

/// Days with clock changes, as responses show them.
#[test]
fn days_have_23_24_or_25_hours() {
    let zone = Tz::Europe__Berlin;
    let mut days = view("days", Window::Tumble { size: Length::Days(1), offset: 0 }, &[], &["n"]);
    days.zone = zone;
    let world = World::new(&definitions(PATIENT_ALONE, std::slice::from_ref(&days)));
    let mut log = Log::new(PATIENT_ALONE);
    let noons = ["2024-03-31T10:00:00Z", "2024-06-01T10:00:00Z", "2024-10-27T11:00:00Z"];
    let events: Vec<Event> = noons.iter().enumerate().map(|(i, noon)| visit(i, micros(noon), "a")).collect();
    post(&world, &mut log, &events);
    let answer = must(check(&world, &log, &days, &Question::of(Layer::Merged), &mut Coverage::default()));
    let length = |row: &Value| {
        let time = |name: &str| micros(row[name].as_str().expect("a time"));
        (time("window_end") - time("window_start")) / HOUR
    };
    let mut lengths: Vec<i64> = answer["rows"].as_array().expect("rows").iter().map(length).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [23, 24, 25]);
}

/// A predicate as SQL, and what it means.
type Predicate = (&'static str, fn(&Value) -> bool);

/// Coarser windows, fewer dimensions, and predicates over measures; in UTC, and over a clock change in Berlin.
#[test]
fn coarser_grains_and_predicates_over_measures_equal_the_oracle() {
    coarser_answers(Tz::UTC, "2001-09-09T00:00:00Z");
    coarser_answers(Tz::Europe__Berlin, "2001-10-27T18:00:00Z");
}

fn coarser_answers(zone: Tz, begin: &str) {
    let mut random = StdRng::seed_from_u64(11);
    let begin = micros(begin);
    let names = [
        "n",
        "total",
        "mean_price",
        "price_dev_samp",
        "regions",
        "different_amounts",
        "p95_price",
        "q25_amount",
        "top_code",
        "first_amount",
        "last_text",
        "flagged_regions",
        "mean_cut",
    ];
    let minutes = Window::Tumble { size: Length::Fixed(MINUTE), offset: 0 };
    let mut minutes = view("minutes", minutes, &[REGION_DIMENSION, CODE_DIMENSION], &names);
    minutes.zone = zone;
    let world = World::new(&definitions(PATIENT_ALONE, std::slice::from_ref(&minutes)));
    let mut log = Log::new(PATIENT_ALONE);
    let event = |i: usize, random: &mut StdRng| Event {
        id: Some(format!("e{i}")),
        at: begin + random.random_range(0..2 * DAY / MINUTE) * MINUTE / 4,
        region: (!i.is_multiple_of(9)).then(|| format!("r{}", i % 3)),
        amount: (!i.is_multiple_of(5)).then(|| random.random_range(-30..30)),
        price: (!i.is_multiple_of(4)).then(|| random.random_range(-9.0..9.0)),
        code: Some(random.random_range(-1..2)),
        flag: Some(random.random_bool(0.5)),
        ..Event::default()
    };
    let mut coverage = Coverage::default();
    for part in 0..2 {
        let events: Vec<Event> = (0..400).map(|i| event(part * 400 + i, &mut random)).collect();
        post(&world, &mut log, &events);
        for layer in [Layer::Merged, Layer::Batch, Layer::Speed] {
            for by in [None, Some(vec![]), Some(vec![1])] {
                let tumble = |size| Window::Tumble { size, offset: 0 };
                let grains = [
                    ("1h", tumble(Length::Fixed(HOUR))),
                    ("1d", tumble(Length::Days(1))),
                    ("1w", tumble(Length::Weeks(1))),
                    ("1mo", tumble(Length::Months(1))),
                    ("all", Window::All),
                ];
                for grain in [None].into_iter().chain(grains.into_iter().map(Some)) {
                    let question = Question { by: by.clone(), grain, ..Question::of(layer) };
                    must(check(&world, &log, &minutes, &question, &mut coverage));
                }
            }
        }
        if part == 0 {
            published(&world.run("minutes", false));
        }
    }
    coverage.assert_holds("coarser answers");
    // A predicate keeps the rows for which it is true.
    let all = world.rows("minutes", "&grain=1h");
    let all = all["rows"].as_array().expect("rows");
    let predicates: [Predicate; 3] = [
        ("n > 3 AND region = 'r1'", |row| row["n"].as_i64() > Some(3) && row["region"] == "r1"),
        ("regions = 0", |row| row["regions"] == 0),
        ("mean_price > 1.5 OR q25_amount < -20", |row| {
            row["mean_price"].as_f64() > Some(1.5) || row["q25_amount"].as_i64().is_some_and(|q| q < -20)
        }),
    ];
    for (text, holds) in predicates {
        let path = format!("/v1/views/minutes/rows.json?limit=100000&grain=1h&where={}", world::encoded(text));
        let answer = world.get(&path);
        assert_eq!(answer.status, 200, "{text}: {}", answer.text);
        let expected: Vec<&Value> = all.iter().filter(|row| holds(row)).collect();
        let answer = answer.json();
        let found: Vec<&Value> = answer["rows"].as_array().expect("rows").iter().collect();
        assert!(!expected.is_empty() && expected.len() < all.len(), "{text} says nothing");
        assert_eq!(found, expected, "{text}");
    }
}

/// Windows that cannot be merged are refused with the reason.
#[test]
fn coarser_windows_are_refused_where_they_would_be_wrong() {
    let fixed = |n: i64| Length::Fixed(n * MINUTE);
    let views = [
        view("hops", Window::Hop { slide: fixed(1), size: fixed(2), offset: 0 }, &[], &["n"]),
        view("cumulated", Window::Cumulate { step: fixed(1), max: fixed(2), offset: 0 }, &[], &["n"]),
        view("visits", Window::Session { gap: MINUTE }, &[], &["n"]),
        view("trailing", Window::Slide { size: MINUTE }, &[], &["n"]),
    ];
    let world = World::new(&definitions(STRICT, &views));
    for view in &views {
        for grain in ["1h", "all"] {
            let answer = world.get(&format!("/v1/views/{}/rows?grain={grain}", view.name));
            assert_eq!(answer.status, 400, "{} {grain}: {}", view.name, answer.text);
            let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.len() > 20, "{}: no reason: {}", view.name, answer.text);
        }
    }
}
