//! Maps the members of an event to columns: most to one each, some to an object or array with columns inside.

use hashbrown::HashMap;
use shared::stream::{Column, Stream, UnknownFields};

/// A stream's declared columns, by the place of their values in an event.
pub(super) struct Fields<'a> {
    pub(super) columns: &'a [Column],
    /// Whether an event with a field that is not declared is rejected.
    pub(super) reject_unknown: bool,
    /// The members of the event itself.
    pub(super) top: Members,
    /// Number of [`Member::Nested`] in all levels.
    pub(super) nested: usize,
}

/// The members of one object, or the elements of one array, that hold values of columns.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Names as events spell them; of an array, indexes.
    pub(super) names: Vec<String>,
    /// What each name holds.
    pub(super) members: Vec<Member>,
    by_name: HashMap<String, usize>,
}

/// What a member of an event holds.
#[derive(Debug)]
pub(super) enum Member {
    /// The value of the column at this index.
    Column(usize),
    /// An object or array that holds values; `number` counts these from 0.
    Nested { number: usize, members: Members },
}

impl<'a> Fields<'a> {
    pub(super) fn new(stream: &'a Stream) -> Fields<'a> {
        let mut fields = Fields {
            columns: stream.declared(),
            reject_unknown: stream.unknown_fields == UnknownFields::Reject,
            top: Members::default(),
            nested: 0,
        };
        for (index, column) in stream.json_columns() {
            fields.top.insert(column.field().levels(), index, &mut fields.nested);
        }
        fields
    }

    /// The fields of some columns alone; others are ignored.
    pub(super) fn of_columns(stream: &'a Stream, indexes: &[usize]) -> Fields<'a> {
        let (columns, top) = (stream.declared(), Members::default());
        let mut fields = Fields { columns, reject_unknown: false, top, nested: 0 };
        for index in indexes {
            fields.top.insert(columns[*index].field().levels(), *index, &mut fields.nested);
        }
        fields
    }
}

impl Members {
    /// Index of the member called `name`.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Index of the member that is the array element `index`.
    pub(super) fn element(&self, index: usize) -> Option<usize> {
        self.find(&index.to_string())
    }

    /// Adds `column` at `levels`. `nested` counts the objects and arrays on the way. A declaration never makes one value a
    /// part of another.
    fn insert(&mut self, levels: &[String], column: usize, nested: &mut usize) {
        let Some((name, inner)) = levels.split_first() else { return };
        let at = match self.find(name) {
            Some(at) => at,
            None => {
                self.by_name.insert(name.clone(), self.names.len());
                self.names.push(name.clone());
                self.members.push(match inner {
                    [] => Member::Column(column),
                    _ => {
                        *nested += 1;
                        Member::Nested { number: *nested - 1, members: Members::default() }
                    }
                });
                self.names.len() - 1
            }
        };
        if let Member::Nested { members, .. } = &mut self.members[at] {
            members.insert(inner, column, nested);
        }
    }
}
