//! How do the layers become one server? The only place where intake, speed, batch and serving meet.
//!
//! The order of a start matters: logs are recovered first; archivers and speed workers catch up with them; only then do
//! writers take events, and last of all the door opens.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use batch::{Batch, BatchSettings, CompactionSettings, LayerHandles, LoadedView, RetrySettings};
use intake::archive::{ArchiverContext, ArchiverSettings, Archives, READER, StreamArchiver};
use intake::history::HistoryWatch;
use intake::lateness::LatenessSettings;
use intake::log::LogSettings;
use intake::partition::{OnFatal, PartitionSettings};
use intake::quarantine::{Quarantine, QuarantineSettings};
use intake::status::StreamsStatus;
use intake::streams::Intake;
use intake::submit::EventSubmitter;
use lake::Lake;
use serving::ServingState;
use serving::admission::Admission;
use serving::http::Origins;
use shared::clock::{Clock, SystemClock};
use shared::handoff::{LogReplay, LogRetention};
use shared::ids::{Partition, StreamName, ViewName};
use shared::published::Views;
use shared::readers::{BatchReader, SpeedReader};
use shared::stream::Stream;
use shared::view::View;
use speed::service::{FoldedStream, FoldedView, Speed};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::adopt_definitions;
use crate::data_dir::Place;
use crate::listen;
use crate::metrics::{self, Figures};
use crate::openapi;
use crate::ownership::{Begins, Ownership};
use crate::settings::Limits;

/// What a server is started with.
#[derive(Debug)]
pub struct WiringSettings {
    /// Definition files, as name and text, in order. They have been parsed once without errors.
    pub definitions: Vec<(PathBuf, String)>,
    /// Where the log, the archive and the views are.
    pub place: Place,
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    pub limits: Limits,
    /// Go on with a lake that belongs to another log?
    pub take_over: bool,
    /// Memory that a batch run may take, in bytes.
    pub batch_memory_bytes: u64,
    /// Start batch runs as the views' schedules say? Otherwise only on request.
    pub schedules: bool,
    /// Pages of other origins that may read answers and send events.
    pub origins: Origins,
}

/// A server that answers.
pub struct Running {
    /// Where it listens.
    pub local_addr: SocketAddr,
    pub streams: Vec<Stream>,
    pub views: Vec<ViewName>,
    layers: Layers,
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    watching: AbortOnDrop,
    fatal: watch::Receiver<Option<String>>,
    /// Held as long as the data folder is in use.
    _lock: File,
}

struct Layers {
    intake: Arc<Intake>,
    quarantine: Arc<Quarantine>,
    archives: Arc<Archives>,
    speed: Arc<Speed>,
    batch: Arc<Batch>,
}

