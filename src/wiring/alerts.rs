//! Starts the evaluation of alerts, with handles to the other layers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alerts::book::Book;
use alerts::delivery::{Delivery, Webhook, targets};
use alerts::evaluator::{Evaluator, LayerHandles, rules};
use alerts::rule::ViewRules;
use anyhow::Context;
use batch::Batch;
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
        webhooks: &BTreeMap<String, Webhook>,
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
        let deliveries = targets(webhooks, declared, &book).into_iter().map(|(target, webhook)| {
            let (book, clock) = (Arc::clone(&book), Arc::clone(&base.clock));
            let delivery = Delivery { target, webhook, book, clock };
            base.vitals.spawn_task("alert delivery", delivery.run(stopped.clone()))
        });
        let mut tasks: Vec<JoinHandle<()>> = deliveries.collect();
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
