//! Executes batch runs, one recomputation at a time. Until the commit nothing is visible; a run that fails leaves nothing
//! but its reason.
//!
//! A run is a chain of complete values, each made from those before it:
//! ```text
//! cut ─► Horizon ─► base ─► Plan ─► ExactFiles ─► Served ─► Reconciliation ─► BatchVersion ─► swap
//! ```
//! 1. [`cut`] cuts the log and waits until the archive has every event before the cut.
//! 2. [`Horizon`] says what retention takes away from the new version.
//! 3. [`base`] reads the view's table that the new version builds upon.
//! 4. [`source`] decides what the rows are made of: a run of a view of the speed layer alone is a checkpoint.
//! 5. [`lookups`] reads the versions of the rows that events are joined with, and [`crate::plan`] decides what to read and what to replace.
//! 6. [`crate::recompute`] writes files for the window dates of the plan.
//! 7. [`served`] pins what was served for them until now.
//! 8. [`crate::reconcile`] compares both.
//! 9. [`publish`] commits the version, makes it active and releases what it covers.

pub mod base;
pub mod cut;
pub mod lookups;
pub mod publish;
pub mod replay_gauge;
pub mod served;
pub mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lake::{ArchiveTags, DataFile};
use shared::engine::Engine;
use shared::horizon::{Horizon, HorizonInput};
use shared::lookup::table::Lookups;
use shared::published::PublishedView;
use shared::version::{BatchVersion, Origin};
use shared::view::{View, ViewLayers};
use spark_connect::ConnectionSettings;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::blocking::blocking;
use crate::deletion_clock::{DeletionClock, newest_event};
use crate::failure::RunFailure;
use crate::layers::{Job, LayerHandles};
use crate::plan::planner::{PlanInput, erased_by_date, newly_erased, plan};
use crate::plan::{ArchiveFile, Plan};
use crate::recompute::budget::Budget;
use crate::recompute::frozen_sessions::FrozenSessions;
use crate::recompute::on_spark::SparkRun;
use crate::recompute::reduce::group_by::ArchiveQuery;
use crate::recompute::scan::ArchiveSource;
use crate::recompute::staging::Staging;
use crate::recompute::verdicts::SpeedVerdicts;
use crate::recompute::{Bounds, ExactFiles, duplicates, generations, recompute};
use crate::reconcile::causes::CauseLookup;
use crate::reconcile::history::ComparisonHistory;
use crate::reconcile::{Limits, Reconciliation, reconcile};
use crate::run::base::Base;
use crate::run::cut::RunCut;
use crate::run::lookups::{RunLookups, TableCut};
use crate::run::publish::{Committed, RunResult};
use crate::run::replay_gauge::ReplayGauge;
use crate::run::source::RowSource;
use crate::runs::queue::RunEntry;
use crate::settings::BatchSettings;
use crate::step::Step;
use crate::versions::reader::VersionReader;
use crate::watch::Cancel;

/// Executes the runs of all views.
pub struct Executor {
    pub layers: LayerHandles,
    pub reader: Arc<VersionReader>,
    pub settings: BatchSettings,
    pub comparisons: ComparisonHistory,
    pub deletion_clock: Arc<DeletionClock>,
    /// Only one recomputation at a time: each uses all cores.
    recomputing: Semaphore,
}

/// One execution of a run: the handles, the view, and the version that was active when it started.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    pub executor: &'a Executor,
    pub job: &'a Job,
    pub entry: &'a RunEntry,
    pub active: &'a Arc<PublishedView>,
}

impl Executor {
    /// Returns an executor with nothing running.
    pub fn new(layers: LayerHandles, settings: BatchSettings, deletion_clock: Arc<DeletionClock>) -> Executor {
        let comparisons = ComparisonHistory::new(&layers.lake);
        let reader = Arc::new(VersionReader::new(&layers.lake, settings.cache_bytes));
        Executor { layers, reader, settings, comparisons, deletion_clock, recomputing: Semaphore::new(1) }
    }

