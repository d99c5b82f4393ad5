//! Simulates a local disk under a page cache. Written bytes and changed names are volatile until they are synced: a power
//! cut keeps any subset of the writes to a file, tears them, and keeps a prefix of the changes of names in a folder, as
//! journaling file systems do. A failed sync drops what it should have written, as on Linux: the cache shows the bytes as
//! before, and the next sync succeeds without them.
//!
//! Any call can fail, and the call that the scenario names does not return: the process crashes in it, by unwinding.

use std::collections::BTreeMap;
use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;

use intake::log::{FolderLock, LogDisk, LogFile, OpenFile};

use crate::dice::Dice;
use crate::trace::Trace;

const EIO: i32 = 5;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

/// Bytes that a disk writes whole or not.
const SECTOR: usize = 512;

/// How many calls of a process fail.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Syncs of 1,000.
    syncs: u32,
    /// Other calls of 1,000.
    calls: u32,
    /// Calls before the first that may fail.
    after: u64,
}

impl Faults {
    pub const NONE: Faults = Faults { syncs: 0, calls: 0, after: 0 };

    /// Faults as often as the dice say: mostly none. Many are after the start, which makes most of the calls.
    pub fn any(dice: &mut Dice) -> Faults {
        let (syncs, calls) = dice.one(&[(0, 0), (0, 0), (0, 0), (4, 4), (25, 25), (100, 0)]);
        Faults { syncs, calls, after: dice.one(&[0, 100]) }
    }

    /// Of 1,000 calls named `name`.
    fn per_mille(self, name: &str) -> u32 {
        if name.starts_with("sync") { self.syncs } else { self.calls }
    }
}

/// What a crashing process unwinds with.
#[derive(Debug)]
pub struct Crash;

/// The disk of a machine. Clones share it.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<DiskState>>);

struct DiskState {
    dice: Dice,
    trace: Trace,
    /// The process whose calls have an effect.
    process: u64,
    /// The thread whose calls may fail. Others run at the same time: their order is not the seed's.
    thread: ThreadId,
    /// Calls until the process crashes.
    calls_left: Option<u64>,
    faults: Faults,
    /// Calls of this process.
    calls: u64,
    /// Those that failed.
    failed: u64,
    /// There was no room for a file of keys since the last question.
    refused_keys: bool,
    inodes: Vec<Inode>,
    /// What processes see: `None` for a folder.
    names: BTreeMap<PathBuf, Option<usize>>,
    durable_names: BTreeMap<PathBuf, Option<usize>>,
    /// The changes of the names in each folder that are not durable, in order.
    renamings: BTreeMap<PathBuf, Vec<NameChange>>,
    locks: BTreeMap<PathBuf, std::sync::Weak<()>>,
}

/// A file, whatever its names.
#[derive(Default)]
struct Inode {
    /// What processes read.
    cached: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// Changes on their way to the disk, in order.
    dirty: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, Option<usize>),
    Rename { from: PathBuf, to: PathBuf, inode: Option<usize> },
    Remove(PathBuf),
}

/// The disk as one process sees it. Once the process is dead, no call has an effect.
struct ProcessDisk {
    disk: Disk,
    process: u64,
}

struct ProcessFile {
    disk: Disk,
    process: u64,
    path: PathBuf,
    /// `None` for a folder.
    inode: Option<usize>,
}

impl Disk {
    /// An empty disk with the folder `root`.
    pub fn new(seed: u64, root: &Path) -> Disk {
        let names = BTreeMap::from([(root.to_owned(), None)]);
        Disk(Arc::new(Mutex::new(DiskState {
            dice: Dice::new(seed, 1),
            trace: Trace::default(),
            process: 0,
            thread: std::thread::current().id(),
            calls_left: None,
            faults: Faults::NONE,
            calls: 0,
            failed: 0,
            refused_keys: false,
            inodes: Vec::new(),
            durable_names: names.clone(),
            names,
            renamings: BTreeMap::new(),
            locks: BTreeMap::new(),
        })))
    }

