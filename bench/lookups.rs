//! Measures the cost of an event in the speed layer that is joined with a row of a table, relative to the same fold without the join; and
//! the memory of the versions.
//!
//! In process: the code of the workers folds micro-batches of events. Every round measures all definitions in turn, and each batch counts
//! with its best time: accesses to memory wait for whatever else the machine does.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::ids::{Offset, Partition};
use shared::lookup::table::{Lookups, TableEvents};
use shared::partial::accumulate::Accumulator;
use shared::sql::{Definitions, parse_definitions};
use shared::view::Precision;
use speed::fold::FoldPlan;
use speed::fold_input::SharedKeys;

const DEFINITIONS: &str = "
    CREATE TABLE customers (id BIGINT PRIMARY KEY, country STRING, weight BIGINT, at TIMESTAMP) WITH (event_time = 'at');
    CREATE STREAM orders (customer BIGINT, country STRING, amount BIGINT, at TIMESTAMP) WITH (event_time = 'at');\n";
const EVENTS: usize = 1_000_000;
const ROWS: usize = 1_000_000;
const BATCH: usize = 8_192;
const ROUNDS: usize = 20;
const COUNTRIES: usize = 100;

const PLAIN: &str =
    "country, COUNT(*) AS n, SUM(amount) AS total FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), country";
const JOINED: &str =
    "c.country, COUNT(*) AS n, SUM(amount) AS total FROM orders LEFT JOIN customers AS c ON customer = c.id
     GROUP BY TUMBLE(orders.at, INTERVAL '1' HOUR), c.country";

/// Equal views that are measured together.
struct Measured {
    name: &'static str,
    views: usize,
    /// The statement behind `SELECT`.
    select: &'static str,
    /// The index of the same without a join.
    without_join: usize,
}

const MEASURED: [Measured; 7] = [
    Measured { name: "without a join", views: 1, select: PLAIN, without_join: 0 },
    Measured { name: "LEFT JOIN, a dimension of the table", views: 1, select: JOINED, without_join: 0 },
    Measured {
        name: "JOIN, a dimension of the table",
        views: 1,
        select: "c.country, COUNT(*) AS n, SUM(amount) AS total FROM orders JOIN customers AS c ON customer = c.id
                 GROUP BY TUMBLE(orders.at, INTERVAL '1' HOUR), c.country",
        without_join: 0,
    },
    Measured {
        name: "LEFT JOIN, dimension and measure of the table",
        views: 1,
        select:
            "c.country, COUNT(*) AS n, SUM(c.weight) AS total FROM orders LEFT JOIN customers AS c ON customer = c.id
                 GROUP BY TUMBLE(orders.at, INTERVAL '1' HOUR), c.country",
        without_join: 0,
    },
    Measured {
        name: "LEFT JOIN, only a measure of the table",
        views: 1,
        select: "orders.country, COUNT(*) AS n, SUM(c.weight) AS total FROM orders LEFT JOIN customers AS c ON customer = c.id
                 GROUP BY TUMBLE(orders.at, INTERVAL '1' HOUR), orders.country",
        without_join: 0,
    },
    Measured { name: "four views without a join", views: 4, select: PLAIN, without_join: 5 },
    Measured { name: "four views, LEFT JOIN", views: 4, select: JOINED, without_join: 5 },
];

/// Measures and prints.
pub fn measure() {
    let definitions: Vec<Definitions> = MEASURED.iter().map(|measured| parsed(measured.select)).collect();
    let batches = batches(&definitions[0]);
    let all: Vec<Lookups> = definitions.iter().map(lookups).collect();
    println!(
        "{EVENTS} events, {ROWS} rows, keys at random, batches of {BATCH}, each with its best of {ROUNDS} rounds taken in turn"
    );
    let mut best = vec![vec![u128::MAX; batches.len()]; MEASURED.len()];
    for _ in 0..ROUNDS {
        for (((measured, definitions), lookups), best) in MEASURED.iter().zip(&definitions).zip(&all).zip(&mut best) {
            let times = fold(measured.views, definitions, lookups, &batches);
            best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
        }
    }
    let best: Vec<f64> = best.iter().map(|batches| batches.iter().sum::<u128>() as f64 / EVENTS as f64).collect();
    println!("\n{:<48} {:>10} {:>16} {:>14}", "", "ns/event", "x without join", "bytes/row");
    for ((Measured { name, without_join, .. }, ns), lookups) in MEASURED.iter().zip(&best).zip(&all) {
        let bytes = lookups.tables().map(|table| table.status().bytes as f64 / ROWS as f64).sum::<f64>() + 0.0;
        println!("{name:<48} {ns:>10.1} {:>16.2} {bytes:>14.0}", ns / best[*without_join]);
    }
}

