//! Keeps every raised alert: one record per alert and key, durable before anything is sent or listed.
//!
//! All changes are entries of [`crate::book_file`], and the state is a fold over them: a restart folds the same entries again.
//! An entry is applied only after it is written and synced, so no reader sees a change that a crash could undo.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use shared::control::{
    AlertDeclaration, AlertFilter, AlertRecord, AlertState, Alerts, DeadLetter, Silence, SilenceError,
};
use shared::ids::AlertName;
use shared::limits::{ALERT_NOTICES_MAX, ALERTS_KEPT};
use shared::time::Micros;
use tokio::sync::watch;

use crate::book_file::{self, BookError, BookFile};
use crate::condition::RowPlace;
use crate::delivery::notice_id;
use crate::quiet::Quiet;

/// Dead letters that are listed; older ones are forgotten.
const DEAD_LETTERS_KEPT: usize = 1_000;
/// Entries beyond twice the state at which the file is written again.
const REWRITE_MIN: usize = 10_000;

/// A change of the book.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// An alert is declared with this definition. Versions up to `judged` are not evaluated for it.
    Declared {
        declaration: AlertDeclaration,
        definition: String,
        judged: Option<i64>,
    },
    /// An alert is no longer declared.
    Removed {
        alert: AlertName,
    },
    /// A record was made or has changed; a notice of it is due if there is a target.
    Record {
        record: Box<AlertRecord>,
        definition: String,
        place: RowPlace,
        target: Option<String>,
    },
    /// The records of an alert agree with a batch version of its view.
    Judged {
        alert: AlertName,
        version: i64,
    },
    /// The notice of the change `seq` was delivered.
    Delivered {
        seq: u64,
    },
    /// The notice of the change `seq` was given up.
    Dead {
        seq: u64,
        letter: Box<DeadLetter>,
    },
    /// The notice of the change `seq` was not sent; `count` notices of the alert in all.
    Suppressed {
        seq: u64,
        alert: AlertName,
        count: u64,
    },
    Silenced {
        silence: Silence,
    },
    Unsilenced {
        id: String,
    },
    /// There were changes up to `seq`, whose records are erased.
    Changes {
        seq: u64,
    },
}

/// A record, and what is needed to judge it.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    pub record: AlertRecord,
    /// The hash of the definition of the alert that made it.
    pub definition: String,
    pub place: RowPlace,
}

/// A notice that has not been delivered.
#[derive(Debug, Clone)]
pub struct Notice {
    pub target: String,
    pub record: Arc<AlertRecord>,
}

/// An alert as the book knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAlert {
    pub declaration: AlertDeclaration,
    pub definition: String,
    pub judged: Option<i64>,
}

/// The maximum sizes of a book.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    records: usize,
    /// Notices that wait.
    notices: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { records: ALERTS_KEPT, notices: ALERT_NOTICES_MAX }
    }
}

#[derive(Debug, Default)]
struct BookState {
    alerts: BTreeMap<AlertName, KnownAlert>,
    records: HashMap<String, Arc<StoredRecord>>,
    /// Ids of records by their last change.
    by_seq: BTreeMap<u64, String>,
    last_seq: u64,
    bounds: Bounds,
    /// By the change they are about.
    notices: BTreeMap<u64, Notice>,
    dead: VecDeque<DeadLetter>,
    quiet: Quiet,
}

/// The book of one server.
#[derive(Debug)]
pub struct Book {
    file: Mutex<BookFile>,
    state: RwLock<BookState>,
    changes: watch::Sender<u64>,
    /// Notified when a notice is due.
    due: watch::Sender<()>,
}

/// A declared alert to adopt.
#[derive(Debug, Clone)]
pub struct Adopted {
    pub declaration: AlertDeclaration,
    pub definition: String,
    /// The active version of its view.
    pub version: Option<i64>,
}

