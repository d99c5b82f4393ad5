//! Checks that the log returns exactly the durable events and refuses bytes that were not written.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::time::Micros;
use tempfile::TempDir;

use super::append::OpenedLog;
use super::testing::{rows, stream};
use super::*;

pub(super) const P: Partition = Partition(3);

pub(super) fn small(segment_bytes: u64) -> LogSettings {
    LogSettings { segment_bytes, keep_events: 0, ..LogSettings::default() }
}

pub(super) fn open_at(dir: &Path, settings: LogSettings) -> Result<OpenedLog, LogError> {
    open(dir, P, Arc::new(stream()), settings, &mut |_| Ok(None))
}

fn plus(totals: Totals, events: usize) -> Totals {
    let head = totals.head();
    let accepted = totals.accepted + Ledger::of_range(P, head, Offset(head.0 + events as u64));
    Totals { accepted, watermark: Micros(head.0 as i64 + events as i64), ..totals }
}

/// Appends one group of frames with so many rows each and returns the totals after it.
pub(super) fn append(log: &mut OpenedLog, frames: &[usize]) -> Result<Totals, CommitError> {
    let mut totals = log.totals;
    for rows_of_frame in frames {
        let first = totals.head().0 as i64;
        let ids: Vec<String> = (0..*rows_of_frame).map(|i| format!("id {}", first + i as i64)).collect();
        let of: Vec<_> = ids.iter().enumerate().map(|(i, id)| (Some(id.as_str()), first + i as i64)).collect();
        totals = plus(totals, *rows_of_frame);
        log.appender.stage(&rows(first, &of), Micros(first), b"{}", totals)?;
    }
    log.appender.commit(totals, None)?;
    log.totals = totals;
    Ok(totals)
}

pub(super) fn read(store: &SegmentStore, from: u64, to: u64) -> Result<Vec<LogBatch>, LogError> {
    let mut found = Vec::new();
    batches(store, Offset(from), Offset(to), &mut |batch| found.push(batch))?;
    Ok(found)
}

/// Checks that `found` is exactly the events `from..to`, as [`append`] made them.
pub(super) fn assert_events(found: &[LogBatch], from: u64, to: u64) {
    let mut next = from;
    for batch in found {
        assert_eq!(batch.first_offset, Offset(next));
        let of: Vec<String> = (next..batch.end_offset().0).map(|i| format!("id {i}")).collect();
        let of: Vec<_> = of.iter().zip(next..).map(|(id, at)| (Some(id.as_str()), at as i64)).collect();
        assert_eq!(batch.rows, rows(next as i64, &of));
        next = batch.end_offset().0;
        assert_eq!(batch.accepted, Ledger::of_range(P, Offset(0), Offset(next)));
        assert_eq!(batch.watermark, Micros(next as i64));
    }
    assert_eq!(next, to);
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).expect("the folder exists").flatten().map(|e| e.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "log"));
    files.sort();
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_torn_tail_loses_the_frames_it_hits_and_no_others(
        groups in prop::collection::vec(prop::collection::vec(0usize..40, 1..4), 1..8),
        torn in 0u64..20_000,
        then in 1usize..20,
        junk in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = TempDir::new().expect("a folder");
        let mut log = open_at(dir.path(), small(u64::MAX)).expect("a new log");
        let path = files(dir.path()).remove(0);
        let start = std::fs::metadata(&path).expect("the segment").len();
        let mut ends = vec![(start, 0)];
        for group in &groups {
            // The last frame alone: the others are one group, of which only the end is known here.
            let (together, alone) = group.split_at(group.len() - 1);
            for frames in [together, alone] {
                let head = append(&mut log, frames).expect("appends").head().0;
                ends.push((std::fs::metadata(&path).expect("the segment").len(), head));
            }
        }
        drop(log);
        let len = start + torn % (ends[ends.len() - 1].0 - start + 1);
        let file = OpenOptions::new().write(true).open(&path).expect("opens");
        file.set_len(len).expect("truncates");
        file.write_all_at(&junk, len).expect("writes");
        drop(file);

        let mut log = open_at(dir.path(), small(u64::MAX)).expect("a torn tail is trimmed");
        let head = log.totals.head().0;
        let least = ends.iter().filter(|(end, _)| *end <= len).map(|(_, head)| *head).max().expect("the start is one");
        let most = ends.iter().find(|(end, _)| *end > len).map_or(least, |(_, head)| *head);
        prop_assert!(least <= head && head <= most, "{least} <= {head} <= {most}");
        prop_assert_eq!(log.totals.accepted, Ledger::of_range(P, Offset(0), Offset(head)));
        let end = append(&mut log, &[then]).expect("appends after recovery").head().0;
        assert_events(&read(&log.store, 0, end).expect("reads"), 0, end);
        drop(log);
        let log = open_at(dir.path(), small(u64::MAX)).expect("opens again");
        prop_assert_eq!(log.totals.head().0, end);
    }

    #[test]
    fn replay_gives_exactly_the_slice_across_segments(
        groups in prop::collection::vec(prop::collection::vec(0usize..30, 1..4), 1..10),
        a in 0u64..400, b in 0u64..400,
    ) {
        let dir = TempDir::new().expect("a folder");
        let mut log = open_at(dir.path(), small(3_000)).expect("a new log");
        for group in &groups {
            append(&mut log, group).expect("appends");
        }
        let head = log.totals.head().0;
        let (from, to) = (a.min(b).min(head), a.max(b).min(head));
        assert_events(&read(&log.store, from, to).expect("reads"), from, to);
        drop(log);
        let log = open_at(dir.path(), small(3_000)).expect("opens again");
        assert_events(&read(&log.store, from, to).expect("reads"), from, to);
    }

    #[test]
    fn trimming_deletes_nothing_that_a_reader_needs(
        sizes in prop::collection::vec(1usize..60, 5..20),
        archive in 0u64..900, speed in 0u64..900, keep in 0u64..200,
    ) {
        let dir = TempDir::new().expect("a folder");
        let settings = LogSettings { keep_events: keep, ..small(2_000) };
        let mut log = open_at(dir.path(), settings.clone()).expect("a new log");
        log.store.register("archive");
        log.store.register("speed:view");
        for size in sizes {
            append(&mut log, &[size]).expect("appends");
        }
        let head = log.totals.head().0;
        log.store.release("archive", Offset(archive));
        prop_assert_eq!(log.store.start(), Offset(0), "the other reader has released nothing");
        log.store.release("speed:view", Offset(speed));
        let needed = archive.min(speed).min(head.saturating_sub(keep));
        prop_assert!(log.store.start().0 <= needed);
        let next = log.store.segments(log.store.start(), Offset(head)).get(1).map(|s| s.first.0);
        prop_assert!(next.is_none_or(|next| next > needed), "a whole segment before {needed} is still there");
        assert_events(&read(&log.store, needed, head).expect("reads"), needed, head);
        if log.store.start().0 > 0 {
            prop_assert!(matches!(read(&log.store, 0, head), Err(LogError::BeforeStart { .. })), "refuses deleted events");
        }
        let totals = log.totals;
        drop(log);
        prop_assert_eq!(open_at(dir.path(), settings).expect("opens").totals, totals);
    }
}

