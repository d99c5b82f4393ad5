//! Computes exact rows that Polars cannot group: overlapping windows, sessions, calendars, distinct counts, percentiles and
//! the like. Polars reads and evaluates; the events are folded by the code of the speed layer, with states that keep every
//! value.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use shared::date_partition::DatePartition;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::partial::states::NO_GROUP;
use shared::time::{Day, Micros};
use shared::view::{Precision, View};
use shared::window::{PaneStart, Window, WindowId};

use crate::failure::RunFailure;
use crate::plan::{ArchiveFile, window_date};
use crate::recompute::budget::Budget;
use crate::recompute::fold::bounded_fold::{BoundedFold, Capacity};
use crate::recompute::fold::slices::{Emit, Slices};
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::watch::Watch;

/// Folds events into the rows of their window dates.
#[derive(Debug)]
pub struct EventFold {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    precision: Precision,
    budget: Budget,
    /// The window dates to keep; `None`: all.
    requested: Option<BTreeSet<DatePartition>>,
    /// States that may still be needed. Sessions, and the window over all time, are one growing part.
    parts: Vec<Part>,
    fold: BoundedFold,
    /// Window dates that have rows and are not emitted yet.
    open: BTreeSet<DatePartition>,
    /// Sessions that start earlier are dropped; `None`: none are.
    retained_from: Option<Day>,
    /// The end of the last dropped session; `None`: there was none.
    dropped_sessions_end: Option<Micros>,
}

impl EventFold {
    /// Returns a fold without events, for the groups in `bucket`.
    pub fn new(
        view: Arc<View>,
        layout: Arc<KeyLayout>,
        precision: Precision,
        budget: Budget,
        requested: Option<BTreeSet<DatePartition>>,
        bucket: Bucket,
    ) -> EventFold {
        let fold = BoundedFold::new(Arc::clone(&view), Arc::clone(&layout), precision, bucket);
        EventFold {
            view,
            layout,
            precision,
            budget,
            requested,
            parts: Vec::new(),
            fold,
            open: BTreeSet::new(),
            retained_from: None,
            dropped_sessions_end: None,
        }
    }

    /// Returns the fold with the first day that retention has left: it notes how far earlier sessions reach.
    pub fn dropping_before(self, retained_from: Option<Day>) -> EventFold {
        EventFold { retained_from, ..self }
    }

    /// Returns the end of the last session that was dropped; `None`: none was.
    pub fn dropped_sessions_end(&self) -> Option<Micros> {
        self.dropped_sessions_end
    }

    /// Returns the fold limited to some panes.
    pub fn of_panes(mut self, panes: Range<PaneStart>) -> EventFold {
        self.fold.panes = panes;
        self
    }

    /// Folds the events of `files`. After [`Capacity::Full`] only some of them are folded, so the fold must be discarded,
    /// unless `narrow` made room and returned [`Capacity::Fits`]. Blocking.
    pub fn add(
        &mut self,
        query: &ArchiveQuery,
        files: &[ArchiveFile],
        rows: RowSelection<'_>,
        watch: &Watch,
        narrow: &mut dyn FnMut(&mut BoundedFold) -> Result<Capacity, RunFailure>,
    ) -> Result<Capacity, RunFailure> {
        let before: usize = self.parts.iter().map(Part::bytes).sum();
        let limit = self.budget.states_bytes().saturating_sub(before);
        if self.fold.read(query, files, rows, watch, limit, narrow)? == Capacity::Full {
            return Ok(Capacity::Full);
        }
        match self.view.window {
            Window::All => self.open.extend((self.fold.rows() > 0).then_some(DatePartition::AllTime)),
            Window::Session { .. } => {}
            window => {
                let parts = self.fold.take();
                let mut before = None;
                for pane in parts.iter().flat_map(|part| &part.blocks).flat_map(|block| &block.windows).copied() {
                    if before.replace(pane) != Some(pane) {
                        window.for_each_window(pane.pane(), |id| _ = self.open.insert(window_date(window, id)));
                    }
                }
                if let Some(requested) = &self.requested {
                    self.open.retain(|date| requested.contains(date));
                }
                self.parts.extend(parts.into_iter().filter(|part| part.rows() > 0));
            }
        }
        Ok(Capacity::Fits)
    }

