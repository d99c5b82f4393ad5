//! Measures what sketches cost and how often their intervals hold: the figures of `docs/accuracy.md`.
//!
//! `cargo run --release -p shared -p trueup --example sketches [costs | coverage [TRIALS]]`. Coverage: the share of trials in
//! which the truth lies inside the 95 % interval, for one state and for states merged from several.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};
use datasketches::kll::KllFloat;
use shared::partial::sketch::Width;
use shared::partial::sketch::distinct::Distinct;
use shared::partial::sketch::hash;
use shared::partial::sketch::percentile::{Percentile, Point, Wanted, double};
use shared::partial::sketch::top_k::{Top, TopK};
use shared::partial::states::{EventPositions, Offsets, Selection, States};
use shared::scalar::Scalar;
use shared::types::DataType;
use shared::view::{Aggregate, AggregateFunction, Precision};

const COUNTS: [u64; 4] = [1, 10, 1_000, 1_000_000];
const P95: Wanted = Wanted { fraction: 0.95, continuous: true, descending: false };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let which = arguments.first().map(String::as_str);
    if which != Some("coverage") {
        costs();
        folding();
        small_groups();
    }
    if which != Some("costs") {
        let trials = arguments.get(1).and_then(|n| n.parse().ok()).unwrap_or(500);
        coverage(trials);
    }
}

/// SplitMix64: the same values in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn double(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Few values often, many rarely: from 0, falling off like 1 / rank.
    fn skewed(&mut self, different: f64) -> i64 {
        (different.powf(self.double())) as i64
    }
}

fn costs() {
    println!(
        "one state: nanoseconds per value taken in, microseconds per merge of two states of so many values, bytes\n"
    );
    println!("| state | values | update ns | merge us | finish us | memory | stored |");
    println!("|---|---|---|---|---|---|---|");
    for precision in [Precision::Sketch, Precision::Exact] {
        row(
            "COUNT(DISTINCT BIGINT)",
            precision,
            Distinct::default,
            |s, r| s.insert(hash::of_long(r.next() as i64), precision),
            |s, o| s.merge(o, precision),
            |s| _ = black_box(s.estimate(Width::Two)),
            Distinct::bytes,
            Distinct::image,
        );
        row(
            "PERCENTILE(DOUBLE)",
            precision,
            Percentile::<KllFloat<f64>>::default,
            |s, r| s.insert(double(r.double()).expect("a number"), precision),
            |s, o| s.merge(o, precision, P95),
            |s| _ = black_box(s.estimate(P95, Width::Two)),
            Percentile::bytes,
            Percentile::image,
        );
        row(
            "TOP_K(BIGINT), skewed",
            precision,
            TopK::<i64>::default,
            |s, r| s.insert(&r.skewed(1e6), 1, precision),
            |s, o| s.merge(o, precision, |_| "".into()),
            |s| _ = black_box(s.top(10, i64::cmp)),
            TopK::bytes,
            TopK::image,
        );
        row(
            "TOP_K(STRING), skewed",
            precision,
            TopK::<String>::default,
            |s, r| s.insert(format!("value {}", r.skewed(1e6)).as_str(), 1, precision),
            |s, o| s.merge(o, precision, |_| "".into()),
            |s| _ = black_box(s.top(10, String::cmp)),
            TopK::bytes,
            TopK::image,
        );
    }
}

#[allow(clippy::too_many_arguments)]
fn row<S: Clone>(
    name: &str,
    precision: Precision,
    new: impl Fn() -> S,
    insert: impl Fn(&mut S, &mut Random),
    merge: impl Fn(&mut S, &S),
    finish: impl Fn(&S),
    bytes: impl Fn(&S) -> usize,
    image: impl Fn(&S) -> Option<Vec<u8>>,
) {
    for count in COUNTS {
        let repeats = (200_000 / count).max(3);
        let mut random = Random(1);
        let begin = Instant::now();
        let mut states = Vec::new();
        for _ in 0..repeats {
            let mut state = new();
            (0..count).for_each(|_| insert(&mut state, &mut random));
            states.push(state);
        }
        let update = begin.elapsed().as_nanos() as f64 / (repeats * count) as f64;
        let others = states.clone();
        let begin = Instant::now();
        for (state, other) in states.iter_mut().zip(others.iter().rev()) {
            merge(state, other);
        }
        let merged = begin.elapsed().as_nanos() as f64 / repeats as f64 / 1e3;
        let begin = Instant::now();
        others.iter().for_each(&finish);
        let finished = begin.elapsed().as_nanos() as f64 / repeats as f64 / 1e3;
        let memory = size_of::<S>() + bytes(&others[0]);
        let stored = image(&others[0]).map_or(0, |image| image.len());
        println!(
            "| {name} {precision:?} | {count} | {update:.0} | {merged:.2} | {finished:.2} | {memory} | {stored} |"
        );
    }
}

