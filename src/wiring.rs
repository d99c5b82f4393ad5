//! Joins intake, speed, batch and serving into one server. No other module knows all four layers.
//!
//! The order of a start matters: the logs are recovered first, then archivers and speed workers catch up with them, then
//! the log accepts events, and at last the server listens.

mod alerts;
mod erasure;
mod layers;
mod log_age;
mod lookups;
mod settings;
mod sinks;
mod storage;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::alerts::book::Book;
use anyhow::{Context, bail};
use axum::Router;
use intake::entities::EntityLog;
use intake::history::HistoryWatch;
use intake::sources::{SourceContext, SourceReaders, SourceStatuses};
use intake::status::StreamsStatus;
use intake::submit::EventSubmitter;
use intake::tables::TableRows;
use metrics_exporter_prometheus::PrometheusHandle;
use serving::ServingState;
use serving::admission::Admission;
use shared::clock::{Clock, SystemClock};
use shared::control::Sinks;
use shared::handoff::LogReplay;
use shared::ids::{StreamName, ViewName};
use shared::limits;
use shared::partial::index_cache::PartIndexes;
use shared::published::Views;
use shared::readers::{BatchReader, SpeedReader};
use shared::stream::Stream;
use shared::vital::Vitals;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::{AuditLog, ClientStreams};
use crate::listen;
use crate::metrics::{self, MetricsRenderer};
use crate::openapi;

pub use self::alerts::FOLDER as ALERTS_FOLDER;
use self::alerts::{DeclaredAlerts, Receivers, RunningAlerts};
use self::erasure::{Deletion, Eraser};
use self::layers::Layers;
pub use self::settings::WiringSettings;
pub use self::sinks::FOLDER as SINKS_FOLDER;
use self::sinks::{DeclaredSinks, ReadLayers, RunningSinks};
use self::storage::{Base, Storage};

/// Longest wait for the last entries of the audit log.
const AUDIT_WAIT: Duration = Duration::from_secs(5);

/// A server that answers requests.
pub struct RunningServer {
    /// The address that it listens on.
    pub local_addr: SocketAddr,
    pub streams: Vec<Stream>,
    pub views: Vec<ViewName>,
    layers: Layers,
    alerts: RunningAlerts,
    sinks: RunningSinks,
    sources: SourceReaders,
    /// Whether `/readyz` reports the server as ready.
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    ownership_watch: AbortOnDrop,
    /// Every step of an erasure can stop anywhere: the next start continues.
    erasing: Vec<AbortOnDrop>,
    audit: Option<(Arc<AuditLog>, JoinHandle<()>)>,
    vitals: Vitals,
    /// Longest wait for the layers to stop after a failure.
    shutdown_wait: Duration,
    /// Locks the data folder as long as it is held.
    _lock: File,
}

