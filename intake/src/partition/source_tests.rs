//! Checks that a position in a topic moves with the events that were read before it: together or not, never past a gap, and
//! over restarts, deleted segments and failed writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::clock::ManualClock;
use shared::ids::{Offset, Partition};
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::event_id::hash_ids;
use crate::log::testing::{events, stream};
use crate::log::{IoStep, LocalDisk, LogSettings, SourcePosition, with_faults};

fn open(dir: &TempDir, log: LogSettings) -> PartitionLog {
    let settings = PartitionSettings { log, dedup_horizon_events: 8, ..PartitionSettings::default() };
    let (clock, claims) = (Arc::new(ManualClock::at(Micros(1_000))), Arc::new(KeyClaims::default()));
    let log =
        PartitionLog::open(dir.path(), Arc::new(stream()), Partition(0), settings, clock, &Vitals::default(), &claims);
    let log = log.expect("opens");
    log.register_reader("reader");
    log.start().expect("a thread");
    log
}

fn position(next: i64) -> SourcePosition {
    SourcePosition { topic: "t".into(), topic_id: Some("id".into()), next, place: None, started_with: 1 }
}

/// Submits events with these ids as the records from one offset to another.
fn submit(log: &PartitionLog, ids: &[i64], from: Option<i64>, to: i64) -> Result<PartitionReceipt, SubmitError> {
    let texts: Vec<String> = ids.iter().map(|id| format!("id {id}")).collect();
    let of: Vec<_> = ids.iter().zip(&texts).map(|(id, text)| (Some(text.as_str()), *id)).collect();
    let rows = events(&of);
    let (reply, receipt) = oneshot::channel();
    let id_hashes = Some(hash_ids(rows.column(0)));
    let source = Some(SourceStep { from, to: position(to) });
    log.try_submit(Submission { rows, id_hashes, entities: None, kept: Vec::new(), key: None, source, reply })?;
    receipt.blocking_recv().expect("a receipt")
}

#[test]
fn a_step_that_does_not_start_at_the_position_writes_nothing() {
    let dir = TempDir::new().expect("a folder");
    let log = open(&dir, LogSettings::default());
    assert_eq!(log.source(), None);
    let moved = |from, current| Err(SubmitError::SourceMoved { from, current });
    assert_eq!(submit(&log, &[1], Some(0), 1), moved(Some(0), None));
    assert!(submit(&log, &[], None, 5).is_ok());
    assert_eq!(submit(&log, &[1], None, 6), moved(None, Some(5)));
    assert_eq!(submit(&log, &[5, 7], Some(5), 8).map(|receipt| receipt.accepted), Ok(2));
    assert_eq!(submit(&log, &[5, 7], Some(5), 8), moved(Some(5), Some(8)), "not twice");
    assert_eq!(submit(&log, &[12], Some(10), 13), moved(Some(10), Some(8)), "no gap");
    assert_eq!((log.source(), log.totals().head()), (Some(position(8)), Offset(2)));
}

#[test]
fn the_position_survives_restarts_and_the_deletion_of_segments() {
    let dir = TempDir::new().expect("a folder");
    let small = LogSettings { segment_bytes: 1, keep_events: 0, ..LogSettings::default() };
    let mut next = 3;
    let mut from = None;
    for round in 0..6 {
        let log = open(&dir, small.clone());
        assert_eq!(log.source().map(|position| position.next), from, "round {round}");
        // Without events, with events, and again without: each kind is the last before a restart once.
        for step in 0..=round % 3 {
            let ids: Vec<i64> = if step % 2 == 1 { vec![next] } else { Vec::new() };
            submit(&log, &ids, from, next + 2).expect("written");
            (from, next) = (Some(next + 2), next + 2);
        }
        log.release("reader", log.totals().head());
        log.close();
    }
    let log = open(&dir, small);
    assert!(log.range().0 > Offset(0), "segments were deleted");
    assert_eq!(log.source(), Some(position(next)));
}

#[test]
fn events_without_room_leave_the_position_where_it_is() {
    let dir = TempDir::new().expect("a folder");
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let faults = move |step: IoStep| match step {
        IoStep::Write if is_full.load(Ordering::SeqCst) => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        _ => Ok(()),
    };
    let disk = with_faults(Arc::new(LocalDisk), Arc::new(faults));
    let log = open(&dir, LogSettings { disk, ..LogSettings::default() });
    submit(&log, &[1], None, 2).expect("written");
    full.store(true, Ordering::SeqCst);
    assert!(matches!(submit(&log, &[2], Some(2), 3), Err(SubmitError::Exhausted(_))));
    assert_eq!(log.source(), Some(position(2)));
    full.store(false, Ordering::SeqCst);
    assert_eq!(submit(&log, &[3], Some(3), 4), Err(SubmitError::SourceMoved { from: Some(3), current: Some(2) }));
    assert_eq!(submit(&log, &[2], Some(2), 3).map(|receipt| receipt.accepted), Ok(1));
}
