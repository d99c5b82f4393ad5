//! Compares what a sink of a stream writes with a plain fold of the events, over brokers that fail in every way, crashes,
//! pages of every size, events that are gone, and requests to write events again.

use std::collections::BTreeSet;
use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;
use shared::handoff::HandoffError;
use shared::sql::{Definitions, parse_definitions};
use shared::time::Micros;

use super::*;
use crate::publisher::Publisher;
use crate::publisher::tests::{FakeCluster, block_on, fate, of_book};

const DEFINITIONS: &str = "
    CREATE STREAM s (id BIGINT, at TIMESTAMP, k STRING, v BIGINT) WITH (event_time = 'at', partitions = 2);
    CREATE SINK out AS SELECT id, UPPER(k) AS name, v * 2 AS twice FROM s WHERE v % 3 <> 0
        WITH (connection = 'main', topic = 'topic', key = 'name');
    CREATE SINK bare AS SELECT * FROM s WITH (connection = 'main', topic = 'topic');";

/// An event; its id is its offset.
#[derive(Debug, Clone)]
struct Event {
    at: i64,
    k: &'static str,
    v: i64,
    is_gone: bool,
}

/// The events of two partitions.
#[derive(Default)]
struct FakePages(Mutex<[Vec<Event>; 2]>);

impl EventPages for FakePages {
    fn head(&self, partition: Partition) -> Offset {
        Offset(self.0.lock()[partition.0 as usize].len() as u64)
    }

    fn page(
        &self,
        partition: Partition,
        from: Offset,
        bounds: PageBounds,
    ) -> BoxFuture<'_, Result<EventPage, HandoffError>> {
        let events = self.0.lock()[partition.0 as usize].clone();
        let end = (from.0 as usize + bounds.rows).min(events.len());
        let kept: Vec<(usize, Event)> = events
            .into_iter()
            .enumerate()
            .take(end)
            .skip(from.0 as usize)
            .filter(|(_, event)| !event.is_gone)
            .collect();
        let numbers =
            |number: &dyn Fn(&(usize, Event)) -> i64| -> Int64Array { kept.iter().map(|e| Some(number(e))).collect() };
        let at: TimestampMicrosecondArray = kept.iter().map(|(_, event)| Some(event.at)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(numbers(&|(offset, _)| *offset as i64)),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(kept.iter().map(|(_, event)| Some(event.k)).collect::<StringViewArray>()),
            Arc::new(numbers(&|(_, event)| event.v)),
        ];
        let rows = RecordBatch::try_new(definitions().streams[0].schema(), columns).expect("columns of the stream");
        let offsets = kept.iter().map(|(offset, _)| Offset(*offset as u64)).collect();
        async move { Ok(EventPage { rows, offsets, end: Offset(end as u64) }) }.boxed()
    }
}

fn definitions() -> Definitions {
    parse_definitions(&[("test.sql".to_owned(), DEFINITIONS.to_owned())]).expect("valid")
}

/// What the sink writes of an event: its key and its value.
fn expected(offset: usize, event: &Event) -> Option<(String, String)> {
    let Event { k, v, is_gone, .. } = event;
    let name = k.to_uppercase();
    let value = format!("{{\"id\":{offset},\"name\":\"{name}\",\"twice\":{}}}", v * 2);
    (!is_gone && v % 3 != 0).then(|| (format!("{{\"name\":\"{name}\"}}"), value))
}

/// A sink with its book and its publisher, until the process ends.
struct Process {
    book: Arc<SinkBook>,
    changes: EventChanges,
    publisher: Publisher,
}

impl Process {
    fn start(folder: &Path, pages: &Arc<FakePages>, cluster: &FakeCluster, sizes: EventSizes) -> Process {
        let definitions = definitions();
        let sink = Arc::new(definitions.event_sink("out").expect("declared").clone());
        let book = Arc::new(SinkBook::open(folder, &sink.name, &sink.key_hash()).expect("opens"));
        let stream = Arc::new(definitions.streams[0].clone());
        let publisher = of_book((&sink.name, &sink.target), &book, cluster);
        Process {
            changes: EventChanges::new(sink, stream, Arc::clone(pages) as _, &Lookups::default(), sizes)
                .expect("no joins"),
            book,
            publisher,
        }
    }

    /// Does what a task does in a turn. Returns whether everything is written.
    async fn turn(&mut self) -> bool {
        if !self.publisher.is_open() && self.publisher.open().await.is_err() {
            return false;
        }
        let batch = self.changes.next(&self.book).await.expect("the events can be read");
        let is_partial = batch.is_partial;
        self.publisher.publish(batch).await.is_ok() && !is_partial
    }
}

