//! Holds the values of the event that is being read, so that a rejected event never reaches a column.

/// One value of the event that is being read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    /// The event did not name the field (yet).
    Missing,
    Null,
    Boolean(bool),
    /// INT and BIGINT; DATE in days, TIMESTAMP in microseconds. Within the range of its column.
    Integer(i64),
    Double(f64),
    /// At the scale of its column.
    Decimal(i128),
    /// A string of the body, without its quotes.
    Text(&'a str),
    /// A string that had escapes: a range of [`Row::unescaped`].
    Unescaped {
        start: usize,
        end: usize,
    },
}

impl Cell<'_> {
    /// The same value, independent of what it was read from: a text is appended to `unescaped`.
    pub(super) fn detached<'b>(self, unescaped: &mut String) -> Cell<'b> {
        match self {
            Cell::Missing => Cell::Missing,
            Cell::Null => Cell::Null,
            Cell::Boolean(value) => Cell::Boolean(value),
            Cell::Integer(value) => Cell::Integer(value),
            Cell::Double(value) => Cell::Double(value),
            Cell::Decimal(value) => Cell::Decimal(value),
            Cell::Unescaped { start, end } => Cell::Unescaped { start, end },
            Cell::Text(text) => {
                let start = unescaped.len();
                unescaped.push_str(text);
                Cell::Unescaped { start, end: unescaped.len() }
            }
        }
    }
}

/// The values of the event that is being read, one per column.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) cells: Vec<Cell<'a>>,
    /// Strings that are not in the body as they are: those that had escapes, without them.
    pub(super) unescaped: String,
    /// Fields of the event itself that the stream does not declare.
    pub(super) unknown_fields: u64,
    /// The nested objects and arrays of [`super::fields::Fields`] that the event had.
    pub(super) entered: Vec<bool>,
}

impl Row<'_> {
    /// An empty row of `columns` values, some from `nested` objects and arrays.
    pub(super) fn new(columns: usize, nested: usize) -> Self {
        Row {
            cells: vec![Cell::Missing; columns],
            unescaped: String::new(),
            unknown_fields: 0,
            entered: vec![false; nested],
        }
    }

    /// Discards the event that was being read.
    pub(super) fn clear(&mut self) {
        self.cells.fill(Cell::Missing);
        self.unescaped.clear();
        self.unknown_fields = 0;
        self.entered.fill(false);
    }
}
