//! Describes views: definition, seam, watermark, state, versions and comparisons.

use std::collections::BTreeMap;

use auth::Access;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use problem::{Code, Problem};
use serde::Serialize;
use shared::calendar::Zone;
use shared::changes::Change;
use shared::changes::view::view_changes;
use shared::compare::{Comparison, ComparisonSummary};
use shared::control::{Run, RunFilter, RunProgress, RunState};
use shared::ids::{Offset, Partition};
use shared::published::PublishedView;
use shared::readers::SpeedPin;
use shared::time::{MICROS_PER_DAY, Micros};
use shared::types::DataType;
use shared::version::BatchVersion;
use shared::view::{OutputColumn, View, ViewLayers};
use shared::window::{Grid, Step, Window, WindowId};
use utoipa::ToSchema;

use super::refusal::{batch_unavailable, invalid_parameter};
use super::{json, parameters};
use crate::approximate::exact_in;
use crate::formats::json::{ColumnHead, LedgerCounts, Seam};
use crate::pin::{Balance, pin_speed};
use crate::query::LayerChoice;
use crate::state::ServingState;
use crate::window_text;

/// Versions that are listed.
const VERSIONS_MAX: usize = 100;

#[derive(Serialize, ToSchema)]
pub(super) struct ViewStatus<'a> {
    name: &'a str,
    stream: &'a str,
    sql: &'a str,
    definition_hash: &'a str,
    columns: Vec<ColumnHead<'a>>,
    /// `null`: one window over all time.
    window: Option<WindowShape>,
    /// `both`, or `speed`: there are no batch runs, and checkpoints publish versions.
    layers: &'static str,
    schedule: Option<&'a str>,
    /// The schedule of checkpoints, of a view of the speed layer alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint_schedule: Option<&'a str>,
    /// The time zone of the schedules.
    schedule_time_zone: &'static str,
    next_run: Option<Micros>,
    /// When a failed run is retried.
    retry_at: Option<Micros>,
    last_success: Option<RunEnd>,
    last_failure: Option<RunEnd>,
    /// The declared definition, while an earlier one is active.
    shadow: Option<Shadow<'a>>,
    seam: Seam,
    watermark: Option<Micros>,
    /// How far the watermark is behind the clock, in milliseconds.
    lag_ms: Option<i64>,
    /// The state that speed holds in memory.
    state: Option<LiveState>,
    batch: Option<BatchState<'a>>,
    versions_kept: u32,
    /// How long window dates are kept; `null`: forever.
    retention: Option<String>,
    /// The first window date kept; `null`: none has been dropped.
    retained_from: Option<String>,
    /// Windows that start before it are frozen; `null`: none is.
    frozen_before: Option<String>,
    /// Events that arrived after all their windows had been dropped.
    past_retention: u64,
    ledger: Option<LedgerCounts>,
    complete: Option<bool>,
    /// Start of the newest window that may have rows.
    newest_window: Option<Micros>,
    reconciliation: Option<ComparisonSummary>,
    /// The mean relative error that the view accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_drift: Option<f64>,
    /// The reason why the last comparison needs attention.
    alarm: Option<String>,
    /// The errors because of which a field above is missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

#[derive(Serialize, Default, ToSchema)]
struct WindowShape {
    kind: String,
    /// In words.
    text: String,
    /// The time zone of calendar windows; UTC for windows of fixed length.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'static str>,
    /// Lengths in milliseconds; only those that are fixed and that the window has.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slide_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_ms: Option<i64>,
}

/// The end of a run.
#[derive(Serialize, ToSchema)]
struct RunEnd {
    run: String,
    version: Option<i64>,
    finished_at: Option<Micros>,
    duration_ms: Option<u64>,
    error: Option<String>,
}

impl From<Run> for RunEnd {
    fn from(run: Run) -> RunEnd {
        let Run { id, version, finished_at, duration_ms, error, .. } = run;
        RunEnd { run: id, version, finished_at, duration_ms, error }
    }
}

/// A definition that becomes active once its first version is complete.
#[derive(Serialize, ToSchema)]
struct Shadow<'a> {
    sql: &'a str,
    definition_hash: String,
    /// The changes from the active definition.
    changes: Vec<Change>,
    /// `waiting` (no run was requested yet), or the state of the latest run that computes it.
    state: &'static str,
    run: Option<String>,
    progress: Option<RunProgress>,
    /// The error of its last run.
    error: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct LiveState {
    rows: usize,
    bytes: usize,
    generations: usize,
}

