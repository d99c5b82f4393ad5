//! Adds the joined columns of a view to batches of events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;

use super::definition::{JoinTable, joined_column, joined_index};
use super::table::{HeldVersions, JoinedColumn, LookupTable, Lookups, SeenColumns};
use super::values::Form;
use crate::event_sink::EventSink;
use crate::ids::StreamName;
use crate::lookup::definition::LookupJoin;
use crate::view::View;

/// A table that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("there are no versions of the rows of table {0}")]
    NoTable(StreamName),
    #[error("table {table} has no column {column}")]
    NoColumn { table: StreamName, column: String },
}

/// A view, or a sink of a stream: what reads events that are joined with rows.
pub trait ReadsJoins {
    /// Returns the joins, in order.
    fn joins(&self) -> &[LookupJoin];

    /// Returns the joined columns that it reads, as pairs of join and column, ascending.
    fn joined_columns(&self) -> BTreeSet<(usize, usize)>;

    /// Returns the columns of which it needs nothing but which values are equal.
    fn only_grouped(&self) -> BTreeSet<usize>;
}

impl ReadsJoins for View {
    fn joins(&self) -> &[LookupJoin] {
        &self.joins
    }

    fn joined_columns(&self) -> BTreeSet<(usize, usize)> {
        View::joined_columns(self)
    }

    fn only_grouped(&self) -> BTreeSet<usize> {
        View::only_grouped(self)
    }
}

impl ReadsJoins for EventSink {
    fn joins(&self) -> &[LookupJoin] {
        &self.joins
    }

    fn joined_columns(&self) -> BTreeSet<(usize, usize)> {
        let mut read = BTreeSet::new();
        let mut add = |index: usize| read.extend(joined_column(index));
        let columns = self.columns.iter().map(|column| &column.expression);
        columns.chain(&self.filter).for_each(|expression| expression.for_each_column(&mut add));
        self.joins.iter().for_each(|join| add(join.on));
        read
    }

    /// It writes the values.
    fn only_grouped(&self) -> BTreeSet<usize> {
        BTreeSet::new()
    }
}

impl<T: ReadsJoins + ?Sized> ReadsJoins for Arc<T> {
    fn joins(&self) -> &[LookupJoin] {
        T::joins(self)
    }

    fn joined_columns(&self) -> BTreeSet<(usize, usize)> {
        T::joined_columns(self)
    }

    fn only_grouped(&self) -> BTreeSet<usize> {
        T::only_grouped(self)
    }
}

/// The joins of a view or sink over batches with the same columns.
#[derive(Debug, Clone)]
pub struct EventJoin {
    steps: Vec<JoinStep>,
    /// The column of the joined batch for each index of a joined column.
    places: BTreeMap<usize, usize>,
}

#[derive(Debug, Clone)]
struct JoinStep {
    table: Arc<LookupTable>,
    /// The column with the keys.
    on: usize,
    /// The columns to add.
    columns: Vec<JoinedColumn>,
}

/// What views have looked up for the same events: each table once for each column of keys, whatever the number of views.
#[derive(Debug, Default)]
pub struct SharedLookups(Vec<(Arc<LookupTable>, SeenColumns)>);

impl SharedLookups {
    fn of(&mut self, table: &Arc<LookupTable>, keys: &ArrayRef) -> &mut SeenColumns {
        let is_known = |(of, seen): &(Arc<LookupTable>, SeenColumns)| Arc::ptr_eq(of, table) && seen.has_keys(keys);
        let known = self.0.iter().position(is_known).unwrap_or_else(|| {
            self.0.push((Arc::clone(table), SeenColumns::new(keys)));
            self.0.len() - 1
        });
        &mut self.0[known].1
    }
}

