//! Measures the cost of one changed day after two years: full and incremental runs over the same archive, in turn.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use batch::BatchSettings;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use shared::date_partition::DatePartition;
use shared::time::Day;

use crate::archived::History;
use crate::memory::runtime;

const DATES: i32 = 730;
const EVENTS_OF_DATE: u64 = 205_500;
const ROUNDS: usize = 3;
const VIEWS: &str = "
    CREATE VIEW counted AS SELECT window_start, channel, COUNT(*) AS bids, SUM(price) AS total, MAX(fare) AS highest
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), channel;
    CREATE VIEW averaged AS SELECT window_start, channel, COUNT(*) AS bids, AVG(fare) AS average, STDDEV_POP(fare) AS spread,
      COUNT(DISTINCT bidder) AS bidders
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), channel;";

pub fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Day::parse("2024-01-01").expect("a day");
    let variable = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    // Fewer, for a quick look at what does not depend on them.
    let of_date = variable("TRUEUP_EVENTS").unwrap_or(EVENTS_OF_DATE);
    let dates = variable("TRUEUP_DATES").map_or(DATES, |dates| dates as i32);
    runtime().block_on(async {
        let history = History::open(folder.path(), VIEWS, BatchSettings::default()).await;
        for number in 0..dates {
            history.write_day(Day(first.0 + number), of_date, of_date, 10_000).await;
        }
        println!("{dates} dates, {} events", dates as u64 * of_date);
        for view in ["counted", "averaged"] {
            history.run(view, true).await;
            let mut ratios = Vec::new();
            for round in 0..ROUNDS {
                history.write_day(Day(first.0 + dates / ROUNDS as i32 * round as i32), 1_000, 1_000, 10_000).await;
                let (changed, short) = history.run(view, false).await;
                let incremental = rows(&history, view).await;
                let (full, long) = history.run(view, true).await;
                assert_same(&incremental, &rows(&history, view).await);
                let (some, all) = (changed.progress, full.progress);
                ratios.push(long.as_secs_f64() / short.as_secs_f64());
                println!(
                    "{view}: full {:.2} s ({} rows, {:.1} MB), one changed day {:.4} s ({} rows, {:.3} MB): {:.0} times faster, {:.0} times fewer bytes; equal to the bit",
                    long.as_secs_f64(), all.rows, all.bytes as f64 / 1e6, short.as_secs_f64(), some.rows, some.bytes as f64 / 1e6,
                    long.as_secs_f64() / short.as_secs_f64(), all.bytes as f64 / some.bytes as f64,
                );
            }
        }
    });
}

/// The rows of each window date, as they stand in its files.
async fn rows(history: &History, view: &str) -> BTreeMap<DatePartition, RecordBatch> {
    let table = history.table(view).await;
    let snapshot = table.snapshot().await.expect("a snapshot");
    let mut dates = BTreeMap::new();
    for file in &snapshot.files {
        let opened = std::fs::File::open(table.url_of(file)).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(opened).expect("Parquet").build().expect("a reader");
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
        let rows = concat_batches(&batches[0].schema(), &batches).expect("one schema");
        assert!(dates.insert(file.partition, rows).is_none(), "one file a date");
    }
    dates
}

fn assert_same(left: &BTreeMap<DatePartition, RecordBatch>, right: &BTreeMap<DatePartition, RecordBatch>) {
    assert!(left == right, "incremental and full runs differ");
}
