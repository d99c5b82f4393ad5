//! Notes the events that a view excludes because an expression failed for them: how many, when they happened, and some of
//! them with their positions and reasons. Bounded, however many events fail.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, Partition};
use crate::limits::{FAILED_EVENTS_LISTED_MAX, FAILED_SPANS_MAX};
use crate::time::{Day, Micros};

/// An event that failed for a view.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailedEvent {
    pub partition: Partition,
    pub offset: Offset,
    /// `None`: not known.
    pub event_time: Option<Micros>,
    pub reason: String,
}

/// A span of event time with failed events, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedSpan {
    pub first: Micros,
    pub last: Micros,
    pub events: u64,
}

/// The failed events of a view.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FailedEvents {
    /// Ascending and disjoint: one per day, as long as they are few.
    spans: Vec<FailedSpan>,
    /// The first of them by position.
    listed: BTreeSet<FailedEvent>,
}

impl FailedEvents {
    /// Returns the number of events.
    pub fn events(&self) -> u64 {
        self.spans.iter().map(|span| span.events).sum()
    }

    /// Returns whether no event failed.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Returns whether the time of some of the events is not known: a fold failed as a whole.
    pub fn have_unknown_times(&self) -> bool {
        self.spans.first().is_some_and(|span| span.first == Micros::MIN)
    }

    /// Returns some of the events, by position.
    pub fn listed(&self) -> impl Iterator<Item = &FailedEvent> {
        self.listed.iter()
    }

    /// Adds an event, which must not be among them.
    pub fn add(&mut self, event: FailedEvent) {
        let (first, last) = event.event_time.map_or((Micros::MIN, Micros(i64::MAX)), |time| (time, time));
        self.add_span(FailedSpan { first, last, events: 1 });
        self.list(event);
    }

    /// Adds `events` events at unknown times, of which `first` is listed.
    pub fn add_unknown(&mut self, first: FailedEvent, events: u64) {
        self.add_span(FailedSpan { first: Micros::MIN, last: Micros(i64::MAX), events });
        self.list(first);
    }

    fn add_span(&mut self, span: FailedSpan) {
        let at = self.spans.partition_point(|other| other.last < span.first);
        let shares_day =
            |other: &FailedSpan| other.first.day() <= span.last.day() && span.first.day() <= other.last.day();
        let mut near = [at.checked_sub(1), Some(at)].into_iter().flatten();
        match near.rfind(|at| self.spans.get(*at).is_some_and(shares_day)) {
            Some(at) => self.spans[at] = self.spans[at].with(span),
            None => self.spans.insert(at, span),
        }
        self.unite_overlapping();
        if self.spans.len() > FAILED_SPANS_MAX {
            self.unite_nearest();
        }
    }

    /// Adds other events.
    pub fn extend(&mut self, other: &FailedEvents) {
        other.spans.iter().for_each(|span| self.add_span(*span));
        other.listed.iter().for_each(|event| self.list(event.clone()));
    }

    /// Removes the events of some days. Spans of several days stay whole: they may name too many events, never too few.
    pub fn without_days(mut self, is_of: impl Fn(Day) -> bool) -> FailedEvents {
        self.spans.retain(|span| !(span.first.day() == span.last.day() && is_of(span.first.day())));
        self.listed.retain(|event| !event.event_time.is_some_and(|time| is_of(time.day())));
        self
    }

    /// Returns whether an event failed in `from..to` (microseconds); spans count as a whole.
    pub fn touch(&self, from: i64, to: i64) -> bool {
        let at = self.spans.partition_point(|span| span.last.0 < from);
        self.spans.get(at).is_some_and(|span| span.first.0 < to)
    }

    /// Returns when events happened that are in one of both sets alone: exactly, as long as all of them are listed, and
    /// otherwise by day.
    pub fn difference(&self, other: &FailedEvents) -> FailedDifference {
        let spans = if self.is_listed() && other.is_listed() {
            let position = |event: &FailedEvent| (event.partition, event.offset);
            let is_in = |all: &FailedEvents, event: &FailedEvent| all.listed().any(|e| position(e) == position(event));
            let ours = self.listed().filter(|event| !is_in(other, event));
            let theirs = other.listed().filter(|event| !is_in(self, event));
            let time = |event: &FailedEvent| event.event_time.map_or((Micros::MIN, Micros(i64::MAX)), |at| (at, at));
            ours.chain(theirs).map(time).collect()
        } else {
            let ours = self.spans.iter().filter(|span| !other.spans.contains(span));
            let theirs = other.spans.iter().filter(|span| !self.spans.contains(span));
            ours.chain(theirs).map(|span| (span.first, span.last)).collect()
        };
        FailedDifference(spans)
    }