#[test]
fn a_flipped_bit_in_any_durable_byte_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let mut log = open_at(dir.path(), small(1_500)).expect("a new log");
    for frames in [&[2, 1][..], &[3], &[0], &[4], &[1]] {
        append(&mut log, frames).expect("appends");
    }
    let totals = log.totals;
    let paths = files(dir.path());
    assert!(paths.len() > 1, "several segments");
    let durable: Vec<u64> = paths.iter().map(|p| std::fs::metadata(p).expect("a segment").len()).collect();
    log.appender.mark(totals).expect("marks");
    drop(log);
    for (path, durable) in paths.iter().zip(durable) {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("opens");
        for position in 0..durable {
            let mut byte = [0];
            file.read_exact_at(&mut byte, position).expect("reads");
            let flipped = [byte[0] ^ (1 << (position % 8))];
            file.write_all_at(&flipped, position).expect("flips");
            let refused = open_at(dir.path(), small(1_500)).err();
            assert!(refused.is_some(), "{}: a flip at byte {position} went unnoticed", path.display());
            file.write_all_at(&byte, position).expect("flips back");
        }
    }
    assert_eq!(open_at(dir.path(), small(1_500)).expect("it is whole again").totals, totals);
}

#[test]
fn corruption_is_named_with_file_and_byte() {
    let dir = TempDir::new().expect("a folder");
    let mut log = open_at(dir.path(), small(u64::MAX)).expect("a new log");
    append(&mut log, &[5]).expect("appends");
    let path = files(dir.path()).remove(0);
    let second = std::fs::metadata(&path).expect("the segment").len();
    append(&mut log, &[5]).expect("appends");
    append(&mut log, &[5]).expect("appends");
    drop(log);
    let file = OpenOptions::new().write(true).open(&path).expect("opens");
    file.write_all_at(b"damage", second + 200).expect("writes");
    match open_at(dir.path(), small(u64::MAX)).err() {
        Some(LogError::Corrupt { path: at, position, .. }) => assert_eq!((at, position), (path, second)),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_future_version_is_refused() {
    let dir = TempDir::new().expect("a folder");
    drop(open_at(dir.path(), small(u64::MAX)).expect("a new log"));
    let file = OpenOptions::new().write(true).open(files(dir.path()).remove(0)).expect("opens");
    file.write_all_at(&[9], 8).expect("writes");
    assert!(matches!(open_at(dir.path(), small(1)).err(), Some(LogError::UnknownVersion { found: 9, .. })));
}

#[test]
fn a_missing_segment_in_the_middle_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let mut log = open_at(dir.path(), small(1)).expect("a new log");
    for _ in 0..3 {
        append(&mut log, &[2]).expect("appends");
    }
    drop(log);
    std::fs::remove_file(&files(dir.path())[1]).expect("removes");
    assert!(matches!(open_at(dir.path(), small(1)).err(), Some(LogError::Misplaced { .. })));
}

#[test]
fn a_second_writer_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let _log = open_at(dir.path(), small(1)).expect("a new log");
    assert!(matches!(open_at(dir.path(), small(1)).err(), Some(LogError::Locked { .. })));
}

#[test]
fn columns_may_be_added_between_two_openings() {
    let dir = TempDir::new().expect("a folder");
    let mut log = open_at(dir.path(), small(u64::MAX)).expect("a new log");
    append(&mut log, &[3]).expect("appends");
    drop(log);
    let mut wider = stream();
    wider.columns.push(shared::stream::Column::new("more", shared::types::DataType::Date));
    wider.declared += 1;
    let wider = Arc::new(wider);
    for _ in 0..2 {
        let log = open(dir.path(), P, wider.clone(), small(u64::MAX), &mut |_| Ok(None)).expect("opens");
        let found = read(&log.store, 0, 3).expect("reads");
        assert_eq!(found[0].rows.schema(), wider.log_schema());
        assert_eq!(files(dir.path()).len(), 2);
    }
    let mut log = open_at(dir.path(), small(u64::MAX)).expect("the empty segment is replaced");
    assert_eq!(files(dir.path()).len(), 2);
    let head = append(&mut log, &[2]).expect("appends").head().0;
    assert_events(&read(&log.store, 0, head).expect("reads"), 0, head);
}
