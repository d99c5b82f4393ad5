//! Measures the cost of an event in the speed layer, by measure and by window, relative to `COUNT(*)`; and the size of
//! a small group.
//!
//! In process: the code of the workers folds micro-batches of events. Every round measures all definitions in turn, so
//! that drift of the machine affects all of them.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::ids::{Offset, Partition};
use shared::partial::accumulate::Accumulator;
use shared::sql::{Definitions, parse_definitions};
use shared::view::Precision;
use speed::fold::FoldPlan;
use speed::fold_input::SharedKeys;

const STREAM: &str = "CREATE STREAM e (ts TIMESTAMP, key STRING, n BIGINT, x DOUBLE, s STRING) \
     WITH (event_time = 'ts', watermark_delay = '1 hour');\n";
const EVENTS: usize = 1_000_000;
const BATCH: usize = 8_192;
const KEYS: usize = 100;
const ROUNDS: usize = 5;
const SECOND: i64 = 1_000_000;

const MEASURES: [(&str, &str); 15] = [
    ("COUNT(*)", "COUNT(*)"),
    ("COUNT(*) FILTER", "COUNT(*) FILTER (WHERE n > 500)"),
    ("SUM(BIGINT)", "SUM(n)"),
    ("SUM(DOUBLE)", "SUM(x)"),
    ("AVG(BIGINT)", "AVG(n)"),
    ("MIN(BIGINT)", "MIN(n)"),
    ("MAX(STRING)", "MAX(s)"),
    ("STDDEV_SAMP(DOUBLE)", "STDDEV_SAMP(x)"),
    ("COUNT(DISTINCT BIGINT)", "COUNT(DISTINCT n)"),
    ("COUNT(DISTINCT STRING)", "COUNT(DISTINCT s)"),
    ("PERCENTILE_CONT(0.95)", "PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY x)"),
    ("PERCENTILE_DISC(0.5)", "PERCENTILE_DISC(0.5) WITHIN GROUP (ORDER BY n)"),
    ("TOP_K(STRING, 10)", "TOP_K(s, 10)"),
    ("FIRST_VALUE(BIGINT)", "FIRST_VALUE(n)"),
    ("LAST_VALUE(STRING)", "LAST_VALUE(s)"),
];

const WINDOWS: [(&str, &str); 9] = [
    ("TUMBLE 1 hour", "TUMBLE(ts, INTERVAL '1' HOUR)"),
    ("TUMBLE 1 day in New York", "TUMBLE(ts, INTERVAL '1' DAY)"),
    ("HOP 1 hour / 1 hour (size/slide 1)", "HOP(ts, INTERVAL '1' HOUR, INTERVAL '1' HOUR)"),
    ("HOP 1 hour / 6 hours (6)", "HOP(ts, INTERVAL '1' HOUR, INTERVAL '6' HOUR)"),
    ("HOP 1 hour / 60 hours (60)", "HOP(ts, INTERVAL '1' HOUR, INTERVAL '60' HOUR)"),
    ("CUMULATE 1 hour / 1 day", "CUMULATE(ts, INTERVAL '1' HOUR, INTERVAL '1' DAY)"),
    ("SLIDE 1 hour", "SLIDE(ts, INTERVAL '1' HOUR)"),
    ("SESSION 1 minute", "SESSION(ts, INTERVAL '1' MINUTE)"),
    ("none", ""),
];

/// Measures and prints.
pub fn measure() {
    let batches = batches(EVENTS, KEYS);
    println!("{EVENTS} events, {KEYS} keys, batches of {BATCH}, best of {ROUNDS} rounds taken in turn");
    let hourly = |sql: &str| view(&format!("{sql} AS m"), "TUMBLE(ts, INTERVAL '1' HOUR)", "UTC");
    table(&batches, MEASURES.iter().map(|(name, sql)| (*name, hourly(sql))).collect());
    let counted = |name: &str, window: &str| {
        let zone = if name.contains("New York") { "America/New_York" } else { "UTC" };
        view("COUNT(*) AS m", window, zone)
    };
    table(&batches, WINDOWS.iter().map(|(name, window)| (*name, counted(name, window))).collect());
    weigh();
}

fn table(batches: &[RecordBatch], definitions: Vec<(&str, Definitions)>) {
    let mut best = vec![f64::INFINITY; definitions.len()];
    for _ in 0..ROUNDS {
        for ((_, definition), best) in definitions.iter().zip(&mut best) {
            *best = best.min(fold(definition, batches).0);
        }
    }
    println!("\n{:<36} {:>10} {:>12}", "", "ns/event", "x COUNT(*)");
    for ((name, _), ns) in definitions.iter().zip(&best) {
        println!("{name:<36} {ns:>10.1} {:>12.2}", ns / best[0]);
    }
}

