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
        if !stored.columns.iter().any(|known| column_name::same(&known.name, &column.name)) {
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
        let parsed = parse_definitions(&[(table.name(), sql)]).ok();
        stored.declaration = parsed.and_then(|definitions| definitions.streams.into_iter().next());
    }
    Ok(())
}

/// Checks that the declared streams fit the stored ones and adds new columns to the archives. Returns the streams with the
/// columns that only stored events still have. Changes nothing if one stream does not fit.
pub async fn adopt(lake: &Lake, data: &Path, definitions: &Definitions) -> anyhow::Result<Vec<Arc<Stream>>> {
    let Definitions { streams, views } = definitions;
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
            let commit = Commit { schema: Some(schema), declaration: Some(stream.sql.clone()), ..Commit::default() };
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
