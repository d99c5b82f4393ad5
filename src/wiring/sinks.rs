//! Starts the sinks, with handles to the other layers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use batch::Batch;
use intake::streams::Intake;
use kafka::{KafkaCluster, SchemaRegistry, TopicCluster};
use shared::changed_rows::ChangedRows;
use shared::control::{NoSinks, Sinks};
use shared::handoff::LogReplay;
use shared::ids::ViewName;
use shared::published::Views;
use shared::readers::{BatchReader, SpeedReader};
use shared::sink::{Sink, SinkFormat, SinkTarget};
use shared::sql::Definitions;
use sinks::erasure::ErasableBook;
use sinks::service::{DeclaredSink, SinkContext, SinkSet};
use sinks::view_changes::SinkLayers;
use sinks::webhook::WebhookCluster;
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
pub struct DeclaredSinks(Vec<DeclaredSink>);

/// The layers that sinks read.
pub struct ReadLayers<'a> {
    pub intake: &'a Arc<Intake>,
    pub views: &'a Arc<Views>,
    pub speed: &'a Arc<Speed>,
    pub batch: &'a Arc<Batch>,
}

/// The running sinks.
pub struct RunningSinks {
    sinks: Arc<dyn Sinks>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl DeclaredSinks {
    /// Opens the book of each sink.
    pub fn open(local: &Path, definitions: &Definitions) -> anyhow::Result<DeclaredSinks> {
        let mut declared = Vec::new();
        for sink in &definitions.sinks {
            let view = definitions.views.iter().find(|view| view.name == sink.view);
            let view = view.context("a sink's view is declared before it")?;
            let opened = DeclaredSink::open(&local.join(FOLDER), sink, view);
            declared.push(opened.with_context(|| format!("cannot open the state of sink {}", sink.name))?);
        }
        Ok(DeclaredSinks(declared))
    }

    /// Returns the queues for the changed rows of a view, one per sink.
    pub fn queues_of(&self, view: &ViewName) -> Vec<Arc<ChangedRows>> {
        self.0.iter().filter_map(|declared| declared.queue_of(view)).collect()
    }

    /// Returns the books of the sinks, for erasures.
    pub fn erasable(&self) -> Vec<ErasableBook> {
        self.0.iter().map(DeclaredSink::erasable).collect()
    }

    /// Starts the sinks.
    pub fn start(
        self,
        base: &Base,
        layers: &ReadLayers<'_>,
        receivers: &Receivers<'_>,
    ) -> anyhow::Result<RunningSinks> {
        let (stop, stopped) = watch::channel(false);
        if self.0.is_empty() {
            return Ok(RunningSinks { sinks: Arc::new(NoSinks), stop, tasks: Vec::new() });
        }
        let mut with_context = Vec::new();
        for declared in self.0 {
            let sink = declared.sink();
            let published = layers.views.get(sink.view.as_str()).context("the view of a sink is published")?;
            let log = layers.intake.stream(&published.stream.name).context("every stream has a log")?;
            let (cluster, registry) = Self::target(sink, base, receivers)?;
            let context = SinkContext {
                layers: SinkLayers {
                    views: Arc::clone(layers.views),
                    speed: Arc::clone(layers.speed) as Arc<dyn SpeedReader>,
                    batch: layers.batch.reader() as Arc<dyn BatchReader>,
                    past: Arc::new(layers.batch.past()),
                },
                log: Arc::clone(log) as Arc<dyn LogReplay>,
                partitions: published.stream.partitions,
                cluster,
                registry,
                clock: Arc::clone(&base.clock),
            };
            with_context.push((declared, context));
        }
        let (sinks, tasks) = SinkSet::start(with_context);
        let tasks = tasks.into_iter().map(|task| base.vitals.spawn_task("sink", task.run(stopped.clone())));
        Ok(RunningSinks { sinks: Arc::new(sinks), stop, tasks: tasks.collect() })
    }

    /// Returns what a sink writes to, and the registry of a sink that writes Avro.
    fn target(
        sink: &Arc<Sink>,
        base: &Base,
        receivers: &Receivers<'_>,
    ) -> anyhow::Result<(Arc<dyn TopicCluster>, Option<SchemaRegistry>)> {
        const KNOWN: &str = "the settings have the connection of each sink";
        let topic = match &sink.target {
            SinkTarget::Topic(topic) => topic,
            SinkTarget::Webhook(_) => {
                let webhook = receivers.webhooks.get(&sink.target.to_string()).context(KNOWN)?.clone();
                let marker = base.local.join(FOLDER).join(format!("{}.webhook", sink.name));
                let cluster = WebhookCluster::new(Arc::clone(sink), webhook, marker, Arc::clone(&base.clock))?;
                return Ok((Arc::new(cluster), None));
            }
        };
        let settings = receivers.topics.clusters.get(&topic.connection).context(KNOWN)?;
        let registry = settings.schema_registry.clone().filter(|_| topic.format == SinkFormat::Avro);
        let registry = registry.map(SchemaRegistry::new).transpose().map_err(anyhow::Error::msg)?;
        let cluster = KafkaCluster::new(settings.clone(), format!("trueup-sink-{}", sink.name));
        Ok((Arc::new(cluster), registry))
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
