//! Starts the layers, each with handles to the others.

use std::sync::Arc;

use anyhow::Context;
use batch::{Batch, BatchSettings, LayerHandles, LoadedView};
use intake::archive::{ArchiverContext, ArchiverSettings, Archives, READER, StreamArchiver};
use intake::partition::PartitionSettings;
use intake::quarantine::{Quarantine, QuarantineSettings};
use intake::streams::Intake;
use shared::changed_rows::ChangedRows;
use shared::handoff::{LogReplay, LogRetention};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::limits;
use shared::lookup::table::Lookups;
use shared::published::Views;
use shared::readers::SpeedReader;
use shared::stream::Stream;
use shared::view::View;
use speed::service::{FoldedStream, FoldedView, Speed};

use super::storage::Base;

/// The running layers.
pub struct Layers {
    pub intake: Arc<Intake>,
    pub quarantine: Arc<Quarantine>,
    pub archives: Arc<Archives>,
    pub speed: Arc<Speed>,
    pub batch: Arc<Batch>,
    /// The tables that views are joined with.
    pub lookups: Lookups,
}

impl Layers {
    /// Stops all layers: batch runs first, then the writers, workers and archivers, after their pending work.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Layers { intake, quarantine, archives, speed, batch, lookups: _ } = self;
        batch.stop().await;
        let stopped = tokio::task::spawn_blocking(move || {
            intake.close();
            quarantine.close();
            speed.stop();
            drop(archives);
        });
        stopped.await.context("shutdown failed")
    }
}

/// Recovers the log. Writers do not accept events before [`Intake::start`].
pub async fn open_log(base: &Base, partition: PartitionSettings) -> anyhow::Result<Arc<Intake>> {
    let (data, streams, clock) = (base.local.clone(), base.streams.clone(), Arc::clone(&base.clock));
    let vitals = base.vitals.clone();
    let opened = tokio::task::spawn_blocking(move || Intake::open(&data, &streams, &partition, &clock, &vitals)).await;
    Ok(Arc::new(opened.context("recovery of the log failed")?.context("cannot open the log")?))
}

/// Loads the published versions of `views`, and registers the active ones.
pub async fn load_views(base: &Base, views: &[View]) -> anyhow::Result<(Arc<Views>, Vec<LoadedView>)> {
    let published = Arc::new(Views::default());
    let mut loaded = Vec::new();
    for view in views {
        let stream =
            base.streams.iter().find(|s| s.name == view.stream).context("a view's stream is declared before it")?;
        let versions = batch::load_published(&base.lake, stream, &Arc::new(view.clone()))
            .await
            .with_context(|| format!("cannot read the published versions of view {}", view.name))?;
        published.publish(versions.active.clone());
        loaded.push(versions);
    }
    Ok((published, loaded))
}

/// Returns the queues for the changed rows of a view; none if it has neither alerts nor sinks.
pub type ChangedOf<'a> = &'a dyn Fn(&ViewName) -> Vec<Arc<ChangedRows>>;

