//! Holds batches of the log while the views of a partition fold them: made one batch once, with the rows of tables looked up once and the
//! keys of each set of dimensions encoded once, whatever the number of views.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use shared::handoff::LogBatch;
use shared::lookup::join::SharedLookups;
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

/// The keys of the rows of one batch, for each set of dimensions that a view asked for, and the rows of tables that they see.
#[derive(Debug, Default)]
pub struct SharedKeys {
    known: Vec<KnownKeys>,
    pub lookups: SharedLookups,
}

#[derive(Debug)]
struct KnownKeys {
    expressions: Option<Arc<[Scalar]>>,
    values: Vec<ArrayRef>,
    rows: Range<usize>,
    keys: Arc<BatchKeys>,
}

impl KnownKeys {
    fn are_of(&self, expressions: Option<&Arc<[Scalar]>>, rows: &Range<usize>, values: &[ArrayRef]) -> bool {
        let are_same = || self.values.len() == values.len() && self.values.iter().zip(values).all(is_same);
        self.rows == *rows && (expressions.is_some() && self.expressions.as_ref() == expressions || are_same())
    }
}

fn is_same((one, other): (&ArrayRef, &ArrayRef)) -> bool {
    Arc::ptr_eq(one, other)
}

impl SharedKeys {
    /// Returns the keys of the rows `rows`, for which the dimensions have `values`. Views share keys if they have the same columns of values,
    /// or the same `expressions`, if these have one value for each row, whatever the view.
    pub fn of(
        &mut self,
        expressions: Option<&Arc<[Scalar]>>,
        rows: &Range<usize>,
        layout: &KeyLayout,
        values: &[ArrayRef],
    ) -> Result<Arc<BatchKeys>, ArrowError> {
        if let Some(known) = self.known.iter().find(|known| known.are_of(expressions, rows, values)) {
            return Ok(Arc::clone(&known.keys));
        }
        let keys = Arc::new(BatchKeys::new(layout, values)?);
        self.known.push(KnownKeys {
            expressions: expressions.cloned(),
            values: values.to_vec(),
            rows: rows.clone(),
            keys: Arc::clone(&keys),
        });
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
        let column = || -> [ArrayRef; 1] { [Arc::new(Int64Array::from(vec![1, 2]))] };
        let mut shared = SharedKeys::default();
        let mut keys = |view, rows| shared.of(Some(&dimensions(view)), &rows, &layout, &column()).expect("keys");
        let first = keys(0, 0..2);
        assert!(Arc::ptr_eq(&first, &keys(1, 0..2)));
        assert!(!Arc::ptr_eq(&first, &keys(2, 0..2)), "other dimensions");
        assert!(!Arc::ptr_eq(&first, &keys(0, 2..4)), "other rows");
    }

    #[test]
    fn joined_views_share_the_keys_of_the_same_columns_of_values() {
        let layout = KeyLayout::new(vec![DataType::BigInt]).expect("a layout");
        let column = || -> ArrayRef { Arc::new(Int64Array::from(vec![1, 2])) };
        let (one, other) = (column(), column());
        let mut shared = SharedKeys::default();
        let mut keys =
            |values: &ArrayRef, rows| shared.of(None, &rows, &layout, std::slice::from_ref(values)).expect("keys");
        let first = keys(&one, 0..2);
        assert!(Arc::ptr_eq(&first, &keys(&one, 0..2)));
        assert!(!Arc::ptr_eq(&first, &keys(&other, 0..2)), "of another join");
        assert!(!Arc::ptr_eq(&first, &keys(&one, 2..4)), "other rows");
    }
}
