//! Checks that a partition decides the same however often it is closed, and that failed writes leave no trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use parking_lot::{Condvar, Mutex};
use proptest::prelude::*;
use shared::clock::ManualClock;
use shared::handoff::{LogItem, LogSink, Stopped};
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream_watermark::PartitionProgress;
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::event_id::hash_ids;
use crate::log::testing::{events, stream};
use crate::log::{Exhausted, IoFaults, IoStep, LocalDisk, LogSettings, with_faults};

const P: Partition = Partition(0);
const ARRIVED: Micros = Micros(1_000);

type Receiver = oneshot::Receiver<Result<PartitionReceipt, SubmitError>>;

/// A sink that records items, and blocks while it is shut.
#[derive(Default)]
struct Recorder {
    items: Mutex<Vec<LogItem>>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Recorder {
    fn shut(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.opened.notify_all();
    }
}

impl LogSink for Recorder {
    fn push(&self, item: LogItem) -> Result<(), Stopped> {
        self.items.lock().push(item);
        let mut shut = self.shut.lock();
        while *shut {
            self.opened.wait(&mut shut);
        }
        Ok(())
    }
}

fn settings() -> PartitionSettings {
    let log = LogSettings { segment_bytes: 4_000, keep_events: 0, ..LogSettings::default() };
    let idempotency = KeyRetention { keep: Duration::ZERO, keys_min: 3, bytes_max: usize::MAX };
    PartitionSettings { log, dedup_horizon_events: 8, idempotency, ..PartitionSettings::default() }
}

/// A partition, with the keys of its stream, and a sink that records.
struct TestPartition {
    log: PartitionLog,
    claims: Arc<KeyClaims>,
}

impl std::ops::Deref for TestPartition {
    type Target = PartitionLog;

