//! Texts within bounds, whatever the expression: refused, divided into pieces, or failed row by row.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType as ArrowType, Field, Schema};
use proptest::prelude::*;

use crate::evaluate::events::{EventExpressions, Needed};
use crate::evaluate::pieces::{EvaluationLimits, evaluate_or_null, evaluate_pieces, evaluate_within};
use crate::evaluate::{EvaluateError, TextBounds};
use crate::limits::{EVALUATED_TEXT_BYTES_MAX, EVALUATION_BYTES_MAX};
use crate::partial::query_budget::{Exceeded, QueryBudget};
use crate::scalar::{Function, Node, Scalar};
use crate::sql::{parse_definitions, parse_predicate};
use crate::types::DataType;

fn texts(columns: &[&[&str]]) -> RecordBatch {
    let fields: Vec<Field> =
        (0..columns.len()).map(|i| Field::new(format!("c{i}"), ArrowType::Utf8View, true)).collect();
    let arrays = columns.iter().map(|texts| Arc::new(StringViewArray::from_iter_values(texts.iter())) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect()).expect("columns of one length")
}

fn condition(text: &str) -> Scalar {
    let columns = ["a", "b", "c"].map(|name| (name.to_owned(), DataType::String));
    parse_predicate(text, &columns).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The text of `LENGTH(text) > 0`.
fn text_of(text: &str) -> Scalar {
    let Node::Compare(_, length, _) = condition(&format!("LENGTH({text}) > 0")).node else { panic!("a comparison") };
    let Node::Call(Function::Length, mut arguments) = length.node else { panic!("a length") };
    arguments.remove(0)
}

fn evaluate_texts(text: &str, rows: &RecordBatch) -> Result<Vec<ArrayRef>, EvaluateError> {
    let condition = condition(&format!("LENGTH({text}) > 0"));
    evaluate_within(&[&condition], rows, &QueryBudget::unlimited(), 0)
}

#[test]
fn texts_that_multiply_are_refused_before_they_are_built() {
    let thousand = "A".repeat(1_000);
    let nested = (0..4).fold("a".to_owned(), |text, _| format!("REPLACE({text}, 'A', '{thousand}')"));
    let half = "x".repeat(EVALUATED_TEXT_BYTES_MAX / 2 + 1);
    for (text, a) in [
        (nested.as_str(), "AAAAAAAAAA"),
        ("CONCAT(a, a)", half.as_str()),
        ("a || 'x' || a", half.as_str()),
        ("REPLACE(a, 'x', 'yyy')", half.as_str()),
        ("UPPER(a)", &"ΐ".repeat(EVALUATED_TEXT_BYTES_MAX / 5)),
        ("CONCAT(REVERSE(a), TRIM(a), LEFT(a, 9000000))", half.as_str()),
    ] {
        let refused = evaluate_texts(text, &texts(&[&["", a]]));
        assert!(matches!(refused, Err(EvaluateError::TextTooLong { .. })), "{refused:?}");
    }
}

#[test]
fn texts_of_the_greatest_length_are_built() {
    let exact = "x".repeat(EVALUATED_TEXT_BYTES_MAX / 2);
    for text in
        ["CONCAT(a, a)", "REPLACE(a, 'x', 'yy')", "LOWER(UPPER(a))", "REPLACE(REPLACE(a, 'x', ''), '', 'y') || a"]
    {
        assert!(evaluate_texts(text, &texts(&[&[&exact]])).is_ok(), "{text}");
    }
}

#[test]
fn large_results_are_evaluated_in_pieces() {
    let long = "x".repeat(EVALUATED_TEXT_BYTES_MAX - 1);
    let rows = texts(&[&vec!["x"; 200], &vec![long.as_str(); 200]]);
    let literal = format!("CASE WHEN a = 'x' THEN '{}' ELSE a END", &long[..long.len() / 2]);
    for (text, length) in [("CONCAT(a, b)", long.len()), ("REVERSE(b)", long.len()), (&literal, long.len() / 2)] {
        let text = text_of(text);
        let limits = EvaluationLimits { texts: TextBounds::DEFAULT, query: &QueryBudget::unlimited() };
        let mut next = 0;
        let mut pieces = 0;
        evaluate_pieces::<EvaluateError>(&[&text], &rows, limits, &mut |piece| {
            assert_eq!((piece.rows.start, piece.failed.len()), (next, 0));
            let bytes: usize = piece.columns[0].as_string_view().lengths().map(|length| length as usize).sum();
            assert!(bytes <= EVALUATION_BYTES_MAX && bytes >= piece.rows.len() * length);
            (next, pieces) = (piece.rows.end, pieces + 1);
            Ok(())
        })
        .expect("evaluates");
        assert!(next == 200 && pieces >= 2, "{pieces} pieces up to row {next}");
    }
}

#[test]
fn many_nodes_make_small_pieces() {
    let many = format!("CONCAT({})", vec!["UPPER(a)"; 2_000].join(", "));
    let rows = texts(&[&vec!["x"; 10_000]]);
    let limits = EvaluationLimits { texts: TextBounds::DEFAULT, query: &QueryBudget::unlimited() };
    let scalar = text_of(&many);
    let mut longest = 0;
    evaluate_pieces::<EvaluateError>(&[&scalar], &rows, limits, &mut |piece| {
        longest = longest.max(piece.rows.len());
        Ok(())
    })
    .expect("evaluates");
    assert!(longest * scalar.nodes() <= 4 << 20, "{longest} rows at once");
}

#[test]
fn a_query_that_is_over_stops_between_pieces() {
    let rows = texts(&[&vec!["x"; 300_000]]);
    let likes = condition(&(0..40).map(|n| format!("a LIKE '%{n}%'")).collect::<Vec<_>>().join(" OR "));
    let query = QueryBudget::unlimited();
    let limits = EvaluationLimits { texts: TextBounds::DEFAULT, query: &query };
    let mut seen = 0;
    let stopped = evaluate_pieces::<EvaluateError>(&[&likes], &rows, limits, &mut |piece| {
        seen += piece.rows.len();
        query.abandoned.store(true, Ordering::Relaxed);
        Ok(())
    });
    assert!(matches!(stopped, Err(EvaluateError::Exceeded(Exceeded::Abandoned))), "{stopped:?}");
    assert!(seen < 100_000, "{seen} rows before the first check");
    let late = QueryBudget { until: Some(Instant::now()), ..QueryBudget::unlimited() };
    let stopped = evaluate_within(&[&likes], &texts(&[&["x"]]), &late, 0);
    assert!(matches!(stopped, Err(EvaluateError::Exceeded(Exceeded::Time))), "{stopped:?}");
}

#[test]
fn results_count_against_the_memory_of_their_query() {
    let rows = texts(&[&vec!["x"; 100]]);
    let upper = text_of(&format!("CONCAT(a, '{}')", "y".repeat(1_000)));
    let query = QueryBudget { bytes_max: 50_000, ..QueryBudget::unlimited() };
    let refused = evaluate_within(&[&upper], &rows, &query, 0);
    assert!(matches!(refused, Err(EvaluateError::Exceeded(Exceeded::Bytes { .. }))), "{refused:?}");
    let query = QueryBudget { bytes_max: 200_000, ..query };
    assert!(evaluate_within(&[&upper], &rows, &query, 0).is_ok());
    assert!(evaluate_within(&[&upper], &rows, &query, 150_000).is_err(), "with what the query holds already");
}

#[test]
fn values_that_cannot_be_built_are_null_and_flagged() {
    let half = "x".repeat(EVALUATED_TEXT_BYTES_MAX / 2 + 1);
    let rows = texts(&[&["a", &half, "b"]]);
    let (doubled, length) = (text_of("CONCAT(a, a)"), condition("LENGTH(a) = 1"));
    let columns = evaluate_or_null(&[&doubled, &length], &rows, &QueryBudget::unlimited(), 0).expect("evaluates");
    assert_eq!(columns[0].column.as_string_view().iter().collect::<Vec<_>>(), [Some("aa"), None, Some("bb")]);
    let flagged = columns[0].failed.as_ref().expect("one is flagged");
    assert_eq!(flagged.rows.iter().collect::<Vec<_>>(), [false, true, false]);
    assert!(flagged.reason.contains("a text of more than"), "{}", flagged.reason);
    assert!(columns[1].failed.is_none() && columns[1].column.null_count() == 0, "the other expression is whole");
}

#[test]
fn values_that_exceed_the_rest_of_the_memory_of_a_query_fail_the_query_and_not_their_row() {
    // Fits the bounds of texts, but not a small query: whether a row fails must not depend on the query.
    let long = "x".repeat(EVALUATED_TEXT_BYTES_MAX / 2);
    let rows = texts(&[&["a", &long]]);
    let doubled = text_of("CONCAT(a, a)");
    let small = QueryBudget { bytes_max: EVALUATED_TEXT_BYTES_MAX / 4, ..QueryBudget::unlimited() };
    let refused = evaluate_or_null(&[&doubled], &rows, &small, 0);
    assert!(matches!(refused, Err(EvaluateError::Exceeded(Exceeded::Bytes { .. }))), "{refused:?}");
    let large = QueryBudget::unlimited();
    assert!(evaluate_or_null(&[&doubled], &rows, &large, 0).expect("evaluates")[0].failed.is_none());
}

const POISON: &str = "CREATE STREAM s (at TIMESTAMP, a STRING, b STRING, c STRING) WITH (event_time = 'at');
    CREATE VIEW v AS SELECT REPLACE(a, b, c) AS k, COUNT(*) AS n FROM s WHERE a <> 'skip' GROUP BY REPLACE(a, b, c);
    CREATE VIEW plain AS SELECT UPPER(a) AS k, MAX(CONCAT(a, b)) AS m FROM s GROUP BY UPPER(a);";

/// Numbers of failed rows, and of selected ones.
fn outcome(expressions: &EventExpressions, rows: &RecordBatch, first: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut failed, mut selected) = (Vec::new(), Vec::new());
    let mut each = |events: crate::evaluate::events::EvaluatedEvents| {
        failed.extend(events.failed.iter().map(|f| first + f.row));
        selected.extend(events.selected.iter().map(|row| first + events.rows.start + *row as usize));
        Ok::<(), EvaluateError>(())
    };
    expressions.for_each_piece(rows, Needed::All, &mut each).expect("evaluates");
    (failed, selected)
}

