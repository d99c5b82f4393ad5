//! Keeps what a sink has written, durably: the rows of the topic, the last epoch, and whether it is paused.
//!
//! An epoch is *prepared* here before its transaction: its changes are in the file and count as undecided. It is committed if
//! the brokers have its marker, which the next process reads from them ([`SinkBook::settle`]); otherwise it is aborted. An epoch
//! that is followed by another one was committed, so only an abort needs an entry of its own.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use alerts::book_file::{BookError, BookFile, BookKind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shared::ids::{Offset, Partition, SinkName};
use shared::time::Micros;
use shared::window::WindowId;
use uuid::Uuid;

use crate::sent::{SentChange, SentRows, StoredChange, ValueHash};
use crate::stored::SinkDeclaration;

/// Bytes below which the file is not rewritten.
const REWRITE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Bytes that an entry has per row, roughly.
const ROW_BYTES: u64 = 96;
/// Rows of one entry of a rewritten file.
const ENTRY_ROWS: usize = 10_000;
const CONSEQUENCE: &str = "the sink then has to write all rows again: trueup sinks resume NAME --from start";

/// How far an epoch reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochCut {
    /// The log positions up to which every change is written.
    pub position: BTreeMap<Partition, Offset>,
    /// The batch version whose rows are all written.
    pub version: Option<i64>,
    /// With `emit = 'final'`: every row of windows that end at or before it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<Micros>,
    /// Of a sink of a stream: which events before the position where it was are written again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<EventsAgain>,
}

/// Events that a sink of a stream writes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsAgain {
    /// Those with an event time from then on.
    pub from: Micros,
    /// Before these positions; all events after them are new.
    pub until: BTreeMap<Partition, Offset>,
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    /// The first line.
    Opened {
        book: String,
        keys: String,
    },
    /// The options of the sink, whenever they change.
    Declared {
        declaration: SinkDeclaration,
    },
    /// Rows of the topic, in a rewritten file.
    Rows {
        rows: Vec<StoredChange>,
    },
    /// The last committed epoch, in a rewritten file.
    Committed {
        epoch: u64,
        cut: EpochCut,
    },
    Prepared {
        epoch: u64,
        process: String,
        cut: EpochCut,
        rows: Vec<StoredChange>,
    },
    Aborted {
        epoch: u64,
    },
    Paused {
        paused: bool,
    },
    /// A sink of a stream has come to this cut without writing anything.
    Advanced {
        cut: EpochCut,
    },
    /// A sink of a stream continues from this cut; with `adopts`, under whatever marker the brokers have.
    Restarted {
        cut: EpochCut,
        adopts: bool,
    },
    /// Rows of these windows are to be written again; without bounds, all rows, under whatever marker the brokers have.
    Again {
        windows: Option<(i64, i64)>,
    },
}

/// An epoch whose outcome is not known yet.
#[derive(Debug)]
struct Prepared {
    epoch: u64,
    process: String,
    cut: EpochCut,
    changes: Vec<SentChange>,
}

#[derive(Debug, Default)]
struct BookState {
    book: String,
    keys: String,
    declaration: Option<SinkDeclaration>,
    sent: SentRows,
    /// The last committed epoch; 0 before the first.
    committed: u64,
    cut: EpochCut,
    /// The largest number that an epoch has had.
    used: u64,
    prepared: Option<Prepared>,
    is_paused: bool,
    /// Whether all rows are written again, so that the marker of the brokers does not matter.
    adopts: bool,
    /// How often an operator has asked for events to be written again, since this process started.
    restarts: u64,
}

