//! Where does the next page begin? After a number of rows of the same query on the same batch version.
//!
//! A cursor is bound to both: another query or a newly published version refuses it, since rows may have moved. One of a
//! view with SLIDE also keeps the instant of the first page.
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
    /// The instant the answer is as of, in microseconds; `None` but for views with SLIDE.
    pub as_of: Option<i64>,
}

impl Cursor {
    /// Reads a cursor that [`Cursor::written`] wrote for the query with this fingerprint.
    pub fn parse(text: &str, fingerprint: u64) -> Result<Cursor, QueryError> {
        let unreadable = || invalid("cursor", "it is not one that an answer gave as next");
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
            return Err(invalid("cursor", "it belongs to a query with other parameters"));
        }
        Ok(Cursor { offset, version, as_of })
    }

    /// The cursor as text, for the query with this fingerprint.
    pub fn written(self, fingerprint: u64) -> String {
        let version = self.version.map_or_else(String::new, |version| format!("{version:x}"));
        let as_of = self.as_of.map_or_else(String::new, |as_of| format!("{:x}", as_of.cast_unsigned()));
        format!("{:x}-{version}-{fingerprint:016x}-{as_of}", self.offset)
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
        for (version, as_of) in [(None, None), (Some(12), None), (Some(12), Some(7)), (None, Some(-7))] {
            let cursor = Cursor { offset: 10_000, version, as_of };
            assert_eq!(Cursor::parse(&cursor.written(77), 77), Ok(cursor));
            assert!(Cursor::parse(&cursor.written(77), 78).is_err());
        }
        for wrong in ["", "1", "1-2", "1-1-2", "x-1-2-", "1-x-2-", "1-1-x-", "1-1-2-x"] {
            assert!(Cursor::parse(wrong, 2).is_err(), "{wrong}");
        }
    }
}