    /// Starts the next process, which ends the one before it; it crashes at the call after `calls_left`, if given.
    pub fn start_process(&self, faults: Faults, calls_left: Option<u64>) -> Arc<dyn LogDisk> {
        let mut state = self.state();
        state.process += 1;
        (state.faults, state.calls_left, state.calls, state.failed) = (faults, calls_left, 0, 0);
        state.locks.clear();
        Arc::new(ProcessDisk { disk: self.clone(), process: state.process })
    }

    /// Ends the process: none of its calls has an effect any more.
    pub fn end_process(&self) {
        self.state().process += 1;
    }

    /// Calls of the process that failed.
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// Whether there was no room for a file of keys since the last question: keys may be forgotten then.
    pub fn has_refused_keys(&self) -> bool {
        std::mem::take(&mut self.state().refused_keys)
    }

    /// Lets the cache forget what the disk does not have, as it may at any time.
    pub fn evict(&self) {
        self.state().inodes.iter_mut().for_each(|inode| {
            inode.cached.clone_from(&inode.durable);
            inode.dirty.iter().for_each(|change| change.apply(&mut inode.cached));
        });
    }

    /// Cuts the power: changes that are not durable are lost, but for those that the disk has by chance.
    pub fn cut_power(&self) {
        let mut state = self.state();
        let DiskState { dice, inodes, durable_names, renamings, names, .. } = &mut *state;
        for inode in inodes {
            inode.write_some(dice);
            inode.cached.clone_from(&inode.durable);
        }
        for changes in std::mem::take(renamings).into_values() {
            let kept = dice.of(0..changes.len() as u64 + 1) as usize;
            changes[..kept].iter().for_each(|change| change.apply(durable_names));
        }
        // A folder without a name takes everything in it along.
        let is_reachable = |path: &PathBuf| {
            path.ancestors().skip(1).take_while(|dir| dir.parent().is_some()).all(|dir| durable_names.contains_key(dir))
        };
        let reachable: BTreeMap<_, _> =
            durable_names.iter().filter(|(path, _)| is_reachable(path)).map(|(p, i)| (p.clone(), *i)).collect();
        names.clone_from(&reachable);
        *durable_names = reachable;
        state.trace.note("power cut".to_owned());
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: String) {
        self.state().trace.note(line);
    }

    /// The number of calls and their hash.
    pub fn trace_sum(&self) -> (u64, u64) {
        self.state().trace.sum()
    }

    /// The last calls.
    pub fn trace_text(&self) -> String {
        self.state().trace.text()
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        // A crash unwinds without the lock, so the state is whole even if a check has failed meanwhile.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Makes one call: it succeeds, fails with one of `errors`, or crashes the process, before or after its effect.
    fn call<T>(
        &self,
        process: u64,
        name: &str,
        path: &Path,
        errors: &[i32],
        effect: impl FnOnce(&mut DiskState, Fate) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        if state.process != process {
            return Err(io::Error::other("the process is dead"));
        }
        if std::thread::current().id() != state.thread {
            return effect(&mut state, Fate::Success);
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if state.calls_left == Some(0) {
            let is_done = state.dice.percent(50);
            if is_done {
                let _ = effect(&mut state, Fate::Success);
            }
            state.process += 1;
            state.trace.note(format!("{name} {file}: crash, done {is_done}"));
            drop(state);
            resume_unwind(Box::new(Crash));
        }
        state.calls_left = state.calls_left.map(|left| left - 1);
        state.calls += 1;
        let faults = if state.calls > state.faults.after { state.faults.per_mille(name) } else { 0 };
        let fate = match !errors.is_empty() && state.dice.per_mille(faults) {
            true => Fate::Error(state.dice.one(errors)),
            false => Fate::Success,
        };
        state.failed += u64::from(fate != Fate::Success);
        let is_of_keys = file.ends_with(".draft") || file.ends_with(".keys") || name == "open folder";
        state.refused_keys |= is_of_keys && !matches!(fate, Fate::Success | Fate::Error(EIO));
        let result = effect(&mut state, fate);
        let outcome = result.as_ref().err().map_or("ok".to_owned(), |error| format!("{:?}", error.kind()));
        state.trace.note(format!("{name} {file}: {outcome}"));
        result
    }
}

/// The fate of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Success,
    Error(i32),
}

impl Fate {
    fn check(self) -> io::Result<()> {
        match self {
            Fate::Success => Ok(()),
            Fate::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { position, bytes } => {
                let end = position + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position..end].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length, 0),
        }
    }