    /// Completes what an earlier process had no time to do after its last commit of the view.
    pub async fn resume(&self, view: &View) {
        let Some(version) = self.layers.views.get(view.name.as_str()).and_then(|p| p.version.clone()) else { return };
        self.comparisons.settle(&version).await;
        if let Some(comparison) = &version.comparison {
            publish::set_drift_alarm(view, comparison);
        }
    }

    /// Runs `job` and returns the number of the version that is active then.
    pub async fn execute(&self, job: &Job, entry: &RunEntry) -> Result<i64, RunFailure> {
        let active = self.active(job);
        let attempt = Attempt { executor: self, job, entry, active: &active };
        let cut = cut::take(&attempt).await?;
        let horizon = attempt.horizon(&cut);
        if let Some(version) = attempt.unchanged(&cut, horizon) {
            return Ok(version.version);
        }
        let turn = attempt.turn().await?;
        attempt.reach(Step::Plan)?;
        let base = base::read(&attempt, horizon).await?;
        let source = source::choose(&attempt, &cut, &base, horizon).await?;
        let lookups = lookups::read(&attempt, &cut.tables).await?;
        let mut plan = attempt.plan(&cut, horizon, &base, (&source, &lookups))?;
        let lost = match &source {
            // Their rows are needed: nothing computes them again.
            RowSource::Generations(_) => false,
            RowSource::Events | RowSource::Replay => attempt.give_up_missing(&base, &mut plan).await?,
        };
        entry.set_plan(plan.window_dates.len() as u64, plan.bytes);

        let (reader, view) = (Arc::clone(&self.reader), Arc::clone(&job.view));
        let staging = Arc::new(Staging::new(base.table.clone(), reader, view, source.origin()));
        match attempt.compute((&cut, turn), base, (plan, source, lookups), lost, &staging).await {
            Ok(committed) => publish::swap(&attempt, committed).await,
            // The commit may still arrive and needs the files. If it never does, vacuum deletes them.
            Err(failure @ RunFailure::Undecided(_)) => Err(failure),
            Err(failure) => {
                staging.discard().await;
                Err(attempt.explained(&cut, failure).await)
            }
        }
    }

    fn active(&self, job: &Job) -> Arc<PublishedView> {
        let nothing = || Arc::new(PublishedView::nothing(Arc::clone(&job.view), Arc::clone(&job.stream)));
        self.layers.views.get(job.view.name.as_str()).unwrap_or_else(nothing)
    }
}