impl EventJoin {
    /// Plans the joins of a view or sink for batches of `width` columns; `place` says which of them a column of the stream is. `None`: it
    /// has no joins.
    pub fn new(
        reader: &(impl ReadsJoins + ?Sized),
        lookups: &Lookups,
        width: usize,
        place: &dyn Fn(usize) -> usize,
    ) -> Result<Option<EventJoin>, LookupError> {
        let joins = reader.joins();
        if joins.is_empty() {
            return Ok(None);
        }
        let (read, grouped) = (reader.joined_columns(), reader.only_grouped());
        let mut plan = EventJoin { steps: Vec::with_capacity(joins.len()), places: BTreeMap::new() };
        let mut next = width;
        for (number, join) in joins.iter().enumerate() {
            let name = &join.table.name;
            let table = lookups.get(name).ok_or_else(|| LookupError::NoTable(name.clone()))?;
            let on = plan.places.get(&join.on).copied();
            let on = on.unwrap_or_else(|| place(join.on));
            let mut columns = Vec::new();
            for (_, column) in read.iter().filter(|(of, _)| *of == number) {
                let column_name = &join.table.columns[*column].0;
                let index = joined_index(number, *column);
                let form = if grouped.contains(&index) { Form::Coded } else { Form::Plain };
                let joined = table.table().column(column_name).and_then(|column| table.joined(column, form));
                let missing = || LookupError::NoColumn { table: name.clone(), column: column_name.clone() };
                columns.push(joined.ok_or_else(missing)?);
                plan.places.insert(index, next);
                next += 1;
            }
            plan.steps.push(JoinStep { table: Arc::clone(table), on, columns });
        }
        Ok(Some(plan))
    }

    /// Returns the column of the joined batch that an index of a joined column means; `None`: a column of the stream.
    pub fn place(&self, index: usize) -> Option<usize> {
        self.places.get(&index).copied()
    }

    /// Returns the events with the joined columns behind their own. `times` are their event times in microseconds; `known` has what other
    /// views looked up for the same events. Texts of which the view has nothing but groups may be a dictionary (`partial::coded_keys`).
    pub fn extend(
        &self,
        events: &RecordBatch,
        times: &[i64],
        known: &mut SharedLookups,
    ) -> Result<RecordBatch, ArrowError> {
        let mut fields: Vec<Field> = events.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut columns: Vec<ArrayRef> = events.columns().to_vec();
        // A table that is joined twice must not change in between. Every thread locks tables in the same order.
        let mut held: BTreeMap<*const LookupTable, HeldVersions<'_>> = BTreeMap::new();
        let mut tables: Vec<&Arc<LookupTable>> = self.steps.iter().map(|step| &step.table).collect();
        tables.sort_unstable_by_key(|table| Arc::as_ptr(table));
        for table in tables {
            held.entry(Arc::as_ptr(table)).or_insert_with(|| table.hold());
        }
        // Other views may have looked up some of its rows before a change that this one sees in others.
        let mut own = SharedLookups::default();
        let known = if held.len() < self.steps.len() { &mut own } else { known };
        for JoinStep { table, on, columns: wanted } in &self.steps {
            let seen = known.of(table, &columns[*on]);
            for column in held[&Arc::as_ptr(table)].look_up(seen, times, wanted)? {
                fields.push(Field::new(format!("joined{}", columns.len()), column.data_type().clone(), true));
                columns.push(column);
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(events.num_rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
    }
}

impl View {
    /// Returns the tables that it is joined with.
    pub fn joined_tables(&self) -> Vec<JoinTable> {
        self.joins.iter().map(|join| join.table.clone()).collect()
    }

    /// Returns the joined columns that its expressions and joins read, as pairs of join and column, ascending.
    pub fn joined_columns(&self) -> BTreeSet<(usize, usize)> {
        let mut read = BTreeSet::new();
        let mut add = |index: usize| read.extend(joined_column(index));
        self.for_each_expression(&mut |expression| expression.for_each_column(&mut add));
        self.joins.iter().for_each(|join| add(join.on));
        read
    }

    /// Returns the columns that are dimensions as they are, and that no other expression and no join reads.
    fn only_grouped(&self) -> BTreeSet<usize> {
        let mut read: BTreeSet<usize> = self.joins.iter().map(|join| join.on).collect();
        let dimensions = self.dimensions.iter().map(|dimension| &dimension.expression);
        let others = dimensions.filter(|dimension| dimension.as_column().is_none()).chain(&self.filter);
        let of_aggregates =
            self.aggregates.iter().flat_map(|aggregate| aggregate.argument.iter().chain(&aggregate.filter));
        others
            .chain(of_aggregates)
            .for_each(|expression| expression.for_each_column(&mut |index| _ = read.insert(index)));
        let grouped = self.dimensions.iter().filter_map(|dimension| dimension.expression.as_column());
        grouped.filter(|index| !read.contains(index)).collect()
    }
}
