//! Accounts for events in O(1): their number, and a sum of hashed positions that does not depend on order.
//!
//! For a set A of positions, ledger(A) = (|A|, Σ h(p) mod 2^128 over p in A) with a 128-bit hash h. It is additive over
//! disjoint sets, ledger(A ∪ B) = ledger(A) + ledger(B), and equal for equal sets; different sets of equal size have equal
//! ledgers only if the sums collide. So every publish and every query can check
//!
//! ```text
//! ledger(batch) + ledger(speed) + ledger(excluded) = ledger(accepted)
//! ```
//!
//! that is, that each accepted event is counted once or excluded knowingly (I2).

use std::collections::{BTreeMap, HashMap};
use std::ops::{Add, AddAssign, Sub};
use std::sync::LazyLock;

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{Offset, Partition};

/// A set of events: their number, and the wrapping sum of a 128-bit hash of the position of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Number of events.
    pub events: u64,
    /// Sum of the hashed positions (partition, offset).
    #[serde(serialize_with = "as_hex", deserialize_with = "from_hex")]
    pub positions: u128,
}

impl Ledger {
    /// The ledger of the empty set.
    pub const EMPTY: Ledger = Ledger { events: 0, positions: 0 };

    /// Returns the ledger of one event.
    pub fn of(partition: Partition, offset: Offset) -> Ledger {
        Ledger { events: 1, positions: hash(partition, offset) }
    }

    /// Returns the ledger of the events `from..to` of a partition.
    pub fn of_range(partition: Partition, from: Offset, to: Offset) -> Ledger {
        let events = to.0.saturating_sub(from.0);
        // Asking for the cores reads files of the control group: dearer than hashing a few events.
        let cores = || std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
        let threads = if events < SHARED_EVENTS_MIN { 1 } else { cores() };
        if threads == 1 {
            let positions = (from.0..to.0).fold(0u128, |sum, offset| sum.wrapping_add(hash(partition, Offset(offset))));
            return Ledger { events, positions };
        }
        // A history of 10^10 events is hashed once per process: by all cores, since the sum does not depend on the order.
        let share = events.div_ceil(threads).max(SHARED_EVENTS_MIN / 2);
        let shares = (from.0..to.0).step_by(usize::try_from(share).unwrap_or(usize::MAX));
        std::thread::scope(|scope| {
            let of_share = |first: u64| {
                let end = Offset(first.saturating_add(share).min(to.0));
                let hashed =
                    move || (first..end.0).fold(0u128, |sum, offset| sum.wrapping_add(hash(partition, Offset(offset))));
                (scope.spawn(hashed), first, end)
            };
            let hashing: Vec<_> = shares.map(of_share).collect();
            let sums = hashing.into_iter().map(|(thread, first, end)| Ledger {
                events: end.0 - first,
                positions: thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            });
            sums.fold(Ledger::EMPTY, Add::add)
        })
    }

    /// Returns the ledger of all events of a partition before `to`. Results are kept for the whole process, and each is
    /// computed from the nearest one before it: hashing 10^10 positions takes a minute, divided by the cores.
    pub fn before(partition: Partition, to: Offset) -> Ledger {
        let nearest = {
            let known = PREFIXES.lock();
            let of_partition = known.get(&partition).and_then(|prefixes| prefixes.range(..=to).next_back());
            of_partition.map_or((Offset(0), Ledger::EMPTY), |(offset, ledger)| (*offset, *ledger))
        };
        let (from, before) = nearest;
        let ledger = before + Ledger::of_range(partition, from, to);
        if to.0 - from.0 >= PREFIX_EVENTS_MIN {
            let mut known = PREFIXES.lock();
            let prefixes = known.entry(partition).or_default();
            prefixes.insert(to, ledger);
            if prefixes.len() > PREFIXES_KEPT {
                prefixes.pop_first();
            }
        }
        ledger
    }
}