/// The measures that are timed and weighed.
fn measures() -> Vec<(&'static str, Aggregate)> {
    let of = |function, data_type| Aggregate {
        function,
        argument: Some(Scalar::column(0, data_type)),
        filter: None,
        signed: false,
    };
    let percentile = |continuous| AggregateFunction::Percentile { fraction: 0.95, continuous, descending: false };
    vec![
        ("COUNT(*)", Aggregate { function: AggregateFunction::Count, argument: None, filter: None, signed: false }),
        ("SUM(BIGINT)", of(AggregateFunction::Sum, DataType::BigInt)),
        ("STDDEV_SAMP(DOUBLE)", of(AggregateFunction::Spread { sample: true, root: true }, DataType::Double)),
        ("COUNT(DISTINCT BIGINT)", of(AggregateFunction::CountDistinct, DataType::BigInt)),
        ("COUNT(DISTINCT STRING)", of(AggregateFunction::CountDistinct, DataType::String)),
        ("PERCENTILE_CONT(DOUBLE)", of(percentile(true), DataType::Double)),
        ("PERCENTILE_DISC(BIGINT)", of(percentile(false), DataType::BigInt)),
        ("TOP_K(BIGINT, 10)", of(AggregateFunction::TopK { k: 10 }, DataType::BigInt)),
        ("TOP_K(STRING, 10)", of(AggregateFunction::TopK { k: 10 }, DataType::String)),
        ("FIRST_VALUE(BIGINT)", of(AggregateFunction::First, DataType::BigInt)),
        ("LAST_VALUE(STRING)", of(AggregateFunction::Last, DataType::String)),
    ]
}

/// Rows of batches: 1,000 different values, skewed.
const ROWS: usize = 8_192;

fn argument(aggregate: &Aggregate, random: &mut Random) -> Option<ArrayRef> {
    let values: Vec<i64> = (0..ROWS).map(|_| random.skewed(1e3)).collect();
    let argument = aggregate.argument.as_ref()?;
    Some(match argument.data_type {
        DataType::Double => Arc::new(values.iter().map(|v| Some(*v as f64 * 1.5)).collect::<Float64Array>()),
        DataType::String => {
            Arc::new(values.iter().map(|v| Some(format!("value number {v}"))).collect::<StringViewArray>())
        }
        _ => Arc::new(Int64Array::from(values)),
    })
}

fn observe(states: &mut States, groups: &[u32], argument: Option<&ArrayRef>, first: i64) {
    let rows: Vec<u32> = (0..groups.len() as u32).collect();
    let times: Vec<i64> = (0..groups.len() as i64).map(|row| first + row).collect();
    let places = EventPositions { times: &times, offsets: Offsets::Run { partition: 0, first } };
    states.observe(Selection { groups, rows: &rows, mask: None }, argument, &places);
}

fn folding() {
    const GROUPS: u64 = 100;
    const BATCHES: usize = 120;
    println!("\nbatches of {ROWS} rows over {GROUPS} groups, about 10,000 rows each: nanoseconds per row, best of 3\n");
    println!("| measure | ns per row |");
    println!("|---|---|");
    for (name, aggregate) in measures() {
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let mut random = Random(3);
            let batches: Vec<_> = (0..BATCHES)
                .map(|_| {
                    let groups: Vec<u32> = (0..ROWS).map(|_| (random.next() % GROUPS) as u32).collect();
                    (groups, argument(&aggregate, &mut random))
                })
                .collect();
            let mut states = States::new(&aggregate, Precision::Sketch);
            states.grow(GROUPS as usize);
            let begin = Instant::now();
            for (at, (groups, argument)) in batches.iter().enumerate() {
                observe(&mut states, groups, argument.as_ref(), (at * ROWS) as i64);
            }
            best = best.min(begin.elapsed().as_nanos() as f64 / (BATCHES * ROWS) as f64);
        }
        println!("| {name} | {best:.1} |");
    }
}

fn small_groups() {
    const GROUPS: usize = 4 * ROWS;
    println!("\n{GROUPS} groups of 5 rows: bytes per group\n");
    println!("| measure | bytes |");
    println!("|---|---|");
    for (name, aggregate) in measures() {
        let mut states = States::new(&aggregate, Precision::Sketch);
        states.grow(GROUPS);
        let mut random = Random(4);
        for round in 0..5 * GROUPS / ROWS {
            let groups: Vec<u32> = (0..ROWS).map(|row| ((round * ROWS + row) % GROUPS) as u32).collect();
            observe(&mut states, &groups, argument(&aggregate, &mut random).as_ref(), (round * ROWS) as i64);
        }
        println!("| {name} | {:.0} |", states.bytes() as f64 / GROUPS as f64);
    }
}

