//! Tests that the 95 % interval of every sketch holds the true value 95 % of the time, in seeded trials: alone, merged
//! with batch, and merged over many states. For the long run: `TRUEUP_TRIALS=10000 cargo test --release --test sketch_intervals
//! -- --nocapture`.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::partial::sketch::distinct::{Distinct, SMALL_MAX};
use shared::partial::sketch::percentile::{Percentile, Quantity, VALUES_MAX, Wanted, double};
use shared::partial::sketch::top_k::{LIST_MAX, Top, TopK};
use shared::partial::sketch::{Width, hash};
use shared::view::Precision;

/// Maximum number of values in a group.
const GROUP_MAX: f64 = 200_000.0;
const STATES_MAX: f64 = 1_000.0;
const FRACTIONS: [(f64, u64); 4] = [(0.01, 10), (0.5, 500), (0.95, 950), (0.99, 990)];

fn trials() -> u64 {
    std::env::var("TRUEUP_TRIALS").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

fn seed() -> u64 {
    std::env::var("TRUEUP_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// The states that the values of a group are spread over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    /// One state of the speed layer.
    Alone,
    /// A stored state of the batch layer, and one of the speed layer.
    WithBatch,
    /// 2 to 1,000 states.
    Many,
}

const WAYS: [Way; 3] = [Way::Alone, Way::WithBatch, Way::Many];

/// A value distributed evenly over the orders of magnitude.
fn magnitude(random: &mut StdRng, from: f64, to: f64) -> usize {
    random.random_range(from.ln()..to.ln()).exp().round() as usize
}

/// The number of values of each state, at least one.
fn shares(way: Way, values: usize, random: &mut StdRng) -> Vec<usize> {
    let states = match way {
        Way::Alone => return vec![values],
        Way::WithBatch => 2,
        Way::Many => magnitude(random, 2.0, STATES_MAX).min(values),
    };
    let mut cuts: Vec<usize> = (1..states).map(|_| random.random_range(0..=values)).collect();
    cuts.extend([0, values]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| pair[1] - pair[0]).filter(|share| *share > 0).collect()
}

/// Counts how often an interval held the exact value.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    held: u64,
    all: u64,
    /// Estimates marked as exact, which must be correct.
    exact: u64,
    /// Sum of the widths, relative to the exact value.
    width: f64,
}

impl Tally {
    fn note(&mut self, held: bool, width: f64) {
        self.held += u64::from(held);
        self.all += 1;
        self.width += width;
    }

    /// Prints the share, and fails below 95 % minus four standard deviations.
    fn conclude(&self, what: &str) {
        let n = self.all as f64;
        let least = 0.95 * n - 4.0 * (n * 0.95 * 0.05).sqrt();
        let share = 100.0 * self.held as f64 / n.max(1.0);
        println!(
            "{what:<44} {:>6} intervals, {share:>6.2} % hold the truth, {:>6.2} % wide on average; {} exact",
            self.all,
            100.0 * self.width / n.max(1.0),
            self.exact
        );
        assert!(self.all > 0, "{what}: nothing was approximate");
        assert!(self.held as f64 >= least, "{what}: {} of {} intervals hold the truth", self.held, self.all);
    }
}

/// Seeds of the trials, in as many parts as there are cores; `each` tallies one.
fn over_trials<K: Ord + Send, F>(each: F) -> std::collections::BTreeMap<K, Tally>
where
    F: Fn(u64, &mut dyn FnMut(K, Outcome)) + Sync,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut tallies = std::collections::BTreeMap::<K, Tally>::new();
    std::thread::scope(|scope| {
        let each = &each;
        let part = |core: u64| {
            let mut tallies = std::collections::BTreeMap::<K, Tally>::new();
            for trial in (core..trials()).step_by(cores as usize) {
                each(trial, &mut |key, outcome| {
                    let tally = tallies.entry(key).or_default();
                    match outcome {
                        Outcome::Exact => tally.exact += 1,
                        Outcome::Range { held, width } => tally.note(held, width),
                    }
                });
            }
            tallies
        };
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || part(core))).collect();
        for thread in threads {
            for (key, tally) in thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                let sum = tallies.entry(key).or_default();
                sum.held += tally.held;
                sum.all += tally.all;
                sum.exact += tally.exact;
                sum.width += tally.width;
            }
        }
    });
    tallies
}

