//! Starts the evaluation of alerts, with handles to the other layers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alerts::book::Book;
use alerts::delivery::{Delivery, Receiver};
use alerts::evaluator::{Evaluator, LayerHandles, rules};
use alerts::notice_topic::{NoticeTopic, writer_id};
use alerts::rule::ViewRules;
use alerts::webhook::Webhook;
use anyhow::Context;
use batch::Batch;
use intake::sources::Connections;
use kafka::KafkaCluster;
use shared::alert::AlertTarget;
use shared::changed_rows::ChangedRows;
use shared::control::{Alerts, NoAlerts};
use shared::ids::ViewName;
use shared::limits::ALERT_QUEUE_BYTES_MAX;
use shared::published::Views;
use shared::readers::{BatchReader, SpeedReader};
use shared::sql::Definitions;
use shared::view::View;
use speed::service::Speed;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::storage::Base;

/// Longest wait for an evaluation in progress when the server stops.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// The folder of the book, in that of the log.
pub const FOLDER: &str = "alerts";

/// The declared alerts, before the layers have started.
pub struct DeclaredAlerts {
    rules: BTreeMap<ViewName, Arc<ViewRules>>,
    book: Option<Arc<Book>>,
    changed: Arc<ChangedRows>,
    views: Vec<View>,
    /// The folder of the book.
    folder: PathBuf,
}

/// The connections of the settings that can receive notices and rows.
pub struct Receivers<'a> {
    /// By target.
    pub webhooks: &'a BTreeMap<String, Webhook>,
    pub topics: &'a Connections,
}

impl Receivers<'_> {
    /// Returns the receiver of a target, if the settings have its connection. `folder` is that of the book.
    fn of(&self, target: &str, folder: &Path) -> std::io::Result<Option<Receiver>> {
        match target.parse() {
            Ok(AlertTarget::Webhook(_)) => Ok(self.webhooks.get(target).cloned().map(Receiver::Webhook)),
            Ok(AlertTarget::Topic { connection, topic }) => {
                let Some(settings) = self.topics.clusters.get(&connection) else { return Ok(None) };
                // One for each target, because each has a writer of its own.
                let transactional_id = format!("trueup-alerts-{}-{connection}-{topic}", writer_id(folder)?);
                let cluster = Arc::new(KafkaCluster::new(settings.clone(), "trueup-alerts"));
                Ok(Some(Receiver::Topic(NoticeTopic { cluster, topic, transactional_id })))
            }
            Err(_) => Ok(None),
        }
    }
}

/// The running evaluation.
pub struct RunningAlerts {
    alerts: Arc<dyn Alerts>,
    /// `None`: no alert is declared, or was.
    book: Option<Arc<Book>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl DeclaredAlerts {
    /// Opens the book, if an alert is declared or was.
    pub fn open(local: &Path, definitions: &Definitions) -> anyhow::Result<DeclaredAlerts> {
        let folder = local.join(FOLDER);
        let is_in_use = !definitions.alerts.is_empty() || folder.exists();
        let book = is_in_use.then(|| Book::open(&folder)).transpose().context("cannot open the book of alerts")?;
        Ok(DeclaredAlerts {
            rules: rules(&definitions.alerts, &definitions.views),
            book: book.map(Arc::new),
            changed: Arc::new(ChangedRows::new(ALERT_QUEUE_BYTES_MAX)),
            views: definitions.views.clone(),
            folder,
        })
    }

    /// Returns the queue for the changed rows of a view; `None`: it has no alerts.
    pub fn changed_of(&self, view: &ViewName) -> Option<Arc<ChangedRows>> {
        self.rules.contains_key(view).then(|| Arc::clone(&self.changed))
    }

    /// Starts the evaluation.
    pub fn start(
        self,
        base: &Base,
        views: &Arc<Views>,
        speed: &Arc<Speed>,
        batch: &Arc<Batch>,
        receivers: &Receivers<'_>,
    ) -> anyhow::Result<RunningAlerts> {
        let (stop, stopped) = watch::channel(false);
        let Some(book) = self.book else {
            return Ok(RunningAlerts { alerts: Arc::new(NoAlerts::default()), book: None, stop, tasks: Vec::new() });
        };
        let layers = LayerHandles {
            views: Arc::clone(views),
            speed: Arc::clone(speed) as Arc<dyn SpeedReader>,
            batch: batch.reader() as Arc<dyn BatchReader>,
            past: Arc::new(batch.past()),
            runs: Arc::clone(batch) as _,
            clock: Arc::clone(&base.clock),
        };
        let (alerts, kept) = (Arc::clone(&book) as Arc<dyn Alerts>, Some(Arc::clone(&book)));
        let declared = self.rules.values().flat_map(|rules| rules.declared());
        let declared = declared.filter_map(|rule| rule.alert.target.as_ref().map(ToString::to_string));
        // Includes targets that no alert declares any more, but that still have notices.
        let all: BTreeSet<String> = declared.chain(book.targets()).collect();
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        for target in all {
            let receiver = receivers.of(&target, &self.folder).context("cannot prepare the receivers of alerts")?;
            let (book, clock) = (Arc::clone(&book), Arc::clone(&base.clock));
            let delivery = Delivery { target, receiver, book, clock };
            tasks.push(base.vitals.spawn_task("alert delivery", delivery.run(stopped.clone())));
        }
        let evaluator = Evaluator::new(layers, book, self.rules, &self.views, self.changed);
        let evaluator = evaluator.context("cannot write the book of alerts")?;
        tasks.push(base.vitals.spawn_task("alerts", evaluator.run(stopped)));
        Ok(RunningAlerts { alerts, book: kept, stop, tasks })
    }
}

impl RunningAlerts {
    /// Returns the raised alerts.
    pub fn alerts(&self) -> Arc<dyn Alerts> {
        Arc::clone(&self.alerts)
    }

    /// Returns the book, if there is one.
    pub fn book(&self) -> Option<Arc<Book>> {
        self.book.clone()
    }

    /// Stops the evaluation. The next process evaluates the rest.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for mut task in self.tasks {
            if tokio::time::timeout(STOP_WAIT, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}