    /// Returns whether every event is listed.
    fn is_listed(&self) -> bool {
        self.events() == self.listed.len() as u64
    }

    fn list(&mut self, event: FailedEvent) {
        self.listed.insert(event);
        if self.listed.len() > FAILED_EVENTS_LISTED_MAX {
            self.listed.pop_last();
        }
    }

    fn unite_overlapping(&mut self) {
        self.spans.dedup_by(|next, span| {
            let overlap = next.first <= span.last;
            if overlap {
                *span = span.with(*next);
            }
            overlap
        });
    }

    fn unite_nearest(&mut self) {
        let gap = |at: &usize| self.spans[at + 1].first.0.saturating_sub(self.spans[*at].last.0);
        if let Some(at) = (0..self.spans.len() - 1).min_by_key(gap) {
            let next = self.spans.remove(at + 1);
            self.spans[at] = self.spans[at].with(next);
        }
    }
}

/// When events happened that failed in one layer and not in the other: spans of event time, both ends included.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailedDifference(Vec<(Micros, Micros)>);

impl FailedDifference {
    /// Returns whether such an event may have happened in `from..to` (microseconds).
    pub fn touches(&self, from: i64, to: i64) -> bool {
        self.0.iter().any(|(first, last)| first.0 < to && last.0 >= from)
    }
}

impl FailedSpan {
    fn with(self, other: FailedSpan) -> FailedSpan {
        FailedSpan {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            events: self.events.saturating_add(other.events),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::MICROS_PER_DAY;

    fn event(offset: u64, time: i64) -> FailedEvent {
        let (partition, offset) = (Partition(0), Offset(offset));
        FailedEvent { partition, offset, event_time: Some(Micros(time)), reason: "too long".to_owned() }
    }

    #[test]
    fn a_day_can_be_computed_again() {
        let mut failed = FailedEvents::default();
        [5, MICROS_PER_DAY + 7, 3].into_iter().enumerate().for_each(|(at, time)| failed.add(event(at as u64, time)));
        assert_eq!((failed.events(), failed.spans.len(), failed.listed().count()), (3, 2, 3));
        assert!(failed.touch(0, 4) && failed.touch(4, 5) && !failed.touch(6, MICROS_PER_DAY) && !failed.touch(0, 3));
        let rest = failed.without_days(|day| day == Day(0));
        assert_eq!((rest.events(), rest.listed().count()), (1, 1));
        assert!(!rest.touch(0, MICROS_PER_DAY) && rest.touch(MICROS_PER_DAY, 2 * MICROS_PER_DAY));
    }

    #[test]
    fn a_difference_has_the_events_of_one_side_alone() {
        let of = |events: &[(u64, i64)]| {
            let mut failed = FailedEvents::default();
            events.iter().for_each(|(offset, time)| failed.add(event(*offset, *time)));
            failed
        };
        let (speed, batch) = (of(&[(0, 5), (1, 9), (2, MICROS_PER_DAY)]), of(&[(0, 5), (2, MICROS_PER_DAY)]));
        for difference in [speed.difference(&batch), batch.difference(&speed)] {
            assert!(difference.touches(9, 10) && !difference.touches(0, 9) && !difference.touches(10, i64::MAX));
        }
        assert_eq!(speed.difference(&speed), FailedDifference::default());
        // A whole generation, at unknown times.
        let mut all = FailedEvents::default();
        all.add_unknown(event(0, 0), 1_000);
        assert!(all.difference(&batch).touches(i64::MIN, i64::MIN + 1) && all.difference(&batch).touches(7, 8));
        // By day, once they are too many to be listed.
        let many: Vec<(u64, i64)> = (0..500).map(|at| (at, at as i64)).collect();
        let (less, more) = (of(&many[..400]), of(&many));
        assert!(less.difference(&more).touches(0, 1) && !less.difference(&more).touches(500, i64::MAX));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn every_event_is_counted_once_and_touched(times in prop::collection::vec(0i64..5_000 * MICROS_PER_DAY, 0..3_000)) {
            let mut failed = FailedEvents::default();
            for (at, time) in times.iter().enumerate() {
                failed.add(event(at as u64, *time));
            }
            prop_assert_eq!(failed.events(), times.len() as u64);
            prop_assert!(failed.spans.len() <= FAILED_SPANS_MAX && failed.listed.len() <= FAILED_EVENTS_LISTED_MAX);
            prop_assert!(failed.spans.windows(2).all(|pair| pair[0].last < pair[1].first));
            prop_assert!(times.iter().all(|time| failed.touch(*time, time + 1)));
            let text = serde_json::to_string(&failed).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<FailedEvents>(&text).expect("readable"), failed);
        }
    }
}
