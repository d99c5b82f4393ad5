//! Computes what a sink of a view with sessions has to write: the rows of the view, and with `emit = 'final'` the closed ones.
//!
//! The stream has one partition. Its events are kept as a list, and everything is computed from the whole list each time.

use std::collections::BTreeMap;

use crate::oracle::sessions::{Live, sessions};

/// The end of a session, the number of its events and the sum of their values.
pub type Stay = (i64, i64, i64);
/// Sessions by key and start, in microseconds.
pub type Stays = BTreeMap<(String, i64), Stay>;

/// The lengths that decide on sessions, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    pub gap: i64,
    pub delay: i64,
    pub lateness: i64,
}

#[derive(Debug)]
struct Event {
    key: String,
    at: i64,
    value: i64,
    is_late: bool,
}

/// The events of a stream, and how many of them are in the batch version.
#[derive(Debug)]
pub struct SessionStream {
    lengths: Lengths,
    events: Vec<Event>,
    live: BTreeMap<String, Live>,
    watermark: Option<i64>,
    covered: usize,
}

impl SessionStream {
    pub fn new(lengths: Lengths) -> SessionStream {
        SessionStream { lengths, events: Vec::new(), live: BTreeMap::new(), watermark: None, covered: 0 }
    }

    pub fn add(&mut self, key: &str, at: i64, value: i64) {
        let Lengths { gap, delay, lateness } = self.lengths;
        let is_late = self.live.entry(key.to_owned()).or_default().judge(at, self.watermark, gap, lateness);
        self.watermark = self.watermark.max(Some(at - delay));
        self.events.push(Event { key: key.to_owned(), at, value, is_late });
    }

    /// Includes all events so far in the version, late ones as well.
    pub fn cover(&mut self) {
        self.covered = self.events.len();
    }

    /// Returns the time of the latest event.
    pub fn latest(&self) -> Option<i64> {
        self.events.iter().map(|event| event.at).max()
    }

    /// Returns the rows of the view.
    pub fn stays(&self) -> Stays {
        let counted = self.events.iter().enumerate().filter(|(number, event)| *number < self.covered || !event.is_late);
        let mut of_key: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        counted.for_each(|(_, event)| of_key.entry(&event.key).or_default().push(event));
        let mut stays = Stays::new();
        for (key, events) in of_key {
            for (start, end) in sessions(events.iter().map(|event| event.at).collect(), self.lengths.gap) {
                let inside = || events.iter().filter(|event| (start..end).contains(&event.at));
                let total = inside().map(|event| event.value).sum();
                stays.insert((key.to_owned(), start), (end, inside().count() as i64, total));
            }
        }
        stays
    }

    /// Returns the closed rows, and those of `written` that are parts of sessions which are open again.
    pub fn closed_stays(&self, written: &Stays) -> Stays {
        let is_closed = |end: i64| self.watermark.is_some_and(|watermark| end <= watermark);
        let (mut closed, open): (Stays, Stays) = self.stays().into_iter().partition(|(_, stay)| is_closed(stay.0));
        for ((key, at), stay) in written {
            let has = |((of, start), (end, ..)): (&(String, i64), &Stay)| of == key && (*start..*end).contains(at);
            if open.iter().any(has) {
                closed.insert((key.clone(), *at), *stay);
            }
        }
        closed
    }
}

/// Returns what turns the rows `before` into `after`: rows with their new value, or `None` if they are gone.
pub fn changes(before: &Stays, after: &Stays) -> Vec<((String, i64), Option<Stay>)> {
    let changed = after.iter().filter(|(place, stay)| before.get(*place) != Some(*stay));
    let gone = before.keys().filter(|place| !after.contains_key(*place));
    changed.map(|(place, stay)| (place.clone(), Some(*stay))).chain(gone.map(|place| (place.clone(), None))).collect()
}
