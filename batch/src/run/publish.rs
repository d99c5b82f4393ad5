//! Publishes a version: one Delta commit, one swap of a pointer, then speed and the log release what it covers.

use std::collections::BTreeSet;
use std::sync::Arc;

use lake::{Commit, DataFile, LakeError};
use shared::compare::Comparison;
use shared::failed_events::FailedEvents;
use shared::partial::codec::table_schema;
use shared::published::PublishedView;
use shared::time::Day;
use shared::version::{BatchVersion, RunWork};
use shared::view::View;

use crate::failure::RunFailure;
use crate::layers::log_reader;
use crate::plan::Plan;
use crate::recompute::ExactFiles;
use crate::reconcile::Reconciliation;
use crate::run::Attempt;
use crate::run::base::Base;
use crate::run::cut::RunCut;
use crate::run::lookups::TableCut;
use crate::run::served::Served;
use crate::run::source::RowSource;
use crate::step::Step;
use crate::versions::load::version_files;

/// Everything that a version is made of.
pub struct RunResult<'a> {
    pub cut: &'a RunCut,
    pub base: Base,
    pub plan: Plan,
    pub source: RowSource,
    /// Events that are in no row because speed excluded them as late.
    pub late: u64,
    pub exact: ExactFiles,
    pub served: Served,
}

/// A committed version that is not active yet.
pub struct Committed {
    version: BatchVersion,
    comparison: Option<Comparison>,
}

/// Commits the version; the table must still be at the base of the plan. After [`RunFailure::Undecided`] all files must
/// stay: the commit may still arrive.
pub async fn commit(
    attempt: &Attempt<'_>,
    result: RunResult<'_>,
    reconciliation: Option<Reconciliation>,
) -> Result<Committed, RunFailure> {
    let now = attempt.executor.layers.clock.now();
    let number = result.base.version + 1;
    let view = &attempt.job.view;
    let comparison = reconciliation
        .map(|reconciliation| reconciliation.into_comparison(view.name.clone(), number, now, result.cut.cut.offsets()));
    let comparisons = &attempt.executor.comparisons;
    let comparison_file = match &comparison {
        Some(comparison) => comparisons.stage(comparison).await,
        None => None,
    };
    let version = version(attempt, &result, comparison.as_ref(), comparison_file.clone());
    match commit_files(view, result, &version).await {
        Ok(()) => Ok(Committed { version, comparison }),
        Err(failure @ RunFailure::Undecided(_)) => Err(failure),
        Err(failure) => {
            comparisons.discard(&view.name, comparison_file).await;
            Err(failure)
        }
    }
}

/// Returns the complete version.
fn version(
    attempt: &Attempt<'_>,
    result: &RunResult<'_>,
    comparison: Option<&Comparison>,
    comparison_file: Option<DataFile>,
) -> BatchVersion {
    let RunResult { cut, base, plan, source, late, exact, served } = result;
    let (view, run) = (&attempt.job.view, attempt.entry.run());
    let files: Vec<DataFile> = plan.keep.iter().chain(&exact.files).cloned().collect();
    let files = version_files(&files);
    let active = attempt.active.version.as_deref();
    // Rows that stay may hold the longest session.
    let longest_before = active.filter(|_| !plan.keep.is_empty()).map_or(0, |version| version.longest_session_us);
    let horizon = plan.horizon_after(exact.dropped_sessions_end);
    BatchVersion {
        view: view.name.clone(),
        sql: view.sql.clone(),
        definition_hash: view.definition_hash(),
        version: base.version + 1,
        run: run.id,
        published_at: attempt.executor.layers.clock.now(),
        seam: cut.cut.clone(),
        ledger: plan.ledger,
        full: plan.everything && !matches!(source, RowSource::Generations(_)),
        origin: source.origin(),
        late: *late,
        rows: files.iter().map(|f| f.rows).sum(),
        longest_session_us: exact.longest_session_us.max(longest_before),
        comparison: comparison.map(|comparison| Box::new(comparison.summary())),
        comparison_file,
        work: run.started_at.map(|started_at| RunWork { started_at, events: plan.rows, bytes: plan.bytes }),
        file_count: Some(files.len() as u64),
        bytes: Some(files.iter().map(|f| f.size_bytes).sum()),
        watermark: served.watermark,
        latest_event: served.latest_event,
        retained_from: horizon.retained_from(),
        frozen_before: horizon.frozen_before(),
        dropped_sessions_end: horizon.dropped_sessions_end(),
        past_retention: active.map_or(0, |v| v.past_retention).saturating_add(plan.excluded_by_retention),
        failed: failed_events(attempt, (plan, source), exact),
        erased: plan.erased.clone(),
        lookups: TableCut::by_table(&cut.tables),
        files,
    }
}

