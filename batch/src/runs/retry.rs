//! Decides when a failed run is retried: after a delay that doubles with each attempt, up to a number of attempts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use shared::limits::{RUN_ATTEMPTS_MAX, RUN_RETRY_FIRST_MS, RUN_RETRY_MAX_MS};

/// How often and how soon failed runs are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Delay after the first attempt.
    pub first: Duration,
    /// Longest delay.
    pub longest: Duration,
    /// Largest number of attempts, including the first.
    pub attempts: u32,
}

impl Default for RetrySettings {
    fn default() -> RetrySettings {
        RetrySettings {
            first: Duration::from_millis(RUN_RETRY_FIRST_MS),
            longest: Duration::from_millis(RUN_RETRY_MAX_MS),
            attempts: RUN_ATTEMPTS_MAX,
        }
    }
}

impl RetrySettings {
    /// Returns the longest delay of all.
    pub fn delay_max(&self) -> Duration {
        self.longest.mul_f64(1.2)
    }

    /// Returns the delay after attempt number `attempt` (from 1) of the run `id`; `None`: it is not retried. The id adds or
    /// takes away up to a fifth, so that runs that failed together are not retried together.
    pub fn delay(&self, attempt: u32, id: &str) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let chance = (hasher.finish() % 1_000) as f64 / 1_000.0;
        Some(doubled.min(self.longest).mul_f64(0.8 + 0.4 * chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_differ_by_run() {
        let settings = RetrySettings::default();
        let mut shares = Vec::new();
        for id in (0..200).map(|n| format!("v-{n}")) {
            for (attempt, middle_s) in [(1, 30.0), (2, 60.0), (3, 120.0), (6, 960.0), (7, 1800.0)] {
                let delay = settings.delay(attempt, &id).expect("a retry").as_secs_f64();
                assert!(delay >= 0.8 * middle_s && delay <= 1.2 * middle_s, "{attempt}: {delay}");
                shares.push(delay / middle_s);
            }
            assert_eq!(settings.delay(8, &id), None);
        }
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!((mean - 1.0).abs() < 0.03, "{mean}");
        assert!(shares.iter().any(|s| *s < 0.85) && shares.iter().any(|s| *s > 1.15));
        assert!(RetrySettings { attempts: u32::MAX, ..settings }.delay(1_000_000, "a").is_some(), "no overflow");
    }
}
