//! How does a new version begin to answer? One Delta commit, one swap of a pointer, then speed and the log let go.

use std::sync::Arc;

use lake::{Commit, DataFile, LakeError, Table};
use serde_json::Value;
use shared::ids::ViewName;
use shared::partial::codec::table_schema;
use shared::published::Published;
use shared::version::BatchVersion;
use shared::view::View;

use crate::failure::RunFailure;
use crate::plan::planner::Plan;
use crate::run::BatchSurroundings;
use crate::versions::load::version_files;

/// Commits `version` with `new` files in place of those the plan removes. The table must still be at `base`. After
/// [`RunFailure::Undecided`] the files must stay: a commit on its way may still arrive.
pub async fn commit(
    table: &Table,
    view: &View,
    base: i64,
    plan: &Plan,
    new: Vec<DataFile>,
    mut version: BatchVersion,
) -> Result<BatchVersion, RunFailure> {
    let mut files = plan.keep.clone();
    files.extend(new.iter().cloned());
    version.files = version_files(&files);
    version.rows = version.files.iter().map(|f| f.rows).sum();
    version.file_count = Some(version.files.len() as u64);
    version.bytes = Some(version.files.iter().map(|f| f.size_bytes).sum());
    let info = match serde_json::to_value(&version).expect("a version is plain data with text keys") {
        Value::Object(info) => info,
        other => unreachable!("a struct is an object, not {other}"),
    };
    let commit = Commit {
        add: new.into_iter().chain(plan.restore.iter().cloned()).collect(),
        remove: plan.remove.clone(),
        info,
        // A changed definition has other columns; equal ones are left alone.
        schema: Some(table_schema(view)),
        must_be_based_on: Some(base),
        keeps_log: true,
        ..Commit::default()
    };
    version.version = table.commit(commit).await.map_err(|error| match error {
        LakeError::Conflict { .. } | LakeError::AlreadyCommitted { .. } => RunFailure::Lake(error),
        error => RunFailure::Undecided(error),
    })?;
    Ok(version)
}

/// The name under which the log is kept for the speed layer's replay of a view.
pub fn log_reader(view: &ViewName) -> String {
    format!("speed/{view}")
}

/// Lets go of what the version at `published`'s seam covers. `before` answered until now.
pub fn retire(surroundings: &BatchSurroundings, before: &Published, published: &Arc<Published>) {
    let seam = &published.seam;
    surroundings.speed.retire(published, seam);
    if before.definition_hash != published.definition_hash {
        surroundings.speed.forget(before);
    }
    let reader = log_reader(&published.view.name);
    for (partition, point) in seam.of_log() {
        surroundings.retention.release(&published.stream.name, partition, &reader, point.offset);
    }
}
