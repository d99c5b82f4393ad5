//! Plans what serving definitions would change in the stored data and in topics, without changing anything.

mod sinks;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use alerts::book::{KnownAlert, stored_alerts};
use alerts::rule::Rule;
use anyhow::Context;
use batch::versions::load::versions;
use batch::{load_published, old_definition};
use lake::{ArchiveTags, DataFile, Lake, Table, TablePath};
use serde::Serialize;
use shared::changes::Change;
use shared::changes::view::{changes_results, view_changes};
use shared::clock::{Clock, SystemClock};
use shared::column_name::same;
use shared::control::AlertDeclaration;
use shared::date_partition::DatePartition;
use shared::horizon::Horizon;
use shared::ids::{AlertName, StreamName, ViewName};
use shared::sql::{Definitions, parse_view};
use shared::stream::Stream;
use shared::time::Day;
use shared::version::{BatchVersion, Origin};
use shared::view::{View, ViewLayers};

use crate::adopt_definitions::{needs_dropped_events, stored_stream};
use crate::wiring::{ALERTS_FOLDER, SINKS_FOLDER};

pub use self::sinks::{SinkEffect, SinkPlan};

/// All changes that serving the definitions would make.
#[derive(Debug, Default, Serialize)]
pub struct DefinitionPlan {
    pub streams: Vec<StreamPlan>,
    pub views: Vec<ViewPlan>,
    pub alerts: Vec<AlertPlan>,
    pub sinks: Vec<SinkPlan>,
    /// Number of changes that `serve` would refuse.
    pub refused: usize,
}

/// What serving the definitions would do to a stream or a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanStatus {
    New,
    Unchanged,
    /// Only options in the `WITH (..)` of a view change.
    Options,
    Changed,
    Refused,
    /// Stored, but no longer declared.
    Undeclared,
}

/// The planned changes of an alert.
#[derive(Debug, Serialize)]
pub struct AlertPlan {
    pub name: AlertName,
    pub view: ViewName,
    pub status: PlanStatus,
    /// Records that it has raised.
    pub records: usize,
    /// Condition and `once_per` before and after, if one of them changes.
    pub changes: Vec<(&'static str, String, String)>,
}

/// The planned changes of a stream.
#[derive(Debug, Serialize)]
pub struct StreamPlan {
    pub name: StreamName,
    pub status: PlanStatus,
    /// Number of events in the archive.
    pub events: u64,
    /// First date that the archive keeps; `None` if nothing has been dropped.
    #[serde(serialize_with = "text_if_any")]
    pub retained_from: Option<Day>,
    /// Events that the declared retention will drop.
    pub drops: Option<RetentionDrop>,
    pub changes: Vec<Change>,
}

/// Events that are older than a stream's retention. They are dropped once every view includes them and no window that
/// reaches into their dates is open.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct RetentionDrop {
    /// The first date to keep.
    #[serde(serialize_with = "text")]
    pub before: Day,
    /// Number of event dates to drop.
    pub dates: u64,
    /// The first of those dates.
    #[serde(serialize_with = "text")]
    pub first: Day,
    pub events: u64,
}

/// Windows that a changed view cannot have, because their events have been dropped.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct DataLoss {
    /// The first window date of the new definition.
    #[serde(serialize_with = "text")]
    pub first_date: Day,
    /// Window dates that only the active version has.
    pub dates: u64,
    /// Rows that only the active version has.
    pub rows: u64,
}

fn text<S: serde::Serializer>(day: &Day, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(day)
}

fn text_if_any<S: serde::Serializer>(day: &Option<Day>, serializer: S) -> Result<S::Ok, S::Error> {
    match day {
        Some(day) => serializer.collect_str(day),
        None => serializer.serialize_none(),
    }
}

/// The planned changes of a view.
#[derive(Debug, Serialize)]
pub struct ViewPlan {
    pub name: ViewName,
    pub status: PlanStatus,
    /// The active version.
    pub version: Option<i64>,
    /// Rows of the active version.
    pub rows: u64,
    /// `both`, or `speed`: checkpoints publish versions, and a changed definition replays the archive.
    pub layers: &'static str,
    /// Whether the active version stays active until the new one is complete. It does not if its definition can no longer
    /// be read.
    pub stays_active: bool,
    pub changes: Vec<Change>,
    pub recompute: Option<RecomputeEstimate>,
    /// Windows that the new definition cannot have.
    pub data_loss: Option<DataLoss>,
    /// Why `serve` would refuse the view.
    pub refused: Option<String>,
}

