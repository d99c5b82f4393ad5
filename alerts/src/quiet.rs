//! Decides which notices are not sent: those that a silence covers, and those beyond the rate of their alert. Notices that are not
//! sent are counted, and the next notice of the alert says how many there were.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use shared::control::{AlertRecord, Silence};
use shared::ids::AlertName;
use shared::limits::SILENCES_MAX;
use shared::time::Micros;

const MINUTE: i64 = 60_000_000;

/// Silences, and the notices that were not sent.
#[derive(Debug, Default)]
pub struct Quiet {
    silences: BTreeMap<String, Silence>,
    /// Notices not sent since the last one that was.
    suppressed: BTreeMap<AlertName, u64>,
}

impl Quiet {
    /// Adds a silence, and forgets those that were over when it was made.
    pub fn silence(&mut self, silence: Silence) {
        self.silences.retain(|_, before| before.until > silence.created_at);
        self.silences.insert(silence.id.clone(), silence);
    }

    /// Ends a silence.
    pub fn unsilence(&mut self, id: &str) {
        self.silences.remove(id);
    }

    /// Returns whether another silence would be one too many.
    pub fn is_full(&self, now: Micros) -> bool {
        self.active(now).count() >= SILENCES_MAX
    }

    /// Returns the silences that are not over.
    pub fn active(&self, now: Micros) -> impl Iterator<Item = &Silence> {
        self.silences.values().filter(move |silence| silence.until > now)
    }

    /// Returns whether a silence covers the record.
    pub fn covers(&self, record: &AlertRecord, now: Micros) -> bool {
        self.active(now).any(|silence| is_covered(record, silence))
    }

    /// Counts notices that were not sent.
    pub fn suppress(&mut self, alert: AlertName, count: u64) {
        *self.suppressed.entry(alert).or_default() += count;
    }

    /// Resets the count of an alert: the notice that was just sent reported it.
    pub fn sent(&mut self, alert: &AlertName) {
        self.suppressed.remove(alert);
    }

    /// Returns how many notices of the alert were not sent since the last one that was.
    pub fn suppressed(&self, alert: &AlertName) -> u64 {
        self.suppressed.get(alert).copied().unwrap_or(0)
    }

    /// Returns all silences, and the number of suppressed notices of each alert.
    pub fn parts(&self) -> (impl Iterator<Item = &Silence>, impl Iterator<Item = (&AlertName, u64)>) {
        (self.silences.values(), self.suppressed.iter().map(|(alert, count)| (alert, *count)))
    }
}

fn is_covered(record: &AlertRecord, silence: &Silence) -> bool {
    let value = |column: &String| record.key.get(column).or_else(|| record.row.get(column));
    let is_key =
        |(column, pattern): (&String, &String)| value(column).is_some_and(|value| has_form(&text(value), pattern));
    silence.alert.as_ref().is_none_or(|alert| *alert == record.alert) && silence.key.iter().all(is_key)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns whether `text` is `pattern`, in which `*` stands for any text.
fn has_form(text: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

/// The notices of each alert in the present minute.
#[derive(Debug, Default)]
pub struct Rates(HashMap<AlertName, (i64, u32)>);

impl Rates {
    /// Counts a notice, and returns whether it is within `per_minute`. Minutes are those of the clock.
    pub fn admit(&mut self, alert: &AlertName, per_minute: u32, now: Micros) -> bool {
        let minute = now.0.div_euclid(MINUTE);
        let (of, sent) = self.0.entry(alert.clone()).or_insert((minute, 0));
        if *of != minute {
            (*of, *sent) = (minute, 0);
        }
        let is_within = *sent < per_minute;
        *sent += u32::from(is_within);
        is_within
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::book::Entry;
    use shared::control::AlertState;

    fn record(user: &str) -> AlertRecord {
        let Entry::Record { record, .. } = crate::book::tests::record(user, 1, AlertState::Raised) else {
            unreachable!("a record")
        };
        *record
    }

    fn silence(id: &str, alert: Option<&str>, key: &[(&str, &str)], until: i64) -> Silence {
        Silence {
            id: id.to_owned(),
            alert: alert.map(|name| name.parse().expect("a name")),
            key: key.iter().map(|(column, pattern)| ((*column).to_owned(), (*pattern).to_owned())).collect(),
            created_at: Micros(0),
            until: Micros(until),
            by: "everyone".to_owned(),
            reason: None,
        }
    }

    #[test]
    fn a_silence_covers_its_alert_and_keys_until_it_is_over() {
        let covers = |silence: Silence, user: &str, now: i64| {
            let mut quiet = Quiet::default();
            quiet.silence(silence);
            quiet.covers(&record(user), Micros(now))
        };
        assert!(covers(silence("s", None, &[], 10), "u7", 9), "every alert");
        assert!(!covers(silence("s", None, &[], 10), "u7", 10), "it is over");
        assert!(covers(silence("s", Some("often"), &[], 10), "u7", 9));
        assert!(!covers(silence("s", Some("rarely"), &[], 10), "u7", 9));
        for (pattern, is_covered) in [
            ("u7", true),
            ("u", false),
            ("u*", true),
            ("*7", true),
            ("u*7", true),
            ("*u*7*", true),
            ("u7*7", false),
            ("*", true),
        ] {
            assert_eq!(covers(silence("s", None, &[("user", pattern)], 10), "u7", 9), is_covered, "{pattern}");
        }
        assert!(!covers(silence("s", None, &[("country", "*")], 10), "u7", 9), "the alert has no such column");
        let mut number = record("u7");
        number.key.insert("n".to_owned(), json!(12));
        let mut quiet = Quiet::default();
        quiet.silence(silence("s", None, &[("n", "12")], 10));
        assert!(quiet.covers(&number, Micros(1)));
        quiet.unsilence("s");
        assert!(!quiet.covers(&number, Micros(1)));
    }

    #[test]
    fn a_rate_admits_so_many_notices_in_each_minute() {
        let (mut rates, alert) = (Rates::default(), "often".parse().expect("a name"));
        let mut admitted = |seconds: i64| rates.admit(&alert, 2, Micros(seconds * 1_000_000));
        assert_eq!([0, 1, 59, 60, 61, 62].map(&mut admitted), [true, true, false, true, true, false]);
    }

    #[test]
    fn there_is_room_for_so_many_silences() {
        let mut quiet = Quiet::default();
        for number in 0..SILENCES_MAX {
            assert!(!quiet.is_full(Micros(0)));
            quiet.silence(silence(&number.to_string(), None, &[], 10));
        }
        assert!(quiet.is_full(Micros(0)) && !quiet.is_full(Micros(10)));
    }
}
