//! Which column does a field of an event belong to?

use hashbrown::HashMap;
use shared::stream::{Column, Stream, UnknownFields};

/// A stream's declared columns, by name.
pub(super) struct Fields<'a> {
    pub(super) columns: &'a [Column],
    /// Whether an event with a field that is not a column is rejected.
    pub(super) reject_unknown: bool,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(stream: &'a Stream) -> Fields<'a> {
        Fields {
            columns: stream.declared(),
            reject_unknown: stream.unknown_fields == UnknownFields::Reject,
            by_name: stream.declared().iter().enumerate().map(|(index, c)| (c.name.as_str(), index)).collect(),
        }
    }

    /// Index of the column called `name`.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}