impl BookState {
    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Declared { declaration, definition, judged } => {
                self.alerts.insert(declaration.name.clone(), KnownAlert { declaration, definition, judged });
            }
            Entry::Removed { alert } => {
                self.alerts.remove(&alert);
            }
            Entry::Judged { alert, version } => {
                if let Some(known) = self.alerts.get_mut(&alert) {
                    known.judged = Some(version);
                }
            }
            Entry::Changes { seq } => self.last_seq = self.last_seq.max(seq),
            Entry::Record { record, definition, place, target } => self.put(*record, definition, place, target),
            Entry::Delivered { seq } => {
                if let Some(notice) = self.notices.remove(&seq) {
                    self.quiet.sent(&notice.record.alert);
                }
            }
            Entry::Dead { seq, letter } => {
                self.notices.remove(&seq);
                self.bury(*letter);
            }
            Entry::Suppressed { seq, alert, count } => {
                self.notices.remove(&seq);
                self.quiet.suppress(alert, count);
            }
            Entry::Silenced { silence } => self.quiet.silence(silence),
            Entry::Unsilenced { id } => self.quiet.unsilence(&id),
        }
    }

    fn put(&mut self, record: AlertRecord, definition: String, place: RowPlace, target: Option<String>) {
        let (seq, id) = (record.seq, record.id.clone());
        self.last_seq = self.last_seq.max(seq);
        if let Some(target) = target {
            self.notices.insert(seq, Notice { target, record: Arc::new(record.clone()) });
            if self.notices.len() > self.bounds.notices {
                self.give_up_one(record.changed_at);
            }
        }
        if let Some(before) = self.records.insert(id.clone(), Arc::new(StoredRecord { record, definition, place })) {
            self.by_seq.remove(&before.record.seq);
        }
        self.by_seq.insert(seq, id);
        if self.records.len() > self.bounds.records {
            self.forget_one();
        }
    }

    /// Makes a dead letter of the oldest notice that waits.
    fn give_up_one(&mut self, now: Micros) {
        let Some((_, Notice { target, record })) = self.notices.pop_first() else { return };
        metrics::counter!("trueup_alert_notices_total", "target" => target.clone(), "result" => "dead").increment(1);
        let error = format!("more than {} notices were waiting", self.bounds.notices);
        let (key, record) = (notice_id(&record), record.as_ref().clone());
        self.bury(DeadLetter { key, target, failed_at: now, attempts: 0, error, record });
    }

    fn bury(&mut self, letter: DeadLetter) {
        self.dead.push_front(letter);
        self.dead.truncate(DEAD_LETTERS_KEPT);
    }

    /// Forgets the oldest judged record, or the oldest one.
    fn forget_one(&mut self) {
        let is_judged = |id: &String| self.records.get(id).is_some_and(|s| s.record.state != AlertState::Raised);
        let judged = self.by_seq.iter().find(|(_, id)| is_judged(id)).map(|(seq, _)| *seq);
        let Some(seq) = judged.or_else(|| self.by_seq.keys().next().copied()) else { return };
        if let Some(id) = self.by_seq.remove(&seq) {
            self.records.remove(&id);
            metrics::counter!("trueup_alerts_forgotten_total").increment(1);
        }
    }

    /// Returns the entries that lead to this state.
    fn entries(&self) -> Vec<Entry> {
        let alerts = self
            .alerts
            .values()
            .cloned()
            .map(|KnownAlert { declaration, definition, judged }| Entry::Declared { declaration, definition, judged });
        let record = |record: &AlertRecord, definition: &str, place: &RowPlace, target: Option<String>| Entry::Record {
            record: Box::new(record.clone()),
            definition: definition.to_owned(),
            place: place.clone(),
            target,
        };
        let stored = self.by_seq.values().filter_map(|id| self.records.get(id));
        // Notices of earlier changes come before the present state of their records.
        let mut changes: BTreeMap<u64, Entry> = stored
            .map(|s| {
                let target = self.notices.get(&s.record.seq).map(|notice| notice.target.clone());
                (s.record.seq, record(&s.record, &s.definition, &s.place, target))
            })
            .collect();
        for (seq, notice) in &self.notices {
            if let (false, Some(s)) = (changes.contains_key(seq), self.records.get(&notice.record.id)) {
                changes.insert(*seq, record(&notice.record, &s.definition, &s.place, Some(notice.target.clone())));
            }
        }
        let dead = self.dead.iter().rev().map(|letter| Entry::Dead { seq: 0, letter: Box::new(letter.clone()) });
        let last = Entry::Changes { seq: self.last_seq };
        let (silences, suppressed) = self.quiet.parts();
        let silences = silences.map(|silence| Entry::Silenced { silence: silence.clone() });
        let suppressed = suppressed.map(|(alert, count)| Entry::Suppressed { seq: 0, alert: alert.clone(), count });
        alerts.chain(changes.into_values()).chain(dead).chain([last]).chain(silences).chain(suppressed).collect()
    }

    fn size(&self) -> usize {
        self.alerts.len() + self.records.len() + self.notices.len() + self.dead.len()
    }
}

