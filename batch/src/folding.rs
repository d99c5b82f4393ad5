//! How are exact rows computed where Polars cannot? Polars reads and evaluates; the events are folded by the very code of
//! the speed layer, with states that keep every value. Windows that overlap, sessions, calendars, distinct counts,
//! percentiles and the like come about here.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use shared::lake::is_readable;
use shared::partial::accumulate::{Accumulator, Evaluated};
use shared::partial::block::Part;
use shared::partial::codec::{decode, encode};
use shared::partial::keys::KeyLayout;
use shared::partial::merge::{Grain, Layers, Spec, merge};
use shared::partial::states::{NO_GROUP, Offsets, Places};
use shared::time::{Day, Micros};
use shared::view::{Precision, View};
use shared::window::Window;

use crate::events::EventBatch;
use crate::failure::RunFailure;
use crate::pieces::FinishedDate;
use crate::plan::{ArchiveFile, window_date};
use crate::query::{Query, Rows};
use crate::scan::Watch;

/// Events on their way to their window dates.
#[derive(Debug)]
pub struct Folding {
    view: Arc<View>,
    layout: Arc<KeyLayout>,
    /// The window dates to keep; `None`: all.
    wanted: Option<BTreeSet<Option<Day>>>,
    /// What has been folded and may still be needed. Sessions, and the window over all time, are one part that grows.
    parts: Vec<Part>,
    growing: Option<Accumulator>,
    /// Window dates that have rows and are not finished.
    open: BTreeSet<Option<Day>>,
}

impl Folding {
    /// Nothing folded yet.
    pub fn new(view: Arc<View>, layout: Arc<KeyLayout>, wanted: Option<BTreeSet<Option<Day>>>) -> Folding {
        let grows = matches!(view.window, Window::All | Window::Session { .. });
        let growing = grows.then(|| Accumulator::new(Arc::clone(&view), Arc::clone(&layout), Precision::Exact));
        Folding { view, layout, wanted, parts: Vec::new(), growing, open: BTreeSet::new() }
    }

    /// Folds the events of `files`. Blocking.
    pub fn add(
        &mut self,
        query: &Query,
        files: &[ArchiveFile],
        rows: Rows<'_>,
        watch: &Watch,
    ) -> Result<(), RunFailure> {
        let new = || Accumulator::new(Arc::clone(&self.view), Arc::clone(&self.layout), Precision::Exact);
        let mut accumulator = self.growing.take().unwrap_or_else(new);
        query.for_each_batch(files, rows, watch, true, &mut |batch| self.fold(&batch, &mut accumulator))?;
        match self.view.window {
            Window::All => self.open.extend((accumulator.rows() > 0).then_some(None)),
            Window::Session { .. } => {}
            window => {
                let part = accumulator.part();
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
                return Ok(());
            }
        }
        self.growing = Some(accumulator);
        Ok(())
    }

    fn fold(&self, batch: &EventBatch, into: &mut Accumulator) -> Result<(), RunFailure> {
        let panes: Vec<i64> = match self.view.window {
            Window::Session { .. } => Vec::new(),
            window => {
                let mut current = (i64::MAX, i64::MIN);
                let pane = |time: &i64| {
                    if *time < current.0 || *time >= current.1 {
                        let pane = window.pane_of(*time);
                        current = (pane, window.pane_end(pane).unwrap_or(i64::MAX));
                    }
                    current.0
                };
                batch.times.iter().map(pane).collect()
            }
        };
        let keys = match batch.dimensions.is_empty() {
            true => None,
            false => Some(self.layout.encode(&batch.dimensions)?),
        };
        let rows: Vec<u32> = (0..batch.times.len() as u32).collect();
        into.fold(&Evaluated {
            panes: &panes,
            places: Places {
                times: &batch.times,
                offsets: Offsets::Listed { partitions: &batch.partitions, offsets: &batch.offsets },
            },
            keys: keys.as_ref(),
            arguments: &batch.arguments,
            masks: &batch.masks,
            rows: &rows,
        });
        Ok(())
    }

    /// The dates that no event of a later day can change. `through` is the last event day that has been read whole.
    pub fn finish_through(&mut self, through: Day) -> Result<Vec<FinishedDate>, RunFailure> {
        if let Window::Session { gap } = self.view.window {
            return self.finish_sessions(gap, Some(through));
        }
        let window = self.view.window;
        let ends = |day: Day| window.event_days_of(day).is_some_and(|days| *days.end() <= through.0);
        let done: Vec<Option<Day>> = self.open.iter().copied().filter(|date| date.is_some_and(ends)).collect();
        self.finish(&done)
    }

    /// All dates that are left: everything has been read.
    pub fn finish_all(&mut self) -> Result<Vec<FinishedDate>, RunFailure> {
        if let Window::Session { gap } = self.view.window {
            return self.finish_sessions(gap, None);
        }
        let done: Vec<Option<Day>> = self.open.iter().copied().collect();
        self.finish(&done)
    }

    fn finish(&mut self, done: &[Option<Day>]) -> Result<Vec<FinishedDate>, RunFailure> {
        if let Some(accumulator) = self.growing.as_ref().filter(|_| !done.is_empty()) {
            self.parts = vec![accumulator.part()];
        }
        let finished = done.iter().map(|date| self.date(*date)).collect::<Result<Vec<_>, _>>()?;
        done.iter().for_each(|date| _ = self.open.remove(date));
        self.forget();
        Ok(finished)
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
    fn finish_sessions(&mut self, gap: i64, through: Option<Day>) -> Result<Vec<FinishedDate>, RunFailure> {
        let Some(accumulator) = self.growing.take() else { return Ok(Vec::new()) };
        let part = accumulator.part();
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
        self.parts = vec![part];
        let finished = kept.into_iter().map(|date| self.date(date)).collect::<Result<Vec<_>, _>>()?;
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
        self.growing = Some(rest);
        Ok(finished)
    }

    /// The rows of one window date, of whatever parts they are made.
    fn date(&self, date: Option<Day>) -> Result<FinishedDate, RunFailure> {
        let view = self.view.as_ref();
        let (from, to) = match date {
            Some(day) => view.window.ids_starting_in(day.start().0, Day(day.0 + 1).start().0),
            None => (i64::MIN, i64::MAX),
        };
        let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
        let (grain, precision) = (Grain::Window, Precision::Exact);
        let spec = Spec { view, from, to, grain, precision, dimensions: &dimensions, filter: None };
        let parts: Vec<(&Part, Layers)> = self.parts.iter().map(|part| (part, Layers::BATCH)).collect();
        let merged = merge(&spec, &parts)?;
        let mut order = merged.sorted_rows();
        if date.is_none() && view.window != Window::All {
            let is_nameless =
                |row: &u32| !is_readable(Micros(view.window.bounds(merged.windows[*row as usize]).0).day());
            order.retain(is_nameless);
        }
        let rows = encode(view, &merged.windows, &merged.lasts, merged.dimension_columns()?, &merged.states)?;
        let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
        let part = decode(view, &self.layout, std::slice::from_ref(&rows))?;
        Ok(FinishedDate { date, rows, part })
    }
}
