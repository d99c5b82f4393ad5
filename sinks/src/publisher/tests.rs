//! Drives publishers over a cluster in memory whose calls fail in every way that brokers have, and over crashes.

use std::collections::VecDeque;
use std::path::Path;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;
use shared::alert::KeyColumn;
use shared::sink::{Emit, Sink, SinkFormat, SinkTopic};
use shared::window::WindowId;

use super::*;
use crate::sent::{SentChange, ValueHash};

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Works,
    /// The brokers did nothing, and say so.
    Fails,
    /// The brokers did nothing, and no answer comes.
    Lost,
    /// The brokers did it, and no answer comes.
    DoneAndLost,
    /// The process ends before the call.
    Crash,
}

pub(crate) fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Works),
        1 => Just(Fate::Fails),
        1 => Just(Fate::Lost),
        1 => Just(Fate::DoneAndLost),
        1 => Just(Fate::Crash),
    ]
}

#[derive(Default)]
pub(crate) struct FakeState {
    pub(crate) committed: Vec<OutgoingRecord>,
    /// Records of the open transaction.
    open: Option<Vec<OutgoingRecord>>,
    /// Number of the writer that is not fenced.
    generation: u64,
    pub(crate) fates: VecDeque<Fate>,
    pub(crate) has_crashed: bool,
    /// Number of the newest records that a transaction of another sink hides.
    hidden: usize,
}

#[derive(Clone, Default)]
pub(crate) struct FakeCluster(pub(crate) Arc<Mutex<FakeState>>);

struct FakeWriter {
    cluster: FakeCluster,
    generation: u64,
    /// Whether the writer's transaction was committed in a call that had no answer.
    is_done: Mutex<bool>,
}

impl FakeCluster {
    fn next(&self) -> Fate {
        let mut state = self.0.lock();
        let fate = state.fates.pop_front().unwrap_or(Fate::Works);
        state.has_crashed |= fate == Fate::Crash;
        fate
    }
}

#[async_trait]
impl TopicCluster for FakeCluster {
    async fn partitions(&self, _: &str) -> Result<u32, TopicError> {
        Ok(1)
    }

    async fn create_compacted(&self, _: &str) -> Result<(), TopicError> {
        Ok(())
    }

    async fn latest(&self, topic: &str, key: &[u8], until: ReadUntil) -> Result<Option<Bytes>, TopicError> {
        let state = self.0.lock();
        let hidden = if until == ReadUntil::End { 0 } else { state.hidden };
        let is_it = |record: &&OutgoingRecord| record.topic == topic && record.key.as_deref() == Some(key);
        let newest = state.committed.iter().rev().skip(hidden).find(is_it);
        Ok(newest.and_then(|record| record.value.clone()))
    }

    async fn writer(&self, _: &str) -> Result<Box<dyn TopicWriter>, WriteError> {
        let mut state = self.0.lock();
        state.generation += 1;
        state.open = None;
        Ok(Box::new(FakeWriter { cluster: self.clone(), generation: state.generation, is_done: Mutex::new(false) }))
    }
}

impl FakeWriter {
    fn check(&self) -> Result<(), WriteError> {
        match self.generation == self.cluster.0.lock().generation {
            true => Ok(()),
            false => Err(WriteError::Fenced("id".to_owned())),
        }
    }
}

#[async_trait]
impl TopicWriter for FakeWriter {
    async fn write(&self, records: Vec<OutgoingRecord>) -> Result<(), WriteError> {
        self.check()?;
        let fate = self.cluster.next();
        if !matches!(fate, Fate::Crash | Fate::Lost) {
            self.cluster.0.lock().open = Some(records);
        }
        match fate {
            Fate::Works => Ok(()),
            _ => Err(WriteError::Aborted(format!("{fate:?}"))),
        }
    }

    async fn commit(&self) -> Result<(), WriteError> {
        if std::mem::take(&mut *self.is_done.lock()) {
            return Ok(());
        }
        self.check()?;
        let fate = self.cluster.next();
        let mut state = self.cluster.0.lock();
        if matches!(fate, Fate::Works | Fate::DoneAndLost) {
            let records = state.open.take().expect("a transaction is open");
            state.committed.extend(records);
        }
        match fate {
            Fate::Works => Ok(()),
            Fate::Fails | Fate::Crash => Err(WriteError::Aborted(format!("{fate:?}"))),
            Fate::Lost => Err(WriteError::CommitUnknown("no answer".to_owned())),
            Fate::DoneAndLost => {
                *self.is_done.lock() = true;
                Err(WriteError::CommitUnknown("no answer".to_owned()))
            }
        }
    }

    async fn close(&self) {}
}

fn sink() -> Sink {
    let name = || "s".parse().expect("a name");
    Sink {
        name: name(),
        view: name(),
        target: SinkTarget::Topic(SinkTopic {
            connection: name(),
            topic: "topic".to_owned(),
            format: SinkFormat::Json,
            transactional_id: "id".to_owned(),
        }),
        emit: Emit::Changes,
        every: Duration::from_secs(1),
        key: vec![KeyColumn::Dimension(0)],
        sql: String::new(),
    }
}

fn publisher(folder: &Path, cluster: &FakeCluster) -> Publisher {
    let (sink, book) = (sink(), SinkBook::open(folder, &"s".parse().expect("a name"), "keys").expect("opens"));
    of_book((&sink.name, &sink.target), &Arc::new(book), cluster)
}