/// Nanoseconds per event, and what has been accumulated.
fn fold(definitions: &Definitions, batches: &[RecordBatch]) -> (f64, Accumulator) {
    let (stream, view) = (&definitions.streams[0], Arc::new(definitions.views[0].clone()));
    let mut plan = FoldPlan::new(Arc::clone(&view), stream).expect("a plan");
    let mut accumulator = Accumulator::new(view, Arc::clone(&plan.layout), Precision::Sketch);
    let mut offset = 0;
    let begin = Instant::now();
    for batch in batches {
        plan.fold(batch, Partition(0), Offset(offset), &mut SharedKeys::default(), &mut accumulator).expect("folds");
        offset += batch.num_rows() as u64;
    }
    let events: usize = batches.iter().map(RecordBatch::num_rows).sum();
    (begin.elapsed().as_nanos() as f64 / events as f64, accumulator)
}

fn view(measures: &str, window: &str, zone: &str) -> Definitions {
    let comma = if window.is_empty() { "" } else { ", " };
    let sql = format!(
        "{STREAM}CREATE VIEW v WITH (time_zone = '{zone}') AS SELECT key, {measures} FROM e GROUP BY {window}{comma}key;"
    );
    parse_definitions(&[("bench.sql".to_owned(), sql)]).expect("the definitions are right")
}

/// Events a millisecond apart, keys and values in a fixed pseudo-random order.
fn batches(events: usize, keys: usize) -> Vec<RecordBatch> {
    let mut random = StdRng::seed_from_u64(42);
    let mut all = Vec::new();
    for from in (0..events).step_by(BATCH) {
        let rows = from..(from + BATCH).min(events);
        let times = rows.clone().map(|i| i as i64 * 1_000);
        let of_keys: Vec<String> = rows.clone().map(|_| format!("key {}", random.random_range(0..keys))).collect();
        let numbers: Vec<i64> = rows.clone().map(|_| random.random_range(0..1_000)).collect();
        all.push(batch(times.collect(), &of_keys, numbers));
    }
    all
}

fn batch(times: Vec<i64>, keys: &[String], numbers: Vec<i64>) -> RecordBatch {
    let stream = &view("COUNT(*) AS m", "", "UTC").streams[0];
    let watermarks = TimestampMicrosecondArray::from(vec![None; times.len()]).with_timezone("UTC");
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(keys.iter().map(|key| Some(key.as_str())).collect::<StringViewArray>()),
        Arc::new(Int64Array::from(numbers.clone())),
        Arc::new(numbers.iter().map(|n| *n as f64 * 1.5).collect::<Float64Array>()),
        Arc::new(numbers.iter().map(|n| Some(format!("value number {n}"))).collect::<StringViewArray>()),
        Arc::new(watermarks),
    ];
    RecordBatch::try_new(stream.log_schema(), columns).expect("the stream's columns")
}

/// 100,000 keys in 60 windows, a few events each.
fn weigh() {
    const WEIGHED_KEYS: usize = 100_000;
    const WEIGHED_WINDOWS: i64 = 60;
    const GROUP_EVENTS: i64 = 5;
    let measures =
        "COUNT(*) AS c, SUM(n) AS s, COUNT(DISTINCT n) AS d, PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY x) AS p";
    let definitions = view(measures, "TUMBLE(ts, INTERVAL '1' MINUTE)", "UTC");
    let (stream, view) = (&definitions.streams[0], Arc::new(definitions.views[0].clone()));
    let mut plan = FoldPlan::new(Arc::clone(&view), stream).expect("a plan");
    let mut accumulator = Accumulator::new(view, Arc::clone(&plan.layout), Precision::Sketch);
    let keys: Vec<String> = (0..WEIGHED_KEYS).map(|key| format!("key {key}")).collect();
    let before = resident_bytes();
    let (mut random, mut offset) = (StdRng::seed_from_u64(7), 0);
    for window in 0..WEIGHED_WINDOWS {
        for repeat in 0..GROUP_EVENTS {
            for some in keys.chunks(BATCH) {
                let times = vec![window * 60 * SECOND + repeat; some.len()];
                let numbers = some.iter().map(|_| random.random_range(0..1_000)).collect();
                let batch = batch(times, some, numbers);
                plan.fold(&batch, Partition(0), Offset(offset), &mut SharedKeys::default(), &mut accumulator)
                    .expect("folds");
                offset += some.len() as u64;
            }
        }
    }
    let rows = accumulator.rows() as f64;
    println!(
        "\n{rows} groups of {GROUP_EVENTS} events, count, sum, distinct and p95 together: {:.0} bytes a group by our own count, \
         {:.0} by the process's resident memory",
        accumulator.bytes() as f64 / rows,
        resident_bytes().saturating_sub(before) as f64 / rows
    );
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
