//! Into which rows did events fall that the speed layer left out, or took twice? For telling why a served value was not
//! the exact one. The verdicts are those of the speed layer: pure functions of the events' records.

use std::collections::{HashMap, HashSet};

use arrow::row::Rows as EncodedRows;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::partial::sessions::LiveSessions;
use shared::time::micros_of;
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::planner::ArchiveFile;
use crate::recompute::events::EventBatch;
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::scan::Watch;

/// Windows and groups, or of sessions the times of events by group.
#[derive(Debug)]
pub struct LeftOut {
    windows: HashMap<i64, HashSet<Box<[u8]>>>,
    times: HashMap<Box<[u8]>, Vec<i64>>,
    /// Of sessions, in microseconds.
    gap: i64,
    /// Only of these groups.
    bucket: Bucket,
}

/// A row of a view.
#[derive(Debug, Clone, Copy)]
pub struct RowId<'a> {
    /// The window's id; of a session the time of its first event.
    pub window: i64,
    /// Of a session the time of its last event.
    pub last: Option<i64>,
    pub key: &'a [u8],
}

/// Partition and offset, time, watermark just before, and key of an event.
type SessionEvent = ((i64, i64), i64, Option<i64>, Box<[u8]>);

impl LeftOut {
    /// Nothing, of the groups in `bucket` of a view with such windows.
    pub fn new(window: Window, bucket: Bucket) -> LeftOut {
        let gap = if let Window::Session { gap } = window { gap } else { 0 };
        LeftOut { windows: HashMap::new(), times: HashMap::new(), gap, bucket }
    }

    /// Did such an event fall into `row`? Into a session also one that meets it: with the event it is another session.
    pub fn contains(&self, row: RowId<'_>) -> bool {
        match row.last {
            None => self.windows.get(&row.window).is_some_and(|keys| keys.contains(row.key)),
            Some(last) => {
                let times = self.times.get(row.key);
                let (from, to) = (row.window.saturating_sub(self.gap), last.saturating_add(self.gap));
                times.is_some_and(|times| times.iter().any(|time| *time > from && *time < to))
            }
        }
    }

    /// The events of `files` that came too late for the speed layer. Of sessions `context` are the files that hold the
    /// events before them.
    pub fn late(
        query: &Query,
        files: &[ArchiveFile],
        context: &[ArchiveFile],
        bucket: Bucket,
        watch: &Watch,
    ) -> Result<LeftOut, RunFailure> {
        let layout = layout(query)?;
        let allowed_lateness = micros_of(query.source.stream.allowed_lateness);
        let mut late = LeftOut::new(query.view.window, bucket);
        match query.view.window {
            Window::All => {}
            Window::Session { gap } => {
                let mut events: Vec<SessionEvent> = Vec::new();
                query.for_each_batch(context, Rows::All, watch, false, &mut |batch| {
                    let keys = encoded(&layout, &batch)?;
                    for row in 0..batch.times.len() {
                        let key = key_of(keys.as_ref(), row);
                        if !bucket.holds(key) {
                            continue;
                        }
                        let place = (batch.partitions[row], batch.offsets[row]);
                        events.push((place, batch.times[row], batch.watermarks[row], Box::from(key)));
                    }
                    Ok(())
                })?;
                events.sort_unstable();
                let mut live = LiveSessions::new(gap, allowed_lateness);
                let mut partition = None;
                for ((of, _), time, watermark, key) in events {
                    if partition.replace(of) != Some(of) {
                        live = LiveSessions::new(gap, allowed_lateness);
                    }
                    if live.judge(&key, time, watermark) {
                        late.times.entry(key).or_default().push(time);
                    }
                }
            }
            window => query.for_each_batch(files, Rows::All, watch, false, &mut |batch| {
                let keys = encoded(&layout, &batch)?;
                for row in 0..batch.times.len() {
                    let (time, watermark) = (batch.times[row], batch.watermarks[row]);
                    if watermark.is_some_and(|watermark| window.is_late(time, watermark, allowed_lateness)) {
                        late.add(window, time, key_of(keys.as_ref(), row));
                    }
                }
                Ok(())
            })?,
        }
        Ok(late)
    }

    /// Adds the events of `files` at certain positions.
    pub fn add_all(
        &mut self,
        query: &Query,
        files: &[ArchiveFile],
        rows: Rows<'_>,
        watch: &Watch,
    ) -> Result<(), RunFailure> {
        let layout = layout(query)?;
        query.for_each_batch(files, rows, watch, false, &mut |batch| {
            let keys = encoded(&layout, &batch)?;
            for row in 0..batch.times.len() {
                self.add(query.view.window, batch.times[row], key_of(keys.as_ref(), row));
            }
            Ok(())
        })
    }

    /// Keeps only the events of sessions, `gap` microseconds apart, that begin before `first`.
    pub fn keep_sessions_before(&mut self, gap: i64, first: i64) {
        for times in self.times.values_mut() {
            times.sort_unstable();
            let sessions = times.chunk_by(|before, after| after.saturating_sub(*before) < gap);
            *times = sessions.take_while(|session| session[0] < first).flatten().copied().collect();
        }
    }

    fn add(&mut self, window: Window, time: i64, key: &[u8]) {
        if !self.bucket.holds(key) {
            return;
        }
        let key: Box<[u8]> = Box::from(key);
        if matches!(window, Window::Session { .. }) {
            return self.times.entry(key).or_default().push(time);
        }
        window.for_each_window(window.pane_of(time), |id| _ = self.windows.entry(id).or_default().insert(key.clone()));
    }
}

fn layout(query: &Query) -> Result<KeyLayout, RunFailure> {
    Ok(KeyLayout::new(query.view.dimensions.iter().map(|d| d.expression.data_type).collect())?)
}

fn encoded(layout: &KeyLayout, batch: &EventBatch) -> Result<Option<EncodedRows>, RunFailure> {
    if batch.dimensions.is_empty() { Ok(None) } else { Ok(Some(layout.encode(&batch.dimensions)?)) }
}

fn key_of(keys: Option<&EncodedRows>, row: usize) -> &[u8] {
    keys.map_or(&[], |keys| keys.row(row).data())
}