/// The estimated cost of recomputing a view.
#[derive(Debug, Default, Serialize)]
pub struct RecomputeEstimate {
    /// Number of event dates to read.
    pub dates: u64,
    /// The first event date.
    pub first: Option<String>,
    /// The last event date.
    pub last: Option<String>,
    pub events: u64,
    pub files: u64,
    /// Bytes of those files.
    pub file_bytes: u64,
    /// Approximate bytes of the columns that the view needs.
    pub read_bytes: u64,
    /// Approximate duration, at the rate of the last run of the view or of another view.
    pub seconds: Option<f64>,
}

/// Versions of a view among which a measured rate is looked for.
const VERSIONS_LOOKED_AT: usize = 100;

/// The archive of a stream.
struct Archive {
    table: Table,
    files: Vec<DataFile>,
    /// First date that the archive keeps; `None` if nothing has been dropped.
    dropped: Option<Day>,
}

impl DefinitionPlan {
    /// Compares `definitions` with the stored data in `lake` and in the logs under `data`. Without a lake, everything is new.
    pub async fn of(definitions: &Definitions, lake: Option<&Lake>, data: &Path) -> anyhow::Result<DefinitionPlan> {
        let mut plan = DefinitionPlan::default();
        plan.add_alerts(definitions, data)?;
        plan.sinks = sinks::sink_plans(definitions, &data.join(SINKS_FOLDER))?;
        let Some(lake) = lake else {
            let new = |s: &Stream| StreamPlan::new(s.name.clone(), PlanStatus::New);
            plan.streams = definitions.streams.iter().map(new).collect();
            plan.views = definitions.views.iter().map(|v| ViewPlan::new(v.name.clone(), PlanStatus::New)).collect();
            return Ok(plan);
        };
        for stream in &definitions.streams {
            plan.add_stream(lake, data, stream, &definitions.views).await?;
        }
        let rate = plan.views.iter().find_map(|view| view.recompute.as_ref()?.rate());
        for view in plan.views.iter_mut().filter_map(|view| view.recompute.as_mut()) {
            view.seconds = view.seconds.or(rate.map(|rate| view.events as f64 / rate));
        }
        plan.add_undeclared(lake, definitions).await?;
        plan.refused = plan.streams.iter().flat_map(|s| &s.changes).filter(|c| c.refused.is_some()).count();
        plan.refused += plan.views.iter().filter(|view| view.refused.is_some()).count();
        Ok(plan)
    }

    /// Compares the declared alerts with those that the book of the server knows.
    fn add_alerts(&mut self, definitions: &Definitions, data: &Path) -> anyhow::Result<()> {
        let (known, records) = stored_alerts(&data.join(ALERTS_FOLDER)).context("cannot read the book of alerts")?;
        let count = |name: &AlertName| records.get(name).copied().unwrap_or(0);
        for alert in &definitions.alerts {
            let Some(view) = definitions.views.iter().find(|view| view.name == alert.view) else { continue };
            let now = Rule::new(alert.clone(), view).declaration(view);
            let mut changes = Vec::new();
            let status = match known.iter().find(|known| known.declaration.name == alert.name) {
                None => PlanStatus::New,
                Some(KnownAlert { declaration: before, definition, .. }) => {
                    let texts = |declared: &AlertDeclaration| {
                        let to = declared.to.clone().unwrap_or_else(|| "none".to_owned());
                        [
                            ("view", declared.view.to_string()),
                            ("condition", declared.condition.clone()),
                            ("once_per", declared.once_per.join(", ")),
                            ("to", to),
                        ]
                    };
                    let pairs = texts(before).into_iter().zip(texts(&now));
                    changes.extend(pairs.filter(|(a, b)| a != b).map(|((name, a), (_, b))| (name, a, b)));
                    match () {
                        () if *definition != alert.definition_hash(view) => PlanStatus::Changed,
                        () if changes.is_empty() => PlanStatus::Unchanged,
                        () => PlanStatus::Options,
                    }
                }
            };
            let (name, view) = (alert.name.clone(), alert.view.clone());
            self.alerts.push(AlertPlan { records: count(&name), name, view, status, changes });
        }
        let is_declared = |name: &AlertName| definitions.alerts.iter().any(|alert| alert.name == *name);
        for KnownAlert { declaration, .. } in known.iter().filter(|known| !is_declared(&known.declaration.name)) {
            let (name, view) = (declaration.name.clone(), declaration.view.clone());
            let (records, status) = (count(&name), PlanStatus::Undeclared);
            self.alerts.push(AlertPlan { name, view, status, records, changes: Vec::new() });
        }
        Ok(())
    }

