//! What happens in a run, in order? Cut, wait for the archive, plan, recompute and write, reconcile, commit, publish,
//! retire. Until the commit nothing is visible to anyone; a run that fails leaves no trace but its reason.

pub mod publish;

use std::sync::Arc;

use lake::{DataFile, Lake, Table, TablePath, VersionLease};
use shared::clock::Clock;
use shared::compare::Comparison;
use shared::handoff::{Archive, Cutter, LogRetention};
use shared::ids::{Offset, Partition, StreamName};
use shared::partial::block::Part;
use shared::partial::codec::{WINDOW_DATE, table_schema};
use shared::published::{Published, Views};
use shared::readers::{Generation, SpeedPin, SpeedReader};
use shared::seam::Cut;
use shared::stream::{Stream, system_columns};
use shared::time::{Day, Micros};
use shared::version::{BatchVersion, RunWork};
use shared::view::View;
use shared::window::Window;
use tokio::sync::Semaphore;

use crate::failure::RunFailure;
use crate::plan::planner::{ArchiveFile, Given, Plan, plan};
use crate::plan::retention::Retained;
use crate::plan::sessions::DroppedSessions;
use crate::recompute::budget::Budget;
use crate::recompute::duplicates;
use crate::recompute::frozen_sessions::FrozenSessions;
use crate::recompute::reduce::group_by::Query;
use crate::recompute::scan::Source;
use crate::recompute::{Bounds, Recomputed, Staging, recompute};
use crate::reconcile::causes::{Explain, Files};
use crate::reconcile::history::Comparisons;
use crate::reconcile::{Served, reconcile};
use crate::runs::queue::RunEntry;
use crate::settings::BatchSettings;
use crate::step::Step;
use crate::versions::load::history;
use crate::versions::reader::Reader;
use crate::watch::Cancel;

/// How long to wait before looking again whether speed has come to the cut.
const SPEED_LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// Everything the batch layer meets.
#[derive(Clone)]
pub struct BatchSurroundings {
    pub lake: Lake,
    /// All streams, also those without views.
    pub streams: Vec<Arc<Stream>>,
    /// What answers, as loaded at the start; runs publish into it.
    pub views: Arc<Views>,
    pub cutter: Arc<dyn Cutter>,
    pub archive: Arc<dyn Archive>,
    pub speed: Arc<dyn SpeedReader>,
    pub retention: Arc<dyn LogRetention>,
    /// The oldest offset of each partition's log when the process started.
    pub log_starts: Vec<(StreamName, Partition, Offset)>,
    pub clock: Arc<dyn Clock>,
}

/// A view to run, as declared.
#[derive(Debug, Clone)]
pub struct Job {
    pub stream: Arc<Stream>,
    pub view: Arc<View>,
}

/// Runs runs.
pub struct Executor {
    pub surroundings: BatchSurroundings,
    pub reader: Arc<Reader>,
    pub settings: BatchSettings,
    pub comparisons: Comparisons,
    /// Only one recomputation at a time: each uses all cores.
    heavy: Semaphore,
}

/// What a run is about once it has been planned.
struct Planned {
    answering: Arc<Published>,
    changed: bool,
    cut: Cut,
    plan: Plan,
    /// Events so far that came when all their windows had been dropped.
    past_retention: u64,
    archive: Table,
    /// Keeps the files of the plan, also if the archive is compacted meanwhile.
    _archived: VersionLease,
    table: Table,
    /// The version of the view's table that the plan was made for.
    base: i64,
    /// No later than this the last session ends that is dropped, if not everything is recomputed; then it is found out.
    dropped_sessions_end: Option<Micros>,
}

/// What was found out beside the version's rows.
struct Compared {
    comparison: Option<Comparison>,
    watermark: Option<Micros>,
    latest_event: Option<Micros>,
    /// Where the last of the sessions ends that were read and are dropped, in microseconds.
    dropped_end: i64,
}