fn coverage(trials: u64) {
    println!("\nshare of {trials} trials with the truth inside the 95 % interval; mean half width\n");
    println!("| state | values | states merged | covered | half width |");
    println!("|---|---|---|---|---|");
    for (values, merged) in [
        (65, 1),
        (100, 1),
        (300, 1),
        (1_000, 1),
        (3_000, 1),
        (6_000, 1),
        (10_000, 1),
        (13_000, 1),
        (30_000, 1),
        (100_000, 1),
        (1_000_000, 1),
        (300, 2),
        (1_000, 2),
        (10_000, 2),
        (10_000, 10),
        (10_000, 100),
        (100_000, 1_000),
        (1_000_000, 100),
    ] {
        distinct(trials.min(200_000_000 / values), values, merged);
    }
    for (values, merged) in [
        (201, 1),
        (300, 1),
        (500, 1),
        (1_000, 1),
        (10_000, 1),
        (100_000, 1),
        (300, 2),
        (1_000, 2),
        (10_000, 2),
        (10_000, 10),
        (100_000, 100),
        (300_000, 1_000),
    ] {
        for fraction in [0.01, 0.5, 0.95, 0.99] {
            percentile(trials.min(100_000_000 / values), values, merged, fraction);
        }
    }
    for (values, merged) in [(10_000, 1), (100_000, 1), (100_000, 10), (100_000, 100)] {
        top_k(trials.min(20_000_000 / values), values, merged);
    }
}

/// Splits so many values over so many states and merges these, half of them onto one side first.
fn folded<S>(
    values: u64,
    merged: u64,
    new: impl Fn() -> S,
    mut insert: impl FnMut(&mut S, u64),
    merge: impl Fn(&mut S, &S),
) -> S {
    let mut sides = [new(), new()];
    for part in 0..merged {
        let mut state = new();
        (values * part / merged..values * (part + 1) / merged).for_each(|value| insert(&mut state, value));
        merge(&mut sides[usize::from(2 * part >= merged)], &state);
    }
    let [mut left, right] = sides;
    merge(&mut left, &right);
    left
}

fn report(name: &str, values: u64, merged: u64, trials: u64, covered: u64, width: f64) {
    let share = 100.0 * covered as f64 / trials as f64;
    println!("| {name} | {values} | {merged} | {share:.2} % of {trials} | {width:.3} % |");
}

fn distinct(trials: u64, values: u64, merged: u64) {
    let (mut covered, mut width) = (0, 0.0);
    for trial in 0..trials {
        let base = trial << 32;
        // Every value is seen twice, so that the certain bounds do not decide.
        let insert =
            |s: &mut Distinct, v| (0..2).for_each(|_| s.insert(hash::of_long((base + v) as i64), Precision::Sketch));
        let state = folded(values, merged, Distinct::default, insert, |s, o| s.merge(o, Precision::Sketch));
        let estimate = state.estimate(Width::Two);
        let (low, high) = estimate.range.unwrap_or((estimate.count, estimate.count));
        covered += u64::from(low <= values && values <= high);
        width += (high - low) as f64 / 2.0 / values as f64 / trials as f64 * 100.0;
    }
    report("COUNT(DISTINCT)", values, merged, trials, covered, width);
}

fn percentile(trials: u64, values: u64, merged: u64, fraction: f64) {
    let wanted = Wanted { fraction, continuous: true, descending: false };
    let (mut covered, mut width) = (0, 0.0);
    for trial in 0..trials {
        let mut random = Random(trial * 7919 + values);
        let mut order: Vec<i64> = (0..values as i64).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        let insert = |s: &mut Percentile<i64>, v: u64| s.insert(order[v as usize], Precision::Sketch);
        let state = folded(values, merged, Percentile::default, insert, |s, o| s.merge(o, Precision::Sketch, wanted));
        let truth = fraction * (values - 1) as f64;
        let estimate = state.estimate(wanted, Width::Two).expect("something was seen");
        let (low, high) = match (estimate.range, estimate.point) {
            (Some((low, high)), _) => (low as f64, high as f64),
            (None, Point::Between(value)) => (value - 1e-6, value + 1e-6),
            (None, Point::Value(value)) => (value as f64, value as f64),
        };
        covered += u64::from(low <= truth && truth <= high);
        width += (high - low) / 2.0 / values as f64 / trials as f64 * 100.0;
    }
    report(&format!("percentile {fraction}, of ranks"), values, merged, trials, covered, width);
}

fn top_k(trials: u64, values: u64, merged: u64) {
    let (mut covered, mut listed, mut width) = (0, 0, 0.0);
    for trial in 0..trials {
        let mut random = Random(trial * 104_729 + values);
        let seen: Vec<i64> = (0..values).map(|_| random.skewed(1e5)).collect();
        let mut truth = TopK::<i64>::default();
        seen.iter().for_each(|value| truth.insert(value, 1, Precision::Exact));
        let insert = |s: &mut TopK<i64>, v: u64| s.insert(&seen[v as usize], 1, Precision::Sketch);
        let state = folded(values, merged, TopK::default, insert, |s, o| s.merge(o, Precision::Sketch, |_| "".into()));
        let counts = |state: &TopK<i64>, k| match state.top(k, i64::cmp) {
            Some(Top::Items { items, .. }) => items,
            _ => Vec::new(),
        };
        let truth = counts(&truth, usize::MAX);
        for item in counts(&state, 10) {
            let exact = truth.iter().find(|t| t.value == item.value).map_or(0, |t| t.count);
            covered += u64::from(item.range.0 <= exact && exact <= item.range.1);
            width += (item.range.1 - item.range.0) as f64 / 2.0 / values as f64 * 100.0;
            listed += 1;
        }
    }
    report("TOP_K, of all values", values, merged, listed, covered, width / listed as f64);
}