    async fn add_stream(&mut self, lake: &Lake, data: &Path, stream: &Stream, views: &[View]) -> anyhow::Result<()> {
        let archive = archive(lake, &stream.name).await?;
        let stored = stored_stream(lake, data, stream).await?;
        let changes = stored.changes(stream);
        let status = match () {
            () if changes.iter().any(|change| change.refused.is_some()) => PlanStatus::Refused,
            () if archive.is_none() && stored.partitions == 0 => PlanStatus::New,
            () if changes.is_empty() => PlanStatus::Unchanged,
            () => PlanStatus::Changed,
        };
        let changes = if status == PlanStatus::New { Vec::new() } else { changes };
        let events = archive.iter().flat_map(|a| &a.files).map(|file| u64::try_from(file.rows).unwrap_or(0)).sum();
        let (retained_from, drops) = match &archive {
            Some(archive) => (archive.dropped, retention_drop(archive, stream)),
            None => (None, None),
        };
        let of_stream = StreamPlan::new(stream.name.clone(), status);
        self.streams.push(StreamPlan { events, changes, retained_from, drops, ..of_stream });
        let adopted = Arc::new(stored.adopted(stream));
        for view in views.iter().filter(|view| view.stream == stream.name) {
            let plan = match status {
                PlanStatus::Refused => ViewPlan::new(view.name.clone(), PlanStatus::Refused),
                _ => plan_view(lake, &adopted, view, archive.as_ref()).await?,
            };
            self.views.push(plan);
        }
        Ok(())
    }

    async fn add_undeclared(&mut self, lake: &Lake, definitions: &Definitions) -> anyhow::Result<()> {
        for name in lake.streams().await? {
            if definitions.streams.iter().all(|stream| stream.name != name) {
                let files = archive(lake, &name).await?.map(|archive| archive.files).unwrap_or_default();
                let events = files.iter().map(|file| u64::try_from(file.rows).unwrap_or(0)).sum();
                self.streams.push(StreamPlan { events, ..StreamPlan::new(name, PlanStatus::Undeclared) });
            }
        }
        for name in lake.views().await? {
            if definitions.views.iter().all(|view| view.name != name) {
                let table = lake.open_table(&TablePath::view(&name)).await?;
                let version = match &table {
                    Some(table) => latest(table).await?,
                    None => None,
                };
                let mut plan = ViewPlan::new(name, PlanStatus::Undeclared);
                plan.set_active_version(version.as_ref());
                self.views.push(plan);
            }
        }
        Ok(())
    }
}

impl StreamPlan {
    fn new(name: StreamName, status: PlanStatus) -> StreamPlan {
        StreamPlan { name, status, events: 0, retained_from: None, drops: None, changes: Vec::new() }
    }
}

impl ViewPlan {
    fn new(name: ViewName, status: PlanStatus) -> ViewPlan {
        ViewPlan {
            name,
            status,
            version: None,
            rows: 0,
            layers: ViewLayers::Both.name(),
            stays_active: true,
            changes: Vec::new(),
            recompute: None,
            data_loss: None,
            refused: None,
        }
    }

    fn set_active_version(&mut self, version: Option<&BatchVersion>) {
        self.version = version.map(|version| version.version);
        self.rows = version.map_or(0, |version| version.rows);
    }
}

async fn archive(lake: &Lake, stream: &StreamName) -> anyhow::Result<Option<Archive>> {
    let Some(table) = lake.open_table(&TablePath::events(stream)).await? else { return Ok(None) };
    let snapshot = table.snapshot().await?;
    let dropped = snapshot.dropped.as_ref().map(|dropped| dropped.retained_from);
    Ok(Some(Archive { table, files: snapshot.files.clone(), dropped }))
}

/// Returns the events that the retention of `stream` will drop from its archive.
fn retention_drop(archive: &Archive, stream: &Stream) -> Option<RetentionDrop> {
    let before = stream.retention?.first_day(SystemClock.now());
    let old =
        || archive.files.iter().filter_map(|file| Some((file.partition.day()?, file))).filter(|(day, _)| *day < before);
    let dates: BTreeSet<Day> = old().map(|(day, _)| day).collect();
    let events = old().map(|(_, file)| u64::try_from(file.rows).unwrap_or(0)).sum();
    Some(RetentionDrop { before, dates: dates.len() as u64, first: *dates.first()?, events })
}

async fn latest(table: &Table) -> anyhow::Result<Option<BatchVersion>> {
    let latest = table.latest_info().await?;
    Ok(latest.and_then(|(_, info)| serde_json::from_value(serde_json::Value::Object(info)).ok()))
}