enum Outcome {
    Exact,
    Range { held: bool, width: f64 },
}

#[test]
fn distinct_counts_lie_in_their_intervals() {
    let tallies = over_trials(|trial, note| {
        for (i, way) in WAYS.into_iter().enumerate() {
            let mut random = StdRng::seed_from_u64(seed() << 32 | trial << 2 | i as u64);
            let values = magnitude(&mut random, 1.0, GROUP_MAX);
            // Values repeat more or less often, within a state and across states.
            let domain = values as i64 * random.random_range(1..4);
            let kind = random.random_range(0..3);
            let mut truth = HashSet::new();
            let mut merged = Distinct::default();
            for (state, share) in shares(way, values, &mut random).into_iter().enumerate() {
                let is_batch = way == Way::WithBatch && state == 0;
                let precision = if is_batch { Precision::Exact } else { Precision::Sketch };
                let mut part = Distinct::default();
                for _ in 0..share {
                    let value = random.random_range(0..domain);
                    truth.insert(value);
                    part.insert(hash_of(kind, trial, value), precision);
                }
                if is_batch {
                    let exact = part.estimate(Width::Two);
                    assert_eq!((exact.count, exact.range), (truth.len() as u64, None), "batch counts exactly");
                    let (image, hashes) = (part.image(), part.hashes());
                    part = Distinct::from_stored(image.as_deref(), hashes.as_deref(), Some(exact.count as i64))
                        .expect("what was stored can be read");
                    assert_eq!(part.estimate(Width::Two), exact, "stored and read again");
                }
                merged.merge(&part, Precision::Sketch);
            }
            let (estimate, truth) = (merged.estimate(Width::Two), truth.len() as u64);
            match estimate.range {
                None => {
                    assert_eq!(estimate.count, truth, "trial {trial}, {way:?}");
                    note(way as u8, Outcome::Exact);
                }
                Some((low, high)) => {
                    assert!(truth > SMALL_MAX as u64, "trial {trial}, {way:?}: a small group is exact");
                    assert!(low <= estimate.count && estimate.count <= high, "trial {trial}, {way:?}");
                    let width = (high - low) as f64 / truth as f64;
                    note(way as u8, Outcome::Range { held: low <= truth && truth <= high, width });
                }
            }
        }
    });
    for (way, tally) in tallies {
        tally.conclude(&format!("COUNT(DISTINCT), {:?}", WAYS[usize::from(way)]));
    }
}

/// Values of a trial, as integers, doubles or texts.
fn hash_of(kind: u8, trial: u64, value: i64) -> u128 {
    match kind {
        0 => hash::of_long(value + (trial as i64) * 1_000_003),
        1 => hash::of_double(value as f64 * 0.25 + trial as f64),
        _ => hash::of_text(&format!("{trial}/{value}")),
    }
}

/// A value of one of several distributions, in the order of time.
fn drawn(kind: u8, place: f64, random: &mut StdRng) -> f64 {
    let even: f64 = random.random();
    match kind {
        0 => even * 1e6,
        // A long tail, as delays and prices have.
        1 => (1.0 - even).powf(-1.5),
        // Few values, many ties.
        2 => (even * 40.0).floor(),
        // Rising with time.
        3 => place * 1000.0 + even,
        // Two humps.
        _ => {
            if random.random_bool(0.3) {
                -1000.0 + even
            } else {
                1000.0 * even
            }
        }
    }
}

#[test]
fn percentiles_lie_in_their_intervals() {
    percentiles("DOUBLE", |x| double(x).expect("no NaN"));
}

