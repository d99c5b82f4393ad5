//! Binds a query to the state that answers it: the windows that this state has, and the instant of `SLIDE`.
//!
//! A [`Query`] is what the client asked for; it does not change. Which windows it covers depends on the version that
//! answers (retention drops windows, frozen ones belong to batch alone) and, for `SLIDE`, on the instant of the request.
//! Binding computes both once and returns a [`BoundQuery`], which every later stage reads.

use shared::horizon::Horizon;
use shared::partial::codec::window_bounds;
use shared::partial::merge::{Grain, MergeSpec};
use shared::published::PublishedView;
use shared::time::Micros;
use shared::view::{Precision, View};
use shared::window::{Window, WindowId};

use super::{LayerChoice, Query, QueryError, grain, invalid};

/// The instants that `as_of=now` and `as_of=latest` stand for.
#[derive(Debug, Clone, Copy)]
pub struct Instants {
    /// When the query is answered; for a version of the past, when it was published.
    pub now: Micros,
    /// The event time of the latest event of the stream; `None` while there is none.
    pub latest_event: Option<Micros>,
}

/// A query, bound to the state that answers it.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundQuery {
    /// The query as the client sent it.
    pub request: Query,
    /// Ids of the view's windows in `from..to`, in microseconds; of sessions starts, of SLIDE panes.
    pub from: i64,
    pub to: i64,
    /// The instant at which the window of SLIDE ends; `None` for all other views.
    pub instant: Option<Micros>,
    /// What retention has taken away from the state that answers.
    pub horizon: Horizon,
    /// Which layers contribute.
    pub layer: LayerChoice,
}

/// Start and end of a window, in microseconds; `None` where the result has none.
pub type WindowBounds = (Option<i64>, Option<i64>);

impl Query {
    /// Binds the query to `published`, for the layers in `layer`.
    ///
    /// Windows that retention dropped are excluded: batch has none of them, and late events for them would make a part
    /// look like a whole. Frozen windows stay as batch has them: no run will include what speed has for them.
    pub fn bind(
        self,
        published: &PublishedView,
        layer: LayerChoice,
        instants: Instants,
    ) -> Result<BoundQuery, QueryError> {
        let window = published.view.window;
        // I12: no window is computed from a part of its events.
        let horizon = Horizon::of(published);
        let retained_from = horizon.retained_from();
        if let (Window::Slide { size, pane }, Some(as_of)) = (window, self.as_of) {
            let instant = as_of.instant(pane, instants.now, instants.latest_event);
            let from = instant.saturating_sub(size);
            if let Some(first) = retained_from
                && from < first.start().0
            {
                let problem = format!("the window starts before {first}, the first date that retention keeps");
                return Err(invalid("as_of", problem));
            }
            let (to, instant) = (instant, Some(Micros(instant)));
            return Ok(BoundQuery { request: self, from, to, instant, horizon, layer });
        }
        let (mut from, mut to) = (self.from, self.to);
        if let Some(first) = retained_from {
            let grain = if self.grain == Grain::All { Grain::Window } else { self.grain };
            from = from.max(grain::next_boundary(window, grain, first.start().0));
            to = to.max(from);
        }
        Ok(BoundQuery { request: self, from, to, instant: None, horizon, layer })
    }
}

impl BoundQuery {
    /// Returns what to merge, into groups of `dimensions`.
    pub fn merge_spec<'a>(&'a self, view: &'a View, dimensions: &'a [usize]) -> MergeSpec<'a> {
        MergeSpec {
            view,
            windows: WindowId(self.from)..WindowId(self.to),
            grain: self.request.grain,
            precision: Precision::Sketch,
            dimensions,
            horizon: self.horizon,
            permitted: self.request.permitted.as_ref(),
            filter: self.request.filter.as_ref(),
        }
    }

    /// Returns start and end of each window: `ids` as merging gave them, `lasts` the last events of sessions.
    pub fn window_bounds(&self, view: &View, ids: &[WindowId], lasts: &[i64]) -> Vec<WindowBounds> {
        match self.request.grain {
            Grain::Window | Grain::Sessions => {
                let bounds = window_bounds(view, ids, lasts).into_iter();
                let start_of = |start: Micros| (view.window != Window::All).then_some(start.0);
                bounds.map(|(start, end)| (start_of(start), end.map(|end| end.0))).collect()
            }
            Grain::Every(grid) => ids.iter().map(|id| (Some(id.0), Some(grid.end_of(id.0)))).collect(),
            Grain::All => vec![self.span(view.window); ids.len()],
        }
    }

    /// Returns the first start and the last end of the view's windows in `from..to`; `None` where the query is open.
    pub fn span(&self, window: Window) -> WindowBounds {
        if self.instant.is_some() {
            return (Some(self.from), Some(self.to));
        }
        let next = |bound: i64| grain::next_boundary(window, Grain::Window, bound);
        let start = (self.from != i64::MIN).then(|| next(self.from));
        // The last window starts before `to`, so it ends where the first one not before `to` starts.
        let end = (self.to != i64::MAX).then(|| next(self.to));
        (start, end)
    }
}
