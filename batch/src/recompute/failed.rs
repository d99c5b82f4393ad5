//! Collects the events that fail for a view while a run reads them, each once however often it is read.

use std::collections::HashSet;

use shared::failed_events::{FailedEvent, FailedEvents};

/// Positions that are distinguished. Further events are not noted: the number is a lower bound then.
const POSITIONS_MAX: usize = 100_000;

/// The failed events that a run has read.
#[derive(Debug, Default)]
pub struct FailedLog {
    positions: HashSet<(i64, i64)>,
    events: FailedEvents,
}

impl FailedLog {
    /// Adds an event, unless it is there already.
    pub fn add(&mut self, event: FailedEvent) {
        let position = (i64::from(event.partition.0), event.offset.0.cast_signed());
        if self.positions.len() < POSITIONS_MAX && self.positions.insert(position) {
            self.events.add(event);
        }
    }

    /// Returns the events and forgets them.
    pub fn take(&mut self) -> FailedEvents {
        std::mem::take(self).events
    }
}