    /// Emits the dates that no event of a later day can change, and returns them. `through` is the last event day that has
    /// been read completely.
    pub fn finish_through(&mut self, through: Day, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        if let Window::Session { gap } = self.view.window {
            return self.finish_sessions(gap, Some(through), emit);
        }
        let window = self.view.window;
        let ends = |day: Day| window.event_days_of(day).is_some_and(|days| *days.end() <= through.0);
        let done: Vec<DatePartition> = self.open.iter().copied().filter(|date| date.day().is_some_and(ends)).collect();
        self.finish(done, emit)
    }

    /// Emits all dates that are left: everything has been read.
    pub fn finish_all(&mut self, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        if let Window::Session { gap } = self.view.window {
            return self.finish_sessions(gap, None, emit);
        }
        let done: Vec<DatePartition> = self.open.iter().copied().collect();
        self.finish(done, emit)
    }

    fn finish(&mut self, done: Vec<DatePartition>, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        if self.view.window == Window::All && !done.is_empty() {
            self.parts = self.fold.parts();
        }
        for date in &done {
            self.date(*date, emit)?;
            self.open.remove(date);
        }
        self.forget();
        Ok(done)
    }

    /// Drops parts that no open date needs.
    fn forget(&mut self) {
        let window = self.view.window;
        match self.open.first() {
            None => self.parts.clear(),
            Some(DatePartition::Day(day)) => {
                let windows = window.ids_starting_in(day.start(), Micros(i64::MAX));
                let first = window.panes_of(&windows).start;
                self.parts.retain(|part| part.blocks.iter().any(|block| block.window_range.1.pane() >= first));
            }
            Some(DatePartition::AllTime | DatePartition::Undated) => {}
        }
    }

    /// Emits the sessions of all days on which none starts that later events may still join.
    fn finish_sessions(
        &mut self,
        gap: i64,
        through: Option<Day>,
        emit: Emit<'_>,
    ) -> Result<Vec<DatePartition>, RunFailure> {
        let mut parts = self.fold.take();
        let read_to = through.map_or(i64::MAX, |day| Day(day.0 + 1).start().0);
        let (mut days, mut unfinished) = (BTreeSet::new(), BTreeSet::new());
        for (first, last) in parts.iter().flat_map(Part::sessions) {
            let day = window_date(self.view.window, WindowId(first));
            days.insert(day);
            if last.saturating_add(gap) > read_to && through.is_some() {
                unfinished.insert(day);
            }
        }
        // Rows without a date are complete only at the end.
        let is_done = |day: &DatePartition| through.is_none_or(|through| day.day().is_some_and(|day| day <= through));
        let done: BTreeSet<DatePartition> = days.difference(&unfinished).copied().filter(is_done).collect();
        let is_requested =
            |day: &DatePartition| self.requested.as_ref().is_none_or(|requested| requested.contains(day));
        let kept: Vec<DatePartition> = done.iter().copied().filter(is_requested).collect();
        for (first, last) in parts.iter().flat_map(Part::sessions) {
            let day = window_date(self.view.window, WindowId(first));
            if day.day().is_some_and(|day| self.retained_from.is_some_and(|kept| day < kept)) && done.contains(&day) {
                self.dropped_sessions_end = self.dropped_sessions_end.max(Some(Micros(last.saturating_add(gap))));
            }
        }
        self.parts = parts;
        for date in &kept {
            self.date(*date, emit)?;
        }
        parts = std::mem::take(&mut self.parts);
        for block in parts.iter_mut().flat_map(|part| &mut part.blocks) {
            let block = Arc::make_mut(block);
            for (key, first) in block.keys.iter_mut().zip(&block.windows) {
                if done.contains(&window_date(self.view.window, *first)) {
                    *key = NO_GROUP;
                }
            }
        }
        self.fold.put(&parts);
        Ok(done.into_iter().collect())
    }

    /// Emits the rows of one window date from all parts.
    fn date(&self, date: DatePartition, emit: Emit<'_>) -> Result<(), RunFailure> {
        let slice_bytes = self.budget.slice_bytes();
        let slicing = Slices { view: &self.view, layout: &self.layout, precision: self.precision, slice_bytes };
        slicing.finish(date, &self.parts, self.fold.bucket, emit)
    }
}
