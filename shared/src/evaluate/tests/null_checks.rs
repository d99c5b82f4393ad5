//! `column IS [NOT] NULL`, alone or as a condition, over columns of every form.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, DictionaryArray, Int64Array, RecordBatch, StringViewArray};
use arrow::array::{AsArray, UInt16Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};

use crate::evaluate::evaluate;
use crate::partial::accumulate::selected_rows;
use crate::scalar::{Node, Scalar};
use crate::types::DataType;

fn boolean(node: Node) -> Scalar {
    Scalar { node, data_type: DataType::Boolean }
}

#[test]
fn a_column_is_null_where_it_has_no_value() {
    let has_value = [true, false, true, true, false];
    let numbers = Int64Array::from_iter(has_value.iter().map(|has| has.then_some(4)));
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(["a", "b"]));
    let codes = UInt16Array::from_iter(has_value.iter().map(|has| has.then_some(1)));
    let columns: [(ArrayRef, &[bool], DataType); 5] = [
        (Arc::new(numbers.clone()), &has_value, DataType::BigInt),
        (Arc::new(numbers.slice(1, 3)), &has_value[1..4], DataType::BigInt),
        (Arc::new(Int64Array::from(vec![1, 2])), &[true, true], DataType::BigInt),
        (Arc::new(DictionaryArray::new(codes, texts)), &has_value, DataType::String),
        (Arc::new(Int64Array::new_null(2)), &[false, false], DataType::BigInt),
    ];
    for (column, has_value, data_type) in columns {
        let is_null = boolean(Node::IsNull(Box::new(Scalar::column(0, data_type))));
        let not_null = boolean(Node::Not(Box::new(is_null.clone())));
        let rows = RecordBatch::try_from_iter([("c0", Arc::clone(&column))]).expect("a batch");
        let found = evaluate(&[&is_null, &not_null], &rows).expect("evaluates");
        let found: Vec<Vec<bool>> = found.iter().map(|found| found.as_boolean().iter().flatten().collect()).collect();
        let expected: Vec<bool> = has_value.iter().map(|has| !has).collect();
        assert_eq!(found, [expected, has_value.to_vec()], "{column:?}");
    }
}

#[test]
fn rows_at_which_a_condition_is_null_are_not_selected() {
    let values = BooleanBuffer::from(vec![true, true, false, true, true]);
    let nulls = NullBuffer::from(vec![true, false, true, true, false]);
    assert_eq!(selected_rows(5, Some(&BooleanArray::new(values.clone(), Some(nulls)))), [0, 3]);
    assert_eq!(selected_rows(5, Some(&BooleanArray::new(values, None))), [0, 1, 3, 4]);
    assert_eq!(selected_rows(3, Some(&BooleanArray::from(vec![true; 3]))), [0, 1, 2]);
    assert_eq!(selected_rows(3, None), [0, 1, 2]);
}
