//! Compares the records of an alert with what the independent fold expects after a batch run, and adds up the outcome of many
//! runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use shared::control::AlertState;
use shared::ids::AlertName;

use super::alert_fold::KeyTruth;
use crate::human_units::grouped;
use crate::table::{Align, draw};

/// Keys that are shown of each kind.
const EXAMPLES: usize = 3;

/// A record, as far as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub state: AlertState,
    /// How often it was raised or corrected.
    pub times: u32,
}

/// The records of one alert, by key.
pub type Records = BTreeMap<String, Seen>;

/// The outcome of one alert over all runs.
#[derive(Debug, Default, Serialize)]
pub struct AlertAgreement {
    /// Raised live.
    pub raised: u64,
    /// Of these, the exact figure satisfied the condition.
    pub confirmed: u64,
    /// Of these, it did not.
    pub withdrawn: u64,
    /// Not raised live, although the exact figure satisfied the condition.
    pub missed: u64,
    /// How many the fold expects to be raised live: at least those whose condition was true at a cut, at most those for which
    /// it was true after some event.
    expected_raised: [u64; 2],
    /// The first keys of those withdrawn and missed, with the cause.
    first_withdrawn: Vec<String>,
    first_missed: Vec<String>,
    differences: u64,
    /// The first keys that differ from the fold.
    first_differences: Vec<String>,
    /// Why the fold does not cover the alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_folded: Option<String>,
}

/// Every record that may follow `before` in a run, if the alert was raised live in this time or was not.
fn outcome(before: Option<Seen>, truth: KeyTruth, is_raised: bool) -> Option<Seen> {
    let times = match before {
        None => 1,
        Some(Seen { state: AlertState::Withdrawn, times }) => times + 1,
        // Neither raised again nor judged again.
        Some(_) => return before,
    };
    let KeyTruth { is_exact, was_exact, .. } = truth;
    let state = match is_raised {
        true if is_exact => AlertState::Confirmed,
        true => AlertState::Withdrawn,
        false if is_exact && !was_exact => AlertState::Corrected,
        false => return before,
    };
    Some(Seen { state, times })
}

/// Returns the keys that were to be raised before the run.
pub fn to_be_raised<'a>(
    before: &'a Records,
    truths: &'a BTreeMap<String, KeyTruth>,
) -> impl Iterator<Item = &'a String> {
    let is_open = |key: &String| before.get(key).is_none_or(|seen| seen.state == AlertState::Withdrawn);
    truths.iter().filter(move |(key, truth)| truth.is_true && is_open(key)).map(|(key, _)| key)
}

impl AlertAgreement {
    /// Starts without runs. `not_folded`: why the fold does not cover the alert, if it does not.
    pub fn new(not_folded: Option<String>) -> AlertAgreement {
        AlertAgreement { not_folded, ..AlertAgreement::default() }
    }

    /// Adds a run: the records `before` and `after` it, and what the fold expects. `cause`: of a key's record.
    pub fn add(
        &mut self,
        (before, after): (&Records, &Records),
        truths: Option<&BTreeMap<String, KeyTruth>>,
        cause: &dyn Fn(&str) -> String,
    ) {
        for (key, seen) in after {
            if before.get(key) == Some(seen) {
                continue;
            }
            match seen.state {
                AlertState::Raised => self.raised += 1,
                AlertState::Confirmed => (self.raised, self.confirmed) = (self.raised + 1, self.confirmed + 1),
                AlertState::Withdrawn => {
                    (self.raised, self.withdrawn) = (self.raised + 1, self.withdrawn + 1);
                    note(&mut self.first_withdrawn, || format!("{key} ({})", cause(key)));
                }
                AlertState::Corrected => {
                    self.missed += 1;
                    note(&mut self.first_missed, || format!("{key} ({})", cause(key)));
                }
            }
        }
        let Some(truths) = truths else { return };
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).chain(truths.keys()).collect();
        for key in keys {
            let (before, after) = (before.get(key).copied(), after.get(key).copied());
            let truth = truths.get(key).copied().unwrap_or_default();
            let is_open = before.is_none_or(|seen| seen.state == AlertState::Withdrawn);
            self.expected_raised[0] += u64::from(is_open && truth.is_true);
            self.expected_raised[1] += u64::from(is_open && truth.was_true);
            let allowed: &[bool] = match (truth.is_true, truth.was_true) {
                (true, _) => &[true],
                (false, true) => &[true, false],
                (false, false) => &[false],
            };
            if !allowed.iter().any(|is_raised| outcome(before, truth, *is_raised) == after) {
                let expected = outcome(before, truth, allowed[0]);
                self.differ(&format!("{key}: expected {}, found {}", text(expected), text(after)));
            }
        }
    }

    /// Notes a difference from the fold.
    pub fn differ(&mut self, what: &str) {
        self.differences += 1;
        note(&mut self.first_differences, || what.to_owned());
    }

    /// Returns whether every record was as the fold expects.
    pub fn holds(&self) -> bool {
        self.differences == 0
    }

    fn verdict(&self) -> String {
        match (&self.not_folded, self.differences) {
            (_, 1..) => format!("{} DIFFER", grouped(self.differences)),
            (Some(_), _) => "not folded".to_owned(),
            (None, 0) => "ok".to_owned(),
        }
    }

    fn expected(&self) -> String {
        match self.expected_raised {
            _ if self.not_folded.is_some() => "-".to_owned(),
            [least, most] if least == most => grouped(least),
            [least, most] => format!("{} to {}", grouped(least), grouped(most)),
        }
    }
}