fn parsed(select: &str) -> Definitions {
    let sql = format!("{DEFINITIONS}CREATE VIEW v AS SELECT {select};");
    parse_definitions(&[("bench.sql".to_owned(), sql)]).unwrap_or_else(|errors| panic!("{}", errors[0]))
}

fn country(number: usize) -> String {
    format!("country number {}", number % COUNTRIES)
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

/// Two versions of every tenth row, one of the others.
fn lookups(definitions: &Definitions) -> Lookups {
    let table = Arc::new(definitions.streams[0].clone());
    let lookups = Lookups::of(std::slice::from_ref(&table), &definitions.views, usize::MAX);
    let Some(rows) = lookups.get(&table.name) else { return lookups };
    let changes: Vec<usize> = (0..ROWS).chain((0..ROWS).step_by(10)).collect();
    for (number, some) in changes.chunks(BATCH).enumerate() {
        let first = number * BATCH;
        let columns: [ArrayRef; 5] = [
            Arc::new(Int64Array::from_iter_values(some.iter().map(|id| *id as i64))),
            Arc::new(StringViewArray::from_iter_values(some.iter().map(|id| country(*id)))),
            Arc::new(Int64Array::from_iter_values(some.iter().map(|id| *id as i64 % 7))),
            times(some.iter().enumerate().map(|(row, _)| -1_000_000 + (first + row) as i64 / 2)),
            Arc::new(BooleanArray::from(vec![false; some.len()])),
        ];
        let events = TableEvents {
            partition: Partition(0),
            columns: &columns,
            offsets: &|row| (first + row) as u64,
            accepted_at: &|_| 0,
        };
        rows.add(&events).expect("columns of the table");
    }
    lookups
}

/// Nanoseconds of each batch, in `views` equal views.
fn fold(views: usize, definitions: &Definitions, lookups: &Lookups, batches: &[RecordBatch]) -> Vec<u128> {
    let (stream, view) = (&definitions.streams[1], Arc::new(definitions.views[0].clone()));
    let plan = || {
        let plan = FoldPlan::new(Arc::clone(&view), stream).and_then(|plan| plan.joined(lookups)).expect("a plan");
        let accumulator = Accumulator::new(Arc::clone(&view), Arc::clone(&plan.layout), Precision::Sketch);
        (plan, accumulator)
    };
    let mut views: Vec<(FoldPlan, Accumulator)> = (0..views).map(|_| plan()).collect();
    let mut offset = 0;
    let mut fold = |batch: &RecordBatch| {
        let begin = Instant::now();
        let mut shared = SharedKeys::default();
        for (plan, accumulator) in &mut views {
            plan.fold(batch, Partition(0), Offset(offset), &mut shared, accumulator).expect("folds");
        }
        offset += batch.num_rows() as u64;
        begin.elapsed().as_nanos()
    };
    batches.iter().map(&mut fold).collect()
}

/// Events a millisecond apart, of customers in a fixed pseudo-random order.
fn batches(definitions: &Definitions) -> Vec<RecordBatch> {
    let (stream, mut random) = (&definitions.streams[1], StdRng::seed_from_u64(42));
    let batch = |from: usize| {
        let rows = from..(from + BATCH).min(EVENTS);
        let customers: Vec<usize> = rows.clone().map(|_| random.random_range(0..ROWS)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(customers.iter().map(|id| *id as i64))),
            Arc::new(StringViewArray::from_iter_values(customers.iter().map(|id| country(*id)))),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row as i64 % 1_000))),
            times(rows.clone().map(|row| row as i64 * 1_000)),
            Arc::new(TimestampMicrosecondArray::from(vec![None; rows.len()]).with_timezone("UTC")),
        ];
        RecordBatch::try_new(stream.log_schema(), columns).expect("the stream's columns")
    };
    (0..EVENTS).step_by(BATCH).map(batch).collect()
}
