//! Checks that errors of the disk lose no acknowledged event, bring none back that was refused, and that bytes in doubt are
//! written again before they count.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use shared::ids::Offset;
use tempfile::TempDir;

use super::append::OpenedLog;
use super::frame::{FRAME_HEADER_BYTES, FRAME_MAGIC};
use super::tests::{append, assert_events, files, open_at, read, small};
use super::*;

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// The disk of a test: it records every step, and refuses one kind of step with an error number.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    fault: Option<(IoStep, i32)>,
    steps: Vec<IoStep>,
}

impl Disk {
    fn settings(&self, segment_bytes: u64) -> LogSettings {
        let disk = self.clone();
        let faults: IoFaults = Arc::new(move |step| {
            let mut state = disk.0.lock();
            state.steps.push(step);
            match state.fault {
                Some((at, errno)) if at == step => Err(io::Error::from_raw_os_error(errno)),
                _ => Ok(()),
            }
        });
        LogSettings { disk: with_faults(Arc::new(LocalDisk), faults), ..small(segment_bytes) }
    }

    fn refuse(&self, step: IoStep, errno: i32) {
        self.0.lock().fault = Some((step, errno));
    }

    fn heal(&self) {
        self.0.lock().fault = None;
    }

    fn steps(&self) -> Vec<IoStep> {
        std::mem::take(&mut self.0.lock().steps)
    }

    /// The steps after the folder was made durable.
    fn steps_in_folder(&self) -> Vec<IoStep> {
        self.steps().into_iter().skip_while(|step| *step == IoStep::SyncFolder).collect()
    }
}

fn open(dir: &TempDir, disk: &Disk) -> OpenedLog {
    open_at(dir.path(), disk.settings(u64::MAX)).expect("opens")
}

#[test]
fn a_lack_of_room_at_a_write_or_a_sync_refuses_the_group_and_the_log_continues() {
    for (step, errno) in
        [(IoStep::Write, ENOSPC), (IoStep::Write, EDQUOT), (IoStep::Sync, ENOSPC), (IoStep::Sync, EDQUOT)]
    {
        let (dir, disk) = (TempDir::new().expect("a folder"), Disk::default());
        let mut log = open(&dir, &disk);
        append(&mut log, &[4]).expect("appends");
        disk.refuse(step, errno);
        for _ in 0..3 {
            let refused = append(&mut log, &[5, 1]);
            assert!(matches!(refused, Err(CommitError::Exhausted(Exhausted::Disk))), "{step:?} {errno}: {refused:?}");
        }
        // A crash now must not bring the refused events back.
        let copy = TempDir::new().expect("a folder");
        let path = files(dir.path()).remove(0);
        std::fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copies");
        assert_eq!(open_at(copy.path(), small(u64::MAX)).expect("opens").totals.head(), Offset(4));
        disk.heal();
        append(&mut log, &[6]).expect("there is room again");
        assert_events(&read(&log.store, 0, 10).expect("reads"), 0, 10);
        drop(log);
        assert_eq!(open(&dir, &disk).totals.head(), Offset(10));
    }
}

#[test]
fn after_a_failed_sync_nothing_is_ever_written_again() {
    let (dir, disk) = (TempDir::new().expect("a folder"), Disk::default());
    let mut log = open(&dir, &disk);
    append(&mut log, &[4]).expect("appends");
    disk.refuse(IoStep::Sync, EIO);
    assert!(matches!(append(&mut log, &[5]), Err(CommitError::Fatal(_))));
    disk.heal();
    disk.steps();
    assert!(matches!(append(&mut log, &[5]), Err(CommitError::Fatal(_))));
    assert_eq!((log.store.head(), disk.steps()), (Offset(4), Vec::new()), "no reader sees events in doubt");
}

fn inode(dir: &Path) -> u64 {
    std::fs::metadata(files(dir).remove(0)).expect("the segment").ino()
}

#[test]
fn bytes_in_doubt_are_written_again_before_they_count() {
    let (dir, disk) = (TempDir::new().expect("a folder"), Disk::default());
    let mut log = open(&dir, &disk);
    append(&mut log, &[4]).expect("appends");
    disk.refuse(IoStep::Sync, EIO);
    append(&mut log, &[5]).expect_err("the disk is broken");
    drop(log);

    // The page cache has the events, the disk may not. If nothing can be written, nothing may count.
    for (step, errno) in [(IoStep::Create, EIO), (IoStep::Write, EIO), (IoStep::Sync, EIO), (IoStep::Rename, EIO)] {
        disk.refuse(step, errno);
        assert!(open_at(dir.path(), disk.settings(u64::MAX)).is_err(), "{step:?}");
    }
    disk.heal();
    disk.steps();
    let before = inode(dir.path());
    let log = open(&dir, &disk);
    assert_eq!(log.totals.head(), Offset(9));
    assert_ne!(inode(dir.path()), before, "a copy that is durable took the place of the segment");
    let begin = [IoStep::Create, IoStep::Write, IoStep::Sync, IoStep::Rename, IoStep::SyncFolder];
    assert_eq!(disk.steps_in_folder()[..5], begin);
    assert_events(&read(&log.store, 0, 9).expect("reads"), 0, 9);
}