impl BookState {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Opened { book, keys } => (self.book, self.keys) = (book, keys),
            Entry::Declared { declaration } => self.declaration = Some(declaration),
            Entry::Rows { rows } => rows.iter().filter_map(StoredChange::change).for_each(|row| self.sent.apply(row)),
            Entry::Committed { epoch, cut } => (self.committed, self.used, self.cut) = (epoch, epoch, cut),
            Entry::Prepared { epoch, process, cut, rows } => {
                self.decide(true);
                let changes = rows.iter().filter_map(StoredChange::change).collect();
                self.prepare(Prepared { epoch, process, cut, changes });
            }
            Entry::Aborted { .. } => self.decide(false),
            Entry::Paused { paused } => self.is_paused = paused,
            Entry::Again { windows } => self.mark(windows),
            Entry::Advanced { cut } => {
                self.decide(true);
                self.cut = cut;
            }
            Entry::Restarted { cut, adopts } => self.restart(cut, adopts),
        }
    }

    fn prepare(&mut self, prepared: Prepared) {
        self.used = self.used.max(prepared.epoch);
        self.prepared = Some(prepared);
    }

    fn decide(&mut self, is_committed: bool) {
        let Some(Prepared { epoch, cut, changes, .. }) = self.prepared.take() else { return };
        if is_committed {
            changes.into_iter().for_each(|change| self.sent.apply(change));
            (self.committed, self.cut, self.adopts) = (epoch, cut, false);
        }
    }

    fn restart(&mut self, cut: EpochCut, adopts: bool) {
        // Whether or not the epoch in doubt is in the topic, its events are written again.
        if let Some(prepared) = &mut self.prepared {
            prepared.cut = cut.clone();
        }
        self.cut = cut;
        self.adopts |= adopts;
        self.restarts += 1;
    }

    fn mark(&mut self, windows: Option<(i64, i64)>) {
        let (from, to) = windows.unwrap_or((i64::MIN, i64::MAX));
        let ids = WindowId(from)..WindowId(to);
        self.sent.mark_stale(&ids);
        // An epoch in doubt may be in the topic as well.
        for change in self.prepared.iter_mut().flat_map(|prepared| &mut prepared.changes) {
            if change.value.is_some() && ids.contains(&change.window) {
                change.value = Some(ValueHash::STALE);
            }
        }
        self.adopts |= windows.is_none();
    }
}

/// What the marker of the brokers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochMarker<'a> {
    pub book: &'a str,
    pub epoch: u64,
    /// The process that wrote the epoch.
    pub writer: &'a str,
}

/// The marker of the brokers does not fit the book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    #[error(
        "the brokers have epochs of another data folder under this transactional id; set another transactional_id. {ADVICE}"
    )]
    Foreign,
    #[error(
        "the brokers have epoch {found}, and the state of the sink ends at {known}: it was restored from a backup. {ADVICE}"
    )]
    Ahead { found: u64, known: u64 },
    #[error("the brokers have no epoch although {0} were committed: the topic of epochs was deleted. {ADVICE}")]
    Lost(u64),
}

const ADVICE: &str =
    "If this process alone should write the topic, write all rows again: trueup sinks resume NAME --from start";

/// The state of one sink.
#[derive(Debug)]
pub struct SinkBook {
    file: Mutex<BookFile>,
    state: Mutex<BookState>,
}