/// Ledgers of the first events of partitions. They depend on nothing but the positions.
static PREFIXES: LazyLock<Mutex<HashMap<Partition, BTreeMap<Offset, Ledger>>>> = LazyLock::new(Mutex::default);
/// Events that are worth several threads: some 100 ms of one.
const SHARED_EVENTS_MIN: u64 = 1 << 24;
/// Events that are worth an entry.
const PREFIX_EVENTS_MIN: u64 = 1 << 20;
/// Entries per partition.
const PREFIXES_KEPT: usize = 32;

/// Two rounds of the SplitMix64 finaliser (Steele, Lea, Flood 2014) with different seeds, side by side.
fn hash(partition: Partition, offset: Offset) -> u128 {
    let seed = offset.0 ^ u64::from(partition.0).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    let low = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let high = mix(seed.wrapping_add(0x3c6e_f372_fe94_f82a) ^ 0xd1b5_4a32_d192_ed03);
    (u128::from(high) << 64) | u128::from(low)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers of another writer may be impossible: then the sum balances with nothing.
impl Add for Ledger {
    type Output = Ledger;
    fn add(self, other: Ledger) -> Ledger {
        Ledger {
            events: self.events.saturating_add(other.events),
            positions: self.positions.wrapping_add(other.positions),
        }
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Ledger) {
        *self = *self + other;
    }
}

impl Sub for Ledger {
    type Output = Ledger;
    /// The ledger of a set without one of its subsets.
    fn sub(self, other: Ledger) -> Ledger {
        Ledger {
            events: self.events.saturating_sub(other.events),
            positions: self.positions.wrapping_sub(other.positions),
        }
    }
}

impl std::iter::Sum for Ledger {
    fn sum<I: Iterator<Item = Ledger>>(iter: I) -> Ledger {
        iter.fold(Ledger::EMPTY, Add::add)
    }
}

fn as_hex<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:032x}"))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    u128::from_str_radix(&text, 16).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_hashed_by_several_threads_is_the_sum_of_its_parts() {
        let (partition, from) = (Partition(3), 1_000);
        for to in [from + SHARED_EVENTS_MIN - 1, from + SHARED_EVENTS_MIN, from + SHARED_EVENTS_MIN * 5 / 4 + 7] {
            let parts = (from..to)
                .step_by(1 << 22)
                .map(|first| Ledger::of_range(partition, Offset(first), Offset((first + (1 << 22)).min(to))));
            assert_eq!(Ledger::of_range(partition, Offset(from), Offset(to)), parts.fold(Ledger::EMPTY, Add::add));
        }
    }

    #[test]
    fn a_range_is_the_sum_of_its_parts_in_any_order() {
        let p = Partition(3);
        let whole = Ledger::of_range(p, Offset(10), Offset(50));
        let parts = Ledger::of_range(p, Offset(30), Offset(50)) + Ledger::of_range(p, Offset(10), Offset(30));
        assert_eq!(whole, parts);
        assert_eq!(whole - Ledger::of(p, Offset(10)), Ledger::of_range(p, Offset(11), Offset(50)));
    }

    #[test]
    fn a_prefix_is_the_same_whatever_was_asked_for_before() {
        let partition = Partition(77);
        for to in [0, 3 * PREFIX_EVENTS_MIN, PREFIX_EVENTS_MIN, 4 * PREFIX_EVENTS_MIN + 5, 4 * PREFIX_EVENTS_MIN + 6] {
            let whole = Ledger::of_range(partition, Offset(0), Offset(to));
            assert_eq!(Ledger::before(partition, Offset(to)), whole, "{to}");
        }
        let kept = PREFIXES.lock()[&partition].keys().map(|offset| offset.0 / PREFIX_EVENTS_MIN).collect::<Vec<_>>();
        assert_eq!(kept, [1, 3, 4], "the last two differ by one event");
    }

    #[test]
    fn an_event_counted_in_place_of_another_is_noticed() {
        let missing = Ledger::of_range(Partition(0), Offset(0), Offset(9)) + Ledger::of(Partition(0), Offset(3));
        assert_ne!(missing, Ledger::of_range(Partition(0), Offset(0), Offset(10)));
        assert_ne!(Ledger::of(Partition(0), Offset(1)), Ledger::of(Partition(1), Offset(0)));
    }
}