#[derive(Serialize, ToSchema)]
struct BatchState<'a> {
    rows: u64,
    run: &'a str,
    full: bool,
    /// The layer that computed it: a checkpoint is of `speed`.
    origin: &'static str,
    /// Events that are in no row because speed excluded them as late.
    late: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Views)]
pub(super) struct ViewList<'a> {
    views: Vec<ViewStatus<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Versions)]
pub(super) struct VersionList<'a> {
    view: &'a str,
    /// Number of versions that can be queried, including the newest.
    versions_kept: usize,
    versions: Vec<VersionStatus<'a>>,
}

#[derive(Serialize, ToSchema)]
struct VersionStatus<'a> {
    version: i64,
    run: &'a str,
    published_at: Micros,
    full: bool,
    /// The layer that computed it: `batch`, or `speed` for a checkpoint.
    origin: &'static str,
    /// Events that are in no row because speed excluded them as late.
    late: u64,
    #[schema(value_type = BTreeMap<String, Offset>)]
    cut: BTreeMap<Partition, Offset>,
    events: u64,
    rows: u64,
    /// Number of files; unknown for versions of early releases.
    files: Option<u64>,
    /// Bytes of the files; unknown for versions of early releases.
    bytes: Option<u64>,
    watermark: Option<Micros>,
    definition_hash: &'a str,
    /// True if the version can still be queried.
    kept: bool,
    /// Number of further versions after which it can no longer be queried.
    kept_for: usize,
    drift: Option<ComparisonSummary>,
}

/// `GET /v1/views`.
pub async fn list(State(state): State<ServingState>, access: Access) -> Response {
    let published = state.visible_views(&access);
    let mut views = Vec::with_capacity(published.len());
    for published in &published {
        views.push(status(&state, published, &access).await);
    }
    json(&ViewList { views })
}

/// `GET /v1/views/{view}`.
pub async fn describe(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    access: Access,
) -> Result<Response, Problem> {
    let published = state.view(&view)?;
    Ok(json(&status(&state, &published, &access).await))
}

/// `GET /v1/views/{view}/versions`: newest first, each with its comparison.
pub async fn versions(State(state): State<ServingState>, Path(view): Path<String>) -> Result<Response, Problem> {
    let published = state.view(&view)?;
    let kept = state.runs.versions_kept(&view);
    let versions = state.runs.versions(&view, VERSIONS_MAX.max(kept)).await.map_err(batch_unavailable)?;
    let mut statuses = Vec::with_capacity(versions.len());
    for (newer, version) in versions.iter().enumerate() {
        let drift = state.runs.comparison(&view, Some(version.version)).await.map_err(batch_unavailable)?;
        statuses.push(version_status(version, kept.saturating_sub(newer), drift));
    }
    Ok(json(&VersionList { view: published.view.name.as_str(), versions_kept: kept, versions: statuses }))
}

fn version_status(version: &BatchVersion, kept_for: usize, drift: Option<Comparison>) -> VersionStatus<'_> {
    VersionStatus {
        version: version.version,
        run: &version.run,
        published_at: version.published_at,
        full: version.full,
        origin: version.origin.name(),
        late: version.late,
        cut: version.seam.offsets(),
        events: version.ledger.events,
        rows: version.rows,
        files: version.file_count,
        bytes: version.bytes,
        watermark: version.watermark,
        definition_hash: &version.definition_hash,
        kept: kept_for > 0,
        kept_for,
        drift: drift.map(ComparisonSummary::from),
    }
}

/// `GET /v1/views/{view}/compare`: `version` (default: the latest); `from` and `to` select differing rows.
pub async fn compare(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    state.view(&view)?;
    let [from, to, version] = parameters::only(&uri, ["from", "to", "version"])?;
    let (from, to) = (time("from", from)?, time("to", to)?);
    let version = match version {
        None => None,
        Some(text) => Some(
            text.parse::<i64>()
                .map_err(|_| invalid_parameter(format!("version: \"{text}\" is not the number of a batch version")))?,
        ),
    };
    let Some(mut comparison) = state.runs.comparison(&view, version).await.map_err(batch_unavailable)? else {
        let detail = match version {
            Some(version) => format!("version {version} of {view} has no comparison"),
            None => format!("{view} has no comparison yet: a run creates one when it is published"),
        };
        return Err(Problem::new(Code::NoComparison, detail));
    };
    let inside = |start: Option<Micros>| match start {
        Some(start) => from.is_none_or(|from| start >= from) && to.is_none_or(|to| start < to),
        None => true,
    };
    comparison.rows.retain(|row| inside(row.window_start));
    Ok(json(&comparison))
}

