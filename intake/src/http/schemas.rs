//! What do the answers of intake look like, for programs? The schemas of the types that they are written from.

use utoipa::OpenApi;
use utoipa::openapi::Components;

use super::Answer;

#[derive(OpenApi)]
#[openapi(components(schemas(Answer)))]
struct Described;

/// The schemas, by name.
pub fn schemas() -> Components {
    Described::openapi().components.unwrap_or_default()
}
