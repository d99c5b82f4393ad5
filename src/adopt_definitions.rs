//! Compares declared streams with the stored ones, and adopts declarations that fit: the archive gets their new columns.
//!
//! This happens before any layer starts. If one declaration does not fit, nothing is changed.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use lake::{ArchiveTags, Commit, Lake, Table, TablePath};
use shared::changes::Change;
use shared::changes::stream::StoredStream;
use shared::column_name;
use shared::limits::PARTITIONS_MAX;
use shared::sql::{Definitions, parse_definitions};
use shared::stream::{Column, Stream, system_columns};
use shared::time::Day;
use shared::types::DataType;
use shared::view::View;
use shared::window::Window;

/// Reads what the lake, and the logs under `data/log`, hold for `stream`. Changes nothing.
pub async fn stored_stream(lake: &Lake, data: &Path, stream: &Stream) -> anyhow::Result<StoredStream> {
    let dir = data.join("log").join(stream.name.as_str());
    let log = tokio::task::spawn_blocking(move || intake::log::inspect(&dir)).await?.context("cannot read the log")?;
    let mut stored = StoredStream { partitions: log.partitions, ..StoredStream::default() };
    if let Some(table) = lake.open_table(&TablePath::events(&stream.name)).await? {
        add_archive(&mut stored, &table).await?;
    }
    for column in log.columns {
        let is_own = !column_name::is_reserved(&column.name);
        if is_own && !stored.columns.iter().any(|known| column_name::same(&known.name, &column.name)) {
            stored.columns.push(column);
        }
    }
    Ok(stored)
}

async fn add_archive(stored: &mut StoredStream, table: &Table) -> anyhow::Result<()> {
    let snapshot = table.snapshot().await?;
    for field in snapshot.schema.fields().iter().filter(|field| !column_name::is_reserved(field.name())) {
        let name = field.name().clone();
        if !field.is_nullable() {
            stored.event_time = Some(name.clone());
        }
        let data_type = DataType::of_arrow(field.data_type());
        let unknown = || format!("{}: column {name} has the unsupported type {}", table.name(), field.data_type());
        stored.columns.push(Column::new(name.clone(), data_type.with_context(unknown)?));
    }
    let of_files = snapshot.files.iter().map(|file| Ok(ArchiveTags::from_tags(&file.tags)?.partition.0));
    let mut partitions = of_files.collect::<anyhow::Result<Vec<u32>>>()?;
    // Partitions whose events were all dropped have had events too.
    partitions.extend(snapshot.dropped.iter().flat_map(|dropped| dropped.partitions.keys().map(|p| p.0)));
    for partition in partitions {
        // Historical events are stored under a partition number that no stream has.
        let count = if partition < PARTITIONS_MAX { partition + 1 } else { 1 };
        stored.partitions = stored.partitions.max(count);
    }
    if let Some(sql) = table.declaration().await? {
        stored.declaration = Some(stored_declaration(&table.name(), sql)?);
    }
    Ok(())
}

/// Reads the declaration that an archive was last written with. Without it, no forbidden change would be noticed.
fn stored_declaration(table: &str, sql: String) -> anyhow::Result<Stream> {
    let parsed = parse_definitions(&[(table.to_owned(), sql)]);
    let reason = match parsed {
        Ok(definitions) => match definitions.streams.into_iter().next() {
            Some(stream) => return Ok(stream),
            None => "it declares no stream".to_owned(),
        },
        Err(errors) => errors.first().map(ToString::to_string).unwrap_or_default(),
    };
    bail!(
        "cannot read the declaration stored in {table}: {reason}; start once with the version of trueup that stored it, or \
         declare a stream with another name"
    )
}

/// Notes in each archive the smallest number of events among which intake ever removed duplicates: raising the setting later
/// must not bring back those that are in the archive. `events` is today's setting.
pub async fn note_dedup_horizons(lake: &Lake, streams: &[Arc<Stream>], events: u64) -> anyhow::Result<()> {
    for stream in streams.iter().filter(|stream| stream.primary_key.is_some()) {
        let path = TablePath::events(&stream.name);
        let Some(table) = lake.open_table(&path).await? else { continue };
        let snapshot = table.snapshot().await?;
        // Under which settings an archive without the note was filled is unknown, so any of its events may be a duplicate.
        let is_empty = snapshot.files.is_empty() && snapshot.dropped.is_none();
        let known = snapshot.dedup_horizon_events.unwrap_or(if is_empty { u64::MAX } else { 0 });
        let smallest = known.min(events);
        if snapshot.dedup_horizon_events != Some(smallest) {
            let noted = table.commit(Commit::note_dedup_horizon(smallest)).await;
            noted.with_context(|| format!("cannot note dedup_horizon_events in {path}"))?;
        }
    }
    Ok(())
}

/// Checks that the declared streams fit the stored ones and adds new columns to the archives. Returns the streams with the
/// columns that only stored events still have. Changes nothing if one stream does not fit.
pub async fn adopt(lake: &Lake, data: &Path, definitions: &Definitions) -> anyhow::Result<Vec<Arc<Stream>>> {
    let Definitions { streams, views, .. } = definitions;
    let mut adopted = Vec::with_capacity(streams.len());
    let mut refused = Vec::new();
    for stream in streams {
        let stored = stored_stream(lake, data, stream).await?;
        let changes = stored.changes(stream);
        refused.extend(changes.iter().filter_map(|change| refusal(&format!("stream {}", stream.name), change)));
        let dropped = match lake.open_table(&TablePath::events(&stream.name)).await? {
            Some(table) => table.snapshot().await?.dropped.as_ref().map(|dropped| dropped.retained_from),
            None => None,
        };
        for view in views.iter().filter(|view| view.stream == stream.name) {
            let reason = dropped.and_then(|dropped| needs_dropped_events(view, dropped));
            refused.extend(reason.map(|reason| format!("  view {}: {reason}", view.name)));
        }
        adopted.push(Arc::new(stored.adopted(stream)));
    }
    if !refused.is_empty() {
        bail!(
            "the declarations do not fit the stored events; nothing was changed\n{}\n\
             `trueup plan` with the same files and --data shows all changes",
            refused.join("\n")
        );
    }
    for stream in &adopted {
        let (path, schema) = (TablePath::events(&stream.name), stream.archive_schema());
        let table = lake.table(&path, schema.clone(), system_columns::EVENT_DATE).await?;
        let known = table.declaration().await?;
        let same = known.as_ref() == Some(&stream.sql);
        if !same || table.schema_change(&schema).await? != lake::SchemaChange::None {
            let commit = Commit::declare(schema, stream.sql.clone());
            table.commit(commit).await.with_context(|| format!("cannot store the new declaration in {path}"))?;
        }
    }
    Ok(adopted)
}

/// Returns why `view` cannot be computed from a stream whose events before `dropped` were dropped; `None` if it can.
pub fn needs_dropped_events(view: &View, dropped: Day) -> Option<String> {
    let reason = format!(
        "it aggregates all time, but the events of stream {} before {dropped} have been dropped\n    to do: add a window \
         to its GROUP BY, or declare a stream with another name",
        view.stream
    );
    (view.window == Window::All).then_some(reason)
}

/// Returns why `change` of `what` is refused, if it is.
fn refusal(what: &str, change: &Change) -> Option<String> {
    let refusal = change.refused.as_ref()?;
    Some(format!("  {what}: {change}\n    {}\n    to do: {}", refusal.reason, refusal.next_step))
}