#[test]
fn without_room_for_a_copy_bytes_in_doubt_are_written_again_in_place() {
    let (dir, disk) = (TempDir::new().expect("a folder"), Disk::default());
    let mut log = open(&dir, &disk);
    append(&mut log, &[4]).expect("appends");
    drop(log);
    let before = inode(dir.path());
    disk.refuse(IoStep::Create, ENOSPC);
    disk.steps();
    let mut log = open(&dir, &disk);
    assert_eq!(disk.steps_in_folder()[..3], [IoStep::Create, IoStep::Write, IoStep::Sync]);
    assert_eq!((log.totals.head(), inode(dir.path())), (Offset(4), before));
    disk.heal();
    append(&mut log, &[2]).expect("appends");
    assert_events(&read(&log.store, 0, 6).expect("reads"), 0, 6);
}

#[test]
fn a_copy_that_has_its_name_is_not_given_up_for_the_file_that_had_it_before() {
    for errno in [ENOSPC, EDQUOT, EMFILE] {
        let dir = TempDir::new().expect("a folder");
        let mut log = open_at(dir.path(), small(u64::MAX)).expect("a new log");
        append(&mut log, &[4]).expect("appends");
        drop(log);
        let is_renamed = AtomicBool::new(false);
        let faults: IoFaults = Arc::new(move |step| match step {
            IoStep::SyncFolder if is_renamed.load(Ordering::SeqCst) => Err(io::Error::from_raw_os_error(errno)),
            _ => {
                is_renamed.fetch_or(step == IoStep::Rename, Ordering::SeqCst);
                Ok(())
            }
        });
        let disk = with_faults(Arc::new(LocalDisk), faults);
        // A log that opens here must write to the file that the next start finds.
        let opened = open_at(dir.path(), LogSettings { disk, ..small(u64::MAX) });
        let appended = opened.map(|mut log| append(&mut log, &[2]).is_ok());
        let mut log = open_at(dir.path(), small(u64::MAX)).expect("opens");
        assert_eq!(log.totals.head(), Offset(if matches!(appended, Ok(true)) { 6 } else { 4 }), "{errno}");
        append(&mut log, &[3]).expect("appends");
    }
}

#[test]
fn a_log_whose_end_is_recorded_as_durable_is_not_copied() {
    let (dir, disk) = (TempDir::new().expect("a folder"), Disk::default());
    let mut log = open(&dir, &disk);
    let totals = append(&mut log, &[4]).expect("appends");
    log.appender.mark(totals).expect("marks");
    drop(log);
    disk.steps();
    let mut log = open(&dir, &disk);
    assert!(!disk.steps().contains(&IoStep::Rename));
    append(&mut log, &[2]).expect("appends");
    assert_events(&read(&log.store, 0, 6).expect("reads"), 0, 6);
}

#[test]
fn without_file_descriptors_the_next_segment_is_made_and_the_one_after_it_is_refused_until_there_are_some() {
    let (dir, disk) = (TempDir::new().expect("a folder"), Disk::default());
    let mut log = open_at(dir.path(), disk.settings(1)).expect("opens");
    append(&mut log, &[2]).expect("appends");
    disk.refuse(IoStep::Create, EMFILE);
    append(&mut log, &[2]).expect("the spare segment was opened ahead");
    for _ in 0..2 {
        let refused = append(&mut log, &[2]);
        assert!(matches!(refused, Err(CommitError::Exhausted(Exhausted::OpenFiles))), "{refused:?}");
        log.appender.abandon();
    }
    disk.heal();
    append(&mut log, &[2]).expect("there are file descriptors again");
    assert_events(&read(&log.store, 0, 6).expect("reads"), 0, 6);
    assert_eq!(files(dir.path()).len(), 3);
    drop(log);
    assert_eq!(open_at(dir.path(), small(1)).expect("opens").totals.head(), Offset(6));
}

#[test]
fn a_torn_tail_full_of_texts_that_look_like_frames_is_trimmed_in_linear_time() {
    let dir = TempDir::new().expect("a folder");
    let mut log = open_at(dir.path(), small(u64::MAX)).expect("a new log");
    append(&mut log, &[4]).expect("appends");
    drop(log);
    let path = files(dir.path()).remove(0);
    let end = std::fs::metadata(&path).expect("the segment").len();
    // Every aligned position begins a frame that reaches to the end of the file. Checking each by itself would read
    // 16 TB; a test that does not end here has lost the linear time.
    let length = 16 * 1024 * 1024;
    let mut tail = vec![0; length];
    for at in (0..length - FRAME_HEADER_BYTES).step_by(16) {
        tail[at..at + 4].copy_from_slice(&FRAME_MAGIC);
        tail[at + 8..at + 12].copy_from_slice(&((length - at) as u32).to_le_bytes());
    }
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
    file.write_all_at(&tail, end).expect("writes");
    assert_eq!(open_at(dir.path(), small(u64::MAX)).expect("a torn tail is trimmed").totals.head(), Offset(4));
}