impl Executor {
    /// An executor with nothing running.
    pub fn new(surroundings: BatchSurroundings, settings: BatchSettings) -> Executor {
        let comparisons = Comparisons::new(&surroundings.lake);
        let reader = Arc::new(Reader::new(&surroundings.lake, settings.cache_bytes));
        Executor { surroundings, reader, settings, comparisons, heavy: Semaphore::new(1) }
    }

    /// Makes up for what an earlier process had no time to do after its last commit of the view.
    pub async fn begin(&self, view: &View) {
        let Some(version) = self.surroundings.views.get(view.name.as_str()).and_then(|p| p.version.clone()) else {
            return;
        };
        self.comparisons.settle(&version).await;
        if let Some(comparison) = &version.comparison {
            alarm(view, comparison);
        }
    }

    /// Runs `job` and returns the version that answers then.
    pub async fn execute(&self, job: &Job, entry: &RunEntry) -> Result<i64, RunFailure> {
        let cancel = &entry.watch.cancel;
        let answering = self.answering(job);
        let changed = *answering.definition_hash != *job.view.definition_hash();
        let full = entry.run().full;

        self.reach(Step::Cut)?;
        let cutting = self.surroundings.cutter.cut(&job.stream.name, &job.view.name);
        let log_cut = unless_cancelled(cancel, cutting).await?.map_err(RunFailure::Cut)?;
        entry.set_cut(&log_cut);

        // Waiting comes before the first look at the lake: a store that is away is waited for, it fails no run.
        self.reach(Step::Archived)?;
        let archived = self.surroundings.archive.archived(&job.stream.name, &log_cut);
        unless_cancelled(cancel, archived).await?.map_err(RunFailure::Archive)?;
        let (history, dropped) = history(&self.surroundings.lake, &job.stream, &answering.seam).await?;
        let cut = log_cut.with_history(history);
        entry.set_cut(&cut);
        let wanted = full || changed || !entry.run().ranges.is_empty();
        // Rows of another definition are of no use to this one.
        let before = answering.version.as_deref().filter(|_| !changed);
        let retained = |dropped| {
            let now = self.surroundings.clock.now();
            Retained::of(job.view.retention, job.view.window, before, dropped, now)
        };
        if let Some(version) =
            answering.version.as_ref().filter(|version| !wanted && !retained(dropped).changes(version))
            && cut.offsets() == answering.seam.offsets()
        {
            return Ok(version.version);
        }

        let permit = unless_cancelled(cancel, self.heavy.acquire()).await?;
        let _one_at_a_time = permit.expect("the semaphore is never closed");
        self.reach(Step::Plan)?;
        let planned = self.plan(job, entry, Arc::clone(&answering), changed, &retained, cut).await?;
        entry.set_plan(planned.plan.window_dates.len() as u64, planned.plan.bytes);
        let reader = Arc::clone(&self.reader);
        let staging = Arc::new(Staging::new(planned.table.clone(), reader, Arc::clone(&job.view)));
        let mut reconciliation = None;
        let committed = async {
            let mut compared = self.compute(job, entry, &planned, &staging).await?;
            compared.comparison = compared.comparison.map(|comparison| Comparison {
                version: planned.base + 1,
                compared_at: self.surroundings.clock.now(),
                cut: planned.cut.offsets(),
                ..comparison
            });
            self.reach(Step::Commit)?;
            if cancel.is_set() {
                return Err(RunFailure::Cancelled);
            }
            if let Some(comparison) = &compared.comparison {
                reconciliation = self.comparisons.stage(comparison).await;
            }
            let version = BatchVersion {
                comparison: compared.comparison.as_ref().map(|c| Box::new(c.summary())),
                comparison_file: reconciliation.clone(),
                watermark: compared.watermark,
                latest_event: compared.latest_event,
                dropped_sessions_end: planned.dropped_sessions_end.map(|known| match planned.plan.everything {
                    true => known.max(Micros(compared.dropped_end)),
                    false => known,
                }),
                ..self.version(job, entry, &planned, staging.longest_session_us())
            };
            let Planned { table, base, plan, .. } = &planned;
            let version = publish::commit(table, &job.view, *base, plan, staging.files(), version).await?;
            Ok((version, compared.comparison))
        };
        let (version, comparison) = match committed.await {
            Ok(committed) => committed,
            // A commit that is still on its way would find its files gone. Vacuum takes them if it never arrives.
            Err(failure @ RunFailure::Undecided(_)) => return Err(failure),
            Err(failure) => {
                staging.discard().await;
                self.comparisons.discard(&job.view.name, reconciliation).await;
                return Err(failure);
            }
        };
        self.publish(job, &planned, version, comparison).await
    }