impl Book {
    /// Opens the book in `folder`.
    pub fn open(folder: &Path) -> Result<Book, BookError> {
        Book::open_with(folder, Bounds::default())
    }

    fn open_with(folder: &Path, bounds: Bounds) -> Result<Book, BookError> {
        let mut state = BookState { bounds, ..BookState::default() };
        let file = BookFile::open(folder, book_file::OF_ALERTS, |entry| state.apply(entry))?;
        let (changes, due) = (watch::Sender::new(state.last_seq), watch::Sender::new(()));
        Ok(Book { file: Mutex::new(file), state: RwLock::new(state), changes, due })
    }

    /// Compares the declared alerts with the known ones: new and changed ones start at the active version of their view,
    /// removed ones are forgotten, their records stay.
    pub fn adopt(&self, declared: &[Adopted]) -> io::Result<()> {
        let mut entries = Vec::new();
        {
            let state = self.state.read();
            let is_declared = |name: &AlertName| declared.iter().any(|adopted| adopted.declaration.name == *name);
            entries.extend(
                state
                    .alerts
                    .keys()
                    .filter(|name| !is_declared(name))
                    .map(|alert| Entry::Removed { alert: alert.clone() }),
            );
            for Adopted { declaration, definition, version } in declared {
                let known = state.alerts.get(&declaration.name);
                let same = known.filter(|known| known.definition == *definition);
                if same.is_some_and(|known| known.declaration == *declaration) {
                    continue;
                }
                let judged = same.map_or(*version, |known| known.judged);
                entries.push(Entry::Declared {
                    declaration: declaration.clone(),
                    definition: definition.clone(),
                    judged,
                });
            }
        }
        self.write(entries)
    }

    /// Appends entries and applies them. Blocking.
    pub fn write(&self, entries: Vec<Entry>) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut file = self.file.lock();
        file.append(&entries)?;
        let (last_seq, is_due, size) = {
            let mut state = self.state.write();
            entries.into_iter().for_each(|entry| state.apply(entry));
            (state.last_seq, !state.notices.is_empty(), state.size())
        };
        if file.entries() > 2 * size + REWRITE_MIN {
            let entries = self.state.read().entries();
            file.replace(&entries)?;
        }
        drop(file);
        self.changes.send_if_modified(|seq| std::mem::replace(seq, last_seq) != last_seq);
        if is_due {
            self.due.send_replace(());
        }
        Ok(())
    }

    /// Erases the records for which `is_erased` holds, with their notices, and writes the file again without them.
    /// Returns their number. Blocking.
    pub fn erase(&self, is_erased: &dyn Fn(&AlertRecord) -> bool) -> io::Result<usize> {
        let mut file = self.file.lock();
        let (entries, erased) = {
            let mut state = self.state.write();
            let before = state.records.len();
            state.records.retain(|_, stored| !is_erased(&stored.record));
            let erased = before - state.records.len();
            state.notices.retain(|_, notice| !is_erased(&notice.record));
            state.dead.retain(|letter| !is_erased(&letter.record));
            let BookState { by_seq, records, .. } = &mut *state;
            by_seq.retain(|_, id| records.contains_key(id));
            (state.entries(), erased)
        };
        file.replace(&entries)?;
        Ok(erased)
    }

    /// Returns the number of the last change of a record.
    pub fn last_seq(&self) -> u64 {
        self.state.read().last_seq
    }

    /// Returns a record.
    pub fn record(&self, id: &str) -> Option<Arc<StoredRecord>> {
        self.state.read().records.get(id).cloned()
    }

    /// Returns the alerts as the book knows them.
    pub fn known(&self, alert: &AlertName) -> Option<KnownAlert> {
        self.state.read().alerts.get(alert).cloned()
    }

    /// Returns the records of an alert with this definition that no run has judged.
    pub fn unjudged(&self, alert: &AlertName, definition: &str) -> Vec<Arc<StoredRecord>> {
        let state = self.state.read();
        let of_alert = |s: &&Arc<StoredRecord>| {
            s.record.state == AlertState::Raised && s.record.alert == *alert && s.definition == definition
        };
        state.records.values().filter(of_alert).cloned().collect()
    }

    /// Returns the oldest notices that are due, at most `limit`, each with the number of its change, for `target`.
    pub fn notices(&self, target: &str, limit: usize) -> Vec<(u64, Notice)> {
        let state = self.state.read();
        let due = state.notices.iter().filter(|(_, notice)| notice.target == target);
        due.take(limit).map(|(seq, notice)| (*seq, notice.clone())).collect()
    }

    /// Returns the targets that notices are due for.
    pub fn targets(&self) -> Vec<String> {
        let targets: BTreeSet<String> =
            self.state.read().notices.values().map(|notice| notice.target.clone()).collect();
        targets.into_iter().collect()
    }

    /// Returns whether a silence covers a record.
    pub fn is_silenced(&self, record: &AlertRecord, now: Micros) -> bool {
        self.state.read().quiet.covers(record, now)
    }

    /// Returns how many notices of an alert were not sent since the last one that was.
    pub fn suppressed(&self, alert: &AlertName) -> u64 {
        self.state.read().quiet.suppressed(alert)
    }

    /// Returns a receiver that is notified when a notice is due.
    pub fn due(&self) -> watch::Receiver<()> {
        self.due.subscribe()
    }

    fn shown(&self, state: &BookState, stored: &StoredRecord) -> AlertRecord {
        let known = state.alerts.get(&stored.record.alert);
        let declared = known.is_some_and(|known| known.definition == stored.definition);
        AlertRecord { declared, ..stored.record.clone() }
    }
}