#[test]
fn percentiles_of_integers_lie_in_their_intervals() {
    percentiles("BIGINT", |x| x as i64);
}

fn percentiles<T: Quantity>(name: &str, value_of: impl Fn(f64) -> T + Sync) {
    let tallies = over_trials(|trial, note| {
        for (i, way) in WAYS.into_iter().enumerate() {
            let mut random = StdRng::seed_from_u64(seed() << 32 | trial << 2 | i as u64);
            let count = magnitude(&mut random, 1.0, GROUP_MAX / 2.0);
            let (kind, continuous) = (random.random_range(0..5), random.random_bool(0.5));
            // A batch state holds the one percentile it was made for.
            let (fraction, thousandths) = FRACTIONS[random.random_range(0..FRACTIONS.len())];
            let wanted = Wanted { fraction, continuous, descending: false };
            let mut values: Vec<T> = Vec::with_capacity(count);
            let mut merged = Percentile::<T>::default();
            for (state, share) in shares(way, count, &mut random).into_iter().enumerate() {
                let is_batch = way == Way::WithBatch && state == 0;
                let precision = if is_batch { Precision::Exact } else { Precision::Sketch };
                let mut part = Percentile::<T>::default();
                for _ in 0..share {
                    let value = value_of(drawn(kind, values.len() as f64 / count as f64, &mut random));
                    values.push(value);
                    part.insert(value, precision);
                }
                if is_batch {
                    let exact = part.estimate(wanted, Width::Two).expect("values were seen");
                    assert_eq!(exact.range, None, "batch is exact");
                    let image = part.image();
                    part = Percentile::from_stored(image.as_deref(), Some(exact.point)).expect("it can be read");
                    let again = part.estimate(wanted, Width::Two).expect("values were seen");
                    assert_eq!(again.point.as_double(), exact.point.as_double(), "stored and read again");
                }
                merged.merge(&part, Precision::Sketch, wanted);
            }
            values.sort_unstable();
            let (from, to) = truth(&values, thousandths as usize, continuous);
            let estimate = merged.estimate(wanted, Width::Two).expect("values were seen");
            match estimate.range {
                None => {
                    let point = estimate.point.as_double();
                    let slack = 1e-9 * (from.abs() + to.abs() + 1e-9);
                    let truth = from + (to - from) * share_between(values.len(), thousandths as usize, continuous);
                    assert!((point - truth).abs() <= slack, "trial {trial}, {way:?}: {point} where {truth} is true");
                    note((thousandths, way as u8), Outcome::Exact);
                }
                Some((low, high)) => {
                    assert!(count > VALUES_MAX, "trial {trial}, {way:?}: a small group is exact");
                    let (low, high) = (low.as_double(), high.as_double());
                    let truth = from + (to - from) * share_between(values.len(), thousandths as usize, continuous);
                    // The width as a share of all values, since values of any size are possible.
                    let rank = |x: f64| values.partition_point(|v| v.as_double() < x) as f64 / values.len() as f64;
                    let held = low <= truth && truth <= high;
                    note((thousandths, way as u8), Outcome::Range { held, width: rank(high) - rank(low) });
                }
            }
        }
    });
    for ((thousandths, way), tally) in tallies {
        let percent = thousandths as f64 / 10.0;
        tally.conclude(&format!("percentile {percent} of {name}, {:?}", WAYS[usize::from(way)]));
    }
}

/// The neighbours of the percentile; the same value twice if it is not interpolated.
fn truth<T: Quantity>(sorted: &[T], thousandths: usize, continuous: bool) -> (f64, f64) {
    if !continuous {
        let value = sorted[(thousandths * sorted.len()).div_ceil(1000).max(1) - 1].as_double();
        return (value, value);
    }
    let place = thousandths * (sorted.len() - 1) / 1000;
    (sorted[place].as_double(), sorted[(place + 1).min(sorted.len() - 1)].as_double())
}

