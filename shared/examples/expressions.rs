//! Measures what the bounds of texts cost where events are evaluated: `cargo run --release -p shared -p trueup --example
//! expressions`. Every expression is evaluated over the same batches with the bounds of a fold and without bounds, in turn.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use shared::evaluate::pieces::{EvaluationLimits, evaluate_pieces};
use shared::evaluate::{EvaluateError, TextBounds};
use shared::partial::query_budget::QueryBudget;
use shared::scalar::Scalar;
use shared::sql::parse_definitions;

const STREAM: &str = "CREATE STREAM e (at TIMESTAMP, s STRING, n BIGINT) WITH (event_time = 'at');\n";
const EXPRESSIONS: [(&str, &str); 6] = [
    ("a column", "s"),
    ("arithmetic", "n * 3 + 1"),
    ("UPPER(s)", "UPPER(s)"),
    ("s || '-' || s", "s || '-' || s"),
    ("REPLACE(s, 'a', 'bb')", "REPLACE(s, 'a', 'bb')"),
    ("CASE with LIKE and SUBSTRING", "CASE WHEN s LIKE 'a%9' THEN SUBSTRING(s, 1, 4) ELSE LOWER(s) END"),
];
const BATCHES: usize = 64;
const ROWS: usize = 8_192;
const ROUNDS: usize = 9;

fn main() {
    let batches: Vec<RecordBatch> = (0..BATCHES).map(batch).collect();
    println!("ns per event, best of {ROUNDS} rounds taken in turn; batches of {ROWS}");
    println!("{:<32} {:>9} {:>9} {:>7}", "", "bounded", "without", "ratio");
    for (name, sql) in EXPRESSIONS {
        let scalar = dimension(sql);
        let mut best = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            for (best, texts) in best.iter_mut().zip([TextBounds::DEFAULT, TextBounds::NONE]) {
                *best = best.min(evaluated(&scalar, &batches, texts));
            }
        }
        println!("{name:<32} {:>9.1} {:>9.1} {:>7.3}", best[0], best[1], best[0] / best[1]);
    }
}

/// Nanoseconds per event.
fn evaluated(scalar: &Scalar, batches: &[RecordBatch], texts: TextBounds) -> f64 {
    let query = QueryBudget::unlimited();
    let begin = Instant::now();
    for batch in batches {
        let each = &mut |piece| {
            black_box(&piece);
            Ok::<(), EvaluateError>(())
        };
        evaluate_pieces(&[scalar], batch, EvaluationLimits { texts, query: &query }, each).expect("evaluates");
    }
    begin.elapsed().as_nanos() as f64 / (batches.len() * ROWS) as f64
}

/// The expression over the columns of the stream.
fn dimension(sql: &str) -> Scalar {
    let view = format!("CREATE VIEW v AS SELECT {sql} AS d, COUNT(*) AS n FROM e GROUP BY {sql};");
    let definitions = parse_definitions(&[("example.sql".to_owned(), format!("{STREAM}{view}"))]);
    definitions.expect("the definitions are right").views[0].dimensions[0].expression.clone()
}

fn batch(number: usize) -> RecordBatch {
    let value = |row: usize| (number * ROWS + row).wrapping_mul(2_654_435_761) % 100_000;
    let texts = (0..ROWS).map(|row| Some(format!("a value {}", value(row)))).collect::<StringViewArray>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(
            TimestampMicrosecondArray::from_iter_values((0..ROWS as i64).map(|row| row * 1_000)).with_timezone("UTC"),
        ),
        Arc::new(texts),
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| value(row) as i64))),
    ];
    let definitions = parse_definitions(&[("example.sql".to_owned(), STREAM.to_owned())]).expect("right");
    RecordBatch::try_new(definitions.streams[0].schema(), columns).expect("the stream's columns")
}
