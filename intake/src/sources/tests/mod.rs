//! Checks that each record of a topic becomes an event exactly once, with a topic in memory: holes, rejected records, stops
//! and crashes of the reader, a disk that is full, brokers that fail, positions that the brokers do not have.

mod fake_outbox;
mod fake_topic;
mod followed;
mod outbox;
mod truncates;
mod whole;
mod whole_topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
pub use fake_topic::FakeTopic;
use lake::Lake;
use shared::clock::{Clock, SystemClock};
use shared::control::{ListRange, SourceState, SourceStatus};
use shared::handoff::LogReplay;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;

use super::{SourceContext, SourceOpener, SourceReaders};
use crate::log::{IoStep, LocalDisk, with_faults};
use crate::partition::PartitionSettings;
use crate::quarantine::{Quarantine, QuarantineSettings};
use crate::streams::Intake;
use crate::submit::EventSubmitter;
use crate::testing::stream;

/// Longest wait for a reader.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn declared(partitions: u32, options: &str) -> Arc<Stream> {
    let sql = format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', v BIGINT) \
         WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't'{options})"
    );
    Arc::new(Stream { partitions, ..stream(&sql) })
}

/// A stream over a folder, while a process would run.
struct Process {
    intake: Arc<Intake>,
    quarantine: Arc<Quarantine>,
    readers: SourceReaders,
    stream: Arc<Stream>,
}

impl Process {
    fn start(dir: &TempDir, stream: &Arc<Stream>, topic: &Arc<FakeTopic>) -> Process {
        Process::start_with(dir, stream, topic, PartitionSettings::default())
    }

    fn start_with(dir: &TempDir, stream: &Arc<Stream>, topic: &Arc<FakeTopic>, settings: PartitionSettings) -> Process {
        Process::start_reading(dir, stream, Arc::clone(topic) as _, settings)
    }

    fn start_reading(
        dir: &TempDir,
        stream: &Arc<Stream>,
        opener: Arc<dyn SourceOpener>,
        settings: PartitionSettings,
    ) -> Process {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let vitals = Vitals::default();
        let intake = Intake::open(dir.path(), std::slice::from_ref(stream), &settings, &clock, &vitals);
        let intake = Arc::new(intake.expect("opens"));
        intake.start().expect("threads");
        let quarantine = Quarantine::open(dir.path(), [&stream.name], QuarantineSettings::default(), &vitals);
        let quarantine = Arc::new(quarantine.expect("a thread"));
        let submitter = Arc::new(EventSubmitter::new(&intake, &quarantine, &clock));
        let lake = Lake::open(dir.path().join("lake").to_str().expect("UTF-8")).expect("a lake");
        let context = SourceContext { intake: Arc::clone(&intake), submitter, lake, opener, clock };
        let readers = SourceReaders::start(&context, &vitals);
        Process { intake, quarantine, readers, stream: Arc::clone(stream) }
    }