fn time(name: &str, text: Option<String>) -> Result<Option<Micros>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let time = Micros::parse(&text);
    time.map(Some).ok_or_else(|| invalid_parameter(format!("{name}: \"{text}\" is not a time")))
}

async fn status<'a>(state: &ServingState, published: &'a PublishedView, access: &Access) -> ViewStatus<'a> {
    let view = published.view.as_ref();
    let name = view.name.as_str();
    let mut problems = Vec::new();
    let pin = pin_speed(&state.readers(), name).await.map_err(|error| problems.push(format!("speed: {error}"))).ok();
    // A comparison is one of the rows of all tenants.
    let comparison = match access.row_filter() {
        None => state.runs.comparison(name, None).await,
        Some(_) => Ok(None),
    };
    let comparison = comparison.unwrap_or_else(|error| {
        problems.push(format!("batch: {error}"));
        None
    });
    // The pin may belong to a newer version; the next request describes that one.
    let balance = pin.as_ref().map(|(pinned, pin)| Balance::of(pinned, pin));
    let watermark = pin.as_ref().and_then(|(_, pin)| pin.watermark);
    let version = published.version.as_deref();
    let ends = state.runs.ends(name);
    let declared = published.declared();
    ViewStatus {
        name,
        stream: view.stream.as_str(),
        sql: &view.sql,
        definition_hash: &published.definition_hash,
        columns: columns(view),
        window: window(view.window),
        layers: declared.layers.name(),
        schedule: declared.schedule.as_deref().filter(|_| declared.layers == ViewLayers::Both),
        checkpoint_schedule: declared.checkpoint_schedule.as_deref().filter(|_| declared.layers == ViewLayers::Speed),
        schedule_time_zone: declared.schedule_zone.name(),
        next_run: state.runs.next_run(name),
        retry_at: ends.retry_at,
        last_success: ends.last_success.map(RunEnd::from),
        last_failure: ends.last_failure.map(RunEnd::from),
        shadow: published.shadow.as_deref().map(|shadow| shadow_status(state, published, shadow)),
        seam: Seam::of(published),
        watermark,
        lag_ms: watermark.map(|w| state.clock.now().0.saturating_sub(w.0).max(0) / 1000),
        state: pin.as_ref().map(|(_, pin)| live_state(pin)),
        batch: version.map(|v| BatchState {
            rows: v.rows,
            run: &v.run,
            full: v.full,
            origin: v.origin.name(),
            late: v.late,
        }),
        versions_kept: view.versions_kept,
        retention: view.retention.map(|retention| retention.to_string()),
        retained_from: version.and_then(|v| v.retained_from).map(|day| day.to_string()),
        frozen_before: version.and_then(|v| v.frozen_before).map(|day| day.to_string()),
        past_retention: version.map_or(0, |v| v.past_retention),
        ledger: balance.as_ref().map(LedgerCounts::from),
        complete: balance.map(|b| b.is_complete(LayerChoice::Merged)),
        newest_window: newest_window(published, pin.as_ref().map(|(_, pin)| pin)),
        max_drift: view.max_drift,
        alarm: comparison.as_ref().and_then(|comparison| comparison.alarm(view.max_drift)),
        reconciliation: comparison.map(ComparisonSummary::from),
        problems,
    }
}

fn shadow_status<'a>(state: &ServingState, published: &PublishedView, shadow: &'a View) -> Shadow<'a> {
    let latest = RunFilter { view: Some(shadow.name.to_string()), state: None, before: None, limit: 1 };
    let run = state.runs.list(&latest).ok().and_then(|page| page.runs.into_iter().next());
    Shadow {
        sql: &shadow.sql,
        definition_hash: shadow.definition_hash(),
        changes: view_changes(&published.view, shadow, &published.stream),
        state: match run.as_ref().map(|run| run.state) {
            None => "waiting",
            Some(RunState::Queued) => "queued",
            Some(RunState::Running) => "running",
            Some(RunState::Failed) => "failed",
            Some(RunState::Cancelled) => "cancelled",
            // Between the commit and the swap.
            Some(RunState::Published) => "published",
        },
        run: run.as_ref().map(|run| run.id.clone()),
        progress: run.as_ref().map(|run| run.progress),
        error: run.and_then(|run| run.error),
    }
}