/// Returns the alerts that the book in `folder` knows, and the number of records of each alert, declared or not.
pub fn stored_alerts(folder: &Path) -> Result<(Vec<KnownAlert>, BTreeMap<AlertName, usize>), BookError> {
    let mut state = BookState::default();
    book_file::read::<Entry>(folder, book_file::OF_ALERTS)?.into_iter().for_each(|entry| state.apply(entry));
    let mut counts = BTreeMap::new();
    state.records.values().for_each(|stored| *counts.entry(stored.record.alert.clone()).or_insert(0) += 1);
    Ok((state.alerts.into_values().collect(), counts))
}

impl Alerts for Book {
    fn declared(&self) -> Vec<AlertDeclaration> {
        self.state.read().alerts.values().map(|known| known.declaration.clone()).collect()
    }

    fn list(
        &self,
        filter: &AlertFilter,
        is_visible: &dyn Fn(&AlertRecord) -> bool,
        limit: usize,
    ) -> (Vec<AlertRecord>, usize) {
        let state = self.state.read();
        let admits = |record: &AlertRecord| {
            filter.state.is_none_or(|wanted| record.state == wanted)
                && filter.alert.as_ref().is_none_or(|wanted| record.alert.as_str() == wanted)
                && is_visible(record)
        };
        let (mut records, mut total) = (Vec::new(), 0);
        for stored in state.by_seq.values().rev().filter_map(|id| state.records.get(id)) {
            if admits(&stored.record) {
                total += 1;
                if records.len() < limit {
                    records.push(self.shown(&state, stored));
                }
            }
        }
        (records, total)
    }

    fn since(&self, seq: u64, limit: usize) -> Vec<AlertRecord> {
        let state = self.state.read();
        let later = state.by_seq.range(seq.saturating_add(1)..).filter_map(|(_, id)| state.records.get(id));
        later.take(limit).map(|stored| self.shown(&state, stored)).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn dead_letters(&self) -> Vec<DeadLetter> {
        self.state.read().dead.iter().cloned().collect()
    }

    fn silences(&self, now: Micros) -> Vec<Silence> {
        let mut silences: Vec<Silence> = self.state.read().quiet.active(now).cloned().collect();
        silences.sort_by_key(|silence| silence.until);
        silences
    }

    fn silence(&self, silence: Silence) -> Result<(), SilenceError> {
        if self.state.read().quiet.is_full(silence.created_at) {
            return Err(SilenceError::TooMany);
        }
        Ok(self.write(vec![Entry::Silenced { silence }])?)
    }

    fn unsilence(&self, id: &str) -> Result<(), SilenceError> {
        Ok(self.write(vec![Entry::Unsilenced { id: id.to_owned() }])?)
    }
}

#[cfg(test)]
pub(crate) mod tests;