/// Starts all layers; returns once requests are answered.
pub async fn start(settings: WiringSettings) -> anyhow::Result<Running> {
    let texts: Vec<(String, String)> =
        settings.definitions.iter().map(|(file, text)| (file.display().to_string(), text.clone())).collect();
    let mut definitions = match shared::sql::parse_definitions(&texts) {
        Ok(definitions) => definitions,
        Err(mistakes) => bail!("{}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    if !settings.schedules {
        definitions.views.iter_mut().for_each(|view| view.schedule = None);
    }
    let recorder = metrics::record();
    let data = settings.place.local()?;
    let lock = lock(&data)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lake = settings.place.lake(&data, &settings.limits).await?;
    let ownership = Ownership::obtain(lake, &data, settings.take_over, clock.as_ref()).await?;
    let lake = ownership.lake.clone();
    let streams = adopt_definitions::adopt(&lake, &data, &definitions).await?;

    let begins = ownership.begin(&streams, &data).await?;
    let is_succession = ownership.is_succession();

    let (on_fatal, fatal, sender) = fatal_channel();
    let watching = {
        let clock = Arc::clone(&clock);
        tokio::spawn(async move { sender.send_replace(Some(ownership.watch(clock).await)) })
    };
    let intake = {
        let (data, streams, clock) = (data.clone(), streams.clone(), Arc::clone(&clock));
        let partition = partition_settings(&settings.limits, begins);
        tokio::task::spawn_blocking(move || Intake::open(&data, &streams, &partition, &clock, &on_fatal))
            .await
            .context("opening the log failed")?
            .context("the log cannot be opened")?
    };
    let intake = Arc::new(intake);

    let views = Arc::new(Views::default());
    let mut loaded = Vec::new();
    for view in &definitions.views {
        let stream = streams.iter().find(|s| s.name == view.stream).context("a view's stream is declared before it")?;
        let found = batch::load_published(&lake, stream, &Arc::new(view.clone()))
            .await
            .with_context(|| format!("the published versions of view {} cannot be read", view.name))?;
        views.publish(found.active.clone());
        loaded.push(found);
    }

    // Before the first archiver starts: what it has archived it releases, and the log would be trimmed behind it.
    keep_what_speed_replays(&intake, &loaded);
    let archives = Arc::new(start_archivers(&streams, &intake, &lake, &settings.limits)?);
    let speed = Arc::new(start_speed(&streams, &intake, &loaded, &clock).await?);
    for stream in &streams {
        for partition in (0..stream.partitions).map(Partition) {
            let log = intake.stream(&stream.name).context("every stream has a log")?;
            let archiver = archives.stream(&stream.name).and_then(|a| a.sink(partition));
            log.attach(partition, speed.sink(&stream.name, partition).context("every partition has a worker")?);
            log.attach(partition, archiver.context("every partition has an archiver")?);
        }
    }
    intake.start().context("the log's writers cannot be started")?;

    let batch = Arc::new(Batch::start(
        LayerHandles {
            lake: lake.clone(),
            streams: streams.clone(),
            views: Arc::clone(&views),
            speed: Arc::clone(&speed) as Arc<dyn SpeedReader>,
            cutter: Arc::clone(&intake) as _,
            archive: Arc::clone(&archives) as _,
            retention: Arc::clone(&intake) as _,
            log_starts: log_starts(&streams, &intake),
            clock: Arc::clone(&clock),
        },
        loaded,
        batch_settings(&settings, &data, is_succession),
    )?);

    let ready = Arc::new(AtomicBool::new(true));
    let quarantine = {
        let (data, streams, settings) = (data.clone(), streams.clone(), quarantine_settings(&settings.limits));
        tokio::task::spawn_blocking(move || Quarantine::open(&data, streams.iter().map(|s| &s.name), settings))
            .await
            .context("opening the quarantine failed")?
            .context("the quarantine cannot be opened")?
    };
    let quarantine = Arc::new(quarantine);
    let submitter = Arc::new(EventSubmitter::new(&intake, &quarantine, &clock));
    let history = HistoryWatch::start(&lake, streams.iter().map(|stream| stream.name.clone()).collect());
    let status = Arc::new(StreamsStatus {
        history,
        intake: Arc::clone(&intake),
        archives: Arc::clone(&archives),
        submitter: Arc::clone(&submitter),
        quarantine: Arc::clone(&quarantine),
        clock: Arc::clone(&clock),
    });
    let figures = Figures::new(recorder, Arc::clone(&status) as _, Arc::clone(&views), &speed, Arc::clone(&clock));
    let state = ServingState {
        views: Arc::clone(&views),
        speed: Arc::clone(&speed) as Arc<dyn SpeedReader>,
        batch: batch.reader() as Arc<dyn BatchReader>,
        past: Arc::new(batch.past()),
        runs: Arc::clone(&batch) as _,
        streams: status,
        admission: Arc::new(Admission::new(settings.limits.queries())),
        clock,
        ready: Arc::clone(&ready),
        metrics: Arc::new(move || figures.render()),
    };
    let routes = serving::routes(state, intake::http::routes(submitter).merge(openapi::routes()), &settings.origins);
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", settings.listen))?;
    let local_addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let server =
        tokio::spawn(listen::serve(listener, routes, stopped, Duration::from_millis(settings.limits.shutdown_wait_ms)));
    Ok(Running {
        local_addr,
        streams: definitions.streams,
        views: definitions.views.into_iter().map(|v| v.name).collect(),
        layers: Layers { intake, quarantine, archives, speed, batch },
        ready,
        stop,
        server,
        watching: AbortOnDrop(watching),
        fatal,
        _lock: lock,
    })
}

/// Watches over the ownership; ends with the server.
struct AbortOnDrop(JoinHandle<Fatal>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    /// Waits until the server stops by itself, which it does only when a layer failed: then the error says why.
    /// May be dropped and called again.
    pub async fn stopped(&mut self) -> anyhow::Result<()> {
        let reason = match self.fatal.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        };
        bail!("{reason}")
    }

    /// Stops accepting, finishes requests under way, syncs the log.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.ready.store(false, Ordering::SeqCst);
        let _ = self.stop.send(true);
        self.server.await.context("the server ended badly")?;
        let Layers { intake, quarantine, archives, speed, batch } = self.layers;
        batch.stop().await;
        drop(self.watching);
        // Writers, workers and archivers are threads that end when they have done what waits.
        tokio::task::spawn_blocking(move || {
            intake.close();
            quarantine.close();
            speed.stop();
            drop(archives);
        })
        .await
        .context("the layers ended badly")
    }
}

