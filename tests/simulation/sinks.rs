//! Lets sinks follow the view of a machine into topics in memory, over crashes at every step of an epoch, and compares the topics
//! with what clients know: each change once, final rows after the end of their windows, and in the end the view itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka::OutgoingRecord;
use serde_json::Value;
use shared::changed_rows::ChangedRows;
use shared::limits::SINK_QUEUE_BYTES_MAX;
use shared::sink::{Emit, Sink};
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;
use sinks::book::{EpochMarker, SinkBook};
use sinks::differences::EpochBatch;
use sinks::sizes::EpochSizes;
use sinks::view_changes::{ChangesError, SinkLayers, ViewChanges};
use tempfile::TempDir;

use crate::dice::Dice;
use crate::model::PartitionModel;
use crate::served_view::{Row, Rows, ServedView};

/// The process in markers.
const WRITER: &str = "process";
/// Looks until the sink has written everything.
const LOOKS: usize = 5_000;

/// A topic, and the book of the sink that writes it.
pub struct SinkTopic {
    sink: Arc<Sink>,
    view: Arc<View>,
    dice: Dice,
    /// Has the book.
    folder: TempDir,
    /// The committed value of each key.
    table: BTreeMap<Bytes, Bytes>,
    /// Book and number of the last committed epoch.
    marker: Option<(String, u64)>,
    records: u64,
    corrections: u64,
    queue: Arc<ChangedRows>,
    sizes: EpochSizes,
}

/// A sink in a process.
pub struct RunningSink {
    book: Arc<SinkBook>,
    changes: ViewChanges,
}

/// The sink has crashed, and its process with it, or it cannot read the view now.
struct Interrupted;

impl SinkTopic {
    /// An empty topic.
    pub fn new(seed: u64, sink: &Sink, view: &Arc<View>) -> SinkTopic {
        SinkTopic {
            sink: Arc::new(sink.clone()),
            view: Arc::clone(view),
            dice: Dice::new(seed, 7 + u64::from(sink.emit == Emit::Final)),
            folder: tempfile::tempdir().expect("a folder"),
            table: BTreeMap::new(),
            marker: None,
            records: 0,
            corrections: 0,
            queue: Arc::new(ChangedRows::new(SINK_QUEUE_BYTES_MAX)),
            sizes: EpochSizes::default(),
        }
    }

    /// The queue of a new process. Most have so little room that changes come in pieces and get lost.
    pub fn new_queue(&mut self) -> Arc<ChangedRows> {
        let bytes = self.dice.one(&[100, 150, SINK_QUEUE_BYTES_MAX]);
        let all = EpochSizes::default();
        self.sizes = EpochSizes {
            epoch_rows: self.dice.one(&[1, 3, all.epoch_rows]),
            page_rows: self.dice.one(&[1, 2, 5, all.page_rows]),
            page_bytes: self.dice.one(&[0, 3, all.page_bytes]),
            transaction_bytes: self.dice.one(&[1, 200, all.transaction_bytes]),
            waiting_bytes: self.dice.one(&[0, 100, 200, all.waiting_bytes]),
        };
        self.queue = Arc::new(ChangedRows::new(bytes));
        Arc::clone(&self.queue)
    }

    /// Opens the book as a process does that has just fenced the one before.
    pub fn start(&self, layers: SinkLayers) -> RunningSink {
        let book =
            SinkBook::open(self.folder.path(), &self.sink.name, &self.sink.key_hash(&self.view)).expect("a book");
        let marker = self.marker.as_ref();
        let marker = marker.map(|(book, epoch)| EpochMarker { book, epoch: *epoch, writer: WRITER });
        book.settle(marker).expect("the book is written").expect("the marker fits");
        let changes = ViewChanges::new(Arc::clone(&self.sink), layers, Arc::clone(&self.queue), self.sizes);
        RunningSink { book: Arc::new(book), changes }
    }

    /// Writes an epoch, as the task of a sink does. Returns whether more is to be written at once.
    async fn epoch(&mut self, running: &mut RunningSink, models: &[PartitionModel]) -> Result<bool, Interrupted> {
        let read = |batch: Result<EpochBatch, ChangesError>| match batch {
            Err(ChangesError::Fetch(_)) => Err(Interrupted),
            batch => Ok(batch.expect("changes")),
        };
        let walked = running.changes.walk(&running.book).await.transpose().map(read).transpose()?;
        if let Some(batch) = walked {
            let is_partial = batch.is_partial;
            self.publish(&running.book, batch, models)?;
            if !is_partial {
                running.changes.walked();
            }
        }
        let batch = read(running.changes.live(&running.book).await)?;
        let is_partial = batch.is_partial;
        self.publish(&running.book, batch, models)?;
        if !is_partial {
            running.changes.settle();
        }
        Ok(is_partial || running.changes.is_walking())
    }

    fn publish(&mut self, book: &SinkBook, batch: EpochBatch, models: &[PartitionModel]) -> Result<(), Interrupted> {
        let EpochBatch { records, changes, cut, .. } = batch;
        if changes.is_empty() && cut.version == book.committed().1.version {
            book.advance(cut);
            return Ok(());
        }
        if self.dice.percent(5) {
            return Err(Interrupted);
        }
        let epoch = book.prepare(WRITER, cut, changes).expect("the book is written");
        if self.dice.percent(10) {
            return Err(Interrupted);
        }
        records.into_iter().for_each(|record| self.commit(record, models));
        self.marker = Some((book.id(), epoch));
        if self.dice.percent(10) {
            return Err(Interrupted);
        }
        book.commit().expect("the book is written");
        Ok(())
    }