/// Starts all layers. Returns once the server answers requests.
pub async fn start(mut settings: WiringSettings) -> anyhow::Result<RunningServer> {
    let definitions = settings.parse_definitions()?;
    let recorder = metrics::install_recorder();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Storage { base, ownership, log_starts, lock } = Storage::open(&settings, &definitions, clock).await?;
    let batch_settings = settings.batch(&base.local, ownership.is_succession());

    let deletion = Deletion { age: batch_settings.vacuum_age, every: batch_settings.vacuum_every };
    let vitals = base.vitals.clone();
    let ownership_watch = {
        let (clock, vitals) = (Arc::clone(&base.clock), base.vitals.clone());
        AbortOnDrop(base.vitals.spawn_task("ownership", async move {
            let reason = ownership.watch(clock).await;
            vitals.fail("ownership", reason);
        }))
    };
    let intake = layers::open_log(&base, settings.partition(log_starts)).await?;
    log_age::refuse_log_older_than_lake(&base, &intake).await?;
    let (views, loaded) = layers::load_views(&base, &definitions.views).await?;
    let restored = intake::entities::restore::restore(&intake, &base.lake).await;
    restored.context("cannot read the sequences of entities from the archive")?;
    let restored = intake::tables::restore::restore(&intake, &base.lake).await;
    restored.context("cannot read the rows of tables from the archive")?;
    let lookup_bytes = usize::try_from(settings.limits.lookup_bytes_max).unwrap_or(usize::MAX);
    let lookups = lookups::prepare(&base, &intake, (&loaded, &definitions.event_sinks), lookup_bytes).await?;
    let declared = DeclaredAlerts::open(&base.local, &definitions)?;
    let declared_sinks = DeclaredSinks::open(&base.local, &definitions, &base.streams)?;
    let changed =
        |view: &ViewName| declared.changed_of(view).into_iter().chain(declared_sinks.queues_of(view)).collect();
    let (archives, speed) =
        layers::start_event_flow(&base, &intake, (&loaded, &changed, &lookups), settings.archiver()).await?;
    let batch =
        layers::start_batch((&base, &lookups), &intake, &archives, &speed, &views, loaded, batch_settings).await?;
    let receivers = Receivers { webhooks: &settings.webhooks, topics: &settings.topics };
    let alerts = declared.start(&base, &views, &speed, &batch, &receivers)?;
    let read = ReadLayers { intake: &intake, views: &views, speed: &speed, batch: &batch, lookups: &lookups };
    let books = declared_sinks.erasable();
    let sinks = declared_sinks.start(&base, &read, &receivers)?;
    let quarantine = layers::open_quarantine(&base, settings.quarantine()).await?;
    let layers = Layers { intake, quarantine, archives, speed, batch, lookups };
    let eraser = Eraser::new(&layers, (alerts.book(), books, &views), &base.clock, deletion);
    let erasing = eraser.start(&vitals).into_iter().map(AbortOnDrop).collect();

    let ready = Arc::new(AtomicBool::new(true));
    let submitter = Arc::new(EventSubmitter::new(&layers.intake, &layers.quarantine, &base.clock));
    let sources = start_sources(&base, &layers, &submitter, &settings);
    let audit = AuditLog::start(submitter.as_ref());
    settings.perimeter.trail.audit = audit.as_ref().map(|(log, _)| Arc::clone(log) as _);
    let running = (&layers, &alerts, sinks.sinks(), eraser, sources.statuses());
    let routes = routes(&base, running, views, recorder, Arc::clone(&ready), submitter, &settings);
    let listener =
        TcpListener::bind(settings.listen).await.with_context(|| format!("cannot listen on {}", settings.listen))?;
    let local_addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let shutdown_wait = Duration::from_millis(settings.limits.shutdown_wait_ms);
    let listening = listen::ListenSettings::new(shutdown_wait, settings.tls);
    let server = vitals.spawn_task("listener", listen::serve(listener, routes, stopped, listening));
    Ok(RunningServer {
        local_addr,
        streams: definitions.streams,
        views: definitions.views.into_iter().map(|v| v.name).collect(),
        layers,
        alerts,
        sinks,
        sources,
        ready,
        stop,
        server,
        ownership_watch,
        erasing,
        audit,
        vitals,
        shutdown_wait,
        _lock: lock,
    })
}

/// Starts the readers of topics and outboxes.
fn start_sources(
    base: &Base,
    layers: &Layers,
    submitter: &Arc<EventSubmitter>,
    settings: &WiringSettings,
) -> SourceReaders {
    let context = SourceContext {
        intake: Arc::clone(&layers.intake),
        submitter: Arc::clone(submitter),
        lake: base.lake.clone(),
        opener: Arc::new(settings.topics.clone()),
        clock: Arc::clone(&base.clock),
    };
    SourceReaders::start(&context, &base.vitals)
}