    /// From here on the version is there; what fails now is made up for when the process starts again.
    async fn publish(
        &self,
        job: &Job,
        planned: &Planned,
        version: BatchVersion,
        comparison: Option<Comparison>,
    ) -> Result<i64, RunFailure> {
        self.reach(Step::Publish)?;
        let number = version.version;
        let published = Published::version(Arc::clone(&job.view), Arc::clone(&job.stream), version);
        let version = published.version.clone();
        // First, so that who sees the version finds what was compared on its way.
        if let Some(comparison) = &comparison {
            self.comparisons.remember(comparison);
        }
        self.surroundings.views.publish(published.clone());
        self.reach(Step::Retire)?;
        publish::retire(&self.surroundings, &planned.answering, &Arc::new(published));
        if let (Some(comparison), Some(version)) = (comparison, version) {
            alarm(&job.view, &comparison);
            self.comparisons.settle(&version).await;
        }
        Ok(number)
    }

    fn answering(&self, job: &Job) -> Arc<Published> {
        let nothing = || Arc::new(Published::nothing(Arc::clone(&job.view), Arc::clone(&job.stream)));
        self.surroundings.views.get(job.view.name.as_str()).unwrap_or_else(nothing)
    }

    async fn plan(
        &self,
        job: &Job,
        entry: &RunEntry,
        answering: Arc<Published>,
        changed: bool,
        retained: &(dyn Fn(Option<Day>) -> Retained + Sync),
        cut: Cut,
    ) -> Result<Planned, RunFailure> {
        let lake = &self.surroundings.lake;
        let events = TablePath::events(&job.stream.name);
        let archive = lake.table(&events, job.stream.archive_schema(), system_columns::EVENT_DATE).await?;
        let path = TablePath::view(&job.view.name);
        let table = lake.table(&path, table_schema(&job.view), WINDOW_DATE).await?;
        let (archived, lease) = archive.held_snapshot().await?;
        let present = table.snapshot().await?;
        // Whatever somebody else did to the table (or a run whose end was not seen): do not build upon it.
        let is_ours = answering.version.as_ref().is_some_and(|version| version.version == present.version);
        let dropped = archived.dropped.as_ref();
        let retained = retained(dropped.map(|dropped| dropped.retained_from));
        // What is frozen cannot be computed again, so it is kept as it answers now, whatever became of the table.
        let mut frozen: Vec<DataFile> = match (&answering.version, retained.frozen_before) {
            (Some(_), Some(_)) if is_ours && !changed => present.files.clone(),
            (Some(version), Some(_)) if !changed => table.snapshot_at(version.version).await?.files,
            _ => Vec::new(),
        };
        frozen.retain(|file| file.partition < retained.frozen_before && file.partition.is_some());
        let run = entry.run();
        // `None`: the program that wrote the version did not note it.
        let dropped_sessions = DroppedSessions::of(job.view.window, answering.version.as_deref());
        let mut plan = plan(&Given {
            window: job.view.window,
            seam: &answering.seam,
            cut: &cut,
            archive: &archived.files,
            present: &present.files,
            everything: run.full || changed || !is_ours || retained.is_longer || dropped_sessions.is_none(),
            ranges: &run.ranges,
            dropped,
            frozen: &frozen,
            dropped_sessions: dropped_sessions.flatten(),
        })?;
        retained.apply(&mut plan, job.view.window);
        let past_before = answering.version.as_ref().map_or(0, |version| version.past_retention);
        let past_retention = past_before + retained.past(&plan, job.view.window);
        let dropped_sessions_end =
            DroppedSessions::end_after(job.view.window, &plan, dropped_sessions.flatten(), &present.files);
        let (_archived, base) = (lease, present.version);
        Ok(Planned {
            answering,
            changed,
            cut,
            plan,
            past_retention,
            archive,
            _archived,
            table,
            base,
            dropped_sessions_end,
        })
    }

