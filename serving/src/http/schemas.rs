//! Derives the OpenAPI schemas of responses from the types they are serialized from.

use problem::ProblemDocument;
use shared::compare::Comparison;
use shared::control::{
    CompactionReport, ErasureRecord, QuarantinePage, Run, RunPage, SinkStatus, StreamStatus, VacuumReport,
};
use utoipa::OpenApi;
use utoipa::openapi::Components;

use super::drift::Drift;
use super::health::Health;
use super::{alerts, erasures, sinks, streams, views};
use crate::formats::json::{DocumentHead, DocumentTail};

#[derive(OpenApi)]
#[openapi(components(schemas(
    DocumentHead<'static>,
    DocumentTail<'static>,
    views::ViewList<'static>,
    views::VersionList<'static>,
    views::ViewStatus<'static>,
    Comparison,
    Drift<'static>,
    Run,
    RunPage,
    VacuumReport,
    streams::StreamList,
    streams::FailedEventList,
    StreamStatus,
    QuarantinePage,
    CompactionReport,
    alerts::AlertList,
    alerts::DeadLetterList,
    ErasureRecord,
    erasures::ErasureList,
    alerts::SilenceList,
    sinks::SinkList,
    SinkStatus,
    Health,
    ProblemDocument<'static>,
)))]
struct Described;

/// Returns the schemas, by name.
pub fn schemas() -> Components {
    Described::openapi().components.unwrap_or_default()
}
