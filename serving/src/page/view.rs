//! Renders the page of one view: a chart and a table of any query on it.

use askama::Template;
use auth::Access;
use axum::extract::{Path, State};
use axum::response::Response;
use shared::published::PublishedView;
use shared::view::OutputColumn;

use super::base::{Base, NavigationEntry, html};
use super::charted::{adds_up, charted_measure, numbers};
use super::view_head::{ViewHead, unknown};
use crate::state::ServingState;
use crate::window_text::{kind, spacing};

#[derive(Template)]
#[template(path = "view.html")]
struct ViewPage {
    base: Base,
    head: ViewHead,
    /// Hash of the definition that the page shows.
    definition: String,
    /// The kind of windows, by its dialect name in lower case; `all` for none.
    kind: String,
    /// Distance between windows in milliseconds, approximate for calendars; 0 if they are not on a grid.
    window_ms: i64,
    dimensions: Vec<String>,
    measures: Vec<ShownMeasure>,
}

struct ShownMeasure {
    name: String,
    /// True if the measure can be charted.
    is_number: bool,
    adds_up: bool,
    /// True for the measure that is charted first.
    is_first: bool,
}

impl ViewPage {
    /// Returns true if windows are on a grid of time.
    fn has_grid(&self) -> bool {
        self.window_ms > 0
    }

    /// Returns true if rows have a position in time.
    fn has_range(&self) -> bool {
        self.has_grid() || self.kind == "session"
    }

    fn draws(&self) -> bool {
        self.measures.iter().any(|measure| measure.is_number)
    }
}

/// `GET /view/{view}`.
pub async fn render(State(state): State<ServingState>, access: Access, Path(name): Path<String>) -> Response {
    let Some(published) = state.views.get(&name) else { return unknown(&state, &access, &name) };
    html(&page(&name, &published))
}

fn page(name: &str, published: &PublishedView) -> ViewPage {
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
    ViewPage {
        base: Base::new(NavigationEntry::View, name),
        head: ViewHead::of(published, false),
        definition: published.definition_hash.to_string(),
        kind: kind(view.window).to_lowercase(),
        window_ms: spacing(view.window).map_or(0, |micros| micros / 1000),
        dimensions: view.dimensions.iter().map(|dimension| dimension.name.clone()).collect(),
        measures: measures.collect(),
    }
}