/// Builds the routes of all endpoints and pages.
fn routes(
    base: &Base,
    (layers, alerts, sinks, eraser, sources): (&Layers, &RunningAlerts, Arc<dyn Sinks>, Eraser, SourceStatuses),
    views: Arc<Views>,
    recorder: PrometheusHandle,
    ready: Arc<AtomicBool>,
    submitter: Arc<EventSubmitter>,
    settings: &WiringSettings,
) -> Router {
    let Layers { intake, quarantine, archives, speed, batch, lookups } = layers;
    let clock = &base.clock;
    let streams = base.streams.iter().map(|stream| stream.name.clone()).collect();
    let status = Arc::new(StreamsStatus {
        history: HistoryWatch::start(&base.lake, streams, &base.vitals),
        intake: Arc::clone(intake),
        archives: Arc::clone(archives),
        submitter: Arc::clone(&submitter),
        quarantine: Arc::clone(quarantine),
        clock: Arc::clone(clock),
        sources,
    });
    let streams = Arc::clone(&status) as _;
    let metrics = MetricsRenderer::new(recorder, streams, Arc::clone(&views), speed, Arc::clone(clock), &base.vitals)
        .with_sinks(Arc::clone(&sinks))
        .with_lookups(lookups.clone());
    let state = ServingState {
        views,
        speed: Arc::clone(speed) as Arc<dyn SpeedReader>,
        batch: batch.reader() as Arc<dyn BatchReader>,
        past: Arc::new(batch.past()),
        runs: Arc::clone(batch) as _,
        streams: status,
        entities: Arc::new(EntityLog::new(Arc::clone(intake), Arc::clone(archives), base.lake.clone())),
        tables: Arc::new(TableRows::new(Arc::clone(intake), base.lake.clone())),
        alerts: alerts.alerts(),
        sinks,
        erasures: Arc::new(eraser),
        indexes: Arc::new(PartIndexes::new(limits::ENTITY_INDEX_BYTES)),
        admission: Arc::new(Admission::new(settings.limits.queries())),
        clock: Arc::clone(clock),
        ready,
        vitals: base.vitals.clone(),
        metrics: Arc::new(move || metrics.render()),
    };
    let streams = Arc::new(ClientStreams(submitter));
    serving::routes(state, intake::http::routes(streams).merge(openapi::routes()), &settings.perimeter)
}

/// A task that is aborted when this is dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl RunningServer {
    /// Waits until a layer fails, and returns the failure as the error. Cancel safe.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        bail!("{}", self.vitals.failed().await)
    }

    /// Returns the log of a stream.
    pub fn log(&self, stream: &StreamName) -> Option<Arc<dyn LogReplay>> {
        self.layers.intake.stream(stream).map(|log| Arc::clone(log) as Arc<dyn LogReplay>)
    }

    /// Returns the book of raised alerts; `None`: no alert is declared or was.
    pub fn alert_book(&self) -> Option<Arc<Book>> {
        self.alerts.book()
    }

    /// Becomes `true` when the server should be started again: a topic has more partitions than its stream.
    pub fn grown(&self) -> watch::Receiver<bool> {
        self.sources.grown()
    }

    /// Stops accepting connections, finishes requests in progress and syncs the log. After a failure, `/readyz` still
    /// reports the reason for a moment, and no layer is waited for without end.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        let is_failed = self.vitals.failure().is_some();
        if is_failed {
            tokio::time::sleep(Duration::from_millis(limits::FAILURE_SHOWN_MS)).await;
        }
        self.ready.store(false, Ordering::SeqCst);
        let _ = self.stop.send(true);
        self.server.await.context("server task failed")?;
        if let Some((log, task)) = self.audit {
            log.stop();
            if tokio::time::timeout(AUDIT_WAIT, task).await.is_err() {
                tracing::warn!("the last entries of the audit log were not written");
            }
        }
        drop(self.erasing);
        let (layers, alerts, sinks, sources) = (self.layers, self.alerts, self.sinks, self.sources);
        let stopping = async {
            sources.stop().await;
            alerts.stop().await;
            sinks.stop().await;
            layers.stop().await
        };
        let stopped = if is_failed {
            // A layer that failed may keep others from stopping; what they have not written is in the log.
            tokio::time::timeout(self.shutdown_wait, stopping).await.context("the layers did not stop").flatten()
        } else {
            stopping.await
        };
        drop(self.ownership_watch);
        stopped
    }
}