fn share_between(count: usize, thousandths: usize, continuous: bool) -> f64 {
    if continuous { (thousandths * (count - 1) % 1000) as f64 / 1000.0 } else { 0.0 }
}

/// Counts of the listed values always lie in their bounds, and no value that is certainly more frequent is missing.
#[test]
fn top_values_lie_in_their_bounds() {
    const K: usize = 10;
    let tallies = over_trials(|trial, note| {
        for (i, way) in WAYS.into_iter().enumerate() {
            let mut random = StdRng::seed_from_u64(seed() << 32 | trial << 2 | i as u64);
            let count = magnitude(&mut random, 1.0, GROUP_MAX / 2.0);
            // From nearly even to steep.
            let (domain, steep) = (magnitude(&mut random, 2.0, GROUP_MAX), random.random_range(1.0..6.0));
            let mut truth: HashMap<i64, u64> = HashMap::new();
            let mut merged = TopK::<i64>::default();
            let known = |_: &TopK<i64>| std::sync::Arc::<str>::from("[]");
            for (state, share) in shares(way, count, &mut random).into_iter().enumerate() {
                let is_batch = way == Way::WithBatch && state == 0;
                let precision = if is_batch { Precision::Exact } else { Precision::Sketch };
                let mut part = TopK::<i64>::default();
                for _ in 0..share {
                    let value = (random.random::<f64>().powf(steep) * domain as f64) as i64;
                    *truth.entry(value).or_default() += 1;
                    part.insert(&value, 1, precision);
                }
                if is_batch {
                    let image = part.image();
                    part = TopK::from_stored(image.as_deref(), Some("[]")).expect("what was stored can be read");
                }
                merged.merge(&part, Precision::Sketch, known);
            }
            let context = format!("trial {trial}, {way:?}");
            let (items, is_exact) = match merged.top(K, i64::cmp).expect("values were seen") {
                Top::Items { items, is_exact } => (items, is_exact),
                // One batch state with nothing added to it.
                Top::Known(_) => {
                    note(way as u8, Outcome::Exact);
                    continue;
                }
            };
            // The maximum error of the sketch. It may list nothing if no value is frequent.
            let widest = (count as u64 * 7).div_ceil(1024);
            for item in &items {
                let (true_count, (low, high)) = (truth[&item.value], item.range);
                assert!(low <= true_count && true_count <= high, "{context}: {item:?}, it occurs {true_count} times");
                assert!(!is_exact || low == high, "{context}: exact, and yet {item:?}");
                assert!(high - low <= widest, "{context}: {item:?} of {count} values");
            }
            assert!(truth.len() > LIST_MAX || is_exact, "{context}: a small group is exact");
            let listed: HashSet<i64> = items.iter().map(|item| item.value).collect();
            let least = items.iter().map(|item| item.count).min().unwrap_or(0);
            for (value, occurs) in truth.iter().filter(|(value, _)| !listed.contains(value)) {
                assert!(
                    items.len() == K || *occurs <= widest,
                    "{context}: {value} occurs {occurs} times, is not listed"
                );
                assert!(
                    *occurs <= least + widest,
                    "{context}: {value} occurs {occurs} times, more than what is listed"
                );
            }
            if is_exact {
                let mut counts: Vec<(i64, u64)> = truth.into_iter().collect();
                counts.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                counts.truncate(K);
                let found: Vec<(i64, u64)> = items.iter().map(|item| (item.value, item.count)).collect();
                assert_eq!(found, counts, "{context}");
                note(way as u8, Outcome::Exact);
            } else {
                let width = items.iter().map(|item| item.range.1 - item.range.0).max().unwrap_or(0);
                note(way as u8, Outcome::Range { held: true, width: width as f64 / count as f64 });
            }
        }
    });
    for (way, tally) in tallies {
        tally.conclude(&format!("TOP_K, {:?} (always)", WAYS[usize::from(way)]));
    }
}
