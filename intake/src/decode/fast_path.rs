//! Reads usual events fast: flat, their fields in the order of the event before, no escapes in their names.
//!
//! It leaves everything unusual, and everything invalid, to [`super::object`], which reads every event and says what is wrong
//! with it. Both give the same result; a property test holds the two together.

use serde_json::Value;

use super::fields::{Fields, Member};
use super::row::{Cell, Row};
use super::token::{Kind, Scanner};
use super::value;

/// What reads the value of a field.
enum FieldReader {
    /// The member of this number.
    Member(usize),
    /// No column of the stream.
    Unknown,
}

/// Reads usual objects, and remembers in which order their fields came.
pub(super) struct FastPath {
    /// Per member of the event: its column, and `"name":`. Objects and arrays with columns inside have none.
    members: Vec<(Option<usize>, Vec<u8>)>,
    /// The member that followed, last time, at the start and after each member.
    next: Vec<usize>,
}

impl FastPath {
    pub(super) fn new(fields: &Fields<'_>) -> FastPath {
        let member = |(name, member): (&String, &Member)| {
            let column = match member {
                Member::Column(column) => Some(*column),
                Member::Nested { .. } => None,
            };
            (column, format!("{}:", Value::from(name.as_str())).into_bytes())
        };
        let members: Vec<_> = fields.top.names.iter().zip(&fields.top.members).map(member).collect();
        FastPath { next: (0..=members.len()).map(|member| member % members.len().max(1)).collect(), members }
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
        // 0 at the start, then one more than the member read last: the index into `next`.
        let mut place = 0;
        loop {
            let member = self.member(&mut scanner, place, line_ends, fields)?;
            scanner.skip_space(line_ends);
            let token = scanner.scalar()?;
            match member {
                FieldReader::Member(member) => {
                    let column = self.members[member].0?;
                    let cell = &mut row.cells[column];
                    if *cell != Cell::Missing {
                        return None;
                    }
                    value::read(&fields.columns[column], token, &mut row.unescaped, cell).ok()?;
                    place = member + 1;
                }
                // The escapes of a value that no column reads would go unchecked.
                FieldReader::Unknown if fields.reject_unknown || token.kind == (Kind::String { escaped: true }) => {
                    return None;
                }
                FieldReader::Unknown => row.unknown_fields += 1,
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

    /// Reads a field's name and the colon, and returns what reads its value; `None` if the name is not usual.
    #[inline]
    fn member(
        &mut self,
        scanner: &mut Scanner<'_>,
        place: usize,
        line_ends: bool,
        fields: &Fields<'_>,
    ) -> Option<FieldReader> {
        let expected = self.next[place];
        // No column may be read from events: all hold parts of records.
        if self.members.get(expected).is_some_and(|(_, name)| scanner.take_all(name)) {
            return Some(FieldReader::Member(expected));
        }
        let name = scanner.string()?;
        scanner.skip_space(line_ends);
        if name.kind != (Kind::String { escaped: false }) || !scanner.take(b':') {
            return None;
        }
        let Some(member) = fields.top.find(&name.raw[1..name.raw.len() - 1]) else {
            return Some(FieldReader::Unknown);
        };
        self.next[place] = member;
        Some(FieldReader::Member(member))
    }
}
