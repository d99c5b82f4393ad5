//! Renders the page of one entity: its state, and its events with what each changed.

use askama::Template;
use auth::Access;
use axum::extract::{Path, State};
use axum::response::Response;

use shared::entity::EntityId;
use shared::stream::Stream;

use super::base::{Base, NavigationEntry, gone, html, not_found};
use crate::state::ServingState;

#[derive(Template)]
#[template(path = "entity.html")]
struct EntityPage {
    base: Base,
    stream: String,
    id: String,
}

/// `GET /entity/{stream}/{id}`. The script of the page asks for everything that the principal may read.
pub async fn render(
    State(state): State<ServingState>,
    access: Access,
    Path((stream, id)): Path<(String, String)>,
) -> Response {
    let is_visible = state.visible_streams(&access).iter().any(|visible| visible.name.as_str() == stream);
    match state.entities.stream(&stream).filter(|stream| is_visible && stream.entity.is_some()) {
        Some(of) if is_erased(&state, &of, &id) => {
            gone(&state, &access, format!("The entity {id} of {stream} was erased"))
        }
        Some(_) => html(&EntityPage { base: Base::new(NavigationEntry::Streams, &id), stream, id }),
        None => not_found(&state, &access, format!("There is no stream {stream} with an entity")),
    }
}

fn is_erased(state: &ServingState, stream: &Stream, id: &str) -> bool {
    EntityId::parse(stream, id).is_ok_and(|id| state.entities.erased_at(&stream.name, &id).is_some())
}
