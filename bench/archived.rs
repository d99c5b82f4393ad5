//! Makes a lake with years of events directly as archive files, and runs the batch layer over it without a log and a
//! speed layer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use batch::{Batch, BatchSettings, LayerHandles, load_published};
use futures::future::BoxFuture;
use lake::{ArchiveTags, Commit, DataFile, Lake, Table, TablePath};
use parking_lot::Mutex;
use shared::clock::SystemClock;
use shared::control::{Run, RunScope, RunState, Runs};
use shared::date_partition::DatePartition;
use shared::handoff::{Archive, Cutter, HandoffError, LogRetention};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::ledger::Ledger;
use shared::partial::block::Part;
use shared::partial::keys::{KeyLayout, Keys};
use shared::published::{PublishedView, Views};
use shared::readers::{Generation, SpeedError, SpeedPin, SpeedReader};
use shared::seam::{Cut, CutPoint};
use shared::stream::{Stream, system_columns};
use shared::time::{Day, Micros};
use shared::view::View;

use crate::events::mixed;

pub const STREAM: &str = "
    CREATE STREAM bids (ts TIMESTAMP, channel STRING, bidder BIGINT, price BIGINT, fare DOUBLE)
    WITH (event_time = 'ts', watermark_delay = '10 seconds', allowed_lateness = '1 hour', partitions = 1);";

const DAY_US: i64 = 86_400_000_000;

/// The layers around batch: a log whose events are all in the archive.
#[derive(Default)]
struct Around {
    next: AtomicU64,
    accepted: Mutex<Ledger>,
}

pub struct History {
    lake: Lake,
    stream: Arc<Stream>,
    around: Arc<Around>,
    batch: Arc<Batch>,
    archive: Table,
}

impl History {
    /// The batch layer over the lake in `folder`, of whose only stream `archived` events are there.
    pub async fn open(folder: &Path, views: &str, settings: BatchSettings) -> History {
        let lake = Lake::open(folder.to_str().expect("UTF-8")).expect("a lake");
        let parsed =
            shared::sql::parse_definitions(&[("d".to_owned(), format!("{STREAM}{views}"))]).expect("definitions");
        let stream = Arc::new(parsed.streams.into_iter().next().expect("a stream"));
        let path = TablePath::events(&stream.name);
        let archive = lake.table(&path, stream.archive_schema(), system_columns::EVENT_DATE).await.expect("a table");
        let around = Arc::new(Around::default());
        for file in &archive.snapshot().await.expect("a snapshot").files {
            let tags = ArchiveTags::from_tags(&file.tags).expect("tags");
            around.next.fetch_max(tags.to.0, Ordering::SeqCst);
            *around.accepted.lock() += tags.ledger;
        }
        let all = Arc::new(Views::default());
        let mut loaded = Vec::new();
        for view in parsed.views {
            let found = load_published(&lake, &stream, &Arc::new(view)).await.expect("loads");
            all.publish(found.active.clone());
            loaded.push(found);
        }
        let layers = LayerHandles {
            vitals: Default::default(),
            lake: lake.clone(),
            views: all,
            streams: vec![Arc::clone(&stream)],
            cutter: Arc::clone(&around) as _,
            archive: Arc::clone(&around) as _,
            speed: Arc::clone(&around) as _,
            retention: Arc::clone(&around) as _,
            lookups: Default::default(),
            log_starts: Vec::new(),
            clock: Arc::new(SystemClock),
        };
        let batch = Arc::new(Batch::start(layers, loaded, settings).await.expect("starts"));
        History { lake, stream, around, batch, archive }
    }

    /// Writes `events` events of `day` into the archive, in files of `file_rows`, with `bidders` bidders.
    pub async fn write_day(&self, day: Day, events: u64, file_rows: u64, bidders: u64) {
        let mut files = Vec::new();
        let mut written = 0;
        while written < events {
            let rows = file_rows.min(events - written);
            let from = self.around.next.fetch_add(rows, Ordering::SeqCst);
            let batch = self.rows(day, from, rows, events, written, bidders);
            let ledger = Ledger::of_range(Partition(0), Offset(from), Offset(from + rows));
            let mut file = self.archive.write_parquet(DatePartition::Day(day), &[batch]).await.expect("writes");
            let tags = ArchiveTags {
                partition: Partition(0),
                from: Offset(from),
                to: Offset(from + rows),
                erased: 0,
                rows,
                ledger,
                latest_watermark: Micros::MIN,
            };
            file.tags = tags.to_tags();
            *self.around.accepted.lock() += ledger;
            files.push(file);
            written += rows;
        }
        let next = self.around.next.load(Ordering::SeqCst);
        let app_id = ArchiveTags::app_id(&self.stream.name, Partition(0));
        self.archive.commit(Commit::append(files).completing(app_id, next as i64)).await.expect("commits");
    }