    fn commit(&mut self, record: OutgoingRecord, models: &[PartitionModel]) {
        let kind = record.headers.iter().find(|(name, _)| *name == "_kind").map(|(_, kind)| kind.clone());
        let key = record.key.expect("every row has a key");
        let Some(value) = record.value else {
            assert_eq!(kind.as_deref(), Some(&b"delete"[..]));
            assert!(self.table.remove(&key).is_some(), "{key:?} is deleted twice");
            return;
        };
        let before = self.table.insert(key.clone(), value.clone());
        assert_ne!(before.as_ref(), Some(&value), "{key:?} is written twice");
        let expected: &[u8] = match (self.sink.emit, before.is_some()) {
            (Emit::Changes, _) => b"upsert",
            (Emit::Final, false) => b"final",
            (Emit::Final, true) => b"correction",
        };
        assert_eq!(kind.as_deref(), Some(expected), "{key:?}");
        self.records += 1;
        self.corrections += u64::from(expected == b"correction");
        let end = row_of(&value).end;
        let passed = models.iter().map(PartitionModel::watermark).max().unwrap_or(i64::MIN);
        assert!(self.sink.emit == Emit::Changes || end <= passed, "{key:?} is open at {passed}");
    }

    /// Writes an epoch; if the sink crashes, starts it again.
    pub async fn step(&mut self, running: &mut RunningSink, layers: &SinkLayers, models: &[PartitionModel]) -> bool {
        match self.epoch(running, models).await {
            Ok(is_busy) => is_busy,
            Err(Interrupted) => {
                if self.dice.percent(50) {
                    *running = self.start(layers.clone());
                } else {
                    // As after an error of the brokers: the writer is opened again.
                    let marker = self.marker.as_ref();
                    let marker = marker.map(|(book, epoch)| EpochMarker { book, epoch: *epoch, writer: WRITER });
                    running.book.settle(marker).expect("the book is written").expect("the marker fits");
                }
                true
            }
        }
    }

    /// Writes everything, and compares the topic with the view. The store has no faults.
    pub async fn finish(&mut self, running: &mut RunningSink, served: &ServedView, models: &[PartitionModel]) {
        let layers = served.sink_layers();
        let smallest = models.iter().filter(|model| model.head() > 0).map(PartitionModel::watermark).min();
        let is_final = self.sink.emit == Emit::Final;
        let is_done = |running: &RunningSink| {
            let (_, cut) = running.book.committed();
            let reached = |model: &PartitionModel| {
                model.head() == 0 || cut.position.get(&model.partition).is_some_and(|offset| offset.0 == model.head())
            };
            let closed = cut.watermark.map_or(i64::MIN, |watermark| watermark.0);
            models.iter().all(reached)
                && cut.version == served.version()
                && (!is_final || smallest.is_none_or(|smallest| closed >= smallest))
        };
        let mut is_over = false;
        for _ in 0..LOOKS {
            let is_busy = self.step(running, &layers, models).await;
            is_over = !is_busy && is_done(running);
            if is_over {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (epoch, cut) = running.book.committed();
        assert!(is_over, "the sink does not finish: epoch {epoch}, {cut:?}");
        let expected = served.expected(models);
        let found: Rows = self.table.iter().map(|(key, value)| (start_of(key), row_of(value))).collect();
        let closed = cut.watermark.map_or(i64::MIN, |watermark| watermark.0);
        // A session that the topic had may be open again: its rows stay until it is closed.
        let is_open_again = |at: i64| {
            let around = expected.range(..=at).next_back().filter(|(_, row)| at < row.end && row.end > closed);
            is_final && matches!(self.view.window, Window::Session { .. }) && around.is_some()
        };
        let settled: Rows = found.iter().filter(|(at, _)| !is_open_again(**at)).map(|(at, row)| (*at, *row)).collect();
        let is_due = |(at, row): &(&i64, &Row)| !is_final || row.end <= closed || settled.contains_key(at);
        let expected: Rows = expected.iter().filter(is_due).map(|(at, row)| (*at, *row)).collect();
        assert_eq!(settled, expected, "the topic is the view, closed to {closed}");
        let rows = running.book.sent(|sent| sent.len());
        assert_eq!(rows, self.table.len(), "the book knows the topic");
    }

    /// Records and corrections so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.records, self.corrections)
    }
}

fn start_of(key: &[u8]) -> i64 {
    let key: Value = serde_json::from_slice(key).expect("JSON");
    let start: Micros = serde_json::from_value(key["window_start"].clone()).expect("a time");
    start.0
}

fn row_of(value: &[u8]) -> Row {
    let value: Value = serde_json::from_slice(value).expect("JSON");
    let number = |name: &str| value[name].as_i64().expect("a number");
    let end: Micros = serde_json::from_value(value["window_end"].clone()).expect("a time");
    Row { end: end.0, events: number("events"), total: number("total") }
}
