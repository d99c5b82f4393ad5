//! Checks the alerts of the server under test after each batch run: reads from the log which events it accepted, folds them
//! independently ([`super::alert_fold`]), and compares the records ([`super::alert_agreement`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alerts::book::Book;
use anyhow::Context;
use shared::alert::Alert;
use shared::control::{AlertFilter, AlertRecord, AlertState, Alerts};
use shared::handoff::LogReplay;
use shared::ids::{AlertName, Offset, Partition, ViewName};
use shared::limits::ALERTS_KEPT;
use shared::sql::Definitions;
use shared::stream::Stream;
use tokio::time::{Instant, sleep, timeout_at};

use super::alert_agreement::{AlertAgreement, Records, Seen, to_be_raised};
use super::alert_fold::{AlertFold, KeyTruth, why_not};

/// Longest wait for an alert that is to be raised or judged. Beyond it the alert differs.
const WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Alerts over streams with several partitions are not folded.
const PARTITION: Partition = Partition(0);

/// The alerts over the views of one stream.
pub struct AlertCheck {
    book: Option<Arc<Book>>,
    log: Arc<dyn LogReplay>,
    /// The events before are folded.
    folded_to: Offset,
    folds: Vec<AlertFold>,
    alerts: BTreeMap<AlertName, CheckedAlert>,
}

struct CheckedAlert {
    view: ViewName,
    agreement: AlertAgreement,
    /// Its records after the last run.
    records: Records,
}

impl AlertCheck {
    /// Checks the alerts that `definitions` declare over views of `stream`. `book`: of the server; `log`: of the stream.
    pub fn new(
        definitions: &Definitions,
        stream: &Stream,
        (book, log): (Option<Arc<Book>>, Arc<dyn LogReplay>),
    ) -> AlertCheck {
        let stream = Arc::new(stream.clone());
        let (mut alerts, mut folds) = (BTreeMap::new(), Vec::new());
        for view in definitions.views.iter().filter(|view| view.stream == stream.name) {
            let mut folded: Vec<Alert> = Vec::new();
            for alert in definitions.alerts.iter().filter(|alert| alert.view == view.name) {
                let not_folded = why_not(&stream, view, alert);
                if not_folded.is_none() {
                    folded.push(alert.clone());
                }
                let agreement = AlertAgreement::new(not_folded);
                let checked = CheckedAlert { view: view.name.clone(), agreement, records: Records::new() };
                alerts.insert(alert.name.clone(), checked);
            }
            if !folded.is_empty() {
                folds.push(AlertFold::new(Arc::clone(&stream), view.clone(), folded));
            }
        }
        AlertCheck { book, log, folded_to: Offset(0), folds, alerts }
    }

    /// Folds the events that were accepted since the last call, then waits until the alerts that are to be raised live are,
    /// so that the coming run finds them.
    pub async fn before_runs(&mut self) -> anyhow::Result<()> {
        let Some(book) = self.book.clone().filter(|_| !self.folds.is_empty()) else { return Ok(()) };
        let (log, from, mut folds) = (Arc::clone(&self.log), self.folded_to, std::mem::take(&mut self.folds));
        let folding = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let to = log.range(PARTITION).1;
            let mut outcome = Ok(());
            log.replay(PARTITION, from, to, &mut |batch| {
                for fold in &mut folds {
                    if outcome.is_ok() {
                        outcome = fold.push(&batch);
                    }
                }
            })?;
            outcome.map(|()| (folds, to))
        });
        (self.folds, self.folded_to) = folding.await?.context("cannot fold the events for the alerts")?;
        let deadline = Instant::now() + WAIT;
        for (alert, truths) in self.folds.iter().flat_map(AlertFold::truths) {
            let before = &self.alerts[&alert.name].records;
            let expected: Vec<&String> = to_be_raised(before, &truths).collect();
            let mut changes = book.changes();
            loop {
                changes.borrow_and_update();
                let records = seen(&records(&book, &alert.name));
                let is_raised = |key: &&String| records.get(*key).is_some_and(|seen| seen.state == AlertState::Raised);
                // A missing one is found when the run has judged the alert.
                if expected.iter().all(is_raised) || timeout_at(deadline, changes.changed()).await.is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Waits until the alerts are judged by the `versions` of their views, and compares their records with the fold.
    pub async fn after_runs(&mut self, versions: &BTreeMap<ViewName, i64>) {
        let Some(book) = self.book.clone() else { return };
        let truths: BTreeMap<AlertName, BTreeMap<String, KeyTruth>> =
            self.folds.iter().flat_map(AlertFold::truths).map(|(alert, truths)| (alert.name.clone(), truths)).collect();
        let deadline = Instant::now() + WAIT;
        for (name, checked) in &mut self.alerts {
            let Some(version) = versions.get(&checked.view) else { continue };
            let is_judged = || book.known(name).and_then(|known| known.judged).is_some_and(|judged| judged >= *version);
            while !is_judged() && Instant::now() < deadline {
                sleep(LOOK_EVERY).await;
            }
            if !is_judged() {
                checked.agreement.differ(&format!("version {version} has not judged it after {} s", WAIT.as_secs()));
            }
            let records = records(&book, name);
            if records.len() >= ALERTS_KEPT {
                checked.agreement.not_folded =
                    Some(format!("more than {ALERTS_KEPT} records, of which the oldest are forgotten"));
            }
            let causes: BTreeMap<String, &str> =
                records.iter().map(|record| (key(record), record.cause.as_deref().unwrap_or("no cause"))).collect();
            let cause = |key: &str| causes.get(key).copied().unwrap_or("no cause").to_owned();
            let after = seen(&records);
            if after.len() < records.len() {
                checked.agreement.differ(&format!("{} records of {} keys", records.len(), after.len()));
            }
            let truths = truths.get(name).filter(|_| checked.agreement.not_folded.is_none());
            checked.agreement.add((&checked.records, &after), truths, &cause);
            checked.records = after;
        }
        self.folds.iter_mut().for_each(AlertFold::cut);
    }

    /// Returns the outcome of every alert.
    pub fn into_agreements(self) -> BTreeMap<AlertName, AlertAgreement> {
        self.alerts.into_iter().map(|(name, checked)| (name, checked.agreement)).collect()
    }
}

/// Returns all records of an alert, oldest change first.
fn records(book: &Book, alert: &AlertName) -> Vec<AlertRecord> {
    let filter = AlertFilter { alert: Some(alert.to_string()), state: None };
    let (mut records, _) = book.list(&filter, &|_| true, usize::MAX);
    records.reverse();
    records
}

fn seen(records: &[AlertRecord]) -> Records {
    let seen = |record: &AlertRecord| (key(record), Seen { state: record.state, times: record.times });
    records.iter().map(seen).collect()
}

fn key(record: &AlertRecord) -> String {
    serde_json::Value::from(record.key.clone()).to_string()
}
