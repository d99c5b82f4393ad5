//! What would change if these definitions were served over what is stored? Found out without changing anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use batch::{load_published, old_definition};
use lake::{ArchiveTags, DataFile, Lake, Table, TablePath};
use serde::Serialize;
use shared::changes::Change;
use shared::changes::view::{changes_results, view_changes};
use shared::clock::{Clock, SystemClock};
use shared::column_name::same;
use shared::horizon::Horizon;
use shared::ids::{StreamName, ViewName};
use shared::sql::{Definitions, parse_view};
use shared::stream::Stream;
use shared::time::Day;
use shared::version::BatchVersion;
use shared::view::View;

use crate::adopt_definitions::{not_whole, stored_stream};

/// Everything that would change.
#[derive(Debug, Default, Serialize)]
pub struct Outlook {
    pub streams: Vec<StreamOutlook>,
    pub views: Vec<ViewOutlook>,
    /// Changes that `serve` would refuse.
    pub refused: usize,
}

/// What would become of a stream or a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    New,
    Unchanged,
    /// Of a view: only what stands in `WITH (..)`.
    Options,
    Changed,
    Refused,
    /// Stored, but declared no longer.
    Undeclared,
}

#[derive(Debug, Serialize)]
pub struct StreamOutlook {
    pub name: StreamName,
    pub fate: Fate,
    /// Events in the archive.
    pub events: u64,
    /// Events of earlier dates have been dropped; `None`: nothing was.
    #[serde(serialize_with = "text_if_any")]
    pub retained_from: Option<Day>,
    /// What the retention that is declared lets go of.
    pub drops: Option<Drops>,
    pub changes: Vec<Change>,
}

/// Events that are older than a stream's retention. They go once every view has taken them in and no window that reaches
/// into their dates is open any more.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// All before it.
    #[serde(serialize_with = "text")]
    pub before: Day,
    /// Event dates, the first of them, and their events.
    pub dates: u64,
    #[serde(serialize_with = "text")]
    pub first: Day,
    pub events: u64,
}

/// Windows that a view cannot have, because the events that they were made of are gone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Loses {
    /// The first window date that it has.
    #[serde(serialize_with = "text")]
    pub begins: Day,
    /// Window dates and rows that only the version that answers now has.
    pub dates: u64,
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

#[derive(Debug, Serialize)]
pub struct ViewOutlook {
    pub name: ViewName,
    pub fate: Fate,
    /// The version that answers now, and its rows.
    pub version: Option<i64>,
    pub rows: u64,
    /// What answers cannot go on doing so until the new version is complete: its definition is no longer understood.
    pub answers_meanwhile: bool,
    pub changes: Vec<Change>,
    pub recompute: Option<Recompute>,
    /// What it cannot be computed from any more.
    pub loses: Option<Loses>,
    /// Why `serve` would refuse it.
    pub refused: Option<String>,
}

/// What computing a view anew takes.
#[derive(Debug, Default, Serialize)]
pub struct Recompute {
    /// Event dates to read, the first and the last of them.
    pub dates: u64,
    pub first: Option<String>,
    pub last: Option<String>,
    pub events: u64,
    pub files: u64,
    /// Bytes of those files, and about how many of them the needed columns take.
    pub file_bytes: u64,
    pub read_bytes: u64,
    /// About how long, at the rate of the last run of the view, or else of another one.
    pub seconds: Option<f64>,
}

/// An archive, as far as it matters here.
struct Archive {
    table: Table,
    files: Vec<DataFile>,
    dropped: Option<Day>,
}

