//! Opens logs with mutated segments: recovery returns a prefix of the events that were written, or refuses the log. It never
//! returns other events, and what it once recovered, it recovers again.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use intake::decode::{Options, decode};
use intake::event_id::hash_ids;
use intake::log::{LogError, inspect};
use intake::partition::{PartitionSettings, Submission};
use intake::streams::Intake;
use shared::clock::{Clock, ManualClock};
use shared::handoff::LogReplay;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;
use shared::time::Micros;
use shared::vital::Vitals;

use crate::fuzzer::{Target, fuzz, kind_of};

const P: Partition = Partition(0);
const SEGMENT: &str = "log/s/0";

fn stream() -> Arc<Stream> {
    let sql = "CREATE STREAM s (id STRING PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at');";
    let parsed = shared::sql::parse_definitions(&[("s.sql".to_owned(), sql.to_owned())]);
    Arc::new(parsed.unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0))
}

fn open(dir: &Path) -> Result<Intake, LogError> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Micros(1_000)));
    let settings = PartitionSettings { dedup_horizon_events: 64, ..PartitionSettings::default() };
    Intake::open(dir, &[stream()], &settings, &clock, &Vitals::default())
}

/// The events of a log, in their order.
fn events(intake: &Intake) -> Vec<RecordBatch> {
    let log = intake.streams().next().expect("the stream");
    let (from, to) = log.range(P);
    let mut batches = Vec::new();
    log.replay(P, from, to, &mut |batch| {
        batches.extend((0..batch.rows.num_rows()).map(|row| batch.rows.slice(row, 1)))
    })
    .expect("a recovered log can be read");
    assert_eq!(batches.len() as u64, to.0 - from.0);
    batches
}

/// Writes a few groups of events and returns the bytes of the segment, and the events.
fn written() -> (String, Vec<u8>, Vec<RecordBatch>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let intake = open(dir.path()).expect("a new log");
    intake.start().expect("threads");
    let log = Arc::clone(intake.streams().next().expect("the stream"));
    for group in 0..6 {
        let lines: String =
            (0..=group).map(|i| format!("{{\"id\":\"{group}-{i}\",\"at\":{},\"n\":{i}}}\n", group * 100 + i)).collect();
        let rows = decode(&stream(), lines.as_bytes(), Options::default()).expect("events").rows;
        let (reply, answer) = tokio::sync::oneshot::channel();
        let id_hashes = Some(hash_ids(rows.column(0)));
        log.try_submit(vec![(
            P,
            Submission { rows, id_hashes, entities: None, kept: Vec::new(), key: None, source: None, reply },
        )])
        .expect("there is room");
        answer.blocking_recv().expect("a receipt").expect("accepted");
    }
    intake.close();
    let all = events(&intake);
    let mut files = std::fs::read_dir(dir.path().join(SEGMENT)).expect("the log").flatten();
    let file = files.find(|entry| entry.path().extension().is_some_and(|e| e == "log")).expect("a segment");
    (file.file_name().into_string().expect("UTF-8"), std::fs::read(file.path()).expect("a segment"), all)
}

#[test]
fn recovery_returns_only_events_that_were_written() {
    let (name, segment, all) = written();
    assert_eq!(all.len(), 21);
    let target = Target {
        name: "log",
        seeds: vec![segment.clone(), Vec::new()],
        tokens: &["\0\0\0\0", "\u{1}\0\0\0"],
        inputs: 1_000,
        ..Target::default()
    };
    fuzz(&target, |bytes| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let folder = dir.path().join(SEGMENT);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(&name), bytes).expect("a segment");
        let _ = inspect(&dir.path().join("log/s"));
        let head = match open(dir.path()) {
            Ok(intake) => {
                let found = events(&intake);
                assert!(
                    found.len() <= all.len() && found == all[..found.len()],
                    "recovered events that were not written"
                );
                found.len()
            }
            Err(error) => return kind_of(&error.to_string().replace(&dir.path().display().to_string(), "")),
        };
        let again = open(dir.path()).unwrap_or_else(|error| panic!("recovered once, then refused: {error}"));
        assert_eq!(again.streams().next().expect("the stream").range(P), (Offset(0), Offset(head as u64)));
        format!("{head} events")
    });
}