    async fn compute(
        &self,
        job: &Job,
        entry: &RunEntry,
        planned: &Planned,
        staging: &Arc<Staging>,
    ) -> Result<Compared, RunFailure> {
        let Planned { answering, changed, cut, plan, archive, .. } = planned;
        self.reach(Step::Recompute)?;
        let source = Source { table: archive.clone(), stream: Arc::clone(&job.stream) };
        let kept = (plan.keep.as_slice(), plan.frozen_before);
        let frozen = FrozenSessions::of(&self.reader, &job.view, kept.0, kept.1).await?;
        let query = Query { source, view: Arc::clone(&job.view), frozen };
        let bounds = Bounds {
            query_rows: self.settings.query_rows,
            writes: self.settings.writes,
            dedup: duplicates::possible(&job.stream, cut, self.settings.dedup_horizon_events),
            budget: Budget { limit_bytes: self.settings.memory_limit_bytes },
        };
        let dates_done = |more| entry.dates_done(more);
        let Recomputed { duplicates, dropped_end } =
            recompute(&query, plan, bounds, &entry.watch, staging, &dates_done).await?;
        self.reach(Step::Write)?;

        self.reach(Step::Reconcile)?;
        let cancel = &entry.watch.cancel;
        let pin = unless_cancelled(cancel, self.generations(answering, &answering.seam, cut)).await??;
        let SpeedPin { generations, watermark, latest_event } = pin;
        let compared = |comparison| Ok(Compared { comparison, watermark, latest_event, dropped_end });
        if *changed {
            // The new definition must be cut at the same place before it may answer.
            let shadow = Published {
                version: None,
                seam: cut.clone(),
                ..Published::nothing(Arc::clone(&job.view), Arc::clone(&job.stream))
            };
            unless_cancelled(cancel, self.generations(&shadow, cut, cut)).await??;
        }
        let Some(generations) = whole(&generations, &answering.seam, cut) else {
            tracing::info!(view = %job.view.name, "not compared: the log no longer had all events that were not in a version");
            return compared(None);
        };
        let mut old_files = if answering.version.is_some() { plan.remove.clone() } else { Vec::new() };
        // What retention drops is not compared with anything, nor what is frozen unless new events fall into it.
        let first = plan.retained_from.max(plan.frozen_before);
        old_files.retain(|file| file.partition.is_none_or(|day| first.is_none_or(|first| day >= first)));
        let speed_from = answering.version.as_ref().map_or(i64::MIN, |version| version.frozen_until());
        let is_shown = |file: &&DataFile| match job.view.window {
            Window::Session { .. } => true,
            _ => file.partition.is_none_or(|day| day.start().0 >= speed_from),
        };
        let frozen_touched: Vec<DataFile> = plan.frozen_touched.iter().filter(is_shown).cloned().collect();
        old_files.extend(frozen_touched.iter().cloned());
        let from = plan.retained_from.map_or(i64::MIN, |day| day.start().0);
        let served = Served { view: Arc::clone(&answering.view), files: old_files, generations, from, speed_from };
        let read: Vec<ArchiveFile> = plan.read.iter().flat_map(|date| date.files.clone()).collect();
        let files = Files { new: plan.new_files.clone(), past: plan.past_files.clone(), read };
        let frozen_until = plan.frozen_before.map_or(i64::MIN, |day| day.start().0);
        let explain = Explain::new(query, files, (from, frozen_until), duplicates, entry.watch.clone());
        let mut exact = staging.files();
        exact.extend(frozen_touched);
        let comparison =
            reconcile(&self.reader, served, &exact, explain, self.settings.reconcile_rows, bounds.budget).await?;
        report(&comparison);
        compared(Some(comparison))
    }