fn events(rows: &[(String, String, String)]) -> RecordBatch {
    let column = |of: fn(&(String, String, String)) -> &str| rows.iter().map(of).collect::<Vec<_>>();
    let columns = texts(&[&column(|r| &r.0), &column(|r| &r.1), &column(|r| &r.2)]);
    let times = arrow::array::TimestampMicrosecondArray::from(vec![0; rows.len()]).with_timezone("UTC");
    let mut fields = vec![Field::new("at", times.data_type().clone(), true)];
    fields.extend(columns.schema().fields().iter().map(|field| field.as_ref().clone()));
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(times)];
    arrays.extend(columns.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}

fn expressions(view: usize) -> EventExpressions {
    let definitions = parse_definitions(&[("poison.sql".to_owned(), POISON.to_owned())]);
    EventExpressions::new(&definitions.unwrap_or_else(|errors| panic!("{}", errors[0])).views[view])
}

#[test]
fn events_of_views_that_cannot_multiply_texts_never_fail() {
    let plain = expressions(1);
    assert!(!plain.may_outgrow());
    let long = "x".repeat(3 * EVALUATED_TEXT_BYTES_MAX);
    let rows = vec![(long.clone(), long, String::new()); 12];
    assert_eq!(outcome(&plain, &events(&rows), 0), (vec![], (0..12).collect()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The rule of both layers: the batches in which events arrive or are read do not matter.
    #[test]
    fn whether_an_event_fails_depends_on_the_event_alone(
        sizes in prop::collection::vec((0usize..1_500, 0usize..1_500, 0usize..3), 1..40),
        cuts in prop::collection::vec(0usize..40, 0..4),
    ) {
        let expressions = expressions(0);
        prop_assert!(expressions.may_outgrow());
        let rows: Vec<_> = sizes
            .iter()
            .map(|(a, c, kind)| match kind {
                0 => ("skip".to_owned(), "A".to_owned(), "B".repeat(*c)),
                1 => ("A".repeat(*a), "A".to_owned(), "B".repeat(*c)),
                _ => ("A".repeat(*a), "AB".to_owned(), "B".repeat(*c)),
            })
            .collect();
        let length = |(a, b, c): &(String, String, String)| a.replace(b, c).len();
        let expected: Vec<usize> = (0..rows.len()).filter(|row| length(&rows[*row]) > EVALUATED_TEXT_BYTES_MAX).collect();
        let whole = outcome(&expressions, &events(&rows), 0);
        prop_assert_eq!(&whole.0, &expected);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let ranges: Vec<Range<usize>> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
        let singles: Vec<Range<usize>> = (0..rows.len()).map(|row| row..row + 1).collect();
        for ranges in [ranges, singles] {
            let (mut failed, mut selected) = (Vec::new(), Vec::new());
            for range in ranges {
                let part = outcome(&expressions, &events(&rows[range.clone()]), range.start);
                failed.extend(part.0);
                selected.extend(part.1);
            }
            prop_assert_eq!(&(failed, selected), &whole);
        }
    }
}

#[test]
fn lengths_are_counted_before_texts_are_built() {
    // 90 GB if it were built.
    let rows =
        events(&[("A".repeat(300_000), "A".to_owned(), "B".repeat(300_000)), ("a".into(), "b".into(), "".into())]);
    assert_eq!(outcome(&expressions(0), &rows, 0), (vec![0], vec![1]));
}
