//! Decides, for a view with sessions, which rows that the topic has are gone, and which sessions are still open.
//!
//! The key of a row is the start of its session. It moves when an earlier event joins the session, and two sessions become one
//! when an event bridges them: then the topic has rows that the view does not have any more.
//!
//! With `emit = 'final'`, a session is written once the watermark has passed its end, and whatever it replaces is deleted in
//! the same epoch. An event that extends a session that the topic has can move its end beyond the watermark; then the session
//! is open again, and until it is closed the topic keeps its rows.

use std::collections::HashMap;

use alerts::affected::AffectedRows;
use alerts::session_starts::KnownStarts;
use shared::changed_rows::ChangedRow;
use shared::time::Micros;
use shared::window::WindowId;

use crate::book::SinkBook;

/// A row that waits for the watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRow {
    /// The end of its window.
    pub end: Micros,
    pub row: ChangedRow,
}

/// The open sessions of some keys.
#[derive(Debug, Default)]
pub struct OpenSessions {
    by_key: HashMap<Box<[u8]>, Vec<(WindowId, Micros)>>,
}

impl OpenSessions {
    /// Adds a session of `key` from `start` to `end`.
    pub fn add(&mut self, start: WindowId, end: Micros, key: &[u8]) {
        match self.by_key.get_mut(key) {
            Some(sessions) => sessions.push((start, end)),
            None => drop(self.by_key.insert(key.into(), vec![(start, end)])),
        }
    }

    /// Returns whether a session of the key that starts with `id` is, or has become, a part of an open one.
    pub fn has(&self, id: WindowId, key: &[u8]) -> bool {
        let of_key = self.by_key.get(key).into_iter().flatten();
        of_key.into_iter().any(|(start, end)| *start <= id && id.0 < end.0)
    }

    /// Returns the sessions as rows that wait.
    pub fn into_rows(self) -> Vec<OpenRow> {
        let of_key = |(key, sessions): (Box<[u8]>, Vec<(WindowId, Micros)>)| {
            sessions.into_iter().map(move |(start, end)| OpenRow { end, row: (start, key.clone()) })
        };
        self.by_key.into_iter().flat_map(of_key).collect()
    }
}

/// Returns the rows that the topic has of the affected keys, with known starts.
pub fn sent_rows(affected: &AffectedRows, known: &KnownStarts, book: &SinkBook) -> Vec<ChangedRow> {
    book.sent(|sent| {
        let of_key = |key: &[u8]| -> Vec<ChangedRow> {
            sent.windows_of(key).filter(|id| known.contains(*id)).map(|id| (id, key.into())).collect()
        };
        affected.wanted.keys().flat_map(|wanted| of_key(wanted.key())).collect()
    })
}