    /// The parts of the change that reached the disk.
    fn some(&self, durable_length: usize, dice: &mut Dice) -> Vec<Change> {
        let Change::Write { position, bytes } = self else {
            return if dice.percent(50) { vec![self.clone()] } else { Vec::new() };
        };
        let part =
            |from: usize, to: usize| Change::Write { position: position + from, bytes: bytes[from..to].to_vec() };
        match dice.of(0..6) {
            0 => Vec::new(),
            1 => vec![self.clone()],
            // The size of the file reached the disk, the bytes did not. Where the file had bytes, these are still there.
            2 => {
                let from = durable_length.saturating_sub(*position).min(bytes.len());
                vec![Change::Write { position: position + from, bytes: vec![0; bytes.len() - from] }]
            }
            3 => vec![part(0, dice.of(0..bytes.len() as u64 + 1) as usize)],
            4 => vec![part(dice.of(0..bytes.len() as u64 + 1) as usize, bytes.len())],
            _ => {
                let mut kept = Vec::new();
                let mut from = 0;
                while from < bytes.len() {
                    let to = bytes.len().min((position + from + 1).next_multiple_of(SECTOR) - position);
                    kept.extend(dice.percent(50).then(|| part(from, to)));
                    from = to;
                }
                kept
            }
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cached);
        self.dirty.push(change);
    }

    fn write_all(&mut self) {
        for change in std::mem::take(&mut self.dirty) {
            change.apply(&mut self.durable);
        }
    }