impl Outlook {
    /// Compares `definitions` with what `lake` and the logs under `data` hold; without a lake everything is new.
    pub async fn of(definitions: &Definitions, lake: Option<&Lake>, data: &Path) -> anyhow::Result<Outlook> {
        let mut outlook = Outlook::default();
        let Some(lake) = lake else {
            let new = |s: &Stream| StreamOutlook::new(s.name.clone(), Fate::New);
            outlook.streams = definitions.streams.iter().map(new).collect();
            outlook.views = definitions.views.iter().map(|v| ViewOutlook::new(v.name.clone(), Fate::New)).collect();
            return Ok(outlook);
        };
        for stream in &definitions.streams {
            outlook.add_stream(lake, data, stream, &definitions.views).await?;
        }
        let rate = outlook.views.iter().find_map(|view| view.recompute.as_ref()?.rate());
        for view in outlook.views.iter_mut().filter_map(|view| view.recompute.as_mut()) {
            view.seconds = view.seconds.or(rate.map(|rate| view.events as f64 / rate));
        }
        outlook.add_undeclared(lake, definitions).await?;
        outlook.refused = outlook.streams.iter().flat_map(|s| &s.changes).filter(|c| c.refused.is_some()).count();
        outlook.refused += outlook.views.iter().filter(|view| view.refused.is_some()).count();
        Ok(outlook)
    }

    async fn add_stream(&mut self, lake: &Lake, data: &Path, stream: &Stream, views: &[View]) -> anyhow::Result<()> {
        let archive = archive(lake, &stream.name).await?;
        let stored = stored_stream(lake, data, stream).await?;
        let changes = stored.changes(stream);
        let fate = match () {
            () if changes.iter().any(|change| change.refused.is_some()) => Fate::Refused,
            () if archive.is_none() && stored.partitions == 0 => Fate::New,
            () if changes.is_empty() => Fate::Unchanged,
            () => Fate::Changed,
        };
        let changes = if fate == Fate::New { Vec::new() } else { changes };
        let events = archive.iter().flat_map(|a| &a.files).map(|file| u64::try_from(file.rows).unwrap_or(0)).sum();
        let (retained_from, drops) = match &archive {
            Some(archive) => (archive.dropped, drops(archive, stream)),
            None => (None, None),
        };
        let of_stream = StreamOutlook::new(stream.name.clone(), fate);
        self.streams.push(StreamOutlook { events, changes, retained_from, drops, ..of_stream });
        let adopted = Arc::new(stored.adopted(stream));
        for view in views.iter().filter(|view| view.stream == stream.name) {
            let outlook = match fate {
                Fate::Refused => ViewOutlook::new(view.name.clone(), Fate::Refused),
                _ => view_outlook(lake, &adopted, view, archive.as_ref()).await?,
            };
            self.views.push(outlook);
        }
        Ok(())
    }

    async fn add_undeclared(&mut self, lake: &Lake, definitions: &Definitions) -> anyhow::Result<()> {
        for name in lake.streams().await? {
            if definitions.streams.iter().all(|stream| stream.name != name) {
                let files = archive(lake, &name).await?.map(|archive| archive.files).unwrap_or_default();
                let events = files.iter().map(|file| u64::try_from(file.rows).unwrap_or(0)).sum();
                self.streams.push(StreamOutlook { events, ..StreamOutlook::new(name, Fate::Undeclared) });
            }
        }
        for name in lake.views().await? {
            if definitions.views.iter().all(|view| view.name != name) {
                let table = lake.open_table(&TablePath::view(&name)).await?;
                let version = match &table {
                    Some(table) => latest(table).await?,
                    None => None,
                };
                let mut outlook = ViewOutlook::new(name, Fate::Undeclared);
                outlook.answered_by(version.as_ref());
                self.views.push(outlook);
            }
        }
        Ok(())
    }
}

impl StreamOutlook {
    fn new(name: StreamName, fate: Fate) -> StreamOutlook {
        StreamOutlook { name, fate, events: 0, retained_from: None, drops: None, changes: Vec::new() }
    }
}

impl ViewOutlook {
    fn new(name: ViewName, fate: Fate) -> ViewOutlook {
        ViewOutlook {
            name,
            fate,
            version: None,
            rows: 0,
            answers_meanwhile: true,
            changes: Vec::new(),
            recompute: None,
            loses: None,
            refused: None,
        }
    }

