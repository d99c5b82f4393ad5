//! Writes and reads places in the write-ahead log, and the places of rows among those of its transactions.

use std::fmt;
use std::str::FromStr;

/// A place in the write-ahead log, as PostgreSQL writes it: `0/16B3748`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ();
    fn from_str(text: &str) -> Result<Lsn, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let half = |text: &str| u32::from_str_radix(text, 16).map(u64::from).map_err(|_| ());
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

/// The place after the first `rows` rows of the transaction whose commit is at `commit`. Transactions are in the order of
/// their commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct RowPlace {
    pub commit: Lsn,
    pub rows: u64,
}

impl fmt::Display for RowPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.commit, self.rows)
    }
}

impl FromStr for RowPlace {
    type Err = ();
    fn from_str(text: &str) -> Result<RowPlace, ()> {
        let (commit, rows) = text.split_once(':').ok_or(())?;
        Ok(RowPlace { commit: commit.parse()?, rows: rows.parse().map_err(|_| ())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_postgresql_writes_them_and_ordered_by_commit() {
        let place = RowPlace { commit: Lsn(0x2_0000_00AB), rows: 7 };
        assert_eq!(place.to_string(), "2/AB:7");
        assert_eq!("2/AB:7".parse(), Ok(place));
        assert!(RowPlace { commit: Lsn(9), rows: 0 } > RowPlace { commit: Lsn(8), rows: 99 });
        for bad in ["", "2/AB", "2:7", "x/AB:7", "2/AB:-1", "100000000/0:1"] {
            assert_eq!(bad.parse::<RowPlace>(), Err(()), "{bad}");
        }
    }
}