    /// `commits` commits, each of which puts another file in the place of one, with the same rows.
    pub async fn churn(&self, commits: u64) {
        let mut files = self.archive.snapshot().await.expect("a snapshot").files.clone();
        for number in 0..commits {
            let at = number as usize % files.len();
            let old = files[at].clone();
            let (folder, _) = old.path.rsplit_once('/').expect("in the folder of a date");
            let new = DataFile { path: format!("{folder}/churned-{}.parquet", uuid::Uuid::new_v4()), ..old.clone() };
            std::fs::rename(self.archive.url_of(&old), self.archive.url_of(&new)).expect("it can be renamed");
            files[at] = new.clone();
            self.archive.commit(Commit::compact(vec![old], vec![new])).await.expect("commits");
        }
    }

    fn rows(&self, day: Day, from: u64, rows: u64, of: u64, begin: u64, bidders: u64) -> RecordBatch {
        let all = || from..from + rows;
        let at =
            |n: u64| day.start().0 + ((u128::from(begin + n - from) * DAY_US as u128) / u128::from(of.max(1))) as i64;
        let times: Vec<i64> = all().map(at).collect();
        let channels: StringViewArray = all().map(|n| Some(format!("channel-{}", mixed(n) % 20))).collect();
        let bidder =
            Int64Array::from_iter_values(all().map(|n| if bidders > of { n } else { mixed(n) % bidders } as i64));
        let price = Int64Array::from_iter_values(all().map(|n| (mixed(n) >> 20) as i64 % 10_000));
        let fare = Float64Array::from_iter_values(all().map(|n| (mixed(n) >> 12) as f64 / 1e12));
        let time =
            |values: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) };
        let none: TimestampMicrosecondArray = (0..rows).map(|_| None::<i64>).collect();
        let columns: Vec<ArrayRef> = vec![
            time(times.clone()),
            Arc::new(channels),
            Arc::new(bidder),
            Arc::new(price),
            Arc::new(fare),
            Arc::new(Int32Array::from(vec![0; rows as usize])),
            Arc::new(Int64Array::from_iter_values(all().map(|n| n as i64))),
            time(times),
            Arc::new(none.with_timezone("UTC")),
        ];
        RecordBatch::try_new(self.stream.archive_schema(), columns).expect("rows of the archive")
    }

    /// Runs a view; the run, and how long it took.
    pub async fn run(&self, view: &str, full: bool) -> (Run, Duration) {
        let begin = Instant::now();
        let id = self.batch.request(view, RunScope { full, range: None }).expect("a run").id;
        loop {
            let run = self.batch.get(&id).expect("a run");
            match run.state {
                RunState::Queued | RunState::Running => tokio::time::sleep(Duration::from_millis(1)).await,
                RunState::Published => return (run, begin.elapsed()),
                _ => panic!("{run:?}"),
            }
        }
    }

    /// The table of a view.
    pub async fn table(&self, view: &str) -> Table {
        let path = TablePath::view(&view.parse().expect("a name"));
        self.lake.open_table(&path).await.expect("opens").expect("a table")
    }
}

impl Cutter for Around {
    fn cut(&self, _: &StreamName, _: &ViewName) -> BoxFuture<'_, Result<Cut, HandoffError>> {
        let point = CutPoint { offset: Offset(self.next.load(Ordering::SeqCst)), accepted: *self.accepted.lock() };
        Box::pin(async move { Ok(Cut([(Partition(0), point)].into())) })
    }
}

impl Archive for Around {
    fn archived(&self, _: &StreamName, _: &Cut) -> BoxFuture<'_, Result<(), HandoffError>> {
        Box::pin(async { Ok(()) })
    }
}

impl LogRetention for Around {
    fn release(&self, _: &StreamName, _: Partition, _: &str, _: Offset) {}
}

impl SpeedReader for Around {
    fn pin<'a>(&'a self, published: &'a PublishedView, _: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        let view: &View = &published.view;
        let layout =
            KeyLayout::new(view.dimensions.iter().map(|d| d.expression.data_type).collect()).expect("a layout");
        let part = Part { layout: Arc::new(layout), panes: false, keys: Keys::default(), blocks: Vec::new() };
        let at = Offset(self.next.load(Ordering::SeqCst));
        let empty = Ledger::EMPTY;
        let generation = Generation {
            released: None,
            partition: Partition(0),
            from: at,
            to: at,
            part,
            folded: empty,
            late: empty,
            failed: empty,
            failed_events: Arc::default(),
            accepted: empty,
        };
        Box::pin(async { Ok(SpeedPin { generations: vec![generation], watermark: None, latest_event: None }) })
    }

    fn forget(&self, _: &PublishedView) {}

    fn retire(&self, _: &PublishedView, _: &Cut) {}
}