    fn answered_by(&mut self, version: Option<&BatchVersion>) {
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

/// What the retention of `stream` lets go of in its archive.
fn drops(archive: &Archive, stream: &Stream) -> Option<Drops> {
    let before = stream.retention?.first_day(SystemClock.now());
    let old = || archive.files.iter().filter_map(|file| Some((file.partition?, file))).filter(|(day, _)| *day < before);
    let dates: BTreeSet<Day> = old().map(|(day, _)| day).collect();
    let events = old().map(|(_, file)| u64::try_from(file.rows).unwrap_or(0)).sum();
    Some(Drops { before, dates: dates.len() as u64, first: *dates.first()?, events })
}

async fn latest(table: &Table) -> anyhow::Result<Option<BatchVersion>> {
    let latest = table.latest_info().await?;
    Ok(latest.and_then(|(_, info)| serde_json::from_value(serde_json::Value::Object(info)).ok()))
}

async fn view_outlook(
    lake: &Lake,
    stream: &Arc<Stream>,
    view: &View,
    archive: Option<&Archive>,
) -> anyhow::Result<ViewOutlook> {
    let view = Arc::new(view.clone());
    let loaded = load_published(lake, stream, &view)
        .await
        .with_context(|| format!("the published versions of view {} cannot be read", view.name))?;
    let mut outlook = ViewOutlook::new(view.name.clone(), Fate::New);
    let version = loaded.active.version.as_deref();
    outlook.answered_by(version);
    outlook.answers_meanwhile = !loaded.version_lost;
    if let Some(version) = version {
        // As it was written: options that were declared then are told apart from those of now.
        let before = old_definition(stream, version).or_else(|| parse_view(stream, &version.sql).ok());
        let before = before.unwrap_or_else(|| loaded.active.view.as_ref().clone());
        outlook.changes = view_changes(&before, &view, stream);
        let results = loaded.shadow.is_some();
        outlook.fate = match outlook.changes.as_slice() {
            _ if results => Fate::Changed,
            [] => Fate::Unchanged,
            _ => Fate::Options,
        };
        if !results {
            outlook.changes.retain(|change| !changes_results(change));
        }
    } else if loaded.version_lost {
        outlook.fate = Fate::Changed;
    }
    if let (Fate::New | Fate::Changed, Some(archive)) = (outlook.fate, archive) {
        if let Some(dropped) = archive.dropped {
            outlook.refused = not_whole(&view, dropped);
            let begins = Horizon::first_whole_date(view.window, dropped);
            let files = version.map_or(&[][..], |version| &version.files);
            let lost = || files.iter().filter(|file| file.date.is_some_and(|day| day < begins));
            let dates: BTreeSet<Option<Day>> = lost().map(|file| file.date).collect();
            let rows = lost().map(|file| file.rows).sum();
            outlook.loses = Some(Loses { begins, dates: dates.len() as u64, rows });
        }
        let mut recompute = recompute(archive, stream, &view).await?;
        let rate = version.and_then(BatchVersion::events_per_second);
        recompute.seconds = rate.map(|rate| recompute.events as f64 / rate);
        outlook.recompute = Some(recompute);
    }
    Ok(outlook)
}

async fn recompute(archive: &Archive, stream: &Stream, view: &View) -> anyhow::Result<Recompute> {
    let mut dates: BTreeSet<Option<Day>> = BTreeSet::new();
    let mut recompute = Recompute::default();
    let is_left = |file: &&DataFile| file.partition.is_none_or(|day| archive.dropped.is_none_or(|first| day >= first));
    for file in archive.files.iter().filter(is_left) {
        recompute.files += 1;
        dates.insert(file.partition);
        recompute.events += ArchiveTags::from_tags(&file.tags)?.rows;
        recompute.file_bytes += u64::try_from(file.size_bytes).unwrap_or(0);
    }
    let day = |day: Option<&Option<Day>>| day.copied().flatten().map(|day| day.to_string());
    recompute.dates = dates.len() as u64;
    (recompute.first, recompute.last) = (day(dates.iter().find(|day| day.is_some())), day(dates.last()));
    // The largest file tells best how bytes are shared among columns.
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

impl Recompute {
    /// Events per second that `seconds` were told from.
    fn rate(&self) -> Option<f64> {
        self.seconds.filter(|seconds| *seconds > 0.0).map(|seconds| self.events as f64 / seconds)
    }
}
