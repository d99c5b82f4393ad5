//! Encodes the start of the next page: a number of rows of one query on one batch version.
//!
//! A cursor is bound to both. Another query or a newly published version invalidates it, since rows may have moved. The
//! cursor of a view with SLIDE also holds the instant of the first page. Live rows may still appear between two pages; a
//! client that needs one consistent result requests all rows at once, up to the limit.

use shared::published::PublishedView;

use super::{QueryError, invalid};

/// A row position in the result of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Number of rows before it.
    pub offset: usize,
    /// The batch version; `None` if none was published.
    pub version: Option<i64>,
    /// The instant of the first page, in microseconds; only of views with SLIDE.
    pub as_of: Option<i64>,
}

impl Cursor {
    /// Parses a cursor that [`Cursor::encode`] wrote for the query with this fingerprint.
    pub fn parse(text: &str, fingerprint: u64) -> Result<Cursor, QueryError> {
        let unreadable = || invalid("cursor", "invalid cursor: not issued by this server");
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or_else(unreadable);
        let (offset, version, bound_to, as_of) = (part()?, part()?, part()?, part()?);
        let offset = usize::from_str_radix(offset, 16).map_err(|_| unreadable())?;
        let version = match version {
            "" => None,
            hex => Some(i64::from_str_radix(hex, 16).map_err(|_| unreadable())?),
        };
        let as_of = match as_of {
            "" => None,
            hex => Some(u64::from_str_radix(hex, 16).map_err(|_| unreadable())?.cast_signed()),
        };
        if u64::from_str_radix(bound_to, 16).map_err(|_| unreadable())? != fingerprint {
            return Err(invalid("cursor", "issued for a query with other parameters"));
        }
        Ok(Cursor { offset, version, as_of })
    }

    /// Encodes the cursor as text, for the query with this fingerprint.
    pub fn encode(self, fingerprint: u64) -> String {
        let version = self.version.map_or_else(String::new, |version| format!("{version:x}"));
        let as_of = self.as_of.map_or_else(String::new, |as_of| format!("{:x}", as_of.cast_unsigned()));
        format!("{:x}-{version}-{fingerprint:016x}-{as_of}", self.offset)
    }

    /// Returns true if the cursor was issued for the version that is published now.
    pub fn is_current(self, published: &PublishedView) -> bool {
        self.version == published.version.as_ref().map(|v| v.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_is_valid_for_its_query_only() {
        for (version, as_of) in [(None, None), (Some(12), None), (Some(12), Some(7)), (None, Some(-7))] {
            let cursor = Cursor { offset: 10_000, version, as_of };
            assert_eq!(Cursor::parse(&cursor.encode(77), 77), Ok(cursor));
            assert!(Cursor::parse(&cursor.encode(77), 78).is_err());
        }
        for wrong in ["", "1", "1-2", "1-1-2", "x-1-2-", "1-x-2-", "1-1-x-", "1-1-2-x"] {
            assert!(Cursor::parse(wrong, 2).is_err(), "{wrong}");
        }
    }
}
