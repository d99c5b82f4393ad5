//! What are the figures of one view? A chart and a table of whatever is asked of them.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use shared::published::Published;
use shared::view::OutputColumn;

use super::base::{Base, Place, html};
use super::charted::{adds_up, charted_measure, numbers};
use super::view_head::{ViewHead, unknown};
use crate::state::ServingState;
use crate::window_text::{kind, spacing};

#[derive(Template)]
#[template(path = "view.html")]
struct Page {
    base: Base,
    head: ViewHead,
    /// Hash of the definition that the page is made for.
    definition: String,
    /// What kind of windows, as the dialect names them, in small letters; `all` for none.
    kind: String,
    /// How far windows are apart, in milliseconds, of calendars about; 0 where they are not on a grid.
    window_ms: i64,
    dimensions: Vec<String>,
    measures: Vec<ShownMeasure>,
}

struct ShownMeasure {
    name: String,
    /// Can it be drawn?
    is_number: bool,
    adds_up: bool,
    /// Is it drawn first?
    is_first: bool,
}

impl Page {
    /// Are windows on a grid of time?
    fn has_grid(&self) -> bool {
        self.window_ms > 0
    }

    /// Do rows have places in time?
    fn has_range(&self) -> bool {
        self.has_grid() || self.kind == "session"
    }

    fn draws(&self) -> bool {
        self.measures.iter().any(|measure| measure.is_number)
    }
}

/// `GET /view/{view}`.
pub async fn render(State(state): State<ServingState>, Path(name): Path<String>) -> Response {
    let Some(published) = state.views.get(&name) else { return unknown(&state, &name) };
    html(&page(&name, &published))
}

fn page(name: &str, published: &Published) -> Page {
    let view = published.view.as_ref();
    let (numbers, first) = (numbers(view), charted_measure(view));
    let shown = view.output.iter().filter_map(|column| match column {
        OutputColumn::Measure(index) => Some(&view.measures[*index]),
        _ => None,
    });
    let measures = shown.map(|measure| ShownMeasure {
        name: measure.name.clone(),
        is_number: numbers.iter().any(|number| number.name == measure.name),
        adds_up: adds_up(view, measure),
        is_first: first.as_ref().is_some_and(|(name, _)| *name == measure.name),
    });
    Page {
        base: Base::new(Place::View, name),
        head: ViewHead::of(published, false),
        definition: published.definition_hash.to_string(),
        kind: kind(view.window).to_lowercase(),
        window_ms: spacing(view.window).map_or(0, |micros| micros / 1000),
        dimensions: view.dimensions.iter().map(|dimension| dimension.name.clone()).collect(),
        measures: measures.collect(),
    }
}
