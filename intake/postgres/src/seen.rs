//! Knows which transactions a snapshot has seen, so that their changes are not applied a second time, and writes the places of a
//! table that is followed.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::lsn::{Lsn, RowPlace};

/// The transactions that a snapshot has seen: a `pg_snapshot`, and the end of the log when it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenTransactions {
    /// Transactions that commit here or later are not seen.
    pub until: Lsn,
    pub snapshot: Snapshot,
}

/// A `pg_snapshot`: every transaction below `min` has ended, none from `max` on had, and of those between, `running` had not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    min: u64,
    max: u64,
    running: BTreeSet<u64>,
}

impl Snapshot {
    /// Whether the snapshot has seen what the transaction wrote. Its id has the lower 32 bits alone.
    pub fn has_seen(&self, transaction: u32) -> bool {
        // Transactions of the log are less than half of all ids away from the snapshot.
        let ahead = transaction.wrapping_sub(self.max as u32).cast_signed();
        let Some(id) = self.max.checked_add_signed(ahead.into()) else { return false };
        id < self.min || id < self.max && !self.running.contains(&id)
    }
}

impl FromStr for Snapshot {
    type Err = ();

    fn from_str(text: &str) -> Result<Snapshot, ()> {
        let mut parts = text.split(':');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or(());
        let (min, max) = (number()?, number()?);
        let running = parts.next().ok_or(())?.split(',').filter(|id| !id.is_empty());
        let running = running.map(|id| id.parse().map_err(|_| ())).collect::<Result<_, ()>>()?;
        if parts.next().is_some() { Err(()) } else { Ok(Snapshot { min, max, running }) }
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running: Vec<String> = self.running.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}", self.min, self.max, running.join(","))
    }
}

/// Where reading of a table continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TablePlace {
    /// With a snapshot, from its first row.
    Snapshot,
    /// With the changes after this one of the table with this object id.
    Change {
        table: u32,
        row: RowPlace,
        /// Until reading is behind the end of the log at the snapshot.
        seen: Option<SeenTransactions>,
    },
}

/// The place of rows of a snapshot.
pub(crate) const SNAPSHOT: &str = "snapshot";

impl fmt::Display for TablePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TablePlace::Snapshot => f.write_str(SNAPSHOT),
            TablePlace::Change { table, row, seen: None } => write!(f, "{table} {row}"),
            TablePlace::Change { table, row, seen: Some(SeenTransactions { until, snapshot }) } => {
                write!(f, "{table} {row} {until} {snapshot}")
            }
        }
    }
}

impl FromStr for TablePlace {
    type Err = ();

    fn from_str(text: &str) -> Result<TablePlace, ()> {
        if text == SNAPSHOT {
            return Ok(TablePlace::Snapshot);
        }
        let parts: Vec<&str> = text.split(' ').collect();
        let (table, row, seen) = match parts[..] {
            [table, row] => (table, row, None),
            [table, row, until, snapshot] => {
                (table, row, Some(SeenTransactions { until: until.parse()?, snapshot: snapshot.parse()? }))
            }
            _ => return Err(()),
        };
        Ok(TablePlace::Change { table: table.parse().map_err(|_| ())?, row: row.parse()?, seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_seen_what_had_ended() {
        let snapshot: Snapshot = "10:14:11,13".parse().expect("a snapshot");
        let seen: Vec<u32> = (8..17).filter(|id| snapshot.has_seen(*id)).collect();
        assert_eq!(seen, [8, 9, 10, 12]);
        let none: Snapshot = "14:14:".parse().expect("a snapshot");
        assert!(none.has_seen(13) && !none.has_seen(14));
    }

    #[test]
    fn ids_of_32_bits_are_near_the_snapshot_in_both_directions() {
        let round = 3_u64 << 32;
        let snapshot: Snapshot = format!("{}:{}:{}", round - 2, round + 2, round - 1).parse().expect("a snapshot");
        for (id, seen) in
            [(u32::MAX - 2, true), (u32::MAX - 1, true), (u32::MAX, false), (0, true), (1, true), (2, false)]
        {
            assert_eq!(snapshot.has_seen(id), seen, "{id}");
        }
    }

    #[test]
    fn places_are_written_and_read() {
        for text in ["snapshot", "16384 2/AB:7", "16384 0/0:0 2/AB 10:14:11,13", "1 2/AB:7 2/AC 10:10:"] {
            assert_eq!(text.parse::<TablePlace>().map(|place| place.to_string()).as_deref(), Ok(text));
        }
        for bad in
            ["", "2/AB:7", "x 2/AB:7", "1 2/AB:7 2/AC", "1 2/AB:7 2/AC 10:14", "1 2/AB:7 2/AC 10:14:1:2", "snapshot 1"]
        {
            assert_eq!(bad.parse::<TablePlace>(), Err(()), "{bad}");
        }
    }
}
