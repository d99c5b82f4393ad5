//! Checks that every event is in the archive exactly once, in files that respect dates and cuts, across restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use lake::{ArchiveTags, Commit, TablePath};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use shared::date_partition::DatePartition;
use shared::handoff::{CutMark, LogBatch, LogItem};
use shared::ledger::Ledger;
use shared::seam::CutPoint;
use shared::stream_watermark::PartitionProgress;
use shared::time::{MICROS_PER_DAY, Micros};
use tempfile::TempDir;

use super::*;

const P: Partition = Partition(0);
const NOON: i64 = MICROS_PER_DAY / 2;

fn stream() -> Stream {
    crate::testing::stream("CREATE STREAM flights (id BIGINT, at TIMESTAMP) WITH (event_time = 'at');")
}

/// Events from offset `first` on, each at noon of a day (since 1970) plus its offset in microseconds.
pub(super) fn batch(first: u64, days: &[i64]) -> LogBatch {
    let offsets = first as i64..;
    let at: TimestampMicrosecondArray =
        days.iter().zip(offsets.clone()).map(|(day, offset)| Some(day * MICROS_PER_DAY + NOON + offset)).collect();
    let watermark = TimestampMicrosecondArray::from(vec![None; days.len()]);
    let rows = RecordBatch::try_new(
        stream().log_schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(offsets.take(days.len()))),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(watermark.with_timezone("UTC")),
        ],
    );
    LogBatch {
        partition: P,
        first_offset: Offset(first),
        arrived_at: Micros(7),
        rows: rows.unwrap(),
        accepted: Ledger::of_range(P, Offset(0), Offset(first + days.len() as u64)),
        watermark: Micros(first as i64),
    }
}

/// A log in memory that records releases.
#[derive(Default)]
struct FakeLog {
    batches: Mutex<Vec<LogBatch>>,
    released: Mutex<Vec<Offset>>,
}

impl FakeLog {
    fn append(&self, days: &[i64]) -> LogItem {
        let batch = batch(self.range(P).1.0, days);
        self.batches.lock().push(batch.clone());
        LogItem::Batch(Arc::new(batch))
    }
}

impl LogReplay for FakeLog {
    fn range(&self, _: Partition) -> (Offset, Offset) {
        (Offset(0), self.batches.lock().last().map_or(Offset(0), LogBatch::end_offset))
    }

    fn progress(&self, _: Partition) -> PartitionProgress {
        PartitionProgress { watermark: None, last_arrival: None, caught_up: true }
    }

    fn replay(
        &self,
        _: Partition,
        from: Offset,
        to: Offset,
        each: &mut dyn FnMut(LogBatch),
    ) -> Result<(), HandoffError> {
        for batch in self.batches.lock().iter() {
            let (start, end) = (from.max(batch.first_offset), to.min(batch.end_offset()));
            if start < end {
                let rows = batch.rows.slice((start.0 - batch.first_offset.0) as usize, (end.0 - start.0) as usize);
                each(LogBatch { first_offset: start, rows, ..batch.clone() });
            }
        }
        Ok(())
    }
}

impl LogRetention for FakeLog {
    fn release(&self, _: &StreamName, _: Partition, reader: &str, offset: Offset) {
        assert_eq!(reader, READER);
        self.released.lock().push(offset);
    }
}

/// A log and a lake that outlive their archivers.
struct TestArchive {
    folder: TempDir,
    log: Arc<FakeLog>,
    vitals: Vitals,
}

impl TestArchive {
    fn new() -> TestArchive {
        TestArchive { folder: tempfile::tempdir().unwrap(), log: Arc::default(), vitals: Vitals::default() }
    }

    fn lake(&self) -> Lake {
        Lake::open(self.folder.path().to_str().unwrap()).unwrap()
    }

    fn archives(&self, file_rows: usize, wait: Duration) -> Archives {
        self.archives_with(self.settings(file_rows, wait))
    }

    fn settings(&self, file_rows: usize, wait: Duration) -> ArchiverSettings {
        let retry = Duration::from_millis(1);
        ArchiverSettings {
            file_rows,
            wait,
            // Some batches fit the queue, others are read from the log.
            queue_bytes_max: 4_096,
            retry_first: retry,
            retry_max: retry,
            ..ArchiverSettings::default()
        }
    }

