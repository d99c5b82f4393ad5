//! How are exact rows computed where Polars cannot? Polars reads and evaluates; the events are folded by the very code of
//! the speed layer, with states that keep every value. Windows that overlap, sessions, calendars, distinct counts,
//! percentiles and the like come about here.

use std::collections::BTreeSet;
use std::sync::Arc;

use shared::partial::accumulate::Accumulator;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::partial::states::NO_GROUP;
use shared::time::Day;
use shared::view::{Precision, View};
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::planner::{ArchiveFile, window_date};
use crate::recompute::budget::Budget;
use crate::recompute::fold::bounded_fold::{Filled, Filling};
use crate::recompute::fold::slices::{Emit, Slicing};
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::scan::Watch;

/// Events on their way to their window dates.
#[derive(Debug)]
pub struct Folding {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    budget: Budget,
    /// The window dates to keep; `None`: all.
    wanted: Option<BTreeSet<Option<Day>>>,
    /// What has been folded and may still be needed. Sessions, and the window over all time, are one part that grows.
    parts: Vec<Part>,
    filling: Filling,
    /// Window dates that have rows and are not finished.
    open: BTreeSet<Option<Day>>,
    /// Sessions that begin earlier are dropped; `None`: none are.
    first: Option<Day>,
    /// Where the last of those ends; [`i64::MIN`]: there was none.
    dropped_end: i64,
}

impl Folding {
    /// Nothing folded yet, of the groups in `bucket`.
    pub fn new(
        view: Arc<View>,
        layout: Arc<KeyLayout>,
        budget: Budget,
        wanted: Option<BTreeSet<Option<Day>>>,
        bucket: Bucket,
    ) -> Folding {
        let filling = Filling::new(Arc::clone(&view), Arc::clone(&layout), bucket);
        Folding {
            view,
            layout,
            budget,
            wanted,
            parts: Vec::new(),
            filling,
            open: BTreeSet::new(),
            first: None,
            dropped_end: i64::MIN,
        }
    }

    /// Keeps in mind how far the sessions reach that begin before `first`, which nobody wants.
    pub fn dropping_before(mut self, first: Option<Day>) -> Folding {
        self.first = first;
        self
    }

    /// Where the last of the sessions ends, in microseconds, that have been dropped; [`i64::MIN`]: none was.
    pub fn dropped_end(&self) -> i64 {
        self.dropped_end
    }

    /// Takes only panes from the first of `panes` to before the second.
    pub fn of_panes(mut self, panes: (i64, i64)) -> Folding {
        self.filling.panes = panes;
        self
    }

    /// Folds the events of `files`. After [`Filled::Full`] some of them are folded, others not: unless `narrow` made room
    /// and said so, this is of no more use. Blocking.
    pub fn add(
        &mut self,
        query: &Query,
        files: &[ArchiveFile],
        rows: Rows<'_>,
        watch: &Watch,
        narrow: &mut dyn FnMut(&mut Filling) -> Result<Filled, RunFailure>,
    ) -> Result<Filled, RunFailure> {
        let before: usize = self.parts.iter().map(Part::bytes).sum();
        let limit = self.budget.states_bytes().saturating_sub(before);
        if self.filling.read(query, files, rows, watch, limit, narrow)? == Filled::Full {
            return Ok(Filled::Full);
        }
        match self.view.window {
            Window::All => self.open.extend((self.filling.rows() > 0).then_some(None)),
            Window::Session { .. } => {}
            window => {
                let part = self.filling.take();
                let mut before = None;
                for pane in part.blocks.iter().flat_map(|block| &block.windows).copied() {
                    if before.replace(pane) != Some(pane) {
                        window.for_each_window(pane, |id| _ = self.open.insert(window_date(window, id)));
                    }
                }
                if let Some(wanted) = &self.wanted {
                    self.open.retain(|date| wanted.contains(date));
                }
                self.parts.push(part);
            }
        }
        Ok(Filled::Fits)
    }

