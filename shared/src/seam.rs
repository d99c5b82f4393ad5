//! Defines the seam between batch and speed: a log position, never a time; see `docs/architecture.md`.

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

/// One position per partition: everything before it on one side, everything from it on on the other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cut(pub BTreeMap<Partition, CutPoint>);

impl Cut {
    /// The cut before the first event of every partition.
    pub fn start(partitions: u32) -> Cut {
        Cut((0..partitions).map(|p| (Partition(p), CutPoint::default())).collect())
    }

    /// First offset of `partition` that is not before the cut.
    pub fn offset(&self, partition: Partition) -> Offset {
        self.0.get(&partition).map_or(Offset(0), |point| point.offset)
    }

    /// The ledger of all accepted events before the cut.
    pub fn accepted(&self) -> Ledger {
        self.0.values().map(|point| point.accepted).sum()
    }

    /// The positions in the log; historical events are not there.
    pub fn of_log(&self) -> impl Iterator<Item = (Partition, CutPoint)> + '_ {
        self.0.iter().filter(|(partition, _)| **partition != Partition::HISTORY).map(|(p, point)| (*p, *point))
    }

    /// The position of historical events, if there are any before the cut.
    pub fn history(&self) -> CutPoint {
        self.0.get(&Partition::HISTORY).copied().unwrap_or_default()
    }

    /// The cut that has all historical events up to `point` before it as well.
    pub fn with_history(mut self, point: CutPoint) -> Cut {
        if point.offset > Offset(0) {
            self.0.insert(Partition::HISTORY, point);
        }
        self
    }

    /// The offsets alone, as answers show them; that of historical events under `1000000`.
    pub fn offsets(&self) -> BTreeMap<Partition, Offset> {
        self.0.iter().map(|(partition, point)| (*partition, point.offset)).collect()
    }
}