fn columns(view: &View) -> Vec<ColumnHead<'_>> {
    let column = |column: &OutputColumn| match column {
        OutputColumn::WindowStart => {
            ColumnHead { name: "window_start", data_type: DataType::Timestamp, role: "window", exact_in: None }
        }
        OutputColumn::WindowEnd => {
            ColumnHead { name: "window_end", data_type: DataType::Timestamp, role: "window", exact_in: None }
        }
        OutputColumn::Dimension(index) => {
            let dimension = &view.dimensions[*index];
            let data_type = dimension.expression.data_type;
            ColumnHead { name: &dimension.name, data_type, role: "dimension", exact_in: None }
        }
        OutputColumn::Measure(index) => {
            let measure = &view.measures[*index];
            let data_type = measure.expression.data_type;
            ColumnHead { name: &measure.name, data_type, role: "measure", exact_in: exact_in(view, *index) }
        }
    };
    view.output.iter().map(column).collect()
}

fn window(window: Window) -> Option<WindowShape> {
    let ms = |micros: i64| Some(micros / 1000);
    let shape = WindowShape {
        kind: window_text::kind(window).to_lowercase(),
        text: window_text::in_words(window),
        time_zone: window_text::zone(window).map(Zone::name),
        ..WindowShape::default()
    };
    Some(match window {
        Window::All => return None,
        Window::Tumble(Grid::Fixed { size, offset }) => {
            WindowShape { size_ms: ms(size), offset_ms: ms(offset), ..shape }
        }
        Window::Hop { panes: Grid::Fixed { size: pane, offset }, slide, size } => WindowShape {
            size_ms: ms(pane.saturating_mul(size)),
            slide_ms: ms(pane.saturating_mul(slide)),
            offset_ms: ms(offset),
            ..shape
        },
        Window::Cumulate { step, outer } => WindowShape {
            size_ms: outer.fixed_size().and_then(ms),
            offset_ms: if let Grid::Fixed { offset, .. } = outer { ms(offset) } else { None },
            step_ms: if let Step::Fixed(step) = step { ms(step) } else { None },
            ..shape
        },
        Window::Slide { size, pane } => {
            WindowShape { size_ms: ms(size), step_ms: if pane == 1 { None } else { ms(pane) }, ..shape }
        }
        Window::Session { gap } | Window::TableSession { gap } => WindowShape { gap_ms: ms(gap), ..shape },
        Window::Tumble(Grid::Calendar(_)) | Window::Hop { .. } => shape,
    })
}

fn live_state(pin: &SpeedPin) -> LiveState {
    LiveState {
        rows: pin.generations.iter().map(|g| g.part.rows()).sum(),
        bytes: pin.generations.iter().map(|g| g.part.bytes()).sum(),
        generations: pin.generations.len(),
    }
}

fn newest_window(published: &PublishedView, pin: Option<&SpeedPin>) -> Option<Micros> {
    let window = published.view.window;
    // The client chooses the window of SLIDE.
    if matches!(window, Window::All | Window::Slide { .. }) {
        return None;
    }
    let blocks = pin.into_iter().flat_map(|pin| &pin.generations).flat_map(|g| &g.part.blocks);
    let live = blocks.filter(|b| !b.is_empty()).map(|b| b.window_range.1).max();
    let dates = published.version.iter().flat_map(|v| &v.files).filter_map(|file| file.date.day());
    let batch = dates.max().map(|day| {
        let last = day.start().0 + (MICROS_PER_DAY - 1);
        // Perhaps no window starts on this date; then the one that extends into it counts.
        window.starts().map_or(day.start().0, |grid| grid.start_of(last))
    });
    let start_of = |row: WindowId| match window.starts() {
        Some(grid) => grid.start_of(row.0),
        None => row.0,
    };
    live.map(start_of).max(batch).map(Micros)
}
