//! Finds the events of an archive that the speed layer excludes as late, so that a replay of the archive makes the state that
//! the speed layer made of the log. The verdicts are pure functions of the events' records (I3).
//!
//! Historical events have no watermark, so a replay has them all.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use shared::partial::bucket::Bucket;
use shared::time::{Micros, micros_of};
use shared::view::View;
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::budget::Budget;
use crate::recompute::events::EventBatch;
use crate::recompute::late_sessions::late_events_of_sessions;
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::watch::Watch;

/// The events that the speed layer excludes from a view.
#[derive(Debug)]
pub struct SpeedVerdicts {
    window: Window,
    /// In microseconds.
    allowed_lateness: i64,
    /// Partitions and offsets of the late events of sessions, whose verdict depends on the events before them.
    late_of_sessions: HashSet<(i64, i64)>,
    /// Number of late events.
    pub late: u64,
}

impl SpeedVerdicts {
    /// Judges the events of `files`, which are all files of the stream. Blocking.
    pub fn read(
        query: &ArchiveQuery,
        files: &[ArchiveFile],
        budget: Budget,
        watch: &Watch,
    ) -> Result<SpeedVerdicts, RunFailure> {
        let (window, allowed_lateness) = (query.view.window, micros_of(query.source.stream.allowed_lateness));
        let mut verdicts = SpeedVerdicts { window, allowed_lateness, late_of_sessions: HashSet::new(), late: 0 };
        if let Window::Session { gap } = window {
            let events: u64 = files.iter().map(|file| file.tags.rows).sum();
            // A verdict depends only on events of the same group.
            for bucket in Bucket::each_of(events.div_ceil(budget.explained_rows()).max(1).next_power_of_two()) {
                let late = late_events_of_sessions(query, files, gap, bucket, watch)?;
                verdicts.late_of_sessions.extend(late.into_iter().map(|event| (event.partition, event.offset)));
            }
            verdicts.late = verdicts.late_of_sessions.len() as u64;
            return Ok(verdicts);
        }
        // Late events count whether or not they pass the WHERE, as in the speed layer.
        let all = ArchiveQuery { view: Arc::new(without_expressions(&query.view)), ..query.clone() };
        let mut late = 0;
        let _ = all.for_each_batch(files, RowSelection::All, watch, false, &mut |batch| {
            late += (0..batch.times.len()).filter(|row| verdicts.exclude(&batch, *row)).count() as u64;
            Ok(ControlFlow::Continue(()))
        })?;
        verdicts.late = late;
        Ok(verdicts)
    }

    /// Returns whether the speed layer excludes an event of a batch.
    pub fn exclude(&self, batch: &EventBatch, row: usize) -> bool {
        match self.window {
            Window::Session { .. } => self.late_of_sessions.contains(&(batch.partitions[row], batch.offsets[row])),
            window => batch.watermarks[row].is_some_and(|watermark| {
                window.is_late(Micros(batch.times[row]), Micros(watermark), self.allowed_lateness)
            }),
        }
    }
}

/// Returns the view without what it reads of events beside their times.
fn without_expressions(view: &View) -> View {
    View { joins: Vec::new(), filter: None, dimensions: Vec::new(), aggregates: Vec::new(), ..view.clone() }
}
