//! Records the events that retention has dropped from an archive: the first remaining event date, and the number and
//! hash sum of dropped events per partition. The record is a property of the table and changes with the removed files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::archive_tags::ArchiveTags;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::seam::Cut;
use shared::time::Day;

/// The events that an archive no longer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedEvents {
    /// Events of earlier dates are dropped, or will be once every view has included them. It never moves back.
    pub retained_from: Day,
    pub partitions: BTreeMap<Partition, DroppedPart>,
}

/// The dropped events of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DroppedPart {
    /// All dropped events are before it.
    pub to: Offset,
    pub ledger: Ledger,
}

impl DroppedEvents {
    /// Nothing dropped yet, with `retained_from` as the first date.
    pub fn nothing(retained_from: Day) -> DroppedEvents {
        DroppedEvents { retained_from, partitions: BTreeMap::new() }
    }

    /// Adds a file that is dropped.
    pub fn add(&mut self, tags: &ArchiveTags) {
        let part = self.partitions.entry(tags.partition).or_default();
        part.to = part.to.max(tags.to);
        part.ledger += tags.ledger;
    }

    /// Returns the ledger of all dropped events.
    pub fn ledger(&self) -> Ledger {
        self.partitions.values().map(|part| part.ledger).sum()
    }

    /// Returns a partition with more dropped events than lie before `cut`, if there is one.
    pub fn beyond(&self, cut: &Cut) -> Option<(Partition, Offset)> {
        let parts = self.partitions.iter().map(|(partition, part)| (*partition, part.to));
        parts.into_iter().find(|(partition, to)| *to > cut.offset(*partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::seam::CutPoint;
    use shared::time::Micros;

    #[test]
    fn dropped_events_are_added_up_by_partition_and_round_trip() {
        let tags = |partition: u32, from: u64, to: u64| ArchiveTags {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
            rows: to - from,
            erased: 0,
            ledger: Ledger::of_range(Partition(partition), Offset(from), Offset(to)),
            latest_watermark: Micros::MIN,
        };
        let mut dropped = DroppedEvents::nothing(Day(100));
        for tags in [tags(0, 5, 9), tags(1_000_000, 0, 3), tags(0, 0, 5)] {
            dropped.add(&tags);
        }
        let all = Ledger::of_range(Partition(0), Offset(0), Offset(9))
            + Ledger::of_range(Partition::HISTORY, Offset(0), Offset(3));
        assert_eq!(dropped.ledger(), all);
        let text = serde_json::to_string(&dropped).expect("plain data");
        assert_eq!(serde_json::from_str::<DroppedEvents>(&text).expect("as written"), dropped);
        let point = CutPoint { offset: Offset(3), accepted: Ledger::EMPTY };
        let cut = Cut::default().with_history(point);
        assert_eq!(dropped.beyond(&cut), Some((Partition(0), Offset(9))), "the log is not the one that was dropped of");
    }
}