/// Two processes over one log would give the same offsets twice.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be created", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("the data folder {} is in use by another trueup process", data.display()),
    }
}

type Fatal = Option<String>;

fn fatal_channel() -> (OnFatal, watch::Receiver<Fatal>, watch::Sender<Fatal>) {
    let (sender, receiver) = watch::channel(None);
    let of_log = sender.clone();
    let on_fatal: OnFatal = Arc::new(move |reason: &str| {
        of_log.send_replace(Some(format!("the log can no longer be written: {reason}")));
    });
    (on_fatal, receiver, sender)
}

fn partition_settings(limits: &Limits, begins: Begins) -> PartitionSettings {
    PartitionSettings {
        begins: Arc::new(begins),
        log: LogSettings {
            segment_bytes: limits.log_segment_bytes,
            keep_events: limits.dedup_horizon_events,
            ..LogSettings::default()
        },
        lateness: LatenessSettings {
            listed_events: usize::try_from(limits.listed_events_kept).unwrap_or(usize::MAX),
            ..LatenessSettings::default()
        },
        dedup_horizon_events: limits.dedup_horizon_events,
        ..PartitionSettings::default()
    }
}

fn quarantine_settings(limits: &Limits) -> QuarantineSettings {
    QuarantineSettings {
        lines_max: usize::try_from(limits.quarantine_lines_max).unwrap_or(usize::MAX),
        bytes_max: usize::try_from(limits.quarantine_bytes_max).unwrap_or(usize::MAX),
    }
}

fn batch_settings(settings: &WiringSettings, local: &Path, is_succession: bool) -> BatchSettings {
    let WiringSettings { limits, batch_memory_bytes, .. } = settings;
    BatchSettings {
        memory_limit_bytes: *batch_memory_bytes,
        // The ids that a former owner knew are gone with its log: a repeated event may be in the archive from the first on.
        dedup_horizon_events: if is_succession { 0 } else { limits.dedup_horizon_events },
        cache_bytes: usize::try_from(limits.batch_cache_bytes).unwrap_or(usize::MAX),
        vacuum_age: Duration::from_millis(limits.vacuum_age_ms),
        vacuum_every: Duration::from_millis(limits.vacuum_every_ms),
        compaction: CompactionSettings {
            file_rows: limits.compaction_file_rows,
            file_bytes: limits.compaction_file_bytes,
            every: Duration::from_millis(limits.compaction_every_ms),
            vacuum_age: Duration::from_millis(limits.vacuum_age_ms),
            vacuum_every: Duration::from_millis(limits.vacuum_every_ms),
            ..CompactionSettings::default()
        },
        runs_file: Some(local.join("runs.ndjson")),
        retry: RetrySettings {
            first: Duration::from_millis(limits.run_retry_first_ms),
            longest: Duration::from_millis(limits.run_retry_max_ms),
            attempts: limits.run_attempts_max,
        },
        ..BatchSettings::default()
    }
}