/// Returns a table with a row per alert, followed by the first keys of each kind.
pub fn table(alerts: &BTreeMap<AlertName, AlertAgreement>, width: Option<u16>) -> String {
    let header = [
        ("alert", Align::Left),
        ("raised", Align::Right),
        ("expected", Align::Right),
        ("confirmed", Align::Right),
        ("withdrawn", Align::Right),
        ("missed", Align::Right),
        ("", Align::Left),
    ];
    let rows = alerts.iter().map(|(name, alert)| {
        vec![
            name.to_string(),
            grouped(alert.raised),
            alert.expected(),
            grouped(alert.confirmed),
            grouped(alert.withdrawn),
            grouped(alert.missed),
            alert.verdict(),
        ]
    });
    let mut text = draw(&header, rows, width);
    text.push('\n');
    for (name, alert) in alerts {
        let lists = [
            ("withdrawn", &alert.first_withdrawn),
            ("missed", &alert.first_missed),
            ("differs", &alert.first_differences),
        ];
        for (kind, keys) in lists.into_iter().filter(|(_, keys)| !keys.is_empty()) {
            writeln!(text, "{name}: {kind}: {}", keys.join("; ")).expect("a String takes any text");
        }
        if let Some(reason) = &alert.not_folded {
            writeln!(text, "{name}: not folded: {reason}").expect("a String takes any text");
        }
    }
    text
}

fn note(list: &mut Vec<String>, text: impl FnOnce() -> String) {
    if list.len() < EXAMPLES {
        list.push(text());
    }
}

fn text(seen: Option<Seen>) -> String {
    match seen {
        None => "no alert".to_owned(),
        Some(Seen { state, times: 1 }) => state.name().to_owned(),
        Some(Seen { state, times }) => format!("{} ({times} times)", state.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: AlertState, times: u32) -> Seen {
        Seen { state, times }
    }

    fn records(records: &[(&str, AlertState, u32)]) -> Records {
        records.iter().map(|(key, state, times)| ((*key).to_owned(), seen(*state, *times))).collect()
    }

    /// A key that stays true, one that is true live only, one that is exact only, and one that was true for a moment.
    fn truths() -> BTreeMap<String, KeyTruth> {
        let truth = |was_true, is_true, is_exact| KeyTruth { was_true, is_true, is_exact, was_exact: false };
        let truths = [
            ("a", truth(true, true, true)),
            ("b", truth(true, true, false)),
            ("c", truth(false, false, true)),
            ("d", truth(true, false, false)),
        ];
        truths.into_iter().map(|(key, truth)| (key.to_owned(), truth)).collect()
    }

    fn judged(after: &[(&str, AlertState, u32)]) -> AlertAgreement {
        let mut agreement = AlertAgreement::default();
        agreement.add((&Records::new(), &records(after)), Some(&truths()), &|_| "late".to_owned());
        agreement
    }

    #[test]
    fn records_as_the_fold_expects_agree_and_are_counted() {
        use AlertState::{Confirmed, Corrected, Withdrawn};
        let right = [("a", Confirmed, 1), ("b", Withdrawn, 1), ("c", Corrected, 1)];
        let agreement = judged(&right);
        assert!(agreement.holds(), "{agreement:?}");
        let AlertAgreement { raised, confirmed, withdrawn, missed, expected_raised, .. } = agreement;
        assert_eq!((raised, confirmed, withdrawn, missed, expected_raised), (2, 1, 1, 1, [2, 3]));
        assert!(
            judged(&[&right[..], &[("d", Withdrawn, 1)]].concat()).holds(),
            "true between two events: may be raised"
        );
        let alerts = BTreeMap::from([("often".parse().expect("a name"), judged(&right))]);
        let table = table(&alerts, Some(100));
        assert!(table.contains("2 to 3") && table.contains("often: missed: c (late)\n"), "{table}");
    }

    #[test]
    fn a_lost_doubled_invented_or_misjudged_alert_differs() {
        use AlertState::{Confirmed, Corrected, Raised, Withdrawn};
        let (a, b, c) = (("a", Confirmed, 1), ("b", Withdrawn, 1), ("c", Corrected, 1));
        for (what, wrong) in [
            ("a raised one is lost, and corrected", vec![("a", Corrected, 1), b, c]),
            ("a withdrawn one is lost", vec![a, c]),
            ("a missed one is lost", vec![a, b]),
            ("one is doubled", vec![("a", Confirmed, 2), b, c]),
            ("one is invented", vec![a, b, c, ("e", Withdrawn, 1)]),
            ("one is confirmed without reason", vec![a, ("b", Confirmed, 1), c]),
            ("one is not judged", vec![("a", Raised, 1), b, c]),
        ] {
            let agreement = judged(&wrong);
            assert_eq!(agreement.differences, 1, "{what}: {agreement:?}");
        }
    }

    #[test]
    fn a_judged_record_stays_until_it_is_withdrawn() {
        use AlertState::{Confirmed, Corrected, Withdrawn};
        let truth = KeyTruth { was_true: true, is_true: true, is_exact: true, was_exact: true };
        for state in [Confirmed, Corrected] {
            assert_eq!(outcome(Some(seen(state, 1)), truth, true), Some(seen(state, 1)));
        }
        assert_eq!(outcome(Some(seen(Withdrawn, 1)), truth, true), Some(seen(Confirmed, 2)));
        assert_eq!(outcome(Some(seen(Withdrawn, 1)), truth, false), Some(seen(Withdrawn, 1)));
    }
}
