//! Checks that the partitions of a stream act as one: all-or-nothing requests, keys, one cut, replay and release by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use shared::clock::{Clock, ManualClock};
use shared::control::{EventKind, ListRange};
use shared::handoff::{Cutter, LogReplay, LogRetention};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::Stream;
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::event_id::hash_ids;
use crate::log::LogError;
use crate::log::testing::{events, stream};
use crate::partition::{BodyFingerprint, IdempotencyKey, PartitionReceipt, PartitionSettings, Submission, SubmitError};

type Receiver = oneshot::Receiver<Result<PartitionReceipt, SubmitError>>;

fn open(dir: &TempDir, partitions: u32, settings: PartitionSettings) -> Result<Intake, LogError> {
    let stream = Arc::new(Stream { partitions, ..stream() });
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Micros(1_000)));
    let intake = Intake::open(dir.path(), &[stream], &settings, &clock, &Vitals::default())?;
    intake.start().expect("threads");
    Ok(intake)
}

fn part(partition: u32, ids: &[&str]) -> ((Partition, Submission), Receiver) {
    let (reply, answer) = oneshot::channel();
    let of: Vec<_> = ids.iter().map(|id| (Some(*id), 7)).collect();
    let rows = events(&of);
    let id_hashes = Some(hash_ids(rows.column(0)));
    (
        (
            Partition(partition),
            Submission { rows, id_hashes, entities: None, kept: Vec::new(), key: None, source: None, reply },
        ),
        answer,
    )
}

#[test]
fn a_request_is_submitted_to_all_its_partitions_or_to_none() {
    let dir = TempDir::new().expect("a folder");
    let intake = open(&dir, 2, PartitionSettings::default()).expect("opens");
    let log = intake.stream(&stream().name).expect("the stream");
    let (good, _answer) = part(0, &["a"]);
    let (stray, _answer) = part(7, &["b"]);
    assert_eq!(log.try_submit(vec![good, stray]), Err(SubmitError::NoPartition(Partition(7))));
    assert_eq!(log.partition(Partition(0)).map(|log| log.queued_bytes()), Some(0), "the room is returned");
    let ((a, answer_a), (b, answer_b)) = (part(0, &["a"]), part(1, &["b", "c"]));
    log.try_submit(vec![a, b]).expect("there is room");
    let accepted = [answer_a, answer_b].map(|a| a.blocking_recv().expect("an answer").map(|a| a.accepted));
    assert_eq!(accepted, [Ok(1), Ok(2)]);
}

/// A crash between the partitions of a request leaves some parts in the log and others not.
#[test]
fn a_retry_completes_a_request_of_which_a_crash_wrote_one_partition() {
    let dir = TempDir::new().expect("a folder");
    let key = |body: &str| IdempotencyKey { key: "k".to_owned(), body: BodyFingerprint::of(body.as_bytes()) };
    let submit = |intake: &Intake, parts: &[(u32, &[&str])], body: &str| {
        let log = intake.stream(&stream().name).expect("the stream");
        let claim = log.claim_key(&key(body))?;
        let (parts, answers): (Vec<_>, Vec<_>) = parts
            .iter()
            .map(|(partition, ids)| {
                let ((partition, submission), answer) = part(*partition, ids);
                ((partition, Submission { key: Some(Arc::clone(&claim)), ..submission }), answer)
            })
            .unzip();
        log.try_submit(parts)?;
        let accepted = |answer: Receiver| answer.blocking_recv().expect("an answer").map(|receipt| receipt.accepted);
        answers.into_iter().map(accepted).collect::<Result<Vec<_>, _>>()
    };
    let whole: [(u32, &[&str]); 2] = [(0, &["a"]), (2, &["b", "c"])];
    let intake = open(&dir, 3, PartitionSettings::default()).expect("opens");
    assert_eq!(submit(&intake, &whole[..1], "body"), Ok(vec![1]), "the crash came before partition 2");
    drop(intake);
    for restart in 0..2 {
        let intake = open(&dir, 3, PartitionSettings::default()).expect("opens");
        let other: [(u32, &[&str]); 1] = [(1, &["d"])];
        assert_eq!(submit(&intake, &other, "another body"), Err(SubmitError::KeyReused), "restart {restart}");
        assert_eq!(submit(&intake, &whole, "body"), Ok(vec![1, 2]), "restart {restart}");
        let log = intake.stream(&stream().name).expect("the stream");
        assert_eq!(log.totals().map(|totals| totals.accepted.events).collect::<Vec<_>>(), [1, 0, 2]);
    }
}

#[test]
fn a_refused_request_frees_its_key() {
    let dir = TempDir::new().expect("a folder");
    let intake = open(&dir, 2, PartitionSettings::default()).expect("opens");
    let log = intake.stream(&stream().name).expect("the stream");
    let key = |body: &[u8]| IdempotencyKey { key: "k".to_owned(), body: BodyFingerprint::of(body) };
    let claim = log.claim_key(&key(b"first")).expect("a new key");
    assert_eq!(log.claim_key(&key(b"second")).err(), Some(SubmitError::KeyReused), "while it is under way");
    let ((_, submission), _answer) = part(7, &["a"]);
    let refused = log.try_submit(vec![(Partition(7), Submission { key: Some(claim), ..submission })]);
    assert_eq!(refused, Err(SubmitError::NoPartition(Partition(7))));
    assert!(log.claim_key(&key(b"second")).is_ok());
}

