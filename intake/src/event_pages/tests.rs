//! Reads the same events from the log and from the archive, in pages of every size.

use arrow::array::{Int64Array, StringViewArray, TimestampMicrosecondArray};
use shared::clock::{Clock, ManualClock};
use shared::handoff::{Archive, Cutter};
use shared::time::{MICROS_PER_DAY, Micros};
use shared::vital::Vitals;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::archive::{ArchiverContext, ArchiverSettings, Archives, StreamArchiver};
use crate::partition::{PartitionSettings, Submission};
use crate::streams::Intake;

const P: Partition = Partition(0);
const EVENTS: u64 = 120;
/// Bytes of the text of an event.
const TEXT: usize = 100;

/// A log with events in its archive as well.
struct Stored {
    _folder: TempDir,
    intake: Arc<Intake>,
    _archives: Archives,
    pages: StreamPages,
}

/// The event at an offset: its columns, over several days in no order.
fn event(offset: u64) -> (i64, i64, String) {
    let at = (offset as i64 * 7 % 5) * MICROS_PER_DAY + offset as i64;
    (offset as i64, at, format!("{offset:0TEXT$}"))
}

async fn stored() -> Stored {
    let folder = tempfile::tempdir().expect("a folder");
    let sql = "CREATE STREAM s (id BIGINT, at TIMESTAMP, text STRING) WITH (event_time = 'at');";
    let stream = Arc::new(crate::testing::stream(sql));
    let (clock, vitals): (Arc<dyn Clock>, Vitals) = (Arc::new(ManualClock::at(Micros(1_000))), Vitals::default());
    let opened = Intake::open(folder.path(), &[Arc::clone(&stream)], &PartitionSettings::default(), &clock, &vitals);
    let intake = Arc::new(opened.expect("opens"));
    let lake = Lake::open(folder.path().join("lake").to_str().expect("UTF-8")).expect("a lake");
    let log = Arc::clone(intake.stream(&stream.name).expect("the stream"));
    let context = ArchiverContext {
        lake: lake.clone(),
        log: Arc::clone(&log) as _,
        retention: Arc::clone(&intake) as _,
        runtime: tokio::runtime::Handle::current(),
        vitals,
    };
    let settings = ArchiverSettings { file_rows: 13, ..ArchiverSettings::default() };
    let archiver = StreamArchiver::start(Arc::clone(&stream), context, settings).expect("starts");
    log.attach(P, archiver.sink(P).expect("an archiver"));
    let archives = Archives::new([archiver]);
    intake.start().expect("threads");
    let mut first = 0;
    while first < EVENTS {
        let count = (1 + first % 9).min(EVENTS - first);
        let events: Vec<_> = (first..first + count).map(event).collect();
        let at: TimestampMicrosecondArray = events.iter().map(|(_, at, _)| Some(*at)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(events.iter().map(|(id, ..)| Some(*id)).collect::<Int64Array>()),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(events.iter().map(|(_, _, text)| Some(text.as_str())).collect::<StringViewArray>()),
        ];
        let rows = RecordBatch::try_new(stream.schema(), columns).expect("columns");
        let (reply, answer) = oneshot::channel();
        let submission =
            Submission { rows, id_hashes: None, entities: None, kept: Vec::new(), key: None, source: None, reply };
        log.try_submit(vec![(P, submission)]).expect("room");
        answer.await.expect("an answer").expect("accepted");
        first += count;
    }
    let cut = intake.cut(&stream.name, &"v".parse().expect("a name")).await.expect("cut");
    archives.archived(&stream.name, &cut).await.expect("archived");
    Stored { _folder: folder, intake, _archives: archives, pages: StreamPages::new(log, lake) }
}

/// Checks that a page has exactly the events from `from` to its end, which is after `from`.
fn check(page: &EventPage, from: u64, to: u64) {
    assert!(page.end.0 > from && page.end.0 <= to, "{from}..{to}: {}", page.end);
    assert_eq!(page.offsets, (from..page.end.0).map(Offset).collect::<Vec<_>>());
    let text = page.rows.column(2).as_string_view();
    let ids = page.rows.column(0).as_primitive::<Int64Type>();
    assert_eq!(page.rows.num_rows(), page.offsets.len());
    for (row, offset) in page.offsets.iter().enumerate() {
        let (id, _, expected) = event(offset.0);
        assert_eq!((ids.value(row), text.value(row)), (id, expected.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_bounded_in_bytes_in_the_log_and_in_the_archive() {
    let stored = stored().await;
    let pages = &stored.pages;
    assert_eq!(pages.head(P), Offset(EVENTS));
    for (from, to, events) in [(0, EVENTS, 1_000), (0, EVENTS, 10), (17, 60, 4), (59, 60, 0), (100, EVENTS, 1)] {
        let range = (Offset(from), Offset(to));
        let bytes = events * TEXT;
        let archived = pages.archived(P, range, bytes).await.expect("read");
        let log = Arc::clone(&pages.log);
        let in_log =
            tokio::task::spawn_blocking(move || of_log(&log, P, range, bytes)).await.expect("ends").expect("read");
        for page in [&archived, &in_log] {
            check(page, from, to);
            // One batch more than the bound: at most nine events.
            assert!(page.offsets.len() <= events + 9, "{} events for {bytes} bytes", page.offsets.len());
        }
        assert_eq!(events >= 1_000, archived.end == Offset(to) && archived.offsets.len() > 60);
    }
    // Page by page, by rows.
    let (mut from, mut read) = (Offset(0), 0);
    while from < pages.head(P) {
        let page = pages.page(P, from, PageBounds { rows: 7, bytes: usize::MAX }).await.expect("a page");
        check(&page, from.0, from.0 + 7);
        read += page.offsets.len();
        from = page.end;
    }
    assert_eq!(read as u64, EVENTS);
    stored.intake.close();
}