    fn archives_with(&self, settings: ArchiverSettings) -> Archives {
        let context = ArchiverContext {
            lake: self.lake(),
            log: self.log.clone(),
            retention: self.log.clone(),
            runtime: Handle::current(),
            vitals: self.vitals.clone(),
        };
        Archives::new([StreamArchiver::start(Arc::new(stream()), context, settings).unwrap()])
    }

    /// An archiver that writes only at cuts.
    fn at_cuts(&self) -> Archives {
        self.archives(usize::MAX, Duration::from_secs(100_000))
    }

    /// The archive's files by their offset ranges, each with the offsets and the event times of its rows.
    async fn files(&self) -> Vec<(ArchiveTags, DatePartition, Vec<i64>, Vec<i64>)> {
        let table = self.lake().open_table(&TablePath::events(&stream().name)).await.unwrap().unwrap();
        let snapshot = table.snapshot().await.unwrap();
        let mut files = Vec::new();
        for file in &snapshot.files {
            let reader = std::fs::File::open(table.url_of(file)).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(reader).unwrap().build().unwrap();
            let (mut offsets, mut times) = (Vec::new(), Vec::new());
            for rows in reader {
                let rows = rows.unwrap();
                offsets.extend_from_slice(rows["_offset"].as_primitive::<Int64Type>().values());
                times.extend_from_slice(rows["at"].as_primitive::<TimestampMicrosecondType>().values());
                assert_eq!(rows["id"].as_primitive::<Int64Type>(), rows["_offset"].as_primitive::<Int64Type>());
            }
            assert_eq!(file.rows, offsets.len() as i64);
            files.push((ArchiveTags::from_tags(&file.tags).unwrap(), file.partition, offsets, times));
        }
        files.sort_by_key(|(tags, date, ..)| (tags.from, *date));
        files
    }

    /// Checks the invariants of an archive of the offsets `0..end`.
    async fn check(&self, end: u64, cuts: &[Offset]) {
        let files = self.files().await;
        let mut all: Vec<i64> = files.iter().flat_map(|(_, _, offsets, _)| offsets.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..end as i64).collect::<Vec<_>>());
        let mut whole = Ledger::EMPTY;
        for (tags, date, offsets, times) in &files {
            assert_eq!(tags.rows, offsets.len() as u64);
            assert!(offsets.iter().all(|o| (tags.from.0..tags.to.0).contains(&(*o as u64))));
            assert!(times.is_sorted() && times.iter().all(|t| DatePartition::of_day(Micros(*t).day()) == *date));
            assert_eq!(tags.ledger, offsets.iter().map(|o| Ledger::of(P, Offset(*o as u64))).sum());
            assert!(cuts.iter().all(|cut| *cut <= tags.from || tags.to <= *cut), "{tags:?} {cuts:?}");
            whole += tags.ledger;
        }
        assert_eq!(whole, Ledger::of_range(P, Offset(0), Offset(end)));
    }
}

fn push(archives: &Archives, item: LogItem) {
    archives.stream(&stream().name).unwrap().sink(P).unwrap().push(item).unwrap();
}

fn mark(offset: Offset) -> LogItem {
    let accepted = Ledger::of_range(P, Offset(0), offset);
    LogItem::Cut(Arc::new(CutMark { view: "v".parse().unwrap(), partition: P, offset, accepted }))
}

async fn wait_for(archives: &Archives, offset: Offset) -> Result<(), HandoffError> {
    let point = CutPoint { offset, ..CutPoint::default() };
    archives.archived(&stream().name, &Cut(BTreeMap::from([(P, point)]))).await
}

