//! Where does the next page begin? After a number of rows of the same query on the same batch version.
//!
//! A cursor is bound to both: another query or a newly published version refuses it, since rows may have moved.
//! Between publishes live rows may still appear between pages; a reader who needs one consistent picture asks for
//! all rows at once, up to the limit.

use shared::published::Published;

use super::{QueryError, invalid};

/// A place in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Rows before it.
    pub offset: usize,
    /// The batch version; `None` if nothing was published.
    pub version: Option<i64>,
}

impl Cursor {
    /// Reads a cursor that [`Cursor::written`] wrote for the query with this fingerprint.
    pub fn parse(text: &str, fingerprint: u64) -> Result<Cursor, QueryError> {
        let unreadable = || invalid("cursor", "it is not one that an answer gave as next");
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or_else(unreadable);
        let (offset, version, bound_to) = (part()?, part()?, part()?);
        let offset = usize::from_str_radix(offset, 16).map_err(|_| unreadable())?;
        let version = match version {
            "" => None,
            hex => Some(i64::from_str_radix(hex, 16).map_err(|_| unreadable())?),
        };
        if u64::from_str_radix(bound_to, 16).map_err(|_| unreadable())? != fingerprint {
            return Err(invalid("cursor", "it belongs to a query with other parameters"));
        }
        Ok(Cursor { offset, version })
    }

    /// The cursor as text, for the query with this fingerprint.
    pub fn written(self, fingerprint: u64) -> String {
        let version = self.version.map_or_else(String::new, |version| format!("{version:x}"));
        format!("{:x}-{version}-{fingerprint:016x}", self.offset)
    }

    /// Does it belong to what answers now?
    pub fn fits(self, published: &Published) -> bool {
        self.version == published.version.as_ref().map(|v| v.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_fits_only_its_query() {
        for version in [None, Some(12)] {
            let cursor = Cursor { offset: 10_000, version };
            assert_eq!(Cursor::parse(&cursor.written(77), 77), Ok(cursor));
            assert!(Cursor::parse(&cursor.written(77), 78).is_err());
        }
        for wrong in ["", "1", "1-2", "x-1-2", "1-x-2", "1-1-x"] {
            assert!(Cursor::parse(wrong, 2).is_err(), "{wrong}");
        }
    }
}
