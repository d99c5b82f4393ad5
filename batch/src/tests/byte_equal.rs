//! Checks that an incremental run writes the rows of a full one, bit for bit (I5), for any chunks and little memory. The
//! tables are compared as Arrow arrays, including states.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::Float64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::collection::vec;
use proptest::prelude::*;
use shared::partial::bucket::{BUCKET_TAG, Bucket};
use shared::view::View;

use super::world::{Event, HOUR, World, settings, view};
use crate::failure::RunFailure;
use crate::run::Executor;
use crate::settings::BatchSettings;

const MEASURES: &str = "COUNT(*) AS n, SUM(fare) AS total, AVG(fare) AS average, VAR_SAMP(fare) AS spread,
    STDDEV_POP(delay) AS scatter, SUM(delay) AS delays, MAX(fare) AS most, COUNT(DISTINCT delay) AS different,
    PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY fare) AS p90, LAST_VALUE(fare) AS latest, TOP_K(origin, 2) AS top";
const REDUCIBLE: &str =
    "COUNT(*) AS n, SUM(delay) AS delays, AVG(delay) AS average, MAX(fare) AS most, MIN(id) AS first";

fn views() -> Vec<Arc<View>> {
    [
        format!("hourly AS SELECT window_start, origin, seats, {MEASURES} FROM flights GROUP BY TUMBLE(at, INTERVAL '1' HOUR), origin, seats"),
        format!("overlapping AS SELECT window_start, seats, {MEASURES} FROM flights GROUP BY HOP(at, INTERVAL '2' HOUR, INTERVAL '6' HOUR), seats"),
        format!("visits AS SELECT window_start, window_end, seats, {MEASURES} FROM flights GROUP BY SESSION(at, INTERVAL '1' HOUR), seats"),
        format!("ever AS SELECT seats, {MEASURES} FROM flights GROUP BY seats"),
        format!("reduced AS SELECT window_start, seats, {REDUCIBLE} FROM flights GROUP BY TUMBLE(at, INTERVAL '7' HOUR), seats"),
        format!("reduced_ever AS SELECT seats, origin, {REDUCIBLE} FROM flights GROUP BY seats, origin"),
    ]
    .iter()
    .map(|sql| view(&format!("CREATE VIEW {sql}")))
    .collect()
}

fn event() -> impl Strategy<Value = Event> {
    let fare = prop_oneof![8 => -1e6..1e6f64, 2 => 1e-9..1e-6f64, 1 => Just(1e15), 1 => Just(-1e15), 1 => Just(-0.0)];
    (0u32..40, -60i64..60, 0i32..12, proptest::option::of(-60i64..200), proptest::option::of(fare)).prop_map(
        |(id, quarter, seats, delay, fare)| Event {
            id: Some(format!("event {id}")),
            at: quarter * (HOUR / 2) + 13,
            origin: [None, Some("ATL"), Some("JFK")][id as usize % 3],
            seats: Some(seats),
            delay,
            fare,
            ..Event::default()
        },
    )
}