async fn plan_view(
    lake: &Lake,
    stream: &Arc<Stream>,
    view: &View,
    archive: Option<&Archive>,
) -> anyhow::Result<ViewPlan> {
    let view = Arc::new(view.clone());
    let loaded = load_published(lake, stream, &view)
        .await
        .with_context(|| format!("cannot read the published versions of view {}", view.name))?;
    let mut plan = ViewPlan::new(view.name.clone(), PlanStatus::New);
    plan.layers = view.layers.name();
    let version = loaded.active.version.as_deref();
    plan.set_active_version(version);
    plan.stays_active = !loaded.version_lost;
    if let Some(version) = version {
        // Parsed from its SQL, so that the options it was declared with are compared with the new ones.
        let tables = view.joined_tables();
        let before =
            old_definition(stream, &tables, version).or_else(|| parse_view(stream, &tables, &version.sql).ok());
        let before = before.unwrap_or_else(|| loaded.active.view.as_ref().clone());
        plan.changes = view_changes(&before, &view, stream);
        let results = loaded.shadow.is_some();
        plan.status = match plan.changes.as_slice() {
            _ if results => PlanStatus::Changed,
            [] => PlanStatus::Unchanged,
            _ => PlanStatus::Options,
        };
        if !results {
            plan.changes.retain(|change| !changes_results(change));
        }
    } else if loaded.version_lost {
        plan.status = PlanStatus::Changed;
    }
    // Batch replaces what the speed layer alone has computed.
    let becomes_exact = view.layers == ViewLayers::Both && version.is_some_and(BatchVersion::has_rows_of_speed);
    if plan.status == PlanStatus::Options && becomes_exact {
        plan.status = PlanStatus::Changed;
    }
    if let (PlanStatus::New | PlanStatus::Changed, Some(archive)) = (plan.status, archive) {
        if let Some(dropped) = archive.dropped {
            plan.refused = needs_dropped_events(&view, dropped);
            let first_date = Horizon::first_whole_date(view.window, dropped);
            let files = version.map_or(&[][..], |version| &version.files);
            let lost = || files.iter().filter(|file| file.date.day().is_some_and(|day| day < first_date));
            let dates: BTreeSet<DatePartition> = lost().map(|file| file.date).collect();
            let rows = lost().map(|file| file.rows).sum();
            plan.data_loss = Some(DataLoss { first_date, dates: dates.len() as u64, rows });
        }
        let mut recompute = recompute(archive, stream, &view).await?;
        let rate = measured_rate(lake, &view).await?;
        recompute.seconds = rate.map(|rate| recompute.events as f64 / rate);
        plan.recompute = Some(recompute);
    }
    Ok(plan)
}

/// Returns the events per second of the latest version of the view that was made as the next one will be: by a batch run, or by
/// a replay; else that of any version. `None`: none of them read events.
async fn measured_rate(lake: &Lake, view: &View) -> anyhow::Result<Option<f64>> {
    let Some(table) = lake.open_table(&TablePath::view(&view.name)).await? else { return Ok(None) };
    let versions = versions(&table, VERSIONS_LOOKED_AT).await?;
    let origin = match view.layers {
        ViewLayers::Both => Origin::Batch,
        ViewLayers::Speed => Origin::Speed,
    };
    let of = |wanted: Option<Origin>| {
        let mut versions = versions.iter().filter(|version| wanted.is_none_or(|origin| version.origin == origin));
        versions.find_map(BatchVersion::events_per_second)
    };
    Ok(of(Some(origin)).or_else(|| of(None)))
}

async fn recompute(archive: &Archive, stream: &Stream, view: &View) -> anyhow::Result<RecomputeEstimate> {
    let mut dates: BTreeSet<DatePartition> = BTreeSet::new();
    let mut recompute = RecomputeEstimate::default();
    let is_left =
        |file: &&DataFile| file.partition.day().is_none_or(|day| archive.dropped.is_none_or(|first| day >= first));
    for file in archive.files.iter().filter(is_left) {
        recompute.files += 1;
        dates.insert(file.partition);
        recompute.events += ArchiveTags::from_tags(&file.tags)?.rows;
        recompute.file_bytes += u64::try_from(file.size_bytes).unwrap_or(0);
    }
    recompute.dates = dates.len() as u64;
    let days = || dates.iter().filter_map(|date| Some(date.day()?.to_string()));
    (recompute.first, recompute.last) = (days().next(), days().next_back());
    // The largest file shows best how the bytes divide among the columns.
    if let Some(file) = archive.files.iter().max_by_key(|file| file.size_bytes) {
        let columns = archive.table.column_bytes(file).await?;
        let event_time = &stream.columns[stream.event_time].name;
        let needed = |name: &String| name == event_time || view.reads.values().any(|read| same(read, name));
        let total: u64 = columns.values().sum();
        let read: u64 = columns.iter().filter(|(name, _)| needed(name)).map(|(_, bytes)| bytes).sum();
        let share = if total == 0 { 0.0 } else { read as f64 / total as f64 };
        recompute.read_bytes = (recompute.file_bytes as f64 * share) as u64;
    }
    Ok(recompute)
}

impl RecomputeEstimate {
    /// Returns the events per second on which `seconds` is based.
    fn rate(&self) -> Option<f64> {
        self.seconds.filter(|seconds| *seconds > 0.0).map(|seconds| self.events as f64 / seconds)
    }
}
