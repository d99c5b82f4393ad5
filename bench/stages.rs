//! Measures the stages of an event's path one by one, in this process: decode, dedup, fold, encode.
//! `cargo bench --bench stages [-- NAME]` prints the time of each and events per second. It shows which stage a change made
//! slower; what the whole costs is measured by `--bench figures`.

mod events;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use intake::decode::{decode, decode_arrow, decode_csv};
use intake::event_id::hash_ids;
use intake::partition::dedup::DedupWindow;
use shared::ids::{Offset, Partition};
use shared::partial::accumulate::Accumulator;
use shared::sql::{Definitions, parse_definitions};
use shared::stream::Stream;
use shared::view::Precision;
use speed::fold::FoldPlan;
use speed::fold_input::SharedKeys;

use crate::events::{PER_CHANNEL, STREAM, bids};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EVENTS: u64 = 500_000;
const BODY_EVENTS: u64 = 10_000;

fn main() {
    divan::main();
}

fn definitions(view: &str) -> Definitions {
    let parsed = parse_definitions(&[("bids.sql".to_owned(), format!("{STREAM}{view}"))]);
    parsed.unwrap_or_else(|errors| panic!("{}", errors[0]))
}

fn stream() -> Arc<Stream> {
    Arc::new(definitions(PER_CHANNEL).streams[0].clone())
}

fn bodies() -> Vec<Vec<u8>> {
    (0..EVENTS / BODY_EVENTS).map(|body| bids(body * BODY_EVENTS, (body + 1) * BODY_EVENTS, EVENTS)).collect()
}

fn decoded() -> Vec<RecordBatch> {
    let stream = stream();
    bodies().iter().map(|body| decode(&stream, body, Default::default()).expect("decodes").rows).collect()
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn decode_ndjson(bencher: Bencher<'_, '_>) {
    let (stream, bodies) = (stream(), bodies());
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        bodies
            .iter()
            .map(|body| decode(&stream, body, Default::default()).expect("decodes").rows.num_rows())
            .sum::<usize>()
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn decode_table_of_arrow(bencher: Bencher<'_, '_>) {
    let stream = stream();
    let body = |rows: &RecordBatch| {
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).expect("a writer");
        writer.write(rows).expect("encodes");
        Bytes::from(writer.into_inner().expect("encodes"))
    };
    let bodies: Vec<Bytes> = decoded().iter().map(body).collect();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let rows = |body| decode_arrow(&stream, body, Default::default()).expect("decodes").rows.num_rows();
        bodies.iter().map(rows).sum::<usize>()
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn decode_table_of_csv(bencher: Bencher<'_, '_>) {
    let stream = stream();
    let body = |rows: &RecordBatch| {
        let mut text = Vec::new();
        arrow::csv::Writer::new(&mut text).write(rows).expect("encodes");
        text
    };
    let bodies: Vec<Vec<u8>> = decoded().iter().map(body).collect();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let rows = |body: &Vec<u8>| decode_csv(&stream, body, Default::default()).expect("decodes").rows.num_rows();
        bodies.iter().map(rows).sum::<usize>()
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn dedup(bencher: Bencher<'_, '_>) {
    let batches = decoded();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut window = DedupWindow::new(EVENTS, Offset(0));
        for batch in &batches {
            let admitted = window.admit_all(&hash_ids(batch.column(0)));
            assert_eq!(admitted.count_set_bits(), batch.num_rows());
            window.commit();
        }
    });
}

/// Views by what folding them costs: few groups, a million keys, sketches, sessions.
#[divan::bench(sample_count = 10, sample_size = 1, args = [
    "COUNT(*) AS n, SUM(price) AS s FROM bids GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), channel",
    "COUNT(*) AS n, SUM(price) AS s FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), bidder",
    "COUNT(DISTINCT bidder) AS n FROM bids GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), channel",
    "COUNT(*) AS n FROM bids GROUP BY SESSION(ts, INTERVAL '30' SECOND), bidder",
])]
fn fold(bencher: Bencher<'_, '_>, view: &str) {
    let definitions = definitions(&format!("CREATE VIEW v AS SELECT {view};"));
    let (stream, view) = (&definitions.streams[0], Arc::new(definitions.views[0].clone()));
    let watermarks = |rows: usize| TimestampMicrosecondArray::from(vec![None; rows]).with_timezone("UTC");
    let logged = |rows: RecordBatch| {
        let columns = rows.columns().iter().cloned().chain([Arc::new(watermarks(rows.num_rows())) as ArrayRef]);
        RecordBatch::try_new(stream.log_schema(), columns.collect()).expect("the columns of the log")
    };
    let batches: Vec<RecordBatch> = decoded().into_iter().map(logged).collect();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut plan = FoldPlan::new(Arc::clone(&view), stream).expect("a plan");
        let mut states = Accumulator::new(Arc::clone(&view), Arc::clone(&plan.layout), Precision::Sketch);
        let mut offset = 0;
        for batch in &batches {
            let keys = &mut SharedKeys::default();
            plan.fold(batch, Partition(0), Offset(offset), keys, &mut states).expect("folds");
            offset += batch.num_rows() as u64;
        }
        states.rows()
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn encode_archive_file(bencher: Bencher<'_, '_>) {
    let batches = decoded();
    let rows = arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("one batch");
    bencher
        .counter(ItemsCount::new(EVENTS))
        .bench(|| lake::encode::encode(rows.schema(), std::slice::from_ref(&rows)).expect("encodes").bytes.len());
}
