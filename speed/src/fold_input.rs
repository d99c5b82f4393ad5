//! Holds batches of the log while the views of a partition fold them: joined once, with the keys of each set of dimensions
//! encoded once, whatever the number of views.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use shared::handoff::LogBatch;
use shared::partial::batch_keys::BatchKeys;
use shared::partial::keys::KeyLayout;
use shared::scalar::Scalar;

/// Contiguous batches of the log.
#[derive(Debug)]
pub struct FoldInput<'a> {
    pub batches: &'a [Arc<LogBatch>],
    /// The rows of all batches, once a view needed them.
    joined: Option<RecordBatch>,
    keys: SharedKeys,
}

impl FoldInput<'_> {
    /// Wraps batches; nothing is joined or encoded yet.
    pub fn new(batches: &[Arc<LogBatch>]) -> FoldInput<'_> {
        FoldInput { batches, joined: None, keys: SharedKeys::default() }
    }

    /// Returns the rows of all batches, and their keys so far.
    pub fn whole(&mut self) -> Result<(RecordBatch, &mut SharedKeys), ArrowError> {
        let rows = match &self.joined {
            Some(rows) => rows.clone(),
            None => self.joined.insert(join(self.batches)?).clone(),
        };
        Ok((rows, &mut self.keys))
    }
}

/// Returns the rows of some batches as one; there is at least one.
pub fn join(batches: &[Arc<LogBatch>]) -> Result<RecordBatch, ArrowError> {
    match batches {
        [one] => Ok(one.rows.clone()),
        many => concat_batches(&many[0].rows.schema(), many.iter().map(|batch| &batch.rows)),
    }
}

/// The keys of the rows of one batch, for each set of dimensions that a view asked for.
#[derive(Debug, Default)]
pub struct SharedKeys {
    known: Vec<KnownKeys>,
}

#[derive(Debug)]
struct KnownKeys {
    dimensions: Arc<[Scalar]>,
    rows: Range<usize>,
    keys: Arc<BatchKeys>,
}

impl SharedKeys {
    /// Returns the keys of the rows `rows`, for which the expressions `dimensions` have `values`. Every expression has one
    /// value for each of these rows, so views with the same expressions share keys.
    pub fn of(
        &mut self,
        dimensions: &Arc<[Scalar]>,
        rows: &Range<usize>,
        layout: &KeyLayout,
        values: &[ArrayRef],
    ) -> Result<Arc<BatchKeys>, ArrowError> {
        if let Some(known) = self.known.iter().find(|known| known.rows == *rows && known.dimensions == *dimensions) {
            return Ok(Arc::clone(&known.keys));
        }
        let keys = Arc::new(BatchKeys::new(layout, values)?);
        let (dimensions, rows) = (Arc::clone(dimensions), rows.clone());
        self.known.push(KnownKeys { dimensions, rows, keys: Arc::clone(&keys) });
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use shared::sql::parse_definitions;
    use shared::types::DataType;

    use super::*;

    #[test]
    fn views_share_the_keys_of_the_same_rows_and_dimensions() {
        let sql = "CREATE STREAM s (at TIMESTAMP, a BIGINT, b BIGINT) WITH (event_time = 'at');
            CREATE VIEW v AS SELECT a, COUNT(*) AS n FROM s GROUP BY a;
            CREATE VIEW w AS SELECT a, SUM(b) AS n FROM s WHERE b > 1 GROUP BY TUMBLE(at, INTERVAL '1' HOUR), a;
            CREATE VIEW x AS SELECT b, COUNT(*) AS n FROM s GROUP BY b;";
        let parsed = parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]);
        let parsed = parsed.unwrap_or_else(|errors| panic!("{}", errors[0]));
        let dimensions = |view: usize| -> Arc<[Scalar]> {
            parsed.views[view].dimensions.iter().map(|dimension| dimension.expression.clone()).collect()
        };
        let layout = KeyLayout::new(vec![DataType::BigInt]).expect("a layout");
        let values: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![1, 2]))];
        let mut shared = SharedKeys::default();
        let mut keys = |view, rows: Range<usize>| shared.of(&dimensions(view), &rows, &layout, &values).expect("keys");
        let first = keys(0, 0..2);
        assert!(Arc::ptr_eq(&first, &keys(1, 0..2)));
        assert!(!Arc::ptr_eq(&first, &keys(2, 0..2)), "other dimensions");
        assert!(!Arc::ptr_eq(&first, &keys(0, 2..4)), "other rows");
    }
}