    fn status(&self) -> SourceStatus {
        self.readers.statuses().status(&self.stream.name).expect("it reads a source")
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&SourceStatus) -> bool) {
        let wait = async {
            while !holds(&self.status()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "waited in vain for {what}: {:?}", self.status());
    }

    /// The offsets of the records whose events the log holds, by partition.
    fn logged(&self) -> Vec<Vec<i64>> {
        self.logged_column("_source_offset")
    }

    /// The values of a column of BIGINT in the log, by partition.
    fn logged_column(&self, column: &str) -> Vec<Vec<i64>> {
        let log = self.intake.stream(&self.stream.name).expect("the stream");
        let of = |partition: u32| {
            let mut offsets = Vec::new();
            let (start, head) = log.range(Partition(partition));
            let column = self.stream.column(column).expect("a column");
            let each = &mut |batch: shared::handoff::LogBatch| {
                offsets.extend_from_slice(batch.rows.column(column).as_primitive::<Int64Type>().values());
            };
            log.replay(Partition(partition), start, head, each).expect("replays");
            assert_eq!((start, head), (Offset(0), Offset(offsets.len() as u64)));
            offsets
        };
        (0..self.stream.partitions).map(of).collect()
    }

    /// The offsets of the records in quarantine, by partition and offset.
    fn quarantined(&self) -> Vec<(u32, i64)> {
        let page = self.quarantine.list("s", &ListRange { limit: 100_000, cursor: None }).expect("a page");
        let record =
            |line: shared::control::Quarantined| line.record.map(|r| (r.partition, r.offset)).expect("a record");
        let mut records: Vec<(u32, i64)> = page.lines.into_iter().map(record).collect();
        records.sort_unstable();
        records
    }

    async fn stop(self) {
        self.readers.stop().await;
        self.intake.close();
        self.quarantine.close();
    }

    /// Ends without waiting for anything that the reader does.
    fn crash(self) {
        for task in &self.readers.tasks {
            task.abort();
        }
        self.intake.close();
        self.quarantine.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_an_event_once_however_the_reader_ends() {
    for seed in 0..12 {
        let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::random(seed, 1 + seed as u32 % 3));
        let stream = declared(topic.partitions(), "");
        for round in 0..6 {
            let process = Process::start(&dir, &stream, &topic);
            topic.fail_polls((seed + round) % 3);
            tokio::time::sleep(Duration::from_millis((seed * 7 + round * 5) % 23)).await;
            topic.extend(seed * 100 + round);
            if (seed + round) % 2 == 0 { process.stop().await } else { process.crash() }
        }
        let process = Process::start(&dir, &stream, &topic);
        process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
        assert_eq!(process.logged(), topic.events(), "seed {seed}");
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_doubles_nothing() {
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::random(77, 2));
    let stream = declared(2, "");
    let count = Arc::new(AtomicU64::new(0));
    let mut settings = PartitionSettings::default();
    let writes = Arc::clone(&count);
    let faults = move |step: IoStep| match step {
        IoStep::Write if writes.fetch_add(1, Ordering::Relaxed) % 3 == 2 => {
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        }
        _ => Ok(()),
    };
    settings.log.disk = with_faults(Arc::new(LocalDisk), Arc::new(faults));
    let process = Process::start_with(&dir, &stream, &topic, settings);
    for seed in 0..10 {
        topic.extend(seed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    assert_eq!(process.logged(), topic.events());
    assert!(count.load(Ordering::Relaxed) > 5, "the disk was full at times");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_record_goes_to_quarantine_alone_with_its_address() {
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(1));
    for value in
        [Some("{\"v\":1}"), Some("no JSON"), None, Some("{\"v\":\"text\"}"), Some("{\n\"v\": 2\n}\n"), Some("[]")]
    {
        topic.append(0, value.map(str::as_bytes));
    }
    topic.append(0, Some(b"\xff"));
    topic.append(0, Some(b"{\"v\":3}"));
    let process = Process::start(&dir, &declared(1, ""), &topic);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    assert_eq!(process.logged(), [vec![0, 4, 7]]);
    // They are kept just after the position is durable.
    process.wait_for("the quarantine", |_| process.quarantined().len() == 5).await;
    assert_eq!(process.quarantined(), [1, 2, 3, 5, 6].map(|offset| (0, offset)));
    process.stop().await;
    // The position is behind them: another start does not reject them again.
    let process = Process::start(&dir, &declared(1, ""), &topic);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    assert_eq!((process.logged(), process.quarantined().len()), (vec![vec![0, 4, 7]], 5));
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_starts_once_where_the_declaration_says() {
    for (options, expected) in [
        ("", vec![vec![0, 1, 2, 3, 4], vec![0, 1, 2, 3, 4]]),
        (", start = 'latest'", vec![vec![3, 4], vec![3, 4]]),
        (", start = '1970-01-01T00:00:00.002Z'", vec![vec![2, 3, 4], vec![2, 3, 4]]),
        (", start = '1:2'", vec![vec![0, 1, 2, 3, 4], vec![2, 3, 4]]),
    ] {
        let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(2));
        let append = |count: usize| (0..count * 2).for_each(|i| topic.append(i as u32 % 2, Some(b"{\"v\":1}")));
        append(3);
        let stream = declared(2, options);
        let process = Process::start(&dir, &stream, &topic);
        process.wait_for("both positions", |status| status.partitions.iter().all(|p| p.position.is_some())).await;
        process.stop().await;
        append(2);
        let process = Process::start(&dir, &stream, &topic);
        process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
        assert_eq!(process.logged(), expected, "{options}");
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_records_wait_in_the_topic_is_not_idle() {
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(2));
    (0..6).for_each(|i| topic.append(i % 2, Some(b"{\"v\":1}")));
    topic.hold(Some(1));
    let process = Process::start(&dir, &declared(2, ""), &topic);
    process.wait_for("the first partition", |status| status.partitions[0].lag == Some(0)).await;
    let log = process.intake.stream(&process.stream.name).expect("the stream");
    let progress = |partition: u32| log.progress(Partition(partition));
    let later = Micros(SystemClock.now().0 + 3_600_000_000);
    process.wait_for("the writer", |_| progress(0).caught_up).await;
    assert!(!progress(1).caught_up);
    assert_eq!(log.watermark(later), None, "a partition that holds has no event yet");
    topic.hold(None);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    process.wait_for("the writers", |_| progress(0).caught_up && progress(1).caught_up).await;
    assert!(log.watermark(later).is_some());
    // A hole at the end is not a record, also while other partitions are never at their end.
    (0..40_000).for_each(|_| topic.append(1, Some(b"{\"v\":1}")));
    topic.append_hole(0);
    let is_busy = |status: &SourceStatus| status.partitions[1].lag > Some(0);
    process.wait_for("the hole", |s| s.partitions[0].position == Some(4) && progress(0).caught_up && is_busy(s)).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_added_later_is_read_from_its_beginning() {
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(1));
    topic.append(0, Some(b"{\"v\":1}"));
    let process = Process::start(&dir, &declared(1, ", start = 'latest'"), &topic);
    process.wait_for("the position", |status| status.partitions[0].position == Some(1)).await;
    process.stop().await;
    topic.add_partition();
    topic.append(1, Some(b"{\"v\":2}"));
    let process = Process::start(&dir, &declared(1, ", start = 'latest'"), &topic);
    let mut grown = process.readers.grown();
    tokio::time::timeout(PATIENCE, grown.wait_for(|grown| *grown)).await.expect("in time").expect("it is noticed");
    process.stop().await;
    let (declared_again, away) = (vec![declared(1, ", start = 'latest'")], super::Connections::default());
    let sized = super::topic_partitions::with_topic_partitions(declared_again, dir.path(), &away).await;
    let streams = sized.expect("reads");
    assert_eq!(streams[0].partitions, 2, "the folder of the log says so without an answer of the brokers");
    let process = Process::start(&dir, &streams[0], &topic);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    assert_eq!(process.logged(), [vec![], vec![0]]);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_the_brokers_do_not_have_is_never_guessed() {
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(1));
    (0..5).for_each(|_| topic.append(0, Some(b"{\"v\":1}")));
    let stream = declared(1, "");
    let process = Process::start(&dir, &stream, &topic);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    process.stop().await;
    // Records after the position are deleted before they are read: counted, and reading continues behind them.
    (0..5).for_each(|_| topic.append(0, Some(b"{\"v\":1}")));
    topic.delete_before(0, 8);
    let process = Process::start(&dir, &stream, &topic);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    assert_eq!((process.logged(), process.status().missed), (vec![vec![0, 1, 2, 3, 4, 8, 9]], 3));
    process.stop().await;
    // The brokers have lost records that were read: reading waits.
    topic.truncate(0, 6);
    let process = Process::start(&dir, &stream, &topic);
    process.wait_for("the error", |s| s.error.as_ref().is_some_and(|e| e.contains("before the position 10"))).await;
    assert_eq!(process.status().state, SourceState::Failing);
    process.stop().await;
    // The topic was created again under its name.
    topic.recreate();
    let process = Process::start(&dir, &stream, &topic);
    process.wait_for("the error", |s| s.error.as_ref().is_some_and(|e| e.contains("deleted and created again"))).await;
    assert_eq!(process.logged(), [vec![0, 1, 2, 3, 4, 8, 9]]);
    process.stop().await;
}
