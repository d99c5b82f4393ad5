//! Starts the sinks of views and streams, with handles to the other layers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use batch::Batch;
use intake::event_pages::StreamPages;
use intake::streams::Intake;
use kafka::{KafkaCluster, SchemaRegistry, TopicCluster};
use shared::changed_rows::ChangedRows;
use shared::control::{NoSinks, Sinks};
use shared::handoff::LogReplay;
use shared::ids::{SinkName, ViewName};
use shared::lookup::table::Lookups;
use shared::published::Views;
use shared::readers::{BatchReader, SpeedReader};
use shared::sink::{SinkFormat, SinkTarget};
use shared::sql::Definitions;
use shared::stream::Stream;
use sinks::erasure::ErasableBook;
use sinks::service::{DeclaredEventSink, DeclaredSink, EventSinkContext, SinkContext, SinkOutlet, SinkSet};
use sinks::view_changes::SinkLayers;
use sinks::webhook::{WebhookCluster, WebhookSource};
use speed::service::Speed;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::alerts::Receivers;
use super::storage::Base;

/// Longest wait for an epoch in progress when the server stops. The next process finds out whether it is in the topic.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// The folder of the books, in that of the log.
pub const FOLDER: &str = "sinks";

/// The declared sinks, before the layers have started.
pub struct DeclaredSinks {
    of_views: Vec<DeclaredSink>,
    of_streams: Vec<DeclaredEventSink>,
}

/// The layers that sinks read.
pub struct ReadLayers<'a> {
    pub intake: &'a Arc<Intake>,
    pub views: &'a Arc<Views>,
    pub speed: &'a Arc<Speed>,
    pub batch: &'a Arc<Batch>,
    pub lookups: &'a Lookups,
}

/// The running sinks.
pub struct RunningSinks {
    sinks: Arc<dyn Sinks>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl DeclaredSinks {
    /// Opens the book of each sink. `streams` are the declared ones, with the columns that stored events have.
    pub fn open(local: &Path, definitions: &Definitions, streams: &[Arc<Stream>]) -> anyhow::Result<DeclaredSinks> {
        let (mut of_views, mut of_streams) = (Vec::new(), Vec::new());
        for sink in &definitions.sinks {
            let view = definitions.views.iter().find(|view| view.name == sink.view);
            let view = view.context("a sink's view is declared before it")?;
            let opened = DeclaredSink::open(&local.join(FOLDER), sink, view);
            of_views.push(opened.with_context(|| format!("cannot open the state of sink {}", sink.name))?);
        }
        for sink in &definitions.event_sinks {
            let stream = streams.iter().find(|stream| stream.name == sink.stream);
            let stream = stream.context("a sink's stream is declared before it")?;
            let opened = DeclaredEventSink::open(&local.join(FOLDER), sink, stream);
            of_streams.push(opened.with_context(|| format!("cannot open the state of sink {}", sink.name))?);
        }
        Ok(DeclaredSinks { of_views, of_streams })
    }

    /// Returns the queues for the changed rows of a view, one per sink.
    pub fn queues_of(&self, view: &ViewName) -> Vec<Arc<ChangedRows>> {
        self.of_views.iter().filter_map(|declared| declared.queue_of(view)).collect()
    }

    /// Returns the books of the sinks of views, for erasures: those of streams have no keys.
    pub fn erasable(&self) -> Vec<ErasableBook> {
        self.of_views.iter().map(DeclaredSink::erasable).collect()
    }

    /// Starts the sinks.
    pub fn start(
        self,
        base: &Base,
        layers: &ReadLayers<'_>,
        receivers: &Receivers<'_>,
    ) -> anyhow::Result<RunningSinks> {
        let (stop, stopped) = watch::channel(false);
        let DeclaredSinks { of_views, of_streams } = self;
        if of_views.is_empty() && of_streams.is_empty() {
            return Ok(RunningSinks { sinks: Arc::new(NoSinks), stop, tasks: Vec::new() });
        }
        let mut views_with_context = Vec::new();
        for declared in of_views {
            let sink = declared.sink();
            let published = layers.views.get(sink.view.as_str()).context("the view of a sink is published")?;
            let log = layers.intake.stream(&published.stream.name).context("every stream has a log")?;
            let source = WebhookSource::View(sink.view.clone());
            let outlet = Self::outlet((&sink.name, &sink.target), source, base, receivers)?;
            let context = SinkContext {
                layers: SinkLayers {
                    views: Arc::clone(layers.views),
                    speed: Arc::clone(layers.speed) as Arc<dyn SpeedReader>,
                    batch: layers.batch.reader() as Arc<dyn BatchReader>,
                    past: Arc::new(layers.batch.past()),
                    clock: Arc::clone(&base.clock),
                },
                log: Arc::clone(log) as Arc<dyn LogReplay>,
                partitions: published.stream.partitions,
                outlet,
            };
            views_with_context.push((declared, context));
        }
        let mut streams_with_context = Vec::new();
        for declared in of_streams {
            let sink = declared.sink();
            let log = layers.intake.stream(&sink.stream).context("every stream has a log")?;
            let source = WebhookSource::Stream(sink.stream.clone());
            let context = EventSinkContext {
                log: Arc::clone(log) as Arc<dyn LogReplay>,
                pages: Arc::new(StreamPages::new(Arc::clone(log), base.lake.clone())),
                lookups: layers.lookups.clone(),
                outlet: Self::outlet((&sink.name, &sink.target), source, base, receivers)?,
            };
            streams_with_context.push((declared, context));
        }
        let (sinks, tasks) = SinkSet::start(views_with_context, streams_with_context)?;
        let tasks = tasks.into_iter().map(|task| base.vitals.spawn_task("sink", task.run(stopped.clone())));
        Ok(RunningSinks { sinks: Arc::new(sinks), stop, tasks: tasks.collect() })
    }

    /// Returns what a sink writes to.
    fn outlet(
        (name, target): (&SinkName, &SinkTarget),
        source: WebhookSource,
        base: &Base,
        receivers: &Receivers<'_>,
    ) -> anyhow::Result<SinkOutlet> {
        const KNOWN: &str = "the settings have the connection of each sink";
        let clock = Arc::clone(&base.clock);
        let topic = match target {
            SinkTarget::Topic(topic) => topic,
            SinkTarget::Webhook(_) => {
                let webhook = receivers.webhooks.get(&target.to_string()).context(KNOWN)?.clone();
                let marker = base.local.join(FOLDER).join(format!("{name}.webhook"));
                let cluster = WebhookCluster::new((name.clone(), source), webhook, marker, Arc::clone(&clock))?;
                return Ok(SinkOutlet { cluster: Arc::new(cluster), registry: None, clock });
            }
        };
        let settings = receivers.topics.clusters.get(&topic.connection).context(KNOWN)?;
        let registry = settings.schema_registry.clone().filter(|_| topic.format == SinkFormat::Avro);
        let registry = registry.map(SchemaRegistry::new).transpose().map_err(anyhow::Error::msg)?;
        let cluster = Arc::new(KafkaCluster::new(settings.clone(), format!("trueup-sink-{name}")));
        Ok(SinkOutlet { cluster: cluster as Arc<dyn TopicCluster>, registry, clock })
    }
}

impl RunningSinks {
    /// Returns the sinks, to list and to control.
    pub fn sinks(&self) -> Arc<dyn Sinks> {
        Arc::clone(&self.sinks)
    }

    /// Stops the sinks. The next process writes the rest.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for mut task in self.tasks {
            if tokio::time::timeout(STOP_WAIT, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}
