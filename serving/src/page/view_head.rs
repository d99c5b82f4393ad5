//! How do the pages of one view begin? With its name, what it is of, and the way between them.

use axum::response::Response;
use shared::published::Published;
use shared::view::View;

use super::base;
use crate::nearest::did_you_mean;
use crate::state::ServingState;
use crate::window_text::in_a_sentence;

/// What `view_head.html` shows.
pub struct ViewHead {
    pub name: String,
    pub stream: String,
    /// For example `in windows of 1 hour, by origin`.
    pub about: String,
    /// Is this the page that compares versions?
    pub compares: bool,
}

impl ViewHead {
    pub fn of(published: &Published, compares: bool) -> ViewHead {
        let view = published.view.as_ref();
        ViewHead { name: view.name.to_string(), stream: view.stream.to_string(), about: about(view), compares }
    }
}

/// A page that says that there is no such view, and which one may have been meant.
pub fn unknown(state: &ServingState, name: &str) -> Response {
    let views = state.views.all();
    let hint = did_you_mean(name, views.iter().map(|p| p.view.name.as_str()));
    base::not_found(format!("There is no view called \"{name}\"{hint}"))
}

/// The windows and dimensions of a view in a sentence.
pub fn about(view: &View) -> String {
    let window = in_a_sentence(view.window);
    let dimensions: Vec<&str> = view.dimensions.iter().map(|d| d.name.as_str()).collect();
    match dimensions.as_slice() {
        [] => window,
        [most @ .., last] if !most.is_empty() => format!("{window}, by {} and {last}", most.join(", ")),
        [one, ..] => format!("{window}, by {one}"),
    }
}
