//! What do the answers of the serving layer look like, for programs? The schemas of the types that they are written from.

use problem::ProblemDocument;
use shared::compare::Comparison;
use shared::control::{Cleaned, Compacted, QuarantinePage, Run, RunPage, StreamStatus};
use utoipa::OpenApi;
use utoipa::openapi::Components;

use super::drift::Drift;
use super::health::Health;
use super::{streams, views};
use crate::formats::json::{Head, Tail};

#[derive(OpenApi)]
#[openapi(components(schemas(
    Head<'static>,
    Tail<'static>,
    views::Listed<'static>,
    views::ListedVersions<'static>,
    views::ViewStatus<'static>,
    Comparison,
    Drift<'static>,
    Run,
    RunPage,
    Cleaned,
    streams::Listed,
    StreamStatus,
    QuarantinePage,
    Compacted,
    Health,
    ProblemDocument<'static>,
)))]
struct Described;

/// The schemas, by name.
pub fn schemas() -> Components {
    Described::openapi().components.unwrap_or_default()
}