#[test]
fn a_cut_covers_every_partition_and_the_log_can_be_read_up_to_it() {
    let dir = TempDir::new().expect("a folder");
    let name = stream().name;
    let intake = open(&dir, 3, PartitionSettings::default()).expect("opens");
    let log = intake.stream(&name).expect("the stream");
    let mut answers = Vec::new();
    for (partition, ids) in [(0, &["a", "b"][..]), (2, &["c"])] {
        let (submission, answer) = part(partition, ids);
        log.try_submit(vec![submission]).expect("there is room");
        answers.push(answer);
    }
    let cut = futures::executor::block_on(intake.cut(&name, &"view".parse().expect("a name"))).expect("a cut");
    assert_eq!(cut.0.values().map(|p| p.offset.0).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(
        cut.accepted(),
        log.status(&BTreeMap::new()).iter().map(|s| Ledger::of_range(s.partition, Offset(0), s.head)).sum()
    );
    let mut rows = 0;
    for (partition, point) in &cut.0 {
        log.replay(*partition, Offset(0), point.offset, &mut |batch| rows += batch.rows.num_rows()).expect("replays");
    }
    assert_eq!(rows, 3);
    intake.close();
    let unknown = futures::executor::block_on(intake.cut(&"other".parse().expect("a name"), &name));
    assert!(unknown.is_err());
    assert!(futures::executor::block_on(intake.cut(&name, &name)).is_err(), "a stopped log is not cut");
}

#[test]
fn lateness_is_restored_after_a_restart_from_the_end_of_the_log() {
    let dir = TempDir::new().expect("a folder");
    let listed = |intake: &Intake| {
        let lateness = intake.stream(&stream().name).expect("the stream").lateness();
        let range = ListRange { limit: 100, cursor: None };
        let rows = lateness.events(EventKind::Late, &range, 0).expect("a page").rows;
        let offsets =
            rows.column_by_name("_offset").expect("a system column").as_primitive::<Int64Type>().values().to_vec();
        (offsets, lateness.summary().map(|summary| (summary.measured, summary.max_ms)))
    };
    let intake = open(&dir, 1, PartitionSettings::default()).expect("opens");
    assert_eq!(listed(&intake), (vec![], None));
    let log = intake.stream(&stream().name).expect("the stream");
    // At 1,000, times beyond 2,000 are too far ahead.
    for (times, ahead) in [([2_000, 1_000], 0), ([3_000, 500], 1)] {
        let (reply, answer) = oneshot::channel();
        let rows = events(&times.map(|at| (None, at)));
        let id_hashes = Some(hash_ids(rows.column(0)));
        let submission =
            Submission { rows, id_hashes, entities: None, kept: Vec::new(), key: None, source: None, reply };
        log.try_submit(vec![(Partition(0), submission)]).expect("there is room");
        assert_eq!(
            answer.blocking_recv().expect("an answer").map(|a| (a.accepted, a.late, a.ahead)),
            Ok((2, 1, ahead))
        );
    }
    let before = listed(&intake);
    drop(intake);
    let again = open(&dir, 1, PartitionSettings::default()).expect("opens");
    assert_eq!(listed(&again), before);
    assert_eq!(before.0, [3, 1]);
    drop(again);
    let mut settings = PartitionSettings::default();
    settings.lateness.reread_events = 2;
    assert_eq!(listed(&open(&dir, 1, settings).expect("opens")).0, [3]);
}

#[test]
fn a_release_by_all_readers_frees_the_oldest_segments() {
    let dir = TempDir::new().expect("a folder");
    let mut settings = PartitionSettings { dedup_horizon_events: 1, ..PartitionSettings::default() };
    (settings.log.segment_bytes, settings.log.keep_events) = (1, 1);
    let intake = open(&dir, 1, settings).expect("opens");
    let name = stream().name;
    let log = intake.stream(&name).expect("the stream");
    log.register_reader("archive");
    for id in ["a", "b", "c"] {
        let (submission, answer) = part(0, &[id]);
        log.try_submit(vec![submission]).expect("there is room");
        assert!(answer.blocking_recv().expect("an answer").is_ok());
    }
    intake.release(&name, Partition(0), "speed:view", Offset(3));
    assert_eq!(log.range(Partition(0)), (Offset(0), Offset(3)));
    intake.release(&name, Partition(0), "archive", Offset(3));
    assert_eq!(log.range(Partition(0)), (Offset(2), Offset(3)), "the newest event is kept for dedup");
    assert!(log.replay(Partition(0), Offset(0), Offset(3), &mut |_| ()).is_err());
}

#[test]
fn a_partition_with_events_that_is_no_longer_declared_is_refused() {
    let dir = TempDir::new().expect("a folder");
    drop(open(&dir, 4, PartitionSettings::default()).expect("opens"));
    let intake = open(&dir, 3, PartitionSettings::default()).expect("the fourth never had an event");
    let (submission, answer) = part(2, &["a"]);
    intake.stream(&stream().name).expect("the stream").try_submit(vec![submission]).expect("there is room");
    assert!(answer.blocking_recv().expect("an answer").is_ok());
    drop(intake);
    assert!(matches!(open(&dir, 2, PartitionSettings::default()).err(), Some(LogError::Misplaced { .. })));
}
