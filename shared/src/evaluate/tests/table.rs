//! Single expressions with the values they must have, and the ways of columns in and out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, StringViewArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::interpreter::{Value, from_arrow, to_arrow};
use crate::evaluate::{evaluate, from_polars, to_polars_series};
use crate::scalar::Scalar;
use crate::sql::parse_predicate;
use crate::types::DataType;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns fit")
}

/// A batch of `rows` rows without columns.
fn no_columns(rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).expect("no columns")
}

/// `text` is a predicate that has to hold.
#[test]
fn expressions_have_the_documented_values() {
    let false_ones: Vec<&str> = [
        "9223372036854775807 + 1 IS NULL",
        "-9223372036854775808 - 1 IS NULL",
        "4611686018427387904 * 2 IS NULL",
        "-(-9223372036854775808 + 0) IS NULL",
        "ABS(-9223372036854775808) IS NULL",
        "7 / 2 = 3 AND -7 / 2 = -3 AND 7 / -2 = -3",
        "7 % -3 = 1 AND -7 % 3 = -1",
        "1 / 0 IS NULL AND 1 % 0 IS NULL",
        "-9223372036854775808 / -1 IS NULL AND -9223372036854775808 % -1 = 0",
        "1e0 / 0 = CAST('inf' AS DOUBLE) AND -5.5 % 2 = -1.5",
        "CAST('NaN' AS DOUBLE) = CAST('NaN' AS DOUBLE)",
        "CAST('NaN' AS DOUBLE) > CAST('inf' AS DOUBLE)",
        "CAST('NaN' AS DOUBLE) IN (1.5, 2.5) IS FALSE",
        "-0.0 = 0.0 AND CAST('-0' AS DOUBLE) IN (0.0, 1.0)",
        "(NULL AND FALSE) IS FALSE AND (NULL OR TRUE) AND (NULL AND TRUE) IS UNKNOWN",
        "(1 IN (2, NULL)) IS UNKNOWN AND 1 IN (1, NULL) AND (NULL IN (1)) IS UNKNOWN",
        "(1 NOT IN (2, NULL)) IS UNKNOWN",
        "NOT (NULL = 1) IS UNKNOWN = FALSE",
        "CASE WHEN NULL THEN 1 ELSE 2 END = 2 AND CASE WHEN FALSE THEN 1 END IS NULL",
        "CAST(2.9e0 AS BIGINT) = 2 AND CAST(-2.9e0 AS BIGINT) = -2",
        "CAST(9.3e18 AS BIGINT) IS NULL AND CAST(3000000000 AS INT) IS NULL",
        "CAST('x' AS INT) IS NULL AND CAST(' 12 ' AS INT) = 12",
        "CAST(12 AS STRING) = '12' AND CAST(TRUE AS STRING) = 'true' AND CAST(1.5e0 AS STRING) = '1.5'",
        "CAST(TIMESTAMP '2001-01-01' AS STRING) = '2001-01-01T00:00:00Z'",
        "CAST(DATE '1969-12-31' AS STRING) = '1969-12-31'",
        "CAST(CAST(-1.005 AS DECIMAL(5,3)) AS STRING) = '-1.005'",
        "CAST(-0.5 AS DECIMAL(3,2))::STRING = '-0.50'",
        "CAST('1.005' AS DECIMAL(5,2)) = 1.01 AND CAST('-.5' AS DECIMAL(5,2)) = -0.5",
        "CAST('1234' AS DECIMAL(5,2)) IS NULL AND CAST('1e2' AS DECIMAL(5,2)) IS NULL",
        "CAST(2.5 AS DECIMAL(3,1))::DECIMAL(3,0) = 3 AND CAST(-2.5 AS DECIMAL(3,1))::DECIMAL(3,0) = -3",
        "CAST(1.10 AS DECIMAL(10,2)) + CAST(2.205 AS DECIMAL(10,3)) = 3.305",
        "CAST(1.10 AS DECIMAL(10,2)) * CAST(1.1 AS DECIMAL(10,1)) = 1.21",
        "99999999999999999999999999999999999999.0 > 1e37",
        "CAST(1.0 AS DECIMAL(3,1)) / 4 = 0.25",
        "ROUND(2.5e0) = 3 AND ROUND(-2.5e0) = -3 AND ROUND(1.005e0, 1) = 1.0",
        "ROUND(CAST(2.345 AS DECIMAL(5,3)), 2) = 2.35 AND FLOOR(CAST(-2.5 AS DECIMAL(5,1))) = -3",
        "'Z' < 'a' AND 'a' < 'é' AND '' < 'a'",
        "'50%' LIKE '50!%' ESCAPE '!' AND '500' NOT LIKE '50!%' ESCAPE '!'",
        "'a.c' LIKE 'a.c' AND 'abc' NOT LIKE 'a.c' AND 'ABC' ILIKE 'a_c' AND 'é' LIKE '_'",
        "LENGTH('né') = 2 AND REVERSE('né') = 'én' AND UPPER('é') = 'É'",
        "SUBSTRING('abcdef', 2, 3) = 'bcd' AND SUBSTRING('abc', 0, 2) = 'a' AND SUBSTRING('abc', 5) = ''",
        "LEFT('abc', 2) = 'ab' AND RIGHT('abc', 2) = 'bc' AND LEFT('abc', -1) IS NULL",
        "'a' || NULL IS NULL AND CONCAT('a', 'b', 'c') = 'abc'",
        "GREATEST(1, NULL, 3) = 3 AND LEAST(NULL, 2) = 2 AND NULLIF(1, 1) IS NULL AND NULLIF(1, 2) = 1",
        "EXTRACT(DOW FROM DATE '2001-01-07') = 0 AND EXTRACT(WEEK FROM DATE '2001-01-01') = 1",
        "EXTRACT(HOUR FROM TIMESTAMP '1969-12-31T23:30:00Z') = 23 AND EXTRACT(YEAR FROM DATE '1900-01-01') = 1900",
        "DATE_TRUNC('week', TIMESTAMP '2001-01-07T12:00:00Z') = '2001-01-01'",
        "DATE_TRUNC('quarter', TIMESTAMP '1969-12-31') = '1969-10-01'",
        "TIMESTAMP '2001-01-01' + INTERVAL '1' DAY = '2001-01-02' AND EXTRACT(EPOCH FROM DATE '1970-01-02') = 86400",
        "REPLACE('aXbX', 'X', '--') = 'a--b--' AND TRIM('  a ') = 'a' AND CONTAINS('abc', '') AND STARTS_WITH('abc', 'ab')",
        "SQRT(-1) = CAST('NaN' AS DOUBLE) AND LN(0) = CAST('-inf' AS DOUBLE) AND POWER(2, 10) = 1024",
    ]
    .into_iter()
    .filter(|text| {
        let scalar = parse_predicate(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        let result = evaluate(&[&scalar], &no_columns(1)).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        from_arrow(&result[0], DataType::Boolean) != [Some(Value::Boolean(true))]
    })
    .collect();
    assert!(false_ones.is_empty(), "{false_ones:#?}");
}

#[test]
fn like_matches_line_ends_and_the_whole_text() {
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a\nb"), Some("a\nb\n"), None]));
    let columns = [("s".to_owned(), DataType::String)];
    let scalar = parse_predicate("s LIKE 'a_b'", &columns).expect("valid");
    let result = evaluate(&[&scalar], &batch(vec![("s", texts)])).expect("evaluates");
    let expected = [Some(Value::Boolean(true)), Some(Value::Boolean(false)), None];
    assert_eq!(from_arrow(&result[0], DataType::Boolean), expected);
}

#[test]
fn constants_have_as_many_rows_as_the_batch_also_none() {
    let columns = [("a".to_owned(), DataType::BigInt)];
    let constant = parse_predicate("1 + 1 = 2", &columns).expect("valid");
    let of_column = parse_predicate("a + 1 = 2 AND a IN (1) AND NULLIF(a, 2) = 1", &columns).expect("valid");
    let plain = Scalar::column(0, DataType::BigInt);
    for rows in [0, 1, 2, 1000] {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
        let results =
            evaluate(&[&constant, &plain, &of_column], &batch(vec![("a", array.clone())])).expect("evaluates");
        assert!(results.iter().all(|result| result.len() == rows && result.null_count() == 0));
        assert!(results[1].to_data().ptr_eq(&array.to_data()), "a plain column is handed through");
        assert_eq!(evaluate(&[&constant], &no_columns(rows)).expect("evaluates")[0].len(), rows);
    }
}

#[test]
fn missing_columns_are_errors() {
    let scalar = Scalar::column(3, DataType::BigInt);
    assert!(evaluate(&[&scalar], &no_columns(1)).is_err());
    let columns = [("a".to_owned(), DataType::BigInt)];
    let scalar = parse_predicate("a = 1", &columns).expect("valid");
    assert!(evaluate(&[&scalar], &no_columns(1)).is_err());
}

#[test]
fn columns_round_trip_through_polars_even_if_sliced() {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let integers = [Some(1), None, Some(-3), Some(0), Some(7)].map(|v| v.map(Value::Integer)).to_vec();
    let doubles = [Some(1.5), None, Some(f64::NAN), Some(-0.0)].map(|v| v.map(Value::Double)).to_vec();
    let booleans = [Some(true), None, Some(false)].map(|v| v.map(Value::Boolean)).to_vec();
    let texts = vec![text("a"), None, text("a text longer than twelve bytes"), text(""), text("é")];
    for (values, data_type) in [
        (booleans, DataType::Boolean),
        (integers.clone(), DataType::Int),
        (integers.clone(), DataType::BigInt),
        (integers.clone(), DataType::Decimal { precision: 38, scale: 4 }),
        (integers.clone(), DataType::Date),
        (integers, DataType::Timestamp),
        (doubles, DataType::Double),
        (texts, DataType::String),
    ] {
        let whole = to_arrow(&values, data_type);
        for array in [whole.clone(), whole.slice(1, 2), whole.slice(0, 0)] {
            let series = to_polars_series("x", &array).expect("goes over");
            assert_eq!((series.len(), series.null_count()), (array.len(), array.null_count()));
            let back = from_polars(&series, data_type).expect("comes back");
            assert_eq!(back.as_ref(), array.as_ref(), "{data_type}");
            assert_eq!(*back.data_type(), data_type.arrow());
        }
    }
}

#[test]
fn buffers_are_shared_and_outlive_their_owner() {
    let array: ArrayRef = Arc::new(Int64Array::from((0..1000).collect::<Vec<i64>>()));
    let address = array.to_data().buffers()[0].as_ptr();
    let series = to_polars_series("x", &array).expect("goes over");
    drop(array);
    let back = from_polars(&series, DataType::BigInt).expect("comes back");
    drop(series);
    assert_eq!(back.to_data().buffers()[0].as_ptr(), address);
    assert_eq!(from_arrow(&back, DataType::BigInt)[999], Some(Value::Integer(999)));
}

#[test]
fn long_cases_and_long_chains_evaluate() {
    let columns = [("a".to_owned(), DataType::BigInt)];
    let whens: String = (0..200).map(|n| format!(" WHEN a = {n} THEN {}", n + 1)).collect();
    let case = parse_predicate(&format!("CASE{whens} ELSE 0 END = a + 1"), &columns).expect("valid");
    let chain = parse_predicate(&vec!["a = 1"; 300].join(" OR "), &columns).expect("valid");
    let sum = parse_predicate(&format!("a{} = 50", " + 1".repeat(49)), &columns).expect("valid");
    let mut nested = "a".to_owned();
    for _ in 0..50 {
        nested = format!("NULLIF({nested}, 5)");
    }
    let nested = parse_predicate(&format!("{nested} = 1"), &columns).expect("valid");
    let array: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let results = evaluate(&[&case, &chain, &sum, &nested], &batch(vec![("a", array)])).expect("evaluates");
    for result in &results {
        assert_eq!(from_arrow(result, DataType::Boolean), [Some(Value::Boolean(true))]);
    }
}

#[test]
fn instants_beyond_the_calendar_are_null() {
    let columns = [("t".to_owned(), DataType::Timestamp)];
    let ends = [i64::MIN, i64::MIN + 1, i64::MAX].map(|v| Some(Value::Integer(v.into())));
    let array = to_arrow(&ends, DataType::Timestamp);
    for text in [
        "EXTRACT(YEAR FROM t) = 1",
        "DATE_TRUNC('month', t) = t",
        "DATE_TRUNC('week', t) = t",
        "t + INTERVAL '1' DAY > t",
        "t - INTERVAL '1' DAY > t",
        "CAST(t AS STRING) = ''",
        "CAST(t AS DATE) = '2001-01-01'",
        "EXTRACT(HOUR FROM t) = 1",
        "t > '2001-01-01'",
    ] {
        let scalar = parse_predicate(text, &columns).expect("valid");
        assert!(evaluate(&[&scalar], &batch(vec![("t", array.clone())])).is_ok(), "{text}");
    }
}

/// Batch runs the same expressions in the streaming engine, over pieces of columns, as filters and as keys.
#[test]
fn the_streaming_engine_gives_the_same_values() {
    use polars::prelude::{Engine, IntoLazy, df, len};
    let rows = 200_000_i64;
    let frame =
        df!("a" => (0..rows).collect::<Vec<_>>(), "s" => (0..rows).map(|n| format!("k{}", n % 7)).collect::<Vec<_>>());
    let lazy = frame.expect("two columns").lazy();
    let columns = [("a".to_owned(), DataType::BigInt), ("s".to_owned(), DataType::String)];
    let names = ["a".to_owned(), "s".to_owned()];
    let text = "a % 10 = 3 AND s IN ('k1', 'k2') AND s LIKE 'k_' AND NULLIF(a, 13) / 2 >= 0 AND ROUND(a / 2e0, 1) >= 0";
    let filter = crate::evaluate::to_polars(&parse_predicate(text, &columns).expect("valid"), &names);
    let key = crate::evaluate::to_polars(&parse_predicate("a / 100000 = 1", &columns).expect("valid"), &names);
    let query = lazy.filter(filter).group_by([key.alias("k")]).agg([len().alias("n")]).sort(["k"], Default::default());
    let memory = query.clone().collect_with_engine(Engine::InMemory).expect("runs").unwrap_single();
    let streaming = query.collect_with_engine(Engine::Streaming).expect("runs").unwrap_single();
    assert_eq!(memory, streaming);
    let of_all = (0..rows).filter(|n| n % 10 == 3 && matches!(n % 7, 1 | 2) && *n != 13).count();
    let counted = memory.column("n").expect("there").as_materialized_series().sum::<i64>().expect("numbers");
    assert_eq!(counted, of_all as i64);
}