/// A publisher that does not wait.
pub(crate) fn of_book(sink: (&SinkName, &SinkTarget), book: &Arc<SinkBook>, cluster: &FakeCluster) -> Publisher {
    let mut publisher = Publisher::new(sink, Arc::clone(book), Arc::new(cluster.clone()));
    publisher.pauses = Pauses { take_over: Duration::ZERO, commit: Duration::ZERO };
    publisher
}

/// A batch that gives each of `keys` the value `number`, or deletes it.
fn batch(keys: &[(u8, bool)], number: u8) -> EpochBatch {
    let record = |(key, deletes): &(u8, bool)| OutgoingRecord {
        topic: "topic".to_owned(),
        key: Some(vec![*key].into()),
        value: (!deletes).then(|| vec![number].into()),
        headers: Vec::new(),
    };
    let change = |(key, deletes): &(u8, bool)| SentChange {
        window: WindowId(0),
        key: [*key].into(),
        value: (!deletes).then(|| ValueHash::of(&[number])),
    };
    let position = BTreeMap::from([(Partition(0), Offset(u64::from(number)))]);
    EpochBatch {
        records: keys.iter().map(record).collect(),
        changes: keys.iter().map(change).collect(),
        cut: EpochCut { position, ..EpochCut::default() },
        ..EpochBatch::default()
    }
}

/// The topic as its readers see it: the last value of each key, and which batches it has.
fn topic(cluster: &FakeCluster) -> (BTreeMap<u8, u8>, Vec<(u8, u8)>) {
    let (mut last, mut all) = (BTreeMap::new(), Vec::new());
    for record in cluster.0.lock().committed.iter().filter(|record| record.topic == "topic") {
        let key = record.key.as_ref().expect("a key")[0];
        match &record.value {
            Some(value) => {
                last.insert(key, value[0]);
                all.push((key, value[0]));
            }
            None => {
                last.remove(&key);
            }
        }
    }
    (last, all)
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_epoch_is_in_the_topic_once_or_not_and_the_book_knows(
        batches in prop::collection::vec(prop::collection::btree_map(0..4u8, any::<bool>(), 1..4), 1..12),
        fates in prop::collection::vec(fate(), 0..60),
        hidden in 0..6_usize,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let cluster = FakeCluster::default();
        *cluster.0.lock() = FakeState { fates: fates.into(), hidden, ..FakeState::default() };
        block_on(async {
            let mut publisher = publisher(folder.path(), &cluster);
            for (number, keys) in (1..).zip(batches) {
                let keys: Vec<(u8, bool)> = keys.into_iter().collect();
                // As the task does it: open when closed, write what the topic does not have, until it has it.
                for attempt in 0.. {
                    assert!(attempt < 100, "no end");
                    if std::mem::take(&mut cluster.0.lock().has_crashed) {
                        drop(publisher);
                        publisher = self::publisher(folder.path(), &cluster);
                    }
                    if !publisher.is_open() && publisher.open().await.is_err() {
                        continue;
                    }
                    let due = batch(&keys, number);
                    let is_new = |change: &SentChange| {
                        publisher.book.sent(|sent| sent.get(change.window, &change.key)) != change.value
                    };
                    let (records, changes): (Vec<_>, Vec<_>) =
                        due.records.clone().into_iter().zip(due.changes.clone()).filter(|(_, change)| is_new(change)).unzip();
                    if publisher.publish(EpochBatch { records, changes, ..due }).await.is_ok() {
                        break;
                    }
                }
                let (last, all) = topic(&cluster);
                for (key, deletes) in &keys {
                    assert_eq!(last.get(key).copied(), (!deletes).then_some(number));
                    let times = all.iter().filter(|record| **record == (*key, number)).count();
                    assert_eq!(times, usize::from(!deletes), "batch {number}, key {key}");
                }
                let mut of_book: Vec<u8> = Vec::new();
                publisher.book.sent(|sent| sent.for_each_of(|_| true, |_, key| of_book.push(key[0])));
                of_book.sort_unstable();
                assert_eq!(of_book, last.keys().copied().collect::<Vec<_>>());
            }
        });
    }
}

#[test]
fn a_fenced_process_stops_and_does_not_fence_the_new_one() {
    let (old, new) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let cluster = FakeCluster::default();
    block_on(async {
        let mut first = publisher(old.path(), &cluster);
        first.open().await.expect("opens");
        first.publish(batch(&[(1, false)], 1)).await.expect("written");
        // A copy of the data folder in another process.
        std::fs::copy(old.path().join("s.log"), new.path().join("s.log")).expect("copied");
        let mut second = publisher(new.path(), &cluster);
        second.open().await.expect("takes over");
        let error = first.publish(batch(&[(1, false)], 2)).await.expect_err("fenced");
        assert!(matches!(error, PublishError::Write(WriteError::Fenced(_))) && !first.is_open(), "{error}");
        let error = first.open().await.expect_err("another process writes");
        assert!(error.is_final() && error.to_string().contains("taken over"), "{error}");
        second.publish(batch(&[(1, false)], 3)).await.expect("the new one writes");
        // Another data folder is refused before it fences anything.
        let other = tempfile::tempdir().expect("a folder");
        let error = publisher(other.path(), &cluster).open().await.expect_err("another book");
        assert!(matches!(error, PublishError::Marker(MarkerError::Foreign)), "{error}");
        second.publish(batch(&[(1, false)], 4)).await.expect("it was not fenced");
        first.take_over();
        let error = first.open().await.expect_err("its book is behind");
        assert!(matches!(error, PublishError::Marker(MarkerError::Ahead { .. })), "{error}");
    });
}
