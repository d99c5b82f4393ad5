//! Provides the OpenAPI schemas of the responses of intake, derived from the types that are serialised.

use utoipa::OpenApi;
use utoipa::openapi::Components;

use super::IngestResult;
use super::appends::AppendsResult;
use super::entities::AppendResult;

#[derive(OpenApi)]
#[openapi(components(schemas(IngestResult, AppendResult, AppendsResult)))]
struct Schemas;

/// Returns the schemas, by name.
pub fn schemas() -> Components {
    Schemas::openapi().components.unwrap_or_default()
}