    /// The generations up to the cut, once speed has closed them there.
    async fn generations(&self, published: &Published, seam: &Cut, cut: &Cut) -> Result<SpeedPin, RunFailure> {
        let deadline = tokio::time::Instant::now() + self.settings.speed_wait;
        loop {
            let pin = self.surroundings.speed.pin(published, seam).await?;
            let begins =
                |partition| pin.generations.iter().any(|g| g.partition == partition && g.from == cut.offset(partition));
            if cut.of_log().all(|(partition, _)| begins(partition)) {
                let generations = pin.generations.into_iter().filter(|g| g.to <= cut.offset(g.partition)).collect();
                return Ok(SpeedPin { generations, ..pin });
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(RunFailure::SpeedBehind);
            }
            tokio::time::sleep(SPEED_LOOK).await;
        }
    }

    fn version(&self, job: &Job, entry: &RunEntry, planned: &Planned, longest_session_us: i64) -> BatchVersion {
        // Rows that stay may hold the longest one.
        let before = planned.answering.version.as_ref().filter(|_| !planned.plan.keep.is_empty());
        let longest_before = before.map_or(0, |version| version.longest_session_us);
        BatchVersion {
            view: job.view.name.clone(),
            sql: job.view.sql.clone(),
            definition_hash: job.view.definition_hash(),
            version: planned.base + 1,
            run: entry.run().id,
            published_at: self.surroundings.clock.now(),
            seam: planned.cut.clone(),
            ledger: planned.plan.ledger,
            full: planned.plan.everything,
            rows: 0,
            longest_session_us: longest_session_us.max(longest_before),
            comparison: None,
            comparison_file: None,
            work: entry.run().started_at.map(|started_at| RunWork {
                started_at,
                events: planned.plan.rows,
                bytes: planned.plan.bytes,
            }),
            file_count: None,
            bytes: None,
            watermark: None,
            latest_event: None,
            retained_from: planned.plan.retained_from,
            frozen_before: planned.plan.frozen_before,
            dropped_sessions_end: None,
            past_retention: planned.past_retention,
            files: Vec::new(),
        }
    }

    fn reach(&self, step: Step) -> Result<(), RunFailure> {
        self.settings.fail_points.reach(step)
    }
}

/// The parts of generations that cover everything from `seam` to `cut`; `None`: something is missing.
fn whole(generations: &[Generation], seam: &Cut, cut: &Cut) -> Option<Vec<Part>> {
    for (partition, point) in cut.of_log() {
        let mut reached = seam.offset(partition);
        for generation in generations.iter().filter(|g| g.partition == partition) {
            if generation.from != reached {
                return None;
            }
            reached = generation.to;
        }
        if reached != point.offset {
            return None;
        }
    }
    Some(generations.iter().map(|g| g.part.clone()).collect())
}

/// An unexplained difference is a defect, and somebody should know.
fn report(comparison: &Comparison) {
    let unexplained = comparison.causes.unexplained;
    metrics::counter!("trueup_unexplained_differences_total", "view" => comparison.view.to_string())
        .increment(unexplained);
    if unexplained > 0 {
        let example = comparison.rows.first().map(|row| serde_json::to_string(row).unwrap_or_default());
        tracing::error!(view = %comparison.view, unexplained, example, "served values differ from exact ones for no known reason");
    }
}

/// Tells those who watch whether what was served had drifted further than the view accepts.
fn alarm(view: &View, comparison: &Comparison) {
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

/// The result of `work`, unless the run is cancelled first.
async fn unless_cancelled<T>(cancel: &Cancel, work: impl Future<Output = T>) -> Result<T, RunFailure> {
    tokio::select! {
        result = work => Ok(result),
        () = cancel.wait() => Err(RunFailure::Cancelled),
    }
}
