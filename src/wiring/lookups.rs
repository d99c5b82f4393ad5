//! Prepares the tables that views and sinks are joined with: their versions are read before the speed layer starts, and follow their logs
//! from then on.

use std::sync::Arc;

use anyhow::Context;
use batch::LoadedView;
use intake::streams::Intake;
use shared::event_sink::EventSink;
use shared::handoff::LogSink;
use shared::lookup::join::ReadsJoins;
use shared::lookup::table::Lookups;

use super::storage::Base;

/// Reads the versions of the tables that the views, those that are served until they are complete, and the sinks are joined with.
pub async fn prepare(
    base: &Base,
    intake: &Arc<Intake>,
    (loaded, sinks): (&[LoadedView], &[EventSink]),
    bytes_max: usize,
) -> anyhow::Result<Lookups> {
    let views = loaded.iter().flat_map(|loaded| [&loaded.view, &loaded.active.view]);
    let views = views.map(|view| view.as_ref() as &dyn ReadsJoins);
    let readers = views.chain(sinks.iter().map(|sink| sink as &dyn ReadsJoins));
    let lookups = Lookups::of(&base.streams, readers, bytes_max);
    let restored = intake::tables::versions::restore(intake, &base.lake, &lookups).await;
    restored.context("cannot read the versions of the rows of tables")?;
    for table in lookups.tables() {
        let log = intake.stream(&table.table().name).context("every table has a log")?;
        log.attach_figures(&(Arc::clone(table) as Arc<dyn LogSink>));
    }
    Ok(lookups)
}
