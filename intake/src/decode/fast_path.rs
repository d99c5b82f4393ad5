//! How is a usual object read fast? Flat, its fields in the order of the event before, no escapes in their names.
//!
//! Whatever is unusual, and whatever is wrong, is left to [`super::object`], which reads every object and says what is
//! wrong with it. What is read here is what would be read there; a property test holds the two together.

use serde_json::Value;

use super::fields::Fields;
use super::row::{Cell, Row};
use super::token::{Kind, Scanner};
use super::value;

/// Reads usual objects, and remembers in which order their fields came.
pub(super) struct UsualObjects {
    /// Per column: `"name":`.
    names: Vec<Vec<u8>>,
    /// The column that followed, last time, at the start and after each column.
    next: Vec<usize>,
}

impl UsualObjects {
    pub(super) fn new(fields: &Fields<'_>) -> UsualObjects {
        let columns = fields.columns.len();
        UsualObjects {
            names: fields
                .columns
                .iter()
                .map(|column| format!("{}:", Value::from(&*column.name)).into_bytes())
                .collect(),
            next: (0..=columns).map(|column| column % columns.max(1)).collect(),
        }
    }

    /// Reads the object that begins at `start` into an empty row and returns where it ends. Returns nothing, and leaves
    /// the row in any state, if the object is not usual. Space in it may include line ends if `line_ends`.
    pub(super) fn read<'a>(
        &mut self,
        text: &'a str,
        start: usize,
        line_ends: bool,
        fields: &Fields<'a>,
        row: &mut Row<'a>,
    ) -> Option<usize> {
        let mut scanner = Scanner::new(text, start);
        if !scanner.take(b'{') {
            return None;
        }
        scanner.skip_space(line_ends);
        if scanner.take(b'}') {
            return Some(scanner.at);
        }
        // 0 at the start, then one more than the column read last: the index into `next`.
        let mut place = 0;
        loop {
            let column = self.column(&mut scanner, place, line_ends, fields)?;
            scanner.skip_space(line_ends);
            let token = scanner.scalar()?;
            match column {
                Some(column) => {
                    let cell = &mut row.cells[column];
                    if *cell != Cell::Missing {
                        return None;
                    }
                    value::read(fields.columns[column].data_type, token, &mut row.unescaped, cell).ok()?;
                    place = column + 1;
                }
                // The escapes of a value that nobody reads would go unchecked.
                None if fields.reject_unknown || token.kind == (Kind::String { escaped: true }) => return None,
                None => row.unknown_fields += 1,
            }
            scanner.skip_space(line_ends);
            if scanner.take(b',') {
                scanner.skip_space(line_ends);
            } else if scanner.take(b'}') {
                return Some(scanner.at);
            } else {
                return None;
            }
        }
    }

    /// Reads a field's name and the colon; `Some(None)` if it is not a column.
    #[inline]
    fn column(
        &mut self,
        scanner: &mut Scanner<'_>,
        place: usize,
        line_ends: bool,
        fields: &Fields<'_>,
    ) -> Option<Option<usize>> {
        let expected = self.next[place];
        if scanner.take_all(&self.names[expected]) {
            return Some(Some(expected));
        }
        let name = scanner.string()?;
        scanner.skip_space(line_ends);
        if name.kind != (Kind::String { escaped: false }) || !scanner.take(b':') {
            return None;
        }
        let column = fields.find(&name.raw[1..name.raw.len() - 1]);
        if let Some(column) = column {
            self.next[place] = column;
        }
        Some(column)
    }
}