/// The records of a partition in the topic, in order: their keys and values.
fn written(cluster: &FakeCluster, partition: usize) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("JSON");
    let state = cluster.0.lock();
    let of_topic = state.committed.iter().filter(|record| record.topic == "topic");
    let of_partition = of_topic.filter(|record| record.headers[0].1 == partition.to_string());
    of_partition
        .map(|record| (text(record.key.as_ref().expect("a key")), text(record.value.as_ref().expect("a value"))))
        .collect()
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let event = (0..100i64, prop::sample::select(vec!["a", "b", "c"]), -9..9i64, prop::bool::weighted(0.1));
    (0..2usize, event).prop_map(|(partition, (at, k, v, is_gone))| (partition, Event { at, k, v, is_gone }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn each_event_that_passes_is_written_once_in_order_whatever_fails(
        steps in prop::collection::vec(
            (prop::collection::vec(event(), 0..12), prop::option::weighted(0.2, prop::option::of(0..100i64))), 1..8,
        ),
        fates in prop::collection::vec(fate(), 0..60),
        page_rows in 1..6usize,
        transaction_bytes in 1..400usize,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let (pages, cluster) = (Arc::new(FakePages::default()), FakeCluster::default());
        cluster.0.lock().fates = fates.into();
        let sizes = EventSizes { page_rows, page_bytes: 1, transaction_bytes };
        let mut all: [Vec<(String, String)>; 2] = Default::default();
        block_on(async {
            let start = || Process::start(folder.path(), &pages, &cluster, sizes);
            let mut process = start();
            for (events, again) in steps {
                if let Some(from) = again {
                    process.book.write_events_again(from.map(Micros)).expect("written");
                    for (partition, expected_all) in all.iter_mut().enumerate() {
                        let known = pages.0.lock()[partition].clone();
                        let is_asked = |event: &Event| from.is_none_or(|from| event.at >= from);
                        let known = known.iter().enumerate().filter(|(_, event)| is_asked(event));
                        expected_all.extend(known.filter_map(|(offset, event)| expected(offset, event)));
                    }
                }
                for (partition, event) in events {
                    let mut known = pages.0.lock();
                    all[partition].extend(expected(known[partition].len(), &event));
                    known[partition].push(event);
                }
                for attempt in 0.. {
                    assert!(attempt < 1_000, "no end");
                    if std::mem::take(&mut cluster.0.lock().has_crashed) {
                        drop(process);
                        process = start();
                    }
                    if process.turn().await {
                        break;
                    }
                }
                for (partition, expected_all) in all.iter().enumerate() {
                    assert_eq!(&written(&cluster, partition), expected_all, "partition {partition}");
                }
                // Nothing is written again without a reason, also by the next process.
                let before = cluster.0.lock().committed.iter().filter(|record| record.topic == "topic").count();
                process = start();
                while !process.turn().await {}
                let after = cluster.0.lock().committed.iter().filter(|record| record.topic == "topic").count();
                assert_eq!(after, before);
            }
        });
    }
}

#[test]
fn events_that_are_asked_for_while_a_batch_is_found_are_written_and_the_batch_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pages, cluster) = (Arc::new(FakePages::default()), FakeCluster::default());
    let event = |v: i64| Event { at: v, k: "a", v, is_gone: false };
    pages.0.lock()[0].extend([event(1), event(2)]);
    block_on(async {
        let mut process = Process::start(folder.path(), &pages, &cluster, EventSizes::default());
        assert!(process.turn().await);
        pages.0.lock()[0].push(event(4));
        let batch = process.changes.next(&process.book).await.expect("found");
        process.book.write_events_again(Some(Micros(2))).expect("written");
        process.publisher.publish(batch).await.expect("not written");
        assert_eq!(written(&cluster, 0).len(), 2);
        while !process.turn().await {}
        let ids: Vec<String> = written(&cluster, 0).into_iter().map(|(_, value)| value[6..7].to_owned()).collect();
        assert_eq!(ids, ["0", "1", "1", "2"], "the second event again, and the new one once");
        let offsets: BTreeSet<Offset> = process.book.position().0.position.into_values().collect();
        assert_eq!(offsets, BTreeSet::from([Offset(3)]));
    });
}

#[test]
fn a_position_beyond_the_log_is_taken_back_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pages, cluster) = (Arc::new(FakePages::default()), FakeCluster::default());
    let event = |v: i64| Event { at: v, k: "a", v, is_gone: false };
    pages.0.lock()[0].extend([event(1), event(2), event(4)]);
    block_on(async {
        let mut process = Process::start(folder.path(), &pages, &cluster, EventSizes::default());
        assert!(process.turn().await);
        // The log was lost, and begins again behind the events that the archive has.
        pages.0.lock()[0].truncate(1);
        let process_of = |pages: &Arc<FakePages>| Process::start(folder.path(), pages, &cluster, EventSizes::default());
        let mut process = process_of(&pages);
        assert!(process.book.limit_position(|partition| pages.head(partition)));
        pages.0.lock()[0].push(event(5));
        while !process.turn().await {}
        let last = written(&cluster, 0).pop().expect("records");
        assert_eq!(last.1, "{\"id\":1,\"name\":\"A\",\"twice\":10}");
        assert!(!process.book.limit_position(|partition| pages.head(partition)));
    });
}

#[test]
fn records_without_a_key_have_all_columns_of_the_stream() {
    let definitions = definitions();
    let sink = definitions.event_sink("bare").expect("declared");
    let pages = FakePages::default();
    pages.0.lock()[1].push(Event { at: 1_000_000, k: "é", v: -1, is_gone: false });
    let page = block_on(pages.page(Partition(1), Offset(0), PageBounds { rows: 9, bytes: 9 })).expect("a page");
    let records = EventRecords::new(Arc::new(sink.clone()), None);
    let written = records.of_page(Partition(1), &page, &|_| true, 1).expect("written").records;
    let value = written[0].value.as_deref().expect("a value");
    assert_eq!(std::str::from_utf8(value), Ok("{\"id\":0,\"at\":\"1970-01-01T00:00:01Z\",\"k\":\"é\",\"v\":-1}"));
    assert_eq!((written.len(), &written[0].key), (1, &None));
    let headers: Vec<(&str, &[u8])> = written[0].headers.iter().map(|(name, value)| (*name, &value[..])).collect();
    assert_eq!(headers, [("_partition", &b"1"[..]), ("_offset", b"0")]);
}