/// Returns the events that the version excludes because an expression failed for them: those of the dates that the run read,
/// and of other dates those of the previous version.
fn failed_events(attempt: &Attempt<'_>, (plan, source): (&Plan, &RowSource), exact: &ExactFiles) -> FailedEvents {
    let adds = matches!(source, RowSource::Generations(_));
    let previous = attempt.previous().filter(|_| adds || !plan.everything);
    let read: BTreeSet<Day> = plan.read.iter().filter_map(|read| read.date.day()).collect();
    let mut failed = previous.map_or_else(FailedEvents::default, |version| version.failed.clone());
    failed = failed.without_days(|day| !adds && read.contains(&day));
    failed.extend(&exact.failed);
    failed
}

async fn commit_files(view: &View, result: RunResult<'_>, version: &BatchVersion) -> Result<(), RunFailure> {
    let RunResult { base, plan, exact, .. } = result;
    let add = exact.files.into_iter().chain(plan.restore).collect();
    // A changed definition has other columns; equal ones are left alone.
    let commit = Commit::replace(base.version, plan.remove, add, table_schema(view)).noting(version.to_note());
    // Based on `base`, the commit is the version after it.
    base.table.commit(commit).await.map(|_| ()).map_err(|error| match error {
        LakeError::Conflict { .. } | LakeError::AlreadyCommitted { .. } => RunFailure::Lake(error),
        error => RunFailure::Undecided(error),
    })
}

/// Makes a committed version active and returns its number. If this fails, the next start of the process completes it.
pub async fn swap(attempt: &Attempt<'_>, committed: Committed) -> Result<i64, RunFailure> {
    attempt.reach(Step::Publish)?;
    let Committed { version, comparison } = committed;
    let number = version.version;
    let (executor, job) = (attempt.executor, attempt.job);
    let published = PublishedView::version(Arc::clone(&job.view), Arc::clone(&job.stream), version);
    let version = published.version.clone();
    // First, so that readers who see the version find its comparison.
    if let Some(comparison) = &comparison {
        executor.comparisons.remember(comparison);
    }
    executor.layers.views.publish(published.clone());
    attempt.reach(Step::Retire)?;
    retire(attempt, &Arc::new(published));
    if let (Some(comparison), Some(version)) = (comparison, version) {
        set_drift_alarm(&job.view, &comparison);
        executor.comparisons.settle(&version).await;
    }
    Ok(number)
}

/// Releases what the version at `published`'s seam covers.
fn retire(attempt: &Attempt<'_>, published: &Arc<PublishedView>) {
    let (layers, before, seam) = (&attempt.executor.layers, attempt.active, &published.seam);
    layers.speed.retire(published, seam);
    if before.definition_hash != published.definition_hash {
        layers.speed.forget(before);
    }
    let reader = log_reader(&published.view.name);
    for (partition, point) in seam.of_log() {
        layers.retention.release(&published.stream.name, partition, &reader, point.offset);
    }
}

/// Sets the metrics and logs a warning if what was served had drifted further than the view accepts.
pub fn set_drift_alarm(view: &View, comparison: &Comparison) {
    let name = view.name.to_string();
    let alarm = comparison.alarm(view.max_drift);
    if let Some(reason) = &alarm {
        tracing::warn!(view = name, reason, "drift alarm");
    }
    metrics::gauge!("trueup_view_drift_alarm", "view" => name.clone()).set(if alarm.is_some() { 1.0 } else { 0.0 });
    for (measure, compared) in &comparison.measures {
        metrics::gauge!("trueup_view_drift_ratio", "view" => name.clone(), "measure" => measure.clone())
            .set(compared.drift);
    }
}