    /// Writes some of what is on its way to the disk, and drops the rest.
    fn write_some(&mut self, dice: &mut Dice) {
        for change in std::mem::take(&mut self.dirty) {
            change.some(self.durable.len(), dice).iter().for_each(|part| part.apply(&mut self.durable));
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Option<usize>>) {
        match self {
            NameChange::Put(path, inode) => drop(names.insert(path.clone(), *inode)),
            NameChange::Rename { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            NameChange::Remove(path) => drop(names.remove(path)),
        }
    }
}

impl DiskState {
    fn rename(&mut self, change: NameChange) {
        let (NameChange::Put(path, _) | NameChange::Rename { from: path, .. } | NameChange::Remove(path)) = &change;
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        change.apply(&mut self.names);
        self.renamings.entry(folder).or_default().push(change);
    }

    fn find(&self, path: &Path) -> io::Result<Option<usize>> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl ProcessDisk {
    fn call<T>(
        &self,
        name: &str,
        path: &Path,
        errors: &[i32],
        effect: impl FnOnce(&mut DiskState) -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.call(self.process, name, path, errors, |state, fate| fate.check().and_then(|()| effect(state)))
    }

    fn file(&self, path: &Path, inode: Option<usize>) -> OpenFile {
        Arc::new(ProcessFile { disk: self.disk.clone(), process: self.process, path: path.to_owned(), inode })
    }

    fn opened(&self, name: &str, path: &Path) -> io::Result<OpenFile> {
        let inode = self.call(name, path, &[EIO, EMFILE, ENFILE], |state| state.find(path))?;
        Ok(self.file(path, inode))
    }
}

impl LogDisk for ProcessDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.call("create folder", path, &[EIO, ENOSPC], |state| {
            let missing: Vec<_> = path.ancestors().take_while(|dir| !state.names.contains_key(*dir)).collect();
            missing.into_iter().rev().for_each(|dir| state.rename(NameChange::Put(dir.to_owned(), None)));
            Ok(())
        })
    }

    fn open_folder(&self, path: &Path) -> io::Result<OpenFile> {
        self.opened("open folder", path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.call("list", folder, &[EIO, EMFILE], |state| {
            state.find(folder)?;
            Ok(state.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
        })
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        self.call("length", path, &[EIO], |state| {
            let inode = state.find(path)?.ok_or(io::ErrorKind::IsADirectory)?;
            Ok(state.inodes[inode].cached.len() as u64)
        })
    }

    fn create(&self, path: &Path) -> io::Result<OpenFile> {
        let inode =
            self.call("create", path, &[EIO, ENOSPC, EDQUOT, EMFILE, ENFILE], |state| match state.find(path) {
                Ok(inode) => {
                    let inode = inode.ok_or(io::ErrorKind::IsADirectory)?;
                    state.inodes[inode].change(Change::Length(0));
                    Ok(inode)
                }
                Err(_) => {
                    state.inodes.push(Inode::default());
                    let inode = state.inodes.len() - 1;
                    state.rename(NameChange::Put(path.to_owned(), Some(inode)));
                    Ok(inode)
                }
            })?;
        Ok(self.file(path, Some(inode)))
    }

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        self.opened("open", path)
    }

    fn open_writable(&self, path: &Path) -> io::Result<OpenFile> {
        self.opened("open writable", path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename", to, &[EIO, ENOSPC, EDQUOT], |state| {
            let inode = state.find(from)?;
            state.rename(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), inode });
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove", path, &[EIO], |state| {
            state.find(path)?;
            state.rename(NameChange::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<FolderLock>> {
        self.call("lock", path, &[EIO, EMFILE, ENOSPC], |state| {
            if state.find(path).is_err() {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.rename(NameChange::Put(path.to_owned(), Some(inode)));
            }
            if state.locks.get(path).is_some_and(|held| held.strong_count() > 0) {
                return Ok(None);
            }
            let held = Arc::new(());
            state.locks.insert(path.to_owned(), Arc::downgrade(&held));
            Ok(Some(FolderLock::new(held)))
        })
    }
}

impl ProcessFile {
    fn inode<'a>(&self, state: &'a mut DiskState) -> io::Result<&'a mut Inode> {
        let inode = self.inode.ok_or(io::ErrorKind::IsADirectory)?;
        Ok(&mut state.inodes[inode])
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.disk.call(self.process, name, &self.path, &[EIO, ENOSPC, EDQUOT], |state, fate| {
            let Some(inode) = self.inode else {
                fate.check()?;
                let DiskState { renamings, durable_names, .. } = state;
                let changes = renamings.remove(&self.path).unwrap_or_default();
                changes.iter().for_each(|change| change.apply(durable_names));
                return Ok(());
            };
            let DiskState { inodes, dice, .. } = state;
            match fate {
                Fate::Success => inodes[inode].write_all(),
                Fate::Error(_) => inodes[inode].write_some(dice),
            }
            fate.check()
        })
    }
}

impl LogFile for ProcessFile {
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        self.disk.call(self.process, "read", &self.path, &[EIO], |state, fate| {
            fate.check()?;
            let inode = self.inode(state)?;
            let from = position as usize;
            let read = inode.cached.get(from..from + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(read);
            Ok(())
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let name = format!("write {} at {position} to", bytes.len());
        self.disk.call(self.process, &name, &self.path, &[EIO, ENOSPC, EDQUOT], |state, fate| {
            let written = match fate {
                Fate::Success => bytes.len(),
                Fate::Error(_) => state.dice.of(0..bytes.len() as u64 + 1) as usize,
            };
            let change = Change::Write { position: position as usize, bytes: bytes[..written].to_vec() };
            self.inode(state)?.change(change);
            fate.check()
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.call(self.process, "set length of", &self.path, &[EIO, ENOSPC], |state, fate| {
            fate.check()?;
            self.inode(state)?.change(Change::Length(length as usize));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync("sync data of")
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync("sync")
    }
}
