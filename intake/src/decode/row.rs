//! What has been read of the event under way? Its values wait here, so that a rejected event never reaches a column.

/// One value of the event under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    /// The event did not name the field (yet).
    Missing,
    Null,
    Boolean(bool),
    /// INT and BIGINT; DATE in days, TIMESTAMP in microseconds. Within the range of its column.
    Integer(i64),
    Double(f64),
    /// Scaled as its column wants it.
    Decimal(i128),
    /// A string as it stands in the body.
    Text(&'a str),
    /// A string that had escapes: a range of [`Row::unescaped`].
    Unescaped {
        start: usize,
        end: usize,
    },
}

/// The values of the event under way, one per column.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) cells: Vec<Cell<'a>>,
    /// Strings that had escapes, without them.
    pub(super) unescaped: String,
    /// Fields that the stream does not declare.
    pub(super) unknown_fields: u64,
}

impl Row<'_> {
    /// An empty row of `columns` values.
    pub(super) fn new(columns: usize) -> Self {
        Row { cells: vec![Cell::Missing; columns], unescaped: String::new(), unknown_fields: 0 }
    }

    /// Forgets the event under way.
    pub(super) fn clear(&mut self) {
        self.cells.fill(Cell::Missing);
        self.unescaped.clear();
        self.unknown_fields = 0;
    }
}