/// Starts archivers and speed workers, lets them catch up with the log, and then lets the log accept events.
pub async fn start_event_flow(
    base: &Base,
    intake: &Arc<Intake>,
    (loaded, changed, lookups): (&[LoadedView], ChangedOf<'_>, &Lookups),
    archiver: ArchiverSettings,
) -> anyhow::Result<(Arc<Archives>, Arc<Speed>)> {
    // Before the first archiver starts: archivers release what they have archived, and the log would be trimmed.
    keep_what_speed_replays(intake, loaded);
    for log in intake.streams() {
        log.register_live_reader(speed::worker::READER, limits::SPEED_BACKLOG_BYTES_MAX);
    }
    let archives = Arc::new(start_archivers(base, intake, archiver)?);
    let speed = Arc::new(start_speed(base, intake, loaded, (changed, lookups)).await?);
    for stream in &base.streams {
        for partition in (0..stream.partitions).map(Partition) {
            let log = intake.stream(&stream.name).context("every stream has a log")?;
            let archiver = archives.stream(&stream.name).and_then(|a| a.sink(partition));
            log.attach(partition, speed.sink(&stream.name, partition).context("every partition has a worker")?);
            log.attach(partition, archiver.context("every partition has an archiver")?);
        }
    }
    intake.start().context("cannot start the writers of the log")?;
    Ok((archives, speed))
}

fn start_archivers(base: &Base, intake: &Arc<Intake>, settings: ArchiverSettings) -> anyhow::Result<Archives> {
    let mut archivers = Vec::new();
    for stream in &base.streams {
        let log = intake.stream(&stream.name).context("every stream has a log")?;
        log.register_live_reader(READER, settings.backlog_bytes_max);
        let context = ArchiverContext {
            lake: base.lake.clone(),
            log: Arc::clone(log) as Arc<dyn LogReplay>,
            retention: Arc::clone(intake) as Arc<dyn LogRetention>,
            runtime: tokio::runtime::Handle::current(),
            vitals: base.vitals.clone(),
        };
        let archiver = StreamArchiver::start(Arc::clone(stream), context, settings);
        archivers.push(archiver.with_context(|| format!("cannot start the archiver of {}", stream.name))?);
    }
    Ok(Archives::new(archivers))
}

async fn start_speed(
    base: &Base,
    intake: &Arc<Intake>,
    loaded: &[LoadedView],
    (changed, lookups): (ChangedOf<'_>, &Lookups),
) -> anyhow::Result<Speed> {
    let mut folded = Vec::new();
    for stream in &base.streams {
        let log = intake.stream(&stream.name).context("every stream has a log")?;
        let mut views = Vec::new();
        for versions in loaded.iter().filter(|l| l.active.stream.name == stream.name) {
            let active = &versions.active;
            let fold = |view: &Arc<View>| FoldedView {
                view: Arc::clone(view),
                seam: active.seam.clone(),
                changed: changed(&view.name),
            };
            views.push(fold(&active.view));
            if let Some(shadow) = &versions.shadow {
                // Events before the seam will be in its first version.
                views.push(fold(shadow));
            }
        }
        let retention = Arc::clone(intake) as Arc<dyn LogRetention>;
        let live_state = base.live_states.stream();
        log.bound_live_state(Arc::clone(&live_state));
        folded.push(FoldedStream {
            stream: Arc::clone(stream),
            log: Arc::clone(log) as _,
            retention,
            live_state,
            views,
            lookups: lookups.clone(),
        });
    }
    Speed::start(folded, Arc::clone(&base.clock), &base.vitals).await.context("cannot start the speed layer")
}

/// Makes the log keep everything that the speed layer replays after a restart: all events from the seam of each view on.
fn keep_what_speed_replays(intake: &Intake, loaded: &[LoadedView]) {
    let views = || {
        loaded.iter().map(|versions| {
            let (stream, view): (&StreamName, &View) = (&versions.active.stream.name, &versions.active.view);
            (stream, batch::log_reader(&view.name), &versions.active.seam)
        })
    };
    // All of them first: a release deletes what no registered reader needs, and the seam of another view may be before it.
    for (stream, reader, _) in views() {
        if let Some(log) = intake.stream(stream) {
            log.register_reader(&reader);
        }
    }
    for (stream, reader, seam) in views() {
        for (partition, point) in seam.of_log() {
            intake.release(stream, partition, &reader, point.offset);
        }
    }
}

/// Starts the batch layer.
pub async fn start_batch(
    (base, lookups): (&Base, &Lookups),
    intake: &Arc<Intake>,
    archives: &Arc<Archives>,
    speed: &Arc<Speed>,
    views: &Arc<Views>,
    loaded: Vec<LoadedView>,
    settings: BatchSettings,
) -> anyhow::Result<Arc<Batch>> {
    let handles = LayerHandles {
        vitals: base.vitals.clone(),
        lake: base.lake.clone(),
        streams: base.streams.clone(),
        views: Arc::clone(views),
        speed: Arc::clone(speed) as Arc<dyn SpeedReader>,
        cutter: Arc::clone(intake) as _,
        archive: Arc::clone(archives) as _,
        retention: Arc::clone(intake) as _,
        lookups: lookups.clone(),
        log_starts: oldest_offsets(&base.streams, intake),
        clock: Arc::clone(&base.clock),
    };
    Ok(Arc::new(Batch::start(handles, loaded, settings).await?))
}

/// Returns the oldest offset in each partition's log.
fn oldest_offsets(streams: &[Arc<Stream>], intake: &Intake) -> Vec<(StreamName, Partition, Offset)> {
    let oldest = |stream: &Arc<Stream>, partition: Partition| {
        let (start, _) = intake.stream(&stream.name)?.range(partition);
        Some((stream.name.clone(), partition, start))
    };
    let of =
        |stream: &Arc<Stream>| (0..stream.partitions).filter_map(|p| oldest(stream, Partition(p))).collect::<Vec<_>>();
    streams.iter().flat_map(of).collect()
}

/// Opens the quarantine of every stream.
pub async fn open_quarantine(base: &Base, settings: QuarantineSettings) -> anyhow::Result<Arc<Quarantine>> {
    let (data, streams, vitals) = (base.local.clone(), base.streams.clone(), base.vitals.clone());
    let open = move || Quarantine::open(&data, streams.iter().map(|s| &s.name), settings, &vitals);
    let opened = tokio::task::spawn_blocking(open).await;
    Ok(Arc::new(opened.context("opening the quarantine failed")?.context("cannot open the quarantine")?))
}
