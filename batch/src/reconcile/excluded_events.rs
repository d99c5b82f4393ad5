//! Finds the rows that events fell into which the speed layer excluded or counted twice, to explain why a served value was
//! not the exact one. The verdicts are those of the speed layer: pure functions of the events' records (I3).

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use arrow::row::Rows as EncodedRows;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::time::{Micros, micros_of};
use shared::window::{Window, WindowId};

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::events::EventBatch;
use crate::recompute::late_sessions::late_events_of_sessions;
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::watch::Watch;

/// The rows of some events: windows and groups, or of sessions the times of events by group.
#[derive(Debug)]
pub struct ExcludedEvents {
    windows: HashMap<WindowId, HashSet<Box<[u8]>>>,
    times: HashMap<Box<[u8]>, Vec<i64>>,
    /// Gap of sessions, in microseconds; 0 for other windows.
    gap: i64,
    /// Events of other groups are ignored.
    bucket: Bucket,
}

/// A row of a view.
#[derive(Debug, Clone, Copy)]
pub struct RowId<'a> {
    pub window: WindowId,
    /// Of a session the time of its last event, in microseconds.
    pub last: Option<i64>,
    pub key: &'a [u8],
}

impl ExcludedEvents {
    /// Returns an empty set for the groups in `bucket` of a view with such windows.
    pub fn new(window: Window, bucket: Bucket) -> ExcludedEvents {
        let gap = window.gap().unwrap_or(0);
        ExcludedEvents { windows: HashMap::new(), times: HashMap::new(), gap, bucket }
    }

    /// Returns whether such an event fell into `row`. A session has it also if the event only meets it: with the event it
    /// would be another session.
    pub fn contains(&self, row: RowId<'_>) -> bool {
        match row.last {
            None => self.windows.get(&row.window).is_some_and(|keys| keys.contains(row.key)),
            Some(last) => {
                let times = self.times.get(row.key);
                let (from, to) = (row.window.0.saturating_sub(self.gap), last.saturating_add(self.gap));
                times.is_some_and(|times| times.iter().any(|time| *time > from && *time < to))
            }
        }
    }

    /// Returns the late events of `files`, which the speed layer excluded. For sessions `context` are the files with the
    /// events before them.
    pub fn late(
        query: &ArchiveQuery,
        files: &[ArchiveFile],
        context: &[ArchiveFile],
        bucket: Bucket,
        watch: &Watch,
    ) -> Result<ExcludedEvents, RunFailure> {
        let layout = layout(query)?;
        let allowed_lateness = micros_of(query.source.stream.allowed_lateness);
        let mut late = ExcludedEvents::new(query.view.window, bucket);
        match query.view.window {
            Window::All => {}
            Window::Session { gap } => {
                for event in late_events_of_sessions(query, context, gap, bucket, watch)? {
                    late.times.entry(event.key).or_default().push(event.time);
                }
            }
            window => {
                _ = query.for_each_batch(files, RowSelection::All, watch, false, &mut |batch| {
                    let keys = encoded(&layout, &batch)?;
                    for row in 0..batch.times.len() {
                        let (time, watermark) = (batch.times[row], batch.watermarks[row]);
                        if watermark
                            .is_some_and(|watermark| window.is_late(Micros(time), Micros(watermark), allowed_lateness))
                        {
                            late.add(window, time, key_of(keys.as_ref(), row));
                        }
                    }
                    Ok(ControlFlow::Continue(()))
                })?
            }
        }
        Ok(late)
    }

    /// Adds the events of `files` that `rows` selects.
    pub fn add_all(
        &mut self,
        query: &ArchiveQuery,
        files: &[ArchiveFile],
        rows: RowSelection<'_>,
        watch: &Watch,
    ) -> Result<(), RunFailure> {
        let layout = layout(query)?;
        query
            .for_each_batch(files, rows, watch, false, &mut |batch| {
                let keys = encoded(&layout, &batch)?;
                for row in 0..batch.times.len() {
                    self.add(query.view.window, batch.times[row], key_of(keys.as_ref(), row));
                }
                Ok(ControlFlow::Continue(()))
            })
            .map(|_| ())
    }

    /// Returns only the events of sessions, `gap` microseconds apart, that start before `first`.
    pub fn of_sessions_before(mut self, gap: i64, first: i64) -> ExcludedEvents {
        for times in self.times.values_mut() {
            times.sort_unstable();
            let sessions = times.chunk_by(|before, after| after.saturating_sub(*before) < gap);
            *times = sessions.take_while(|session| session[0] < first).flatten().copied().collect();
        }
        self
    }

    fn add(&mut self, window: Window, time: i64, key: &[u8]) {
        if !self.bucket.holds(key) {
            return;
        }
        let key: Box<[u8]> = Box::from(key);
        if window.gap().is_some() {
            return self.times.entry(key).or_default().push(time);
        }
        let pane = window.pane_of(Micros(time));
        window.for_each_window(pane, |id| _ = self.windows.entry(id).or_default().insert(key.clone()));
    }
}

fn layout(query: &ArchiveQuery) -> Result<KeyLayout, RunFailure> {
    Ok(KeyLayout::new(query.view.dimensions.iter().map(|d| d.expression.data_type).collect())?)
}

fn encoded(layout: &KeyLayout, batch: &EventBatch) -> Result<Option<EncodedRows>, RunFailure> {
    if batch.dimensions.is_empty() { Ok(None) } else { Ok(Some(layout.encode(&batch.dimensions)?)) }
}

fn key_of(keys: Option<&EncodedRows>, row: usize) -> &[u8] {
    keys.map_or(&[], |keys| keys.row(row).data())
}