impl SinkBook {
    /// Opens the book of a sink in `folder`. `keys` identifies the keys of its records.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn open(folder: &Path, sink: &SinkName, keys: &str) -> Result<SinkBook, BookError> {
        let mut state = BookState::default();
        let kind = BookKind { name: &format!("{sink}.log"), consequence: CONSEQUENCE };
        let mut file = BookFile::open(folder, kind, |entry| state.apply(entry))?;
        if state.book.is_empty() {
            let opened = Entry::Opened { book: Uuid::new_v4().simple().to_string(), keys: keys.to_owned() };
            let failed = |error: io::Error| BookError::Io { path: folder.join(kind.name), error };
            file.append(std::slice::from_ref(&opened)).map_err(failed)?;
            state.apply(opened);
        }
        Ok(SinkBook { file: Mutex::new(file), state: Mutex::new(state) })
    }

    /// Notes the options of the sink, if they are others than before. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing changes.
    pub fn declare(&self, declaration: &SinkDeclaration) -> io::Result<()> {
        if self.state.lock().declaration.as_ref() == Some(declaration) {
            return Ok(());
        }
        self.file.lock().append(&[Entry::Declared { declaration: declaration.clone() }])?;
        self.state.lock().declaration = Some(declaration.clone());
        Ok(())
    }

    /// Returns the id of the book, which markers carry.
    pub fn id(&self) -> String {
        self.state.lock().book.clone()
    }

    /// Returns whether the records have other keys than those that `keys` identifies.
    pub fn has_other_keys(&self, keys: &str) -> bool {
        self.state.lock().keys != keys
    }

    /// Calls `read` with the rows that the topic has.
    pub fn sent<T>(&self, read: impl FnOnce(&SentRows) -> T) -> T {
        read(&self.state.lock().sent)
    }

    /// Returns the last committed epoch and its cut.
    pub fn committed(&self) -> (u64, EpochCut) {
        let state = self.state.lock();
        (state.committed, state.cut.clone())
    }

    /// Returns whether an operator has paused the sink.
    pub fn is_paused(&self) -> bool {
        self.state.lock().is_paused
    }

    /// Returns whether all rows are written again, under whatever marker the brokers have.
    pub fn adopts(&self) -> bool {
        self.state.lock().adopts
    }

    /// Notes a cut before which nothing has changed since the committed one. Not durable: the next process finds out again.
    pub fn advance(&self, cut: EpochCut) {
        self.state.lock().cut = cut;
    }

    /// Makes an epoch of `process` durable before its transaction. Returns its number. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing is prepared.
    pub fn prepare(&self, process: &str, cut: EpochCut, changes: Vec<SentChange>) -> io::Result<u64> {
        let epoch = self.state.lock().used + 1;
        let rows = changes.iter().map(StoredChange::from).collect();
        let process = process.to_owned();
        self.file.lock().append(&[Entry::Prepared { epoch, process: process.clone(), cut: cut.clone(), rows }])?;
        self.state.lock().prepare(Prepared { epoch, process, cut, changes });
        Ok(epoch)
    }

    /// Returns the cut of the last committed epoch of a sink of a stream, and how often events were asked for again before.
    pub fn position(&self) -> (EpochCut, u64) {
        let state = self.state.lock();
        (state.cut.clone(), state.restarts)
    }

    /// Makes an epoch of a sink of a stream durable before its transaction, as [`SinkBook::prepare`] does; `None`: events were
    /// asked for again since the epoch was found. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing is prepared.
    pub fn prepare_events(&self, process: &str, cut: EpochCut, restarts: u64) -> io::Result<Option<u64>> {
        let mut file = self.file.lock();
        let epoch = {
            let state = self.state.lock();
            if state.restarts != restarts {
                return Ok(None);
            }
            state.used + 1
        };
        let process = process.to_owned();
        file.append(&[Entry::Prepared { epoch, process: process.clone(), cut: cut.clone(), rows: Vec::new() }])?;
        self.state.lock().prepare(Prepared { epoch, process, cut, changes: Vec::new() });
        Ok(Some(epoch))
    }

    /// Notes durably that a sink of a stream has come to `cut` without writing anything, unless events were asked for again
    /// since. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing changes.
    pub fn advance_events(&self, cut: EpochCut, restarts: u64) -> io::Result<()> {
        {
            let mut file = self.file.lock();
            let (before, asked) = self.position();
            if asked != restarts || before == cut {
                return Ok(());
            }
            file.append(&[Entry::Advanced { cut: cut.clone() }])?;
            self.state.lock().cut = cut;
        }
        self.rewrite()
    }

    /// Lets a sink of a stream write events again: those with an event time from `from` on, or all, then under whatever marker
    /// the brokers have. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing changes.
    pub fn write_events_again(&self, from: Option<Micros>) -> io::Result<()> {
        let mut file = self.file.lock();
        let (EpochCut { position, again, .. }, _) = self.position();
        let again = from.map(|from| {
            let mut until = again.map(|again| again.until).unwrap_or_default();
            for (partition, offset) in position {
                let until = until.entry(partition).or_insert(offset);
                *until = offset.max(*until);
            }
            EventsAgain { from, until }
        });
        let (cut, adopts) = (EpochCut { again, ..EpochCut::default() }, from.is_none());
        file.append(&[Entry::Restarted { cut: cut.clone(), adopts }])?;
        self.state.lock().restart(cut, adopts);
        Ok(())
    }

    /// Takes positions of a sink of a stream back to the heads of a log that was replaced by one with fewer events. Not durable:
    /// the next process finds out again.
    pub fn limit_position(&self, head: impl Fn(Partition) -> Offset) -> bool {
        let mut state = self.state.lock();
        let BookState { cut, prepared, .. } = &mut *state;
        // The epoch in doubt may be in the topic as well.
        let cuts = std::iter::once(cut).chain(prepared.as_mut().map(|prepared| &mut prepared.cut));
        let mut is_beyond = false;
        for (partition, offset) in cuts.flat_map(|cut| &mut cut.position) {
            is_beyond |= *offset > head(*partition);
            *offset = head(*partition).min(*offset);
        }
        is_beyond
    }

    /// Notes that the prepared epoch was committed. Blocking: rewrites a file that has grown long.
    ///
    /// # Errors
    /// The file cannot be rewritten; the epoch counts as committed all the same.
    pub fn commit(&self) -> io::Result<()> {
        self.state.lock().decide(true);
        self.rewrite()
    }

    /// Decides about an epoch in doubt by the marker of the brokers. Blocking.
    ///
    /// # Errors
    /// The marker does not fit, or the file cannot be written.
    pub fn settle(&self, marker: Option<EpochMarker<'_>>) -> io::Result<Result<(), MarkerError>> {
        let aborted = {
            let mut state = self.state.lock();
            let prepared = state.prepared.as_ref().map(|prepared| (prepared.epoch, prepared.process.clone()));
            let is_in_topic = match (marker, &prepared) {
                // All rows are written again, also over those of another book.
                (Some(marker), _) if state.adopts && marker.book != state.book => {
                    state.used = state.used.max(marker.epoch);
                    false
                }
                (Some(marker), _) if marker.book != state.book => return Ok(Err(MarkerError::Foreign)),
                (Some(marker), _) if marker.epoch > state.used => {
                    if !state.adopts {
                        return Ok(Err(MarkerError::Ahead { found: marker.epoch, known: state.used }));
                    }
                    state.used = marker.epoch;
                    false
                }
                (Some(marker), Some((epoch, process))) if marker.epoch == *epoch => {
                    if marker.writer != process && !state.adopts {
                        return Ok(Err(MarkerError::Foreign));
                    }
                    true
                }
                (None, _) if state.committed > 0 && !state.adopts => {
                    return Ok(Err(MarkerError::Lost(state.committed)));
                }
                (Some(_) | None, _) => false,
            };
            let Some((epoch, _)) = prepared else { return Ok(Ok(())) };
            if is_in_topic {
                state.decide(true);
                return Ok(Ok(()));
            }
            epoch
        };
        self.file.lock().append(&[Entry::Aborted { epoch: aborted }])?;
        self.state.lock().decide(false);
        Ok(Ok(()))
    }

    /// Pauses or resumes the sink. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing changes.
    pub fn set_paused(&self, paused: bool) -> io::Result<()> {
        self.file.lock().append(&[Entry::Paused { paused }])?;
        self.state.lock().is_paused = paused;
        Ok(())
    }

    /// Marks rows to be written again: those of windows in `ids`, or all, then under whatever marker the brokers have. Blocking.
    ///
    /// # Errors
    /// The file cannot be written; nothing changes.
    pub fn write_again(&self, ids: Option<Range<WindowId>>) -> io::Result<()> {
        let windows = ids.map(|ids| (ids.start.0, ids.end.0));
        self.file.lock().append(&[Entry::Again { windows }])?;
        self.state.lock().mark(windows);
        Ok(())
    }

    /// Replaces the file with one of the present state if it is several times as long.
    fn rewrite(&self) -> io::Result<()> {
        let needed = self.state.lock().sent.len() as u64 * ROW_BYTES;
        let length = self.file.lock().bytes();
        if length >= REWRITE_BYTES_MIN.max(4 * needed) {
            self.compact()?;
        }
        Ok(())
    }

    /// Replaces the file with one of the present state, unless an epoch is in doubt. Returns whether it did. Blocking.
    ///
    /// # Errors
    /// The file cannot be replaced; it stays as it is.
    pub fn compact(&self) -> io::Result<bool> {
        let mut file = self.file.lock();
        let state = self.state.lock();
        if state.prepared.is_some() {
            return Ok(false);
        }
        let mut entries = vec![Entry::Opened { book: state.book.clone(), keys: state.keys.clone() }];
        entries.extend(state.declaration.clone().map(|declaration| Entry::Declared { declaration }));
        let mut rows = Vec::new();
        state.sent.for_each(|row| {
            rows.push(StoredChange::from(&row));
            if rows.len() == ENTRY_ROWS {
                entries.push(Entry::Rows { rows: std::mem::take(&mut rows) });
            }
        });
        entries.push(Entry::Rows { rows });
        entries.push(Entry::Committed { epoch: state.committed.max(state.used), cut: state.cut.clone() });
        entries.push(Entry::Paused { paused: state.is_paused });
        // All rows are stale in any case: the first epoch that is committed ends it.
        entries.extend(state.adopts.then_some(Entry::Again { windows: None }));
        file.replace(&entries)?;
        Ok(true)
    }
}

/// What a book has, read without changing it.
#[derive(Debug)]
pub struct StoredBook {
    /// The options when the sink ran last; `None`: the program that wrote the book did not note them.
    pub declaration: Option<SinkDeclaration>,
    /// Identifies the keys of its records.
    pub keys: String,
    /// The last epoch that is known to be committed.
    pub epoch: u64,
    /// Rows that the topic has.
    pub rows: usize,
    pub is_paused: bool,
}

impl StoredBook {
    /// Reads the book of a sink in `folder`.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path, sink: &SinkName) -> Result<StoredBook, BookError> {
        let mut state = BookState::default();
        let kind = BookKind { name: &format!("{sink}.log"), consequence: CONSEQUENCE };
        alerts::book_file::read::<Entry>(folder, kind)?.into_iter().for_each(|entry| state.apply(entry));
        let BookState { declaration, keys, committed: epoch, sent, is_paused, .. } = state;
        Ok(StoredBook { declaration, keys, epoch, rows: sent.len(), is_paused })
    }
}

#[cfg(test)]
mod tests;