    fn deref(&self) -> &PartitionLog {
        &self.log
    }
}

fn open(dir: &TempDir, settings: PartitionSettings) -> (TestPartition, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let log = opened(dir, settings, &Vitals::default());
    log.attach(recorder.clone());
    log.start().expect("a thread");
    (log, recorder)
}

fn opened(dir: &TempDir, settings: PartitionSettings, vitals: &Vitals) -> TestPartition {
    let clock = Arc::new(ManualClock::at(ARRIVED));
    let claims = Arc::new(KeyClaims::default());
    let log = PartitionLog::open(dir.path(), Arc::new(stream()), P, settings, clock, vitals, &claims);
    TestPartition { log: log.expect("opens"), claims }
}

/// Every key is sent with the same body.
fn submission(log: &TestPartition, of: &[(Option<&str>, i64)], key: Option<&str>) -> (Submission, Receiver) {
    let (reply, answer) = oneshot::channel();
    let rows = events(of);
    let id_hashes = Some(hash_ids(rows.column(0)));
    let key = key.map(|key| IdempotencyKey { key: key.to_owned(), body: BodyFingerprint::of(b"the body") });
    let key = key.map(|key| log.claims.claim(&key).expect("the same body"));
    (Submission { rows, id_hashes, entities: None, kept: Vec::new(), key, source: None, reply }, answer)
}

fn submit(log: &TestPartition, of: &[(Option<&str>, i64)], key: Option<&str>) -> Receiver {
    let (submission, answer) = submission(log, of, key);
    log.try_submit(submission).expect("there is room");
    answer
}

fn receipt(answer: Receiver) -> Result<PartitionReceipt, SubmitError> {
    answer.blocking_recv().expect("an answer")
}

fn answer(accepted: u64, duplicates: u64, first: u64) -> PartitionReceipt {
    let (first_offset, end_offset) = match accepted {
        0 => (None, None),
        _ => (Some(Offset(first)), Some(Offset(first + accepted))),
    };
    PartitionReceipt { accepted, duplicates, first_offset, end_offset, ..PartitionReceipt::default() }
}

/// A model of a partition, made of lists.
#[derive(Default)]
struct Model {
    /// Id, event time and watermark before it, of each accepted event.
    accepted: Vec<(Option<u8>, i64, Option<i64>)>,
    watermark: Option<i64>,
    keys: Vec<(u8, PartitionReceipt)>,
    duplicates: u64,
    late: u64,
    ahead: u64,
}

impl Model {
    fn submit(&mut self, of: &[(Option<u8>, i64)], key: Option<u8>) -> PartitionReceipt {
        let recent = &self.keys[self.keys.len().saturating_sub(3)..];
        if let Some((_, known)) = recent.iter().find(|(k, _)| Some(*k) == key) {
            return *known;
        }
        let (first, mut answer) = (self.accepted.len() as u64, PartitionReceipt::default());
        for (id, at) in of {
            let recent = &self.accepted[self.accepted.len().saturating_sub(8)..];
            if id.is_some() && recent.iter().any(|(known, ..)| known == id) {
                answer.duplicates += 1;
                continue;
            }
            answer.accepted += 1;
            answer.late += u64::from(self.watermark.is_some_and(|w| at + 10 <= w));
            self.accepted.push((*id, *at, self.watermark));
            match *at > ARRIVED.0 + 1_000 {
                true => {
                    self.ahead += 1;
                    answer.ahead += 1;
                }
                false => self.watermark = Some(self.watermark.unwrap_or(i64::MIN).max(at - 5)),
            }
        }
        if answer.accepted > 0 {
            answer.first_offset = Some(Offset(first));
            answer.end_offset = Some(Offset(first + answer.accepted));
        }
        self.duplicates += answer.duplicates;
        self.late += answer.late;
        self.keys.extend(key.map(|key| (key, answer)));
        answer
    }
}

#[derive(Debug, Clone)]
enum Action {
    Submit(Vec<(Option<u8>, i64)>, Option<u8>),
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let event = (prop::option::weighted(0.9, 0u8..20), prop_oneof![9 => 0i64..300, 1 => 1_990i64..2_010]);
    prop_oneof![
        6 => (prop::collection::vec(event, 0..7), prop::option::weighted(0.4, 0u8..6))
            .prop_map(|(of, key)| Action::Submit(of, key)),
        1 => Just(Action::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn reopening_changes_no_verdict(actions in prop::collection::vec(action(), 1..40)) {
        let dir = TempDir::new().expect("a folder");
        let (mut log, mut recorder) = open(&dir, settings());
        let mut model = Model::default();
        let mut asked: Vec<(Receiver, PartitionReceipt)> = Vec::new();
        let mut shown: Vec<LogItem> = Vec::new();
        for action in actions {
            match action {
                Action::Submit(of, key) => {
                    let expected = model.submit(&of, key);
                    let ids: Vec<_> = of.iter().map(|(id, at)| (id.map(|id| id.to_string()), *at)).collect();
                    let of: Vec<_> = ids.iter().map(|(id, at)| (id.as_deref(), *at)).collect();
                    asked.push((submit(&log, &of, key.map(|k| k.to_string()).as_deref()), expected));
                }
                Action::Reopen => {
                    log.close();
                    shown.append(&mut recorder.items.lock());
                    drop(log);
                    (log, recorder) = open(&dir, settings());
                }
            }
        }
        log.close();
        shown.append(&mut recorder.items.lock());
        for (answer, expected) in asked {
            prop_assert_eq!(receipt(answer), Ok(expected));
        }
        let status = log.status(Offset(0), None);
        let head = Offset(model.accepted.len() as u64);
        prop_assert_eq!((status.head, log.range().1), (head, head));
        prop_assert_eq!(status.watermark, model.watermark.map(Micros));
        prop_assert_eq!((status.duplicates, status.late, status.ahead), (model.duplicates, model.late, model.ahead));

        let mut replayed = Vec::new();
        log.replay(Offset(0), head, &mut |batch| replayed.push(LogItem::Batch(Arc::new(batch)))).expect("replays");
        for items in [shown, replayed] {
            let mut accepted = Vec::new();
            for item in items {
                let LogItem::Batch(batch) = item else { continue };
                prop_assert_eq!(batch.first_offset, Offset(accepted.len() as u64));
                let times = batch.rows.column(1).as_primitive::<TimestampMicrosecondType>();
                let marks = batch.rows.column(6).as_primitive::<TimestampMicrosecondType>();
                for (row, id) in batch.rows.column(0).as_string_view().iter().enumerate() {
                    let id = id.map(|id| id.parse().expect("an id of this test"));
                    accepted.push((id, times.value(row), marks.is_valid(row).then(|| marks.value(row))));
                }
                prop_assert_eq!(batch.accepted, Ledger::of_range(P, Offset(0), batch.end_offset()));
            }
            prop_assert_eq!(&accepted, &model.accepted);
        }
    }
}

#[test]
fn an_id_is_known_inside_the_horizon_and_forgotten_outside_it() {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = open(&dir, settings());
    let a = [(Some("a"), 1)];
    assert_eq!(receipt(submit(&log, &[a[0], a[0]], None)), Ok(answer(1, 1, 0)));
    let others: Vec<String> = (0..7).map(|i| format!("other {i}")).collect();
    let others: Vec<_> = others.iter().map(|id| (Some(id.as_str()), 1)).collect();
    assert_eq!(receipt(submit(&log, &others, None)), Ok(answer(7, 0, 1)));
    assert_eq!(receipt(submit(&log, &a, None)), Ok(answer(0, 1, 8)), "the eighth event back");
    assert_eq!(receipt(submit(&log, &[(None, 1)], None)), Ok(answer(1, 0, 8)), "a null id is never a duplicate");
    assert_eq!(receipt(submit(&log, &a, None)), Ok(answer(1, 0, 9)), "the ninth event back");
}

#[test]
fn a_key_gets_its_first_receipt_again_even_if_nothing_was_accepted() {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = open(&dir, settings());
    assert_eq!(receipt(submit(&log, &[(Some("a"), 1)], Some("first"))), Ok(answer(1, 0, 0)));
    assert_eq!(receipt(submit(&log, &[(Some("a"), 1)], Some("second"))), Ok(answer(0, 1, 1)));
    drop(log);
    let (log, recorder) = open(&dir, settings());
    assert_eq!(receipt(submit(&log, &[(Some("b"), 1)], Some("second"))), Ok(answer(0, 1, 1)));
    assert_eq!(receipt(submit(&log, &[(Some("c"), 1)], Some("first"))), Ok(answer(1, 0, 0)));
    assert_eq!(log.status(Offset(0), None).accepted, 1);
    assert!(recorder.items.lock().is_empty());
}

/// Number of key files beside the log.
fn key_files(dir: &TempDir) -> usize {
    let files = std::fs::read_dir(dir.path()).expect("a folder").flatten();
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "keys")).count()
}

/// Settings with keys that are remembered for an hour.
fn remembering(keys_min: usize) -> PartitionSettings {
    let keep = Duration::from_secs(3_600);
    PartitionSettings { idempotency: KeyRetention { keep, keys_min, bytes_max: usize::MAX }, ..settings() }
}

/// Submits events with the keys `keys`, and releases them: the log may delete their segments.
fn submit_and_trim(log: &TestPartition, keys: std::ops::Range<u64>) {
    for key in keys {
        let ids: Vec<String> = (0..20).map(|i| format!("{key} {i}")).collect();
        let of: Vec<_> = ids.iter().map(|id| (Some(id.as_str()), 1)).collect();
        assert_eq!(receipt(submit(log, &of, Some(&format!("key {key}")))), Ok(answer(20, 0, key * 20)));
        log.release("reader", log.range().1);
    }
}

#[test]
fn keys_are_remembered_for_their_time_after_a_restart_whatever_the_log_has_deleted() {
    let dir = TempDir::new().expect("a folder");
    let (mut log, _) = open(&dir, remembering(1));
    log.register_reader("reader");
    // Several starts, so that keys come from files, from frames, and from both.
    for round in 0..3 {
        submit_and_trim(&log, round * 60..(round + 1) * 60);
        assert!(log.range().0.0 > round * 60 * 20, "the log is deleted up to {:?}", log.range());
        drop(log);
        (log, _) = open(&dir, remembering(1));
        log.register_reader("reader");
        for key in 0..(round + 1) * 60 {
            let text = format!("key {key}");
            let again = receipt(submit(&log, &[(Some("other"), 1)], Some(&text)));
            assert_eq!(again, Ok(answer(20, 0, key * 20)), "{text}");
            let other_body = IdempotencyKey { key: text, body: BodyFingerprint::of(b"another body") };
            assert!(log.claims.claim(&other_body).is_none(), "{other_body:?}");
        }
    }
    assert!((1..=9).contains(&key_files(&dir)), "{} files", key_files(&dir));
}

#[test]
fn key_files_go_with_their_keys() {
    let dir = TempDir::new().expect("a folder");
    let mut settings = remembering(1);
    settings.idempotency.bytes_max = 5 * 400;
    let (log, _) = open(&dir, settings);
    log.register_reader("reader");
    submit_and_trim(&log, 0..400);
    let bytes = |path: std::path::PathBuf| std::fs::metadata(path).expect("a file").len();
    let files = std::fs::read_dir(dir.path()).expect("a folder").flatten();
    let all: u64 =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "keys")).map(bytes).sum();
    assert!(key_files(&dir) <= 9 && all < 20_000, "{} files, {all} bytes", key_files(&dir));
}

