//! Defines the trait through which serving reads the current rows of tables.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::entity::EntityId;
use crate::handoff::HandoffError;
use crate::ids::StreamName;
use crate::stream::Stream;

/// Some rows of a table, in the order of their keys.
#[derive(Debug, Clone)]
pub struct RowPage {
    /// The declared columns.
    pub rows: RecordBatch,
    /// Whether rows follow.
    pub has_more: bool,
}

/// The current rows of tables: those that the durable changes leave.
pub trait TableReader: Send + Sync {
    /// Returns the declaration of a stream or table.
    fn stream(&self, name: &str) -> Option<Arc<Stream>>;

    /// Returns the row with this key, with the declared columns.
    fn row(&self, table: &StreamName, key: &EntityId) -> Result<Option<RecordBatch>, HandoffError>;

    /// Returns rows behind the key `after`, at most `limit`, fewer if they are large.
    fn rows(&self, table: &StreamName, after: Option<&EntityId>, limit: usize) -> Result<RowPage, HandoffError>;
}

/// A server without tables.
pub struct NoTables;

impl TableReader for NoTables {
    fn stream(&self, _name: &str) -> Option<Arc<Stream>> {
        None
    }

    fn row(&self, table: &StreamName, _key: &EntityId) -> Result<Option<RecordBatch>, HandoffError> {
        Err(HandoffError(format!("there is no table {table}")))
    }

    fn rows(&self, table: &StreamName, _after: Option<&EntityId>, _limit: usize) -> Result<RowPage, HandoffError> {
        Err(HandoffError(format!("there is no table {table}")))
    }
}