#[derive(Debug, Clone)]
enum Act {
    Append(usize, Vec<Event>),
    Flush,
    Run { query_rows: u64, memory: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    let memory = prop_oneof![Just(u64::MAX), 40_000u64..400_000];
    prop_oneof![
        3 => (0usize..2, vec(event(), 1..60)).prop_map(|(partition, events)| Act::Append(partition, events)),
        1 => Just(Act::Flush),
        2 => (1u64..90, memory).prop_map(|(query_rows, memory)| Act::Run { query_rows, memory }),
    ]
}

/// The rows of the view's table in the order of their windows and groups, and the number of its files.
pub async fn table_rows(world: &World, view: &View) -> (RecordBatch, usize) {
    let table = world.table(view).await;
    let snapshot = table.snapshot().await.expect("a snapshot");
    let mut batches = Vec::new();
    for file in &snapshot.files {
        let opened = std::fs::File::open(table.url_of(file)).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(opened).expect("Parquet").build().expect("a reader");
        let rows: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
        let rows = concat_batches(&rows[0].schema(), &rows).expect("of one schema");
        assert!(Bucket::of_tag(file.tags.get(BUCKET_TAG)).meets(Bucket::ALL));
        batches.push(rows);
    }
    let rows = concat_batches(&batches[0].schema(), &batches).expect("of one schema");
    let names = ["window_start", "window_end"].into_iter().chain(view.dimensions.iter().map(|d| d.name.as_str()));
    let columns = names.filter_map(|name| rows.column_by_name(name));
    let columns: Vec<SortColumn> = columns.map(|c| SortColumn { values: Arc::clone(c), options: None }).collect();
    let order: UInt32Array = lexsort_to_indices(&columns, None).expect("sorts");
    (take_record_batch(&rows, &order).expect("takes"), snapshot.files.len())
}

/// Equal to the last bit; but for the images of KLL, which keeps some items by coin.
pub fn assert_equal(left: &RecordBatch, right: &RecordBatch) {
    assert_eq!((left.schema(), left.num_rows()), (right.schema(), right.num_rows()));
    for (number, field) in left.schema().fields().iter().enumerate().filter(|(_, f)| !f.name().ends_with("_kll")) {
        let (ours, theirs) = (left.column(number), right.column(number));
        if let (Some(ours), Some(theirs)) =
            (ours.as_primitive_opt::<Float64Type>(), theirs.as_primitive_opt::<Float64Type>())
        {
            let bits = |value: Option<f64>| value.map(f64::to_bits);
            let differ = ours.iter().zip(theirs).position(|(a, b)| bits(a) != bits(b));
            assert_eq!(differ, None, "{}: {ours:?} and {theirs:?}", field.name());
        }
        assert_eq!(ours.as_ref(), theirs.as_ref(), "{}", field.name());
    }
}

async fn run(world: &World, view: &Arc<View>, full: bool, query_rows: u64, memory: u64) -> Result<i64, RunFailure> {
    let settings = BatchSettings { query_rows, memory_limit_bytes: memory, reconcile_rows: 15, ..settings() };
    let clock = Arc::clone(&world.executor.deletion_clock);
    let executor = Executor::new(world.layers(), BatchSettings { dedup_horizon_events: 0, ..settings }, clock);
    let version = executor.execute(&world.job(view), &*world.entry(view, full).await).await?;
    if let Some(comparison) = executor.comparisons.get(&view.name, version).await.expect("readable") {
        assert_eq!(comparison.causes.unexplained, 0, "{comparison:#?}");
    }
    Ok(version)
}

async fn check(acts: Vec<Act>) {
    let world = World::new(settings());
    let views = views();
    for act in acts {
        match act {
            Act::Append(partition, events) => world.append(partition, events),
            Act::Flush => world.flush().await,
            Act::Run { query_rows, memory } => {
                for view in &views {
                    run(&world, view, false, query_rows, memory).await.expect("publishes");
                }
            }
        }
    }
    world.append(0, [Event { id: Some("last".to_owned()), fare: Some(0.1), seats: Some(1), ..Event::default() }]);
    for view in &views {
        run(&world, view, false, 40, 60_000).await.expect("publishes");
        let (incremental, _) = table_rows(&world, view).await;
        for (query_rows, memory) in [(1_000_000, u64::MAX), (7, 100_000)] {
            run(&world, view, true, query_rows, memory).await.expect("publishes");
            assert_equal(&incremental, &table_rows(&world, view).await.0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn incremental_runs_equal_full_ones_bit_for_bit(acts in vec(act(), 1..8)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(check(acts));
    }
}

/// Many groups of one date, in little memory: many files, the rows of few.
#[tokio::test(flavor = "multi_thread")]
async fn a_date_with_too_many_groups_is_computed_in_passes() {
    let world = World::new(settings());
    let event = |n: u32| Event {
        id: Some(format!("event {n}")),
        at: i64::from(n % 24) * HOUR,
        seats: Some((n % 3_000) as i32),
        delay: Some(i64::from(n)),
        fare: Some(f64::from(n) / 7.0),
        ..Event::default()
    };
    world.append(0, (0..9_000).map(event));
    for view in &views() {
        run(&world, view, true, 1_000_000, u64::MAX).await.expect("publishes");
        let (at_once, files) = table_rows(&world, view).await;
        run(&world, view, true, 1_000_000, 2 << 20).await.expect("publishes");
        let (in_passes, more_files) = table_rows(&world, view).await;
        assert_equal(&at_once, &in_passes);
        assert!(more_files >= files + 4, "{}: {more_files} files instead of {files}", view.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_larger_than_the_limit_fails_the_run_and_names_the_limit() {
    let world = World::new(settings());
    let view = view("CREATE VIEW v AS SELECT COUNT(DISTINCT delay) AS n FROM flights");
    world.append(0, (0..50_000).map(|n| Event { at: 5, delay: Some(n), ..Event::default() }));
    let failure = run(&world, &view, false, 1_000_000, 1 << 20).await.expect_err("does not fit");
    let text = failure.to_string();
    assert!(text.contains("batch.memory_limit (1 MiB)") && text.contains("--batch-memory"), "{text}");
    run(&world, &view, false, 1_000_000, 16 << 20).await.expect("fits");
}
