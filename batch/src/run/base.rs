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
    /// The files of the active version, from which readers are served; `None`: the log of the table does not have them any
    /// more.
    pub active_files: Option<Vec<DataFile>>,
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
    let active_files = match active {
        Some(_) if is_active => Some(present.files.clone()),
        Some(version) => match table.snapshot_at(version).await {
            Ok(snapshot) => Some(snapshot.files),
            // Without frozen windows they are only compared with.
            Err(error) if horizon.frozen_before().is_none() => {
                tracing::warn!(view = %view.name, version, %error, "cannot read the active version; the run is not reconciled");
                None
            }
            Err(error) => return Err(error.into()),
        },
        None => Some(Vec::new()),
    };
    let is_frozen = |file: &DataFile| horizon.is_frozen_date(file.partition);
    let frozen = match attempt.definition_changed() {
        true => Vec::new(),
        false => active_files.iter().flatten().filter(|file| is_frozen(file)).cloned().collect(),
    };
    Ok(Base { table, version: present.version, files: present.files.clone(), is_active, active_files, frozen })
}
