//! Renders the head of a view's pages: its name, its description, and the links between them.

use auth::Access;
use axum::response::Response;
use shared::published::PublishedView;
use shared::view::View;

use super::base;
use crate::state::ServingState;
use crate::window_text::in_a_sentence;
use shared::sql::suggest::in_parentheses as did_you_mean;

/// The fields of `view_head.html`.
pub struct ViewHead {
    pub name: String,
    pub stream: String,
    /// For example `in windows of 1 hour, by origin`.
    pub about: String,
    /// True on the page that compares versions.
    pub compares: bool,
}

impl ViewHead {
    pub fn of(published: &PublishedView, compares: bool) -> ViewHead {
        let view = published.view.as_ref();
        ViewHead { name: view.name.to_string(), stream: view.stream.to_string(), about: about(view), compares }
    }
}

/// Returns a 404 page for a view that does not exist, with the nearest name.
pub fn unknown(state: &ServingState, access: &Access, name: &str) -> Response {
    let views = state.visible_views(access);
    let hint = did_you_mean(name, views.iter().map(|p| p.view.name.as_str()));
    base::not_found(state, access, format!("There is no view called \"{name}\"{hint}"))
}

/// Describes the windows and dimensions of a view within a sentence.
pub fn about(view: &View) -> String {
    let window = in_a_sentence(view.window);
    let dimensions: Vec<&str> = view.dimensions.iter().map(|d| d.name.as_str()).collect();
    match dimensions.as_slice() {
        [] => window,
        [most @ .., last] if !most.is_empty() => format!("{window}, by {} and {last}", most.join(", ")),
        [one, ..] => format!("{window}, by {one}"),
    }
}
