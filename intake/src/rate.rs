//! Measures a rate of events: counts per second over the last ten seconds, without a thread of its own.

use parking_lot::Mutex;
use shared::time::{MICROS_PER_SECOND, Micros};

const SECONDS: usize = 10;

/// Counts per second; only the last ten full seconds are kept.
#[derive(Debug, Default)]
pub struct Rate(Mutex<[(i64, u64); SECONDS + 1]>);

impl Rate {
    /// Counts `events` at `now`.
    pub fn count(&self, now: Micros, events: u64) {
        let second = now.0.div_euclid(MICROS_PER_SECOND);
        let mut slots = self.0.lock();
        let slot = &mut slots[second.rem_euclid(SECONDS as i64 + 1) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += events;
    }

    /// Events per second over the ten full seconds before `now`.
    pub fn per_second(&self, now: Micros) -> f64 {
        let present = now.0.div_euclid(MICROS_PER_SECOND);
        let full = present - SECONDS as i64..present;
        let events: u64 = self.0.lock().iter().filter(|(second, _)| full.contains(second)).map(|(_, n)| n).sum();
        events as f64 / SECONDS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_ten_full_seconds_count() {
        let rate = Rate::default();
        let at = |second: i64| Micros(second * MICROS_PER_SECOND + 5);
        rate.count(at(100), 7);
        rate.count(at(109), 20);
        rate.count(at(110), 50);
        assert_eq!(rate.per_second(at(110)), 2.7);
        assert_eq!(rate.per_second(at(111)), 7.0);
        assert_eq!(rate.per_second(at(200)), 0.0);
    }
}