#[test]
fn segments_are_kept_until_their_keys_could_be_saved() {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = open(&dir, remembering(1));
    log.register_reader("reader");
    // Folders in place of the first files let their creation fail.
    for number in 0..5 {
        std::fs::create_dir(dir.path().join(format!("{number:020}.draft"))).expect("a folder");
    }
    let kept = |log: &TestPartition| log.range().0 == Offset(0);
    let segments = || {
        let files = std::fs::read_dir(dir.path()).expect("a folder").flatten();
        files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log")).count()
    };
    let mut next = 0;
    while segments() < 5 && next < 100 {
        submit_and_trim(&log, next..next + 1);
        next += 1;
    }
    assert!(kept(&log) && key_files(&dir) == 0);
    // Each finished segment tries again, with the next name.
    while kept(&log) && next < 200 {
        submit_and_trim(&log, next..next + 1);
        next += 1;
    }
    assert!(!kept(&log) && key_files(&dir) > 0);
    drop(log);
    let (log, _) = open(&dir, remembering(1));
    assert_eq!(receipt(submit(&log, &[(Some("other"), 1)], Some("key 0"))), Ok(answer(20, 0, 0)));
}

#[test]
fn a_damaged_key_file_refuses_the_start() {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = open(&dir, remembering(1));
    log.register_reader("reader");
    submit_and_trim(&log, 0..60);
    drop(log);
    let files = std::fs::read_dir(dir.path()).expect("a folder").flatten().map(|file| file.path());
    let path = files.into_iter().find(|path| path.extension().is_some_and(|e| e == "keys")).expect("a key file");
    let mut bytes = std::fs::read(&path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let clock = Arc::new(ManualClock::at(ARRIVED));
    let claims = Arc::new(KeyClaims::default());
    let refused =
        PartitionLog::open(dir.path(), Arc::new(stream()), P, remembering(1), clock, &Vitals::default(), &claims);
    let reason = refused.err().expect("refused").to_string();
    assert!(reason.contains("the key file is damaged"), "{reason}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// As above, while readers let the log delete its segments.
    #[test]
    fn trimming_the_log_changes_no_verdict(actions in prop::collection::vec(action(), 1..60)) {
        let dir = TempDir::new().expect("a folder");
        let mut settings = settings();
        // The ids of the dedup horizon are read from the log.
        settings.log.keep_events = 8;
        settings.log.segment_bytes = 600;
        let (mut log, _) = open(&dir, settings.clone());
        log.register_reader("reader");
        let mut model = Model::default();
        for action in actions {
            match action {
                Action::Submit(of, key) => {
                    let expected = model.submit(&of, key);
                    let ids: Vec<_> = of.iter().map(|(id, at)| (id.map(|id| id.to_string()), *at)).collect();
                    let of: Vec<_> = ids.iter().map(|(id, at)| (id.as_deref(), *at)).collect();
                    let answer = submit(&log, &of, key.map(|k| k.to_string()).as_deref());
                    prop_assert_eq!(receipt(answer), Ok(expected));
                    log.release("reader", log.range().1);
                }
                Action::Reopen => {
                    drop(log);
                    (log, _) = open(&dir, settings.clone());
                    log.register_reader("reader");
                    log.release("reader", log.range().1);
                }
            }
        }
    }
}

#[test]
fn a_full_queue_is_busy_until_the_writer_gets_on() {
    let dir = TempDir::new().expect("a folder");
    let (log, recorder) = open(&dir, PartitionSettings { queue_bytes_max: 1_000, ..settings() });
    recorder.shut(true);
    let mut waiting = Vec::new();
    let refused = loop {
        let (submission, answer) = submission(&log, &[(None, 1)], None);
        match log.try_submit(submission) {
            Ok(()) => waiting.push(answer),
            Err(refused) => break refused,
        }
        assert!(waiting.len() < 1_000, "the queue has no end");
    };
    assert_eq!(refused, SubmitError::Busy);
    recorder.shut(false);
    for answer in waiting {
        assert_eq!(receipt(answer).map(|a| a.accepted), Ok(1));
    }
    assert_eq!(receipt(submit(&log, &[(None, 1)], None)).map(|a| a.accepted), Ok(1));
    assert_eq!(log.queued_bytes(), 0);
}

#[test]
fn a_partition_is_caught_up_when_nothing_waits_and_nothing_is_being_pushed() {
    let dir = TempDir::new().expect("a folder");
    let (log, recorder) = open(&dir, settings());
    assert_eq!(log.progress(), PartitionProgress { watermark: None, last_arrival: None, caught_up: true });
    recorder.shut(true);
    let first = submit(&log, &[(Some("a"), 8)], None);
    let patience = std::time::Instant::now();
    while recorder.items.lock().is_empty() {
        assert!(patience.elapsed().as_secs() < 60, "the event never came");
        std::thread::yield_now();
    }
    // Durable and out of the queue, but not yet pushed to all sinks.
    assert!(!log.progress().caught_up);
    let second = submit(&log, &[(Some("b"), 9)], None);
    assert!(!log.progress().caught_up);
    recorder.shut(false);
    assert!(receipt(first).is_ok() && receipt(second).is_ok());
    while !log.progress().caught_up {
        assert!(patience.elapsed().as_secs() < 60, "the writer never comes to rest");
        std::thread::yield_now();
    }
    assert_eq!((log.progress().watermark, log.progress().last_arrival), (Some(Micros(4)), Some(ARRIVED)));
    drop(log);
    let (log, _) = open(&dir, settings());
    let known = PartitionProgress { watermark: Some(Micros(4)), last_arrival: Some(ARRIVED), caught_up: true };
    assert_eq!(log.progress(), known);
}

#[test]
fn a_cut_lies_between_what_came_before_and_after_it() {
    let dir = TempDir::new().expect("a folder");
    let (log, recorder) = open(&dir, settings());
    // The first event keeps the writer busy, so that the rest is one group.
    recorder.shut(true);
    let mut answers = vec![submit(&log, &[(Some("a"), 1)], None)];
    answers.push(submit(&log, &[(Some("b"), 2), (Some("c"), 3)], None));
    let point = log.cut(&"view".parse().expect("a name")).expect("it runs");
    answers.push(submit(&log, &[(Some("d"), 4)], None));
    recorder.shut(false);
    let point = point.blocking_recv().expect("a cut");
    assert_eq!((point.offset, point.accepted), (Offset(3), Ledger::of_range(P, Offset(0), Offset(3))));
    assert!(answers.into_iter().all(|answer| receipt(answer).is_ok()));
    log.close();
    let mut seen = Vec::new();
    for item in recorder.items.lock().iter() {
        match item {
            LogItem::Batch(batch) => seen.extend(batch.first_offset.0..batch.end_offset().0),
            LogItem::Cut(cut) => {
                assert_eq!(seen, [0, 1, 2]);
                assert_eq!((cut.offset, cut.accepted), (point.offset, point.accepted));
                seen.push(100);
            }
        }
    }
    assert_eq!(seen, [0, 1, 2, 100, 3]);
    assert!(log.cut(&"view".parse().expect("a name")).is_none(), "nothing is taken after the end");
}

/// Faults at `step` while the switch is on.
fn failing(step: IoStep, kind: std::io::ErrorKind) -> (PartitionSettings, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let on = switch.clone();
    let faults: IoFaults =
        Arc::new(move |at| if at == step && on.load(Ordering::SeqCst) { Err(kind.into()) } else { Ok(()) });
    let mut settings = settings();
    settings.log.disk = with_faults(Arc::new(LocalDisk), faults);
    (settings, switch)
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_or_pushed() {
    let dir = TempDir::new().expect("a folder");
    let (settings, broken) = failing(IoStep::Sync, std::io::ErrorKind::Other);
    let vitals = Vitals::default();
    let log = opened(&dir, settings, &vitals);
    let recorder = Arc::new(Recorder::default());
    log.attach(recorder.clone());
    log.start().expect("a thread");
    assert!(receipt(submit(&log, &[(Some("a"), 1)], None)).is_ok());
    broken.store(true, Ordering::SeqCst);
    assert_eq!(receipt(submit(&log, &[(Some("b"), 1)], None)), Err(SubmitError::Stopped));
    log.close();
    broken.store(false, Ordering::SeqCst);
    assert_eq!(log.try_submit(submission(&log, &[(Some("c"), 1)], None).0), Err(SubmitError::Stopped));
    let failure = vitals.failure().expect("the process is stopped").to_string();
    assert!(failure.starts_with("log-events-0: cannot write the log: sync of the log failed"), "{failure}");
    assert_eq!(recorder.items.lock().len(), 1);
    assert_eq!(log.range().1, Offset(1));
}

#[test]
fn a_full_disk_leaves_no_trace_of_refused_events() {
    let dir = TempDir::new().expect("a folder");
    let (settings, full) = failing(IoStep::Write, std::io::ErrorKind::StorageFull);
    let (log, _) = open(&dir, settings);
    assert_eq!(receipt(submit(&log, &[(Some("a"), 50)], None)), Ok(answer(1, 0, 0)));
    let before = log.status(Offset(0), None);
    full.store(true, Ordering::SeqCst);
    let again = [(Some("a"), 60), (Some("b"), 60)];
    assert_eq!(receipt(submit(&log, &again, Some("key"))), Err(SubmitError::Exhausted(Exhausted::Disk)));
    let after = log.status(Offset(0), None);
    assert_eq!((after.head, after.watermark, after.duplicates), (before.head, before.watermark, before.duplicates));
    let point = log.cut(&"view".parse().expect("a name")).expect("it runs").blocking_recv();
    assert_eq!(point.map(|p| p.offset), Ok(Offset(1)), "a cut needs no disk space");
    full.store(false, Ordering::SeqCst);
    assert_eq!(receipt(submit(&log, &again, Some("key"))), Ok(answer(1, 1, 1)));
}

#[test]
fn the_offsets_of_a_group_are_not_shown_before_it_is_durable() {
    let dir = TempDir::new().expect("a folder");
    let (reached, syncing) = std::sync::mpsc::channel();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let (reached, resumed, held) = (Mutex::new(reached), Mutex::new(resumed), Arc::new(AtomicBool::new(false)));
    let is_held = held.clone();
    let faults: IoFaults = Arc::new(move |step| {
        if step == IoStep::Sync && is_held.load(Ordering::SeqCst) {
            reached.lock().send(()).expect("the test waits");
            resumed.lock().recv().expect("the test resumes");
        }
        Ok(())
    });
    let mut settings = settings();
    settings.log.disk = with_faults(Arc::new(LocalDisk), faults);
    let (log, _) = open(&dir, settings);
    held.store(true, Ordering::SeqCst);
    let written = submit(&log, &[(Some("a"), 50)], None);
    syncing.recv().expect("the group is synced");
    assert_eq!(log.status(Offset(0), None).head, Offset(0));
    held.store(false, Ordering::SeqCst);
    resume.send(()).expect("the writer waits");
    assert_eq!(receipt(written), Ok(answer(1, 0, 0)));
    assert_eq!(log.status(Offset(0), None).head, Offset(1));
}

#[test]
fn events_of_other_types_are_refused() {
    let dir = TempDir::new().expect("a folder");
    let (log, _) = open(&dir, settings());
    let refused = |change: &dyn Fn(&mut Submission)| {
        let (mut submission, _) = submission(&log, &[(Some("a"), 1)], None);
        change(&mut submission);
        matches!(log.try_submit(submission), Err(SubmitError::Mismatch(_)))
    };
    assert!(refused(&|s| s.id_hashes = None));
    assert!(refused(&|s| s.id_hashes = Some(vec![1, 2])));
    assert!(refused(&|s| s.rows = s.rows.project(&[0, 1]).expect("columns")));
    assert!(refused(&|s| s.rows = s.rows.project(&[1, 0, 2, 3, 4, 5]).expect("columns")));
    assert!(!refused(&|_| ()));
}
