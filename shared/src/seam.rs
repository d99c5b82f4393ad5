//! Represents the seam: the log position at which batch ends and speed begins. It is never a time.
//!
//! For every partition p with the seam at offset s(p), batch covers the events [0, s(p)) and speed those in [s(p), head(p)):
//!
//! ```text
//! accepted(p) = batch(p) ∪ speed(p),  batch(p) ∩ speed(p) = ∅
//! ```
//!
//! so every event is counted once, whatever its event time. See `docs/architecture.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Offset, Partition};
use crate::ledger::Ledger;

/// A position in one partition and the ledger of all accepted events before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CutPoint {
    pub offset: Offset,
    pub accepted: Ledger,
}

/// One position per partition: events before it are on one side, all others on the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cut(pub BTreeMap<Partition, CutPoint>);

impl Cut {
    /// Returns the cut before the first event of every partition.
    pub fn start(partitions: u32) -> Cut {
        Cut((0..partitions).map(|p| (Partition(p), CutPoint::default())).collect())
    }

    /// Returns the first offset of `partition` that is not before the cut.
    pub fn offset(&self, partition: Partition) -> Offset {
        // I2
        self.0.get(&partition).map_or(Offset(0), |point| point.offset)
    }

    /// Returns the ledger of all accepted events before the cut.
    pub fn accepted(&self) -> Ledger {
        self.0.values().map(|point| point.accepted).sum()
    }

    /// Returns the positions in the log, which does not have historical events.
    pub fn of_log(&self) -> impl Iterator<Item = (Partition, CutPoint)> + '_ {
        self.0.iter().filter(|(partition, _)| **partition != Partition::HISTORY).map(|(p, point)| (*p, *point))
    }

    /// Returns the position of historical events, if there are any before the cut.
    pub fn history(&self) -> CutPoint {
        self.0.get(&Partition::HISTORY).copied().unwrap_or_default()
    }

    /// Returns the cut that has all historical events up to `point` before it as well.
    pub fn with_history(mut self, point: CutPoint) -> Cut {
        if point.offset > Offset(0) {
            self.0.insert(Partition::HISTORY, point);
        }
        self
    }

    /// Returns the offsets alone, as responses show them; that of historical events under `1000000`.
    pub fn offsets(&self) -> BTreeMap<Partition, Offset> {
        self.0.iter().map(|(partition, point)| (*partition, point.offset)).collect()
    }
}
