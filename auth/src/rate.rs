//! Counts the requests of each key and each subject of tokens, and refuses those beyond their rates.
//!
//! A rate allows a number of requests in every window of time; windows start at multiples of their length.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de};
use shared::limits::RATE_COUNTS_MAX;
use shared::time::{MICROS_PER_SECOND, Micros};

/// The lengths of windows, in seconds.
const UNITS: [(&str, i64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// A number of requests per window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub requests: u32,
    /// Length of the window, in seconds.
    pub window_s: i64,
}

/// A text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a rate: use a number of requests per s, m, h or d, such as 100/s or 50000/d")]
pub struct WrongRate(String);

/// The state of the tightest rate of a key, after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateState {
    pub rate: Rate,
    /// Requests left in the window.
    pub remaining: u32,
    /// Seconds until the next window.
    pub reset_s: u64,
    /// True if the request was one too many.
    pub is_exceeded: bool,
}

/// Requests in one window.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    number: i64,
    requests: u32,
}

/// The requests of a key, or of the subject of tokens.
#[derive(Debug, Default)]
struct Counted {
    /// One per rate.
    windows: Vec<Window>,
    /// When the longest of them ends, in seconds.
    until_s: i64,
}

/// The requests of all keys and subjects in their current windows. Those with windows in the past are forgotten; if there are
/// too many others, the one whose window ends first is.
#[derive(Debug, Default)]
pub struct RateLimiter(Mutex<HashMap<String, Counted>>);

impl RateLimiter {
    /// Counts a request of `key` at `now`, unless it is one too many. `None` if the key has no rates.
    pub fn count(&self, key: &str, rates: &[Rate], now: Micros) -> Option<RateState> {
        if rates.is_empty() {
            return None;
        }
        let mut keys = self.0.lock();
        let seconds = now.0.div_euclid(MICROS_PER_SECOND);
        if !keys.contains_key(key) {
            make_room(&mut keys, seconds);
            keys.insert(key.to_owned(), Counted::default());
        }
        let Counted { windows, until_s } = keys.get_mut(key)?;
        windows.resize(rates.len(), Window::default());
        let ends = rates.iter().map(|rate| (seconds.div_euclid(rate.window_s) + 1).saturating_mul(rate.window_s));
        *until_s = ends.max().unwrap_or(seconds);
        for (rate, window) in rates.iter().zip(windows.iter_mut()) {
            let number = seconds.div_euclid(rate.window_s);
            if window.number != number {
                *window = Window { number, requests: 0 };
            }
        }
        let is_exceeded = rates.iter().zip(windows.iter()).any(|(rate, window)| window.requests >= rate.requests);
        if !is_exceeded {
            windows.iter_mut().for_each(|window| window.requests += 1);
        }
        let states = rates.iter().zip(windows.iter()).map(|(rate, window)| RateState {
            rate: *rate,
            remaining: rate.requests.saturating_sub(window.requests),
            reset_s: u64::try_from(rate.window_s - seconds.rem_euclid(rate.window_s)).unwrap_or(1),
            is_exceeded,
        });
        // The rate that allows the next request last.
        states.min_by_key(|state| (state.remaining, std::cmp::Reverse(state.reset_s)))
    }
}

/// Forgets what counts no more, if there is no room for another key.
fn make_room(keys: &mut HashMap<String, Counted>, now_s: i64) {
    if keys.len() < RATE_COUNTS_MAX {
        return;
    }
    keys.retain(|_, counted| counted.until_s > now_s);
    if keys.len() >= RATE_COUNTS_MAX
        && let Some(first) = keys.iter().min_by_key(|(_, counted)| counted.until_s).map(|(key, _)| key.clone())
    {
        keys.remove(&first);
    }
}

impl FromStr for Rate {
    type Err = WrongRate;

    fn from_str(text: &str) -> Result<Rate, WrongRate> {
        let wrong = || WrongRate(text.to_owned());
        let (requests, unit) = text.split_once('/').ok_or_else(wrong)?;
        let (_, window_s) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let requests = requests.parse().ok().filter(|requests| *requests > 0).ok_or_else(wrong)?;
        Ok(Rate { requests, window_s })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| *seconds == self.window_s).map_or("", |(name, _)| name);
        write!(f, "{}/{unit}", self.requests)
    }
}

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded_however_many_subjects_come() {
        let limiter = RateLimiter::default();
        let rates = ["1/s".parse().expect("a rate")];
        let count = |name: &str, s: i64| limiter.count(name, &rates, Micros(s * 1_000_000)).expect("rates").is_exceeded;
        for number in 0..RATE_COUNTS_MAX + 10 {
            assert!(!count(&format!("token {number}"), 7));
        }
        assert_eq!(limiter.0.lock().len(), RATE_COUNTS_MAX);
        assert!(count(&format!("token {}", RATE_COUNTS_MAX + 9), 7), "the last one is still counted");
        assert!(!count("another second", 8));
        assert_eq!(limiter.0.lock().len(), 1, "the windows of the others are over");
    }

    #[test]
    fn requests_beyond_a_rate_are_refused_until_the_next_window() {
        let limiter = RateLimiter::default();
        let rates = ["2/s".parse().expect("a rate"), "3/h".parse().expect("a rate")];
        let count = |ms: i64| {
            let state = limiter.count("a", &rates, Micros(7_200_000_000 + ms * 1_000)).expect("rates");
            (state.is_exceeded, state.remaining, state.rate.to_string(), state.reset_s)
        };
        assert_eq!(count(0), (false, 1, "2/s".to_owned(), 1));
        assert_eq!(count(1), (false, 0, "2/s".to_owned(), 1));
        assert_eq!(count(2), (true, 0, "2/s".to_owned(), 1));
        // A refused request does not count, so one is left of the hour.
        assert_eq!(count(1_000), (false, 0, "3/h".to_owned(), 3_599));
        assert_eq!(count(2_000), (true, 0, "3/h".to_owned(), 3_598));
        assert!(!count(3_600_000).0);
        assert!(limiter.count("b", &rates, Micros(0)).is_some_and(|state| !state.is_exceeded), "keys count separately");
        assert_eq!(limiter.count("c", &[], Micros(0)), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in ["", "5", "0/s", "-1/s", "5/w", "5/", "x/s", "1.5/s", "5 /s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