/// Puts a cut where the log ends and waits until everything before it is archived.
async fn cut(test: &TestArchive, archives: &Archives) -> Offset {
    let (_, head) = test.log.range(P);
    push(archives, mark(head));
    wait_for(archives, head).await.unwrap();
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_go_to_the_files_of_their_dates() {
    let test = TestArchive::new();
    let archives = test.at_cuts();
    push(&archives, test.log.append(&[10, 11, 10, 12]));
    push(&archives, test.log.append(&[10, -3]));
    let head = cut(&test, &archives).await;
    test.check(6, &[head]).await;
    let files = test.files().await;
    let by_day: Vec<(i32, &[i64])> =
        files.iter().map(|(_, date, offsets, _)| (date.day().unwrap().0, &offsets[..])).collect();
    assert_eq!(by_day, [(-3, &[5][..]), (10, &[0, 2, 4]), (11, &[1]), (12, &[3])]);
    assert!(files.iter().all(|(tags, ..)| (tags.from, tags.to) == (Offset(0), Offset(6))));
    assert!(files.iter().all(|(tags, ..)| tags.latest_watermark == Micros(4)));
    assert_eq!(*test.log.released.lock(), [Offset(0), Offset(6)]);
    let status = archives.stream(&stream().name).unwrap().status()[&P].clone();
    assert_eq!((status.archived, status.pending_rows, status.files), (Offset(6), 0, 4));
    assert!(status.bytes > 0 && status.last_error.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_date_does_not_stop_the_archive() {
    let test = TestArchive::new();
    let archives = test.at_cuts();
    push(&archives, test.log.append(&[1, 90_000_000, 2]));
    cut(&test, &archives).await;
    let days: Vec<Option<i32>> = test.files().await.iter().map(|(_, date, ..)| date.day().map(|d| d.0)).collect();
    assert_eq!(days, [None, Some(1), Some(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn size_and_age_trigger_a_write_without_a_cut() {
    let test = TestArchive::new();
    let by_size = test.archives(5, Duration::from_secs(100_000));
    push(&by_size, test.log.append(&[1; 3]));
    push(&by_size, test.log.append(&[1; 4]));
    push(&by_size, test.log.append(&[1; 2]));
    wait_for(&by_size, Offset(7)).await.unwrap();
    drop(by_size);
    test.check(7, &[]).await;
    let by_age = test.archives(usize::MAX, Duration::ZERO);
    wait_for(&by_age, Offset(9)).await.unwrap();
    push(&by_age, test.log.append(&[1; 2]));
    wait_for(&by_age, Offset(11)).await.unwrap();
    test.check(11, &[Offset(7)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_archived_by_another_process_are_not_archived_again() {
    let test = TestArchive::new();
    let archives = test.at_cuts();
    wait_for(&archives, Offset(0)).await.unwrap();
    push(&archives, test.log.append(&[1; 10]));
    // Another process commits the first four rows.
    let (lake, path) = (test.lake(), TablePath::events(&stream().name));
    let table = lake.table(&path, stream().archive_schema(), "_event_date").await.unwrap();
    table.commit(Commit::empty().completing(ArchiveTags::app_id(&stream().name, P), 4)).await.unwrap();
    cut(&test, &archives).await;
    let files = test.files().await;
    let offsets: Vec<i64> = files.iter().flat_map(|(_, _, offsets, _)| offsets.clone()).collect();
    assert_eq!(offsets, (4..10).collect::<Vec<_>>());
    assert_eq!(files[0].0.ledger, Ledger::of_range(P, Offset(4), Offset(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_lake_is_reported_and_delays_but_loses_nothing() {
    let test = TestArchive::new();
    let in_the_way = test.folder.path().join("events");
    std::fs::write(&in_the_way, "a file where the archive's folder should be").unwrap();
    let archives = test.at_cuts();
    push(&archives, test.log.append(&[1; 10]));
    let error = loop {
        match archives.stream(&stream().name).unwrap().status()[&P].last_error.clone() {
            Some(error) => break error,
            None => tokio::task::yield_now().await,
        }
    };
    assert!(error.starts_with("opening the archive: "), "{error}");
    std::fs::remove_file(in_the_way).unwrap();
    let head = cut(&test, &archives).await;
    test.check(10, &[head]).await;
    assert_eq!(archives.stream(&stream().name).unwrap().status()[&P].last_error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_ahead_of_its_log_stops_the_archiver() {
    let test = TestArchive::new();
    let archives = test.at_cuts();
    push(&archives, test.log.append(&[1; 10]));
    cut(&test, &archives).await;
    drop(archives);
    test.log.batches.lock().clear();
    let archives = test.at_cuts();
    let error = wait_for(&archives, Offset(11)).await.unwrap_err();
    assert!(error.0.contains("before offset 10, but the log ends at 0"), "{error}");
    let sink = archives.stream(&stream().name).unwrap().sink(P).unwrap();
    assert!(sink.push(test.log.append(&[1])).is_err());
    // The thread reports its failure when it has ended.
    drop(archives);
    assert!(test.vitals.failure().is_some_and(|failure| failure.part == "archive-flights-0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dates_are_committed_in_parts_and_a_restart_keeps_those() {
    let test = TestArchive::new();
    let archives = test.at_cuts();
    let days: Vec<i64> = (0..450).map(|i| i * 7 % 450).collect();
    push(&archives, test.log.append(&days));
    let head = cut(&test, &archives).await;
    test.check(450, &[head]).await;
    let commits: std::collections::BTreeSet<_> =
        test.files().await.iter().map(|(tags, ..)| (tags.from, tags.to)).collect();
    let offsets = |from, to| (Offset(from), Offset(to));
    assert_eq!(commits.into_iter().collect::<Vec<_>>(), [offsets(0, 200), offsets(200, 400), offsets(400, 450)]);
    assert_eq!(*test.log.released.lock(), [0, 200, 400, 450].map(Offset), "each commit is progress");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_lake_is_away_no_push_waits_and_memory_stays_within_the_bound() {
    let test = TestArchive::new();
    let in_the_way = test.folder.path().join("events");
    std::fs::write(&in_the_way, "a file where the archive's folder should be").unwrap();
    let archives = test.at_cuts();
    for _ in 0..1_000 {
        push(&archives, test.log.append(&[1; 20]));
    }
    let status = archives.stream(&stream().name).unwrap().status()[&P].clone();
    assert!(status.pending_rows <= 200, "{status:?}");
    std::fs::remove_file(in_the_way).unwrap();
    let head = cut(&test, &archives).await;
    test.check(20_000, &[head]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_trigger_a_write_without_a_cut() {
    let test = TestArchive::new();
    let archives = test.archives_with(ArchiverSettings {
        file_bytes: 10_000,
        ..test.settings(usize::MAX, Duration::from_secs(100_000))
    });
    push(&archives, test.log.append(&[1; 100]));
    push(&archives, test.log.append(&[1; 1_000]));
    wait_for(&archives, Offset(1_100)).await.unwrap();
    test.check(1_100, &[]).await;
}

#[derive(Debug, Clone)]
enum ArchiveStep {
    Append(Vec<i64>),
    /// Rows that reach the log but, because the process dies, not the archiver.
    AppendUnseen(Vec<i64>),
    Cut,
    Restart,
}

fn step() -> impl Strategy<Value = ArchiveStep> {
    let days = || prop::collection::vec(0i64..3, 1..20);
    prop_oneof![
        4 => days().prop_map(ArchiveStep::Append),
        1 => days().prop_map(ArchiveStep::AppendUnseen),
        2 => Just(ArchiveStep::Cut),
        1 => Just(ArchiveStep::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_is_archived_once_across_restarts(
        steps in prop::collection::vec(step(), 1..12),
        file_rows in 5usize..60,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let test = TestArchive::new();
            let patient = Duration::from_secs(100_000);
            let mut archives = test.archives(file_rows, patient);
            let mut cuts = Vec::new();
            for step in steps {
                match step {
                    ArchiveStep::Append(days) => push(&archives, test.log.append(&days)),
                    ArchiveStep::AppendUnseen(days) => {
                        test.log.append(&days);
                        drop(archives);
                        archives = test.archives(file_rows, patient);
                    }
                    ArchiveStep::Cut => cuts.push(cut(&test, &archives).await),
                    ArchiveStep::Restart => {
                        drop(archives);
                        archives = test.archives(file_rows, patient);
                    }
                }
            }
            cuts.push(cut(&test, &archives).await);
            test.check(test.log.range(P).1.0, &cuts).await;
            let released = test.log.released.lock();
            prop_assert!(released.is_sorted(), "{:?}", released);
            Ok(())
        })?;
    }
}
