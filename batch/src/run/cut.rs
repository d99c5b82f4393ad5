//! Cuts the log for a run and waits until the archive holds every event before the cut.

use std::sync::Arc;

use lake::{Table, TablePath, TableSnapshot, VersionLease};
use shared::seam::Cut;
use shared::stream::system_columns;

use crate::failure::RunFailure;
use crate::run::Attempt;
use crate::run::lookups::{self, TableCut};
use crate::step::Step;
use crate::versions::load::history;

/// The events that a run covers, and the archive that holds them.
pub struct RunCut {
    /// The first offset of each partition that the run does not cover, and of the historical events.
    pub cut: Cut,
    /// The archive's table.
    pub table: Table,
    /// The archive at the cut or later.
    pub archive: Arc<TableSnapshot>,
    /// I10: keeps the files of the snapshot, also if the archive is compacted meanwhile.
    _lease: VersionLease,
    /// The tables that the view is joined with.
    pub tables: Vec<TableCut>,
}

/// Cuts the log, waits for the archive and takes a snapshot of it.
pub async fn take(attempt: &Attempt<'_>) -> Result<RunCut, RunFailure> {
    let (layers, job) = (&attempt.executor.layers, attempt.job);
    attempt.reach(Step::Cut)?;
    let first = lookups::cut_before(attempt).await?;
    let cutting = layers.cutter.cut(&job.stream.name, &job.view.name);
    let log_cut = attempt.cancel().or_cancelled(cutting).await?.map_err(RunFailure::Cut)?;
    attempt.entry.set_cut(&log_cut);

    // Waiting comes before the first access to the lake: an unavailable store delays a run and does not fail it.
    attempt.reach(Step::Archived)?;
    let archived = layers.archive.archived(&job.stream.name, &log_cut);
    attempt.cancel().or_cancelled(archived).await?.map_err(RunFailure::Archive)?;
    let tables = lookups::cut_after(attempt, first, &log_cut).await?;
    let history = history(&layers.lake, &job.stream, &attempt.active.seam).await?;
    let cut = log_cut.with_history(history);
    attempt.entry.set_cut(&cut);

    let events = TablePath::events(&job.stream.name);
    let table = layers.lake.table(&events, job.stream.archive_schema(), system_columns::EVENT_DATE).await?;
    let (archive, lease) = table.held_snapshot().await?;
    Ok(RunCut { cut, table, archive, _lease: lease, tables })
}
