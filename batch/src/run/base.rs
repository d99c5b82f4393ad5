//! Reads the view's table that a new version builds upon.

use lake::{DataFile, Table, TablePath};
use shared::horizon::Horizon;
use shared::partial::codec::{WINDOW_DATE, table_schema};

use crate::failure::RunFailure;
use crate::run::Attempt;

/// The view's table before the run.
pub struct Base {
    pub table: Table,
    /// The newest version of the table.
    pub version: i64,
    /// The files of that version.
    pub files: Vec<DataFile>,
    /// The newest version is the active one. Otherwise another process wrote to the table, or a run whose commit was not
    /// confirmed: then its files are not built upon.
    pub is_active: bool,
    /// The files with the frozen windows, as the active version has them. They cannot be recomputed, so they are kept
    /// whatever happened to the table.
    pub frozen: Vec<DataFile>,
}

/// Reads the table of the attempt's view.
pub async fn read(attempt: &Attempt<'_>, horizon: Horizon) -> Result<Base, RunFailure> {
    let view = &attempt.job.view;
    let path = TablePath::view(&view.name);
    let table = attempt.executor.layers.lake.table(&path, table_schema(view), WINDOW_DATE).await?;
    let present = table.snapshot().await?;
    let active = attempt.active.version.as_ref().map(|version| version.version);
    let is_active = active == Some(present.version);
    let active_files = match active.filter(|_| horizon.frozen_before().is_some() && !attempt.definition_changed()) {
        Some(_) if is_active => present.files.clone(),
        Some(version) => table.snapshot_at(version).await?.files,
        None => Vec::new(),
    };
    let is_frozen = |file: &DataFile| horizon.is_frozen_date(file.partition);
    let frozen = active_files.into_iter().filter(is_frozen).collect();
    Ok(Base { table, version: present.version, files: present.files.clone(), is_active, frozen })
}
