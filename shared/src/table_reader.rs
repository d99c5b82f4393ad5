//! Defines the trait through which serving reads the rows of tables: the current ones, and those as of an instant.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::handoff::HandoffError;
use crate::ids::StreamName;
use crate::lookup::instant::SeenRow;
use crate::partial::query_budget::{Exceeded, QueryBudget};
use crate::stream::Stream;
use crate::table_key::TableKey;
use crate::time::Micros;

/// Some rows of a table, in the order of their keys.
#[derive(Debug, Clone)]
pub struct RowPage {
    /// The declared columns.
    pub rows: RecordBatch,
    /// The key to continue behind, as text, if rows may follow.
    pub next: Option<String>,
}

/// Which rows of a table are read.
#[derive(Debug, Clone)]
pub struct PageSelection {
    /// Those behind this key.
    pub after: Option<TableKey>,
    /// At most so many; fewer if they are large.
    pub limit: usize,
}

/// Why rows of the past could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PastRowsError {
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Unreadable(#[from] HandoffError),
}

/// The rows of tables. The current ones are those that the durable changes leave; those as of an instant are the ones that lookup joins
/// give events of this time, over the same changes.
pub trait TableReader: Send + Sync {
    /// Returns the declaration of a stream or table.
    fn stream(&self, name: &str) -> Option<Arc<Stream>>;

    /// Returns the row with this key, with the declared columns.
    fn row(&self, table: &StreamName, key: &TableKey) -> Result<Option<RecordBatch>, HandoffError>;

    /// Returns rows in the order of their keys.
    fn rows(&self, table: &StreamName, selection: &PageSelection) -> Result<RowPage, HandoffError>;

    /// Returns the row with this key as of an instant, with the declared columns.
    fn row_as_of<'a>(
        &'a self,
        table: &'a StreamName,
        key: &'a TableKey,
        instant: Micros,
        budget: QueryBudget,
    ) -> BoxFuture<'a, Result<SeenRow<RecordBatch>, PastRowsError>>;

    /// Returns rows as of an instant in the order of their keys. A page may have fewer than others, even none, and yet `next`: rows that
    /// did not exist then count towards the limit.
    fn rows_as_of<'a>(
        &'a self,
        table: &'a StreamName,
        selection: &'a PageSelection,
        instant: Micros,
        budget: QueryBudget,
    ) -> BoxFuture<'a, Result<RowPage, PastRowsError>>;
}

/// A server without tables.
pub struct NoTables;

impl TableReader for NoTables {
    fn stream(&self, _name: &str) -> Option<Arc<Stream>> {
        None
    }

    fn row(&self, table: &StreamName, _key: &TableKey) -> Result<Option<RecordBatch>, HandoffError> {
        Err(no_table(table))
    }

    fn rows(&self, table: &StreamName, _selection: &PageSelection) -> Result<RowPage, HandoffError> {
        Err(no_table(table))
    }

    fn row_as_of<'a>(
        &'a self,
        table: &'a StreamName,
        _key: &'a TableKey,
        _instant: Micros,
        _budget: QueryBudget,
    ) -> BoxFuture<'a, Result<SeenRow<RecordBatch>, PastRowsError>> {
        async move { Err(no_table(table).into()) }.boxed()
    }

    fn rows_as_of<'a>(
        &'a self,
        table: &'a StreamName,
        _selection: &'a PageSelection,
        _instant: Micros,
        _budget: QueryBudget,
    ) -> BoxFuture<'a, Result<RowPage, PastRowsError>> {
        async move { Err(no_table(table).into()) }.boxed()
    }
}

/// The error of a table that does not exist.
pub fn no_table(table: &StreamName) -> HandoffError {
    HandoffError(format!("there is no table {table}"))
}