    /// Hands out the dates that no event of a later day can change, and returns them. `through` is the last event day that
    /// has been read whole.
    pub fn finish_through(&mut self, through: Day, emit: Emit<'_>) -> Result<Vec<Option<Day>>, RunFailure> {
        if let Window::Session { gap } = self.view.window {
            return self.finish_sessions(gap, Some(through), emit);
        }
        let window = self.view.window;
        let ends = |day: Day| window.event_days_of(day).is_some_and(|days| *days.end() <= through.0);
        let done: Vec<Option<Day>> = self.open.iter().copied().filter(|date| date.is_some_and(ends)).collect();
        self.finish(done, emit)
    }

    /// Hands out all dates that are left: everything has been read.
    pub fn finish_all(&mut self, emit: Emit<'_>) -> Result<Vec<Option<Day>>, RunFailure> {
        if let Window::Session { gap } = self.view.window {
            return self.finish_sessions(gap, None, emit);
        }
        let done: Vec<Option<Day>> = self.open.iter().copied().collect();
        self.finish(done, emit)
    }

    fn finish(&mut self, done: Vec<Option<Day>>, emit: Emit<'_>) -> Result<Vec<Option<Day>>, RunFailure> {
        if self.view.window == Window::All && !done.is_empty() {
            self.parts = vec![self.filling.part()];
        }
        for date in &done {
            self.date(*date, emit)?;
            self.open.remove(date);
        }
        self.forget();
        Ok(done)
    }

    /// Lets go of parts that no open date needs.
    fn forget(&mut self) {
        let window = self.view.window;
        match self.open.first() {
            None => self.parts.clear(),
            Some(Some(day)) => {
                let (first, _) = window.ids_starting_in(day.start().0, i64::MAX);
                let (first, _) = window.panes_of(first, i64::MAX);
                self.parts.retain(|part| part.blocks.iter().any(|block| block.window_range.1 >= first));
            }
            Some(None) => {}
        }
    }

    /// The sessions of all days on which none begins that later events may still join.
    fn finish_sessions(
        &mut self,
        gap: i64,
        through: Option<Day>,
        emit: Emit<'_>,
    ) -> Result<Vec<Option<Day>>, RunFailure> {
        let part = self.filling.take();
        let read_to = through.map_or(i64::MAX, |day| Day(day.0 + 1).start().0);
        let (mut days, mut unfinished) = (BTreeSet::new(), BTreeSet::new());
        for (first, last) in part.sessions() {
            let day = window_date(self.view.window, first);
            days.insert(day);
            if last.saturating_add(gap) > read_to && through.is_some() {
                unfinished.insert(day);
            }
        }
        // Days without a name cannot be told apart before the end.
        let is_done = |day: &Option<Day>| through.is_none_or(|through| day.is_some_and(|day| day <= through));
        let done: BTreeSet<Option<Day>> = days.difference(&unfinished).copied().filter(is_done).collect();
        let is_wanted = |day: &Option<Day>| self.wanted.as_ref().is_none_or(|wanted| wanted.contains(day));
        let kept: Vec<Option<Day>> = done.iter().copied().filter(is_wanted).collect();
        for (first, last) in part.sessions() {
            let day = window_date(self.view.window, first);
            if day.is_some_and(|day| self.first.is_some_and(|kept| day < kept)) && done.contains(&day) {
                self.dropped_end = self.dropped_end.max(last.saturating_add(gap));
            }
        }
        self.parts = vec![part];
        for date in &kept {
            self.date(*date, emit)?;
        }
        let mut rest = Accumulator::new(Arc::clone(&self.view), Arc::clone(&self.layout), Precision::Exact);
        for mut part in std::mem::take(&mut self.parts) {
            for block in &mut part.blocks {
                let block = Arc::make_mut(block);
                for (key, first) in block.keys.iter_mut().zip(&block.windows) {
                    if done.contains(&window_date(self.view.window, *first)) {
                        *key = NO_GROUP;
                    }
                }
            }
            rest.absorb(&part);
        }
        self.filling.put(rest);
        Ok(done.into_iter().collect())
    }

    /// Hands out the rows of one window date, of whatever parts they are made.
    fn date(&self, date: Option<Day>, emit: Emit<'_>) -> Result<(), RunFailure> {
        let slice_bytes = self.budget.slice_bytes();
        let slicing = Slicing { view: &self.view, layout: &self.layout, slice_bytes };
        slicing.finish(date, &self.parts, self.filling.bucket, emit)
    }
}