impl Attempt<'_> {
    /// Recomputes, reconciles and commits. Nothing is visible before the commit.
    async fn compute(
        &self,
        (cut, turn): (&RunCut, SemaphorePermit<'_>),
        base: Base,
        (plan, source, lookups): (Plan, RowSource, RunLookups),
        lost: bool,
        staging: &Arc<Staging>,
    ) -> Result<Committed, RunFailure> {
        self.reach(Step::Recompute)?;
        let query = self.archive_query(cut, &plan, (&source, &lookups)).await?;
        let bounds = self.bounds(cut);
        let (exact, _one_at_a_time) = self.rows(&query, (&plan, &source), (bounds, turn), staging).await?;
        self.reach(Step::Write)?;

        self.reach(Step::Reconcile)?;
        let served = served::pin(self, cut, &base, &plan, &source).await?;
        let late = match (&query.verdicts, &source) {
            (Some(verdicts), _) => verdicts.late,
            (None, RowSource::Generations(generations)) => {
                let before = self.previous().map_or(0, |version| version.late);
                generations.iter().map(|generation| generation.late.events).fold(before, u64::saturating_add)
            }
            (None, _) => 0,
        };
        let reconciliation = match &served.rows {
            Some(rows) if !lost => {
                let failed = rows.failed.difference(&exact.failed);
                let causes = CauseLookup::new(query, &plan, &exact, failed, self.entry.watch.clone())
                    .with_lookups(lookups.changed_since_served);
                // One side is without late events of any time.
                let of_speed = source.origin() == Origin::Speed || self.has_rows_of_speed();
                let causes = if of_speed { causes.with_late_events_of_all() } else { causes };
                let limits = Limits { rows: self.executor.settings.reconcile_rows, budget: bounds.budget };
                let compared: Vec<_> = exact.files.iter().chain(&rows.frozen).cloned().collect();
                Some(reconcile(&self.executor.reader, rows, &compared, causes, limits).await?)
            }
            _ => None,
        };
        reconciliation.iter().for_each(|reconciliation| self.report(reconciliation));

        self.reach(Step::Commit)?;
        if self.cancel().is_set() {
            return Err(RunFailure::Cancelled);
        }
        publish::commit(self, RunResult { cut, base, plan, source, late, exact, served }, reconciliation).await
    }

    /// Waits until no other run computes.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, RunFailure> {
        let turn = self.cancel().or_cancelled(self.executor.recomputing.acquire()).await?;
        Ok(turn.expect("the semaphore is never closed"))
    }

    /// Writes the rows of the plan's window dates. While Spark computes, other runs may compute here.
    async fn rows<'t>(
        &'t self,
        query: &ArchiveQuery,
        (plan, source): (&Plan, &RowSource),
        (bounds, turn): (Bounds, SemaphorePermit<'t>),
        staging: &Arc<Staging>,
    ) -> Result<(ExactFiles, SemaphorePermit<'t>), RunFailure> {
        let (watch, replayed) = (&self.entry.watch, ReplayGauge::new(self, plan, source));
        let dates_done = |more| {
            self.entry.dates_done(more);
            replayed.set();
        };
        let RowSource::Generations(generations) = source else {
            let Some(connection) = self.spark(query, plan, source) else {
                self.entry.set_engine(Engine::Polars);
                return Ok((recompute(query, plan, bounds, watch, staging, &dates_done).await?, turn));
            };
            self.entry.set_engine(Engine::Spark);
            drop(turn);
            let run = SparkRun::new(query, plan, bounds, watch, staging)?;
            let computed = run.compute(&connection).await?;
            return match self.turn().await {
                Ok(turn) => Ok((computed.collect(&dates_done).await?, turn)),
                Err(cancelled) => {
                    computed.discard().await;
                    Err(cancelled)
                }
            };
        };
        let of = (&self.executor.reader, &self.job.view);
        generations::merge(of, plan, generations, (bounds, watch), staging, &dates_done).await?;
        let exact = ExactFiles {
            files: staging.files(),
            longest_session_us: staging.longest_session_us(),
            duplicates: Vec::new(),
            dropped_sessions_end: None,
            failed: source::failed_events(generations),
        };
        Ok((exact, turn))
    }

    /// Returns the connection to Spark, if it computes the run.
    fn spark(&self, query: &ArchiveQuery, plan: &Plan, source: &RowSource) -> Option<ConnectionSettings> {
        let exactly = matches!(source, RowSource::Events);
        // The engine may have been changed since the run has read the versions of tables.
        let can_join = query.lookups.as_deref().is_none_or(Lookups::have_keys);
        self.executor.settings.engines.spark_for(&self.job.view.name, plan.bytes).filter(|_| exactly && can_join)
    }

    /// Takes files out of the plan that the view's table lists and the store does not have, and returns whether there are any.
    /// Only a full run does so: it computes their rows again, but for frozen windows, whose events are dropped.
    async fn give_up_missing(&self, base: &Base, plan: &mut Plan) -> Result<bool, RunFailure> {
        if !plan.everything || base.files.is_empty() {
            return Ok(false);
        }
        let missing = base.table.missing(&base.files).await?;
        let (view, Some(first)) = (&self.job.view.name, missing.first()) else { return Ok(false) };
        let is_missing = |file: &DataFile| missing.iter().any(|other| other.path == file.path);
        let frozen = plan.keep.iter().filter(|file| is_missing(file)).count();
        tracing::warn!(
            %view, files = missing.len(), frozen, first = %first.path,
            "files of the view are gone; the run computes their rows again, but for frozen windows, and is not reconciled"
        );
        for kept in [&mut plan.keep, &mut plan.restore, &mut plan.frozen_touched] {
            kept.retain(|file| !is_missing(file));
        }
        let planned: BTreeSet<String> = plan.remove.iter().map(|file| file.path.clone()).collect();
        plan.remove.extend(missing.into_iter().filter(|file| !planned.contains(&file.path)));
        Ok(true)
    }

    /// Returns the failure, or that files of the archive are gone, if it may have failed for that.
    async fn explained(&self, cut: &RunCut, failure: RunFailure) -> RunFailure {
        let may_miss_files = matches!(
            failure,
            RunFailure::Polars(_) | RunFailure::Lake(_) | RunFailure::Arrow(_) | RunFailure::Spark(_)
        );
        if !may_miss_files {
            return failure;
        }
        let Ok(missing) = cut.table.missing(&cut.archive.files).await else { return failure };
        let Some(first) = missing.first() else { return failure };
        RunFailure::FilesMissing {
            table: cut.table.name(),
            stream: self.job.stream.name.to_string(),
            version: cut.archive.version,
            path: first.path.clone(),
            count: missing.len() as u64,
            rows: missing.iter().map(|file| u64::try_from(file.rows).unwrap_or(0)).sum(),
        }
    }

    /// Injects the fault for the step that is about to begin, if a test asks for one.
    pub fn reach(&self, step: Step) -> Result<(), RunFailure> {
        self.executor.settings.fail_points.reach(step)
    }

    /// Returns the flag that stops the run.
    pub fn cancel(&self) -> &Cancel {
        &self.entry.watch.cancel
    }

    /// Returns whether the active version was computed by another definition.
    pub fn definition_changed(&self) -> bool {
        *self.active.definition_hash != *self.job.view.definition_hash()
    }

    /// Returns the active version if this run can build upon its rows: those of another definition are of no use.
    fn previous(&self) -> Option<&BatchVersion> {
        self.active.version.as_deref().filter(|_| !self.definition_changed())
    }

    /// Returns whether the active version has rows that the speed layer computed and batch could compute.
    fn has_rows_of_speed(&self) -> bool {
        self.active.version.as_ref().is_some_and(|version| version.has_rows_of_speed())
    }

    /// Returns whether batch has to replace rows of the speed layer, which the view had alone before.
    fn becomes_exact(&self) -> bool {
        self.job.view.layers == ViewLayers::Both && self.has_rows_of_speed()
    }

    fn horizon(&self, cut: &RunCut) -> Horizon {
        Horizon::for_run(&HorizonInput {
            window: self.job.view.window,
            retention: self.job.view.retention,
            previous: self.previous(),
            archive_from: cut.archive.dropped.as_ref().map(|dropped| dropped.retained_from),
            now: self.executor.deletion_clock.now(newest_event(&cut.archive.files)),
        })
    }

    /// Returns the active version if the run has nothing to do.
    fn unchanged(&self, cut: &RunCut, horizon: Horizon) -> Option<&BatchVersion> {
        let run = self.entry.run();
        let is_requested = run.full || !run.ranges.is_empty() || self.becomes_exact();
        let version = self.previous().filter(|_| !is_requested)?;
        let has_new_events = cut.cut.offsets() != self.active.seam.offsets() || self.has_newly_erased(cut);
        let tables = TableCut::by_table(&cut.tables);
        let read = |name| version.lookups.get(name).map(|before| before.read.offsets());
        let has_new_changes = tables.iter().any(|(name, cut)| read(name) != Some(cut.read.offsets()));
        (!has_new_events && !has_new_changes && !horizon.differs_from(version, self.job.view.window)).then_some(version)
    }

    /// Returns whether events have been erased from the archive since the active version.
    pub fn has_newly_erased(&self, cut: &RunCut) -> bool {
        let tags = |file: &DataFile| Some((file.partition, ArchiveTags::from_tags(&file.tags).ok()?));
        let tagged: Vec<_> = cut.archive.files.iter().filter_map(tags).collect();
        let erased = erased_by_date(tagged.iter().map(|(date, tags)| (*date, tags)));
        let none = BTreeMap::new();
        let known = self.previous().map_or(&none, |version| &version.erased);
        !newly_erased(&erased, known).is_empty()
    }

    fn plan(
        &self,
        cut: &RunCut,
        horizon: Horizon,
        base: &Base,
        (source, lookups): (&RowSource, &RunLookups),
    ) -> Result<Plan, RunFailure> {
        let run = self.entry.run();
        let restores = horizon.restores(Horizon::of(self.active));
        // I5: whatever makes an incremental run unsafe makes it a full one.
        let everything = match source {
            RowSource::Events => {
                run.full || self.definition_changed() || !base.is_active || restores || self.becomes_exact()
            }
            RowSource::Replay => true,
            RowSource::Generations(_) => false,
        };
        let mut plan = plan(&PlanInput {
            window: self.job.view.window,
            seam: &self.active.seam,
            cut: &cut.cut,
            archive: &cut.archive.files,
            dropped: cut.archive.dropped.as_ref(),
            lost: cut.archive.lost.as_ref(),
            present: &base.files,
            frozen: &base.frozen,
            erased: self.previous().map_or(&BTreeMap::new(), |version| &version.erased),
            looked_up: &lookups.changed,
            everything,
            ranges: &run.ranges,
            horizon,
        })?;
        if let RowSource::Generations(generations) = source {
            generations::limit(&mut plan, &self.job.view, generations);
            // The events come from memory.
            (plan.rows, plan.bytes) = (0, 0);
        }
        Ok(plan)
    }

    /// Returns the view over the archive, without the events that belong to frozen sessions.
    async fn archive_query(
        &self,
        cut: &RunCut,
        plan: &Plan,
        (source, lookups): (&RowSource, &RunLookups),
    ) -> Result<ArchiveQuery, RunFailure> {
        let view = Arc::clone(&self.job.view);
        let frozen = FrozenSessions::of(&self.executor.reader, &view, &plan.keep, plan.horizon).await?;
        let archive = ArchiveSource { table: cut.table.clone(), stream: Arc::clone(&self.job.stream) };
        let query = ArchiveQuery { source: archive, view, frozen, verdicts: None, lookups: lookups.tables.clone() };
        if !matches!(source, RowSource::Replay) {
            return Ok(query);
        }
        let (budget, watch) = (self.bounds(cut).budget, self.entry.watch.clone());
        let files: Vec<ArchiveFile> = plan.read.iter().flat_map(|date| date.files.clone()).collect();
        let of = query.clone();
        let verdicts = blocking(move || SpeedVerdicts::read(&of, &files, budget, &watch)).await?;
        Ok(ArchiveQuery { verdicts: Some(Arc::new(verdicts)), ..query })
    }

    fn bounds(&self, cut: &RunCut) -> Bounds {
        let settings = &self.executor.settings;
        Bounds {
            query_rows: settings.query_rows,
            writes: settings.writes,
            dedup: duplicates::possible(&self.job.stream, &cut.cut, self.dedup_horizon_events(cut)),
            budget: Budget { limit_bytes: settings.memory_limit_bytes },
        }
    }

    /// Returns the smallest number of events among which intake ever removed duplicates: those that it let through under
    /// an earlier setting are still in the archive.
    fn dedup_horizon_events(&self, cut: &RunCut) -> u64 {
        let now = self.executor.settings.dedup_horizon_events;
        cut.archive.dedup_horizon_events.map_or(now, |smallest| smallest.min(now))
    }

    /// Reports differences without a cause: they are defects.
    fn report(&self, reconciliation: &Reconciliation) {
        let view = &self.job.view.name;
        let unexplained = reconciliation.causes.unexplained;
        for (cause, values) in reconciliation.causes.named() {
            let labels = [("view", view.to_string()), ("cause", cause.to_owned())];
            metrics::counter!("trueup_differing_values_total", &labels).increment(values);
        }
        metrics::counter!("trueup_unexplained_differences_total", "view" => view.to_string()).increment(unexplained);
        if unexplained > 0 {
            let example = reconciliation.rows.first().map(|row| serde_json::to_string(row).unwrap_or_default());
            tracing::error!(%view, unexplained, example, "served values differ from exact ones without a known cause");
        }
    }
}