fn start_archivers(
    streams: &[Arc<Stream>],
    intake: &Arc<Intake>,
    lake: &Lake,
    limits: &Limits,
) -> anyhow::Result<Archives> {
    let settings = ArchiverSettings {
        file_rows: usize::try_from(limits.archive_file_rows).unwrap_or(usize::MAX),
        wait: Duration::from_millis(limits.archive_wait_ms),
        ..ArchiverSettings::default()
    };
    let mut archivers = Vec::new();
    for stream in streams {
        let log = intake.stream(&stream.name).context("every stream has a log")?;
        log.register_reader(READER);
        let surroundings = ArchiverContext {
            lake: lake.clone(),
            log: Arc::clone(log) as Arc<dyn LogReplay>,
            retention: Arc::clone(intake) as Arc<dyn LogRetention>,
            runtime: tokio::runtime::Handle::current(),
        };
        let archiver = StreamArchiver::start(Arc::clone(stream), surroundings, settings);
        archivers.push(archiver.with_context(|| format!("the archiver of {} cannot be started", stream.name))?);
    }
    Ok(Archives::new(archivers))
}

async fn start_speed(
    streams: &[Arc<Stream>],
    intake: &Intake,
    loaded: &[LoadedView],
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Speed> {
    let mut folded = Vec::new();
    for stream in streams {
        let log = intake.stream(&stream.name).context("every stream has a log")?;
        let mut views = Vec::new();
        for found in loaded.iter().filter(|l| l.active.stream.name == stream.name) {
            let answering = &found.active;
            views.push(FoldedView { view: Arc::clone(&answering.view), seam: answering.seam.clone() });
            if let Some(shadow) = &found.shadow {
                // What is before that will be in its first version.
                views.push(FoldedView { view: Arc::clone(shadow), seam: answering.seam.clone() });
            }
        }
        folded.push(FoldedStream { stream: Arc::clone(stream), log: Arc::clone(log) as Arc<dyn LogReplay>, views });
    }
    Speed::start(folded, Arc::clone(clock)).await.context("the speed layer cannot be started")
}

/// The log must go on holding what the speed layer would replay: everything from the seam of each view on.
fn keep_what_speed_replays(intake: &Intake, loaded: &[LoadedView]) {
    for found in loaded {
        let (stream, view): (&StreamName, &View) = (&found.active.stream.name, &found.active.view);
        let reader = batch::log_reader(&view.name);
        if let Some(log) = intake.stream(stream) {
            log.register_reader(&reader);
        }
        for (partition, point) in found.active.seam.of_log() {
            intake.release(stream, partition, &reader, point.offset);
        }
    }
}

/// The oldest offset of each partition's log.
fn log_starts(streams: &[Arc<Stream>], intake: &Intake) -> Vec<(StreamName, Partition, shared::ids::Offset)> {
    let start = |stream: &Arc<Stream>, partition: Partition| {
        let (start, _) = intake.stream(&stream.name)?.range(partition);
        Some((stream.name.clone(), partition, start))
    };
    let of =
        |stream: &Arc<Stream>| (0..stream.partitions).filter_map(|p| start(stream, Partition(p))).collect::<Vec<_>>();
    streams.iter().flat_map(of).collect()
}
