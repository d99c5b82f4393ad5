//! Folds orders by window and group as a stream processor does, with watermarks per partition, lateness and late orders; and
//! generates orders in disorder. Uses none of the system's own code.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

pub const SECOND: i64 = 1_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const PARTITIONS: i32 = 3;

pub fn seed() -> u64 {
    std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11)
}

/// A time of 2025-11-03, in milliseconds after midnight, as the program writes it.
pub fn time(ms: i64) -> String {
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / MINUTE % 60, ms / SECOND % 60, ms % SECOND);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("2025-11-03T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// An order of a topic, in the order of its partition.
#[derive(Debug, Clone)]
pub struct Order {
    pub partition: i32,
    pub group: String,
    pub is_counted: bool,
    pub cents: i64,
    pub at: i64,
}

/// Number and total of orders.
pub type Sum = (i64, i64);

/// The orders of one group in one window.
#[derive(Debug, Default, Clone)]
pub struct Window {
    /// The sums after each order that was not late, in the order of the partition.
    pub live: Vec<Sum>,
    /// How many of them came before the partition's watermark passed the window.
    pub in_time: usize,
    /// With the late ones.
    pub all: Sum,
}

/// What a program of this kind has to compute: `size` of windows, delay of the watermark and allowed lateness.
pub struct Fold {
    size: i64,
    delay: i64,
    lateness: i64,
    /// The watermark of each partition.
    watermarks: BTreeMap<i32, i64>,
    windows: BTreeMap<(i64, String), Window>,
}

impl Fold {
    pub fn new(size: i64, delay: i64, lateness: i64) -> Fold {
        Fold { size, delay, lateness, watermarks: BTreeMap::new(), windows: BTreeMap::new() }
    }

    pub fn add(&mut self, order: &Order) {
        let start = order.at.div_euclid(self.size) * self.size;
        let before = self.watermarks.get(&order.partition).copied().unwrap_or(i64::MIN);
        let now = before.max(order.at - self.delay);
        self.watermarks.insert(order.partition, now);
        if !order.is_counted {
            return;
        }
        let window = self.windows.entry((start, order.group.clone())).or_default();
        let plus = |sum: Sum| (sum.0 + 1, sum.1 + order.cents);
        window.all = plus(window.all);
        if start + self.size + self.lateness > before {
            window.live.push(plus(window.live.last().copied().unwrap_or_default()));
            window.in_time += usize::from(start + self.size > before);
        }
    }

    /// The groups of windows that every partition has passed.
    pub fn closed(&self) -> impl Iterator<Item = (&(i64, String), &Window)> {
        let passed = self.watermarks.values().copied().min().unwrap_or(i64::MIN);
        self.windows.iter().filter(move |((start, _), _)| start + self.size <= passed)
    }
}

/// Orders in disorder, some of them late; `groups` of each partition are its own if `by_partition`.
pub fn orders(dice: &mut StdRng, begin: i64, count: usize, by_partition: bool) -> Vec<Order> {
    let order = |at: usize| {
        let now = begin + at as i64 * 2 * SECOND;
        let behind = match dice.random_range(0..100) {
            0..80 => dice.random_range(0..20 * SECOND),
            80..93 => dice.random_range(0..2 * MINUTE),
            _ => dice.random_range(0..30 * MINUTE),
        };
        let partition = dice.random_range(0..PARTITIONS);
        let group = dice.random_range(0..4) + if by_partition { 10 * partition } else { 0 };
        Order {
            partition,
            group: format!("g{group}"),
            is_counted: dice.random_range(0..4) > 0,
            cents: dice.random_range(1..10_000),
            at: (now - behind).max(0),
        }
    };
    (0..count).map(order).collect()
}
