//! Runs the task that evaluates alerts: waits for changed rows and published versions, and never polls.
//!
//! Granularity: a row is evaluated after a fold that changed it, with everything folded until then. Rows that change again
//! while they wait are evaluated once, with their later figure. A condition that stays true once it is true is therefore
//! raised for exactly the keys that satisfy it after some event of the log; one that is true only between two events of one
//! fold may be missed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use shared::alert::Alert;
use shared::changed_rows::{ChangedRow, ChangedRows, ChangedView, Changes};
use shared::clock::Clock;
use shared::control::{AlertRecord, AlertState, Runs};
use shared::ids::{Offset, Partition, ViewName};
use shared::limits::ALERT_ROWS_AT_ONCE;
use shared::published::{PublishedView, Views};
use shared::readers::{BatchReader, PastReader, SpeedError, SpeedReader};
use shared::view::View;
use tokio::sync::watch;

use crate::affected::{AffectedRows, rows_of};
use crate::book::{Adopted, Book, Entry};
use crate::condition::{ConditionTable, Match};
use crate::fetch::{Fetch, FetchError, RowReader};
use crate::finished::FinishError;
use crate::rule::{Rule, ViewRules};

/// Attempts before a moving seam is given up on until the next change.
const TRIES: usize = 4;

/// Handles to the other layers.
#[derive(Clone)]
pub struct LayerHandles {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
    pub runs: Arc<dyn Runs>,
    pub clock: Arc<dyn Clock>,
}

/// Evaluates the alerts of all views.
pub struct Evaluator {
    pub(crate) layers: LayerHandles,
    pub(crate) reader: Arc<RowReader>,
    pub(crate) book: Arc<Book>,
    rules: BTreeMap<ViewName, Arc<ViewRules>>,
    changed: Arc<ChangedRows>,
}

/// The reason why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Condition(#[from] FinishError),
    #[error("cannot write the book of alerts: {0}")]
    Book(#[from] io::Error),
    #[error("the evaluation ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Rows that satisfy the condition of a rule, and the log position they include.
pub(crate) type RuleMatches = (Rule, Vec<Match>, BTreeMap<Partition, Offset>);

/// Returns the rules of the declared alerts, by view.
pub fn rules(alerts: &[Alert], views: &[View]) -> BTreeMap<ViewName, Arc<ViewRules>> {
    let of_view = |view: &View| {
        let of_view: Vec<Alert> = alerts.iter().filter(|alert| alert.view == view.name).cloned().collect();
        (!of_view.is_empty()).then(|| (view.name.clone(), Arc::new(ViewRules::new(view, of_view))))
    };
    views.iter().filter_map(of_view).collect()
}

impl Evaluator {
    /// Adopts the declared alerts into the book.
    pub fn new(
        layers: LayerHandles,
        book: Arc<Book>,
        rules: BTreeMap<ViewName, Arc<ViewRules>>,
        views: &[View],
        changed: Arc<ChangedRows>,
    ) -> io::Result<Evaluator> {
        let mut adopted = Vec::new();
        for rules in rules.values() {
            let Some(view) = views.iter().find(|view| view.name == rules.view) else { continue };
            let version = layers.views.get(view.name.as_str()).and_then(|p| p.version.as_ref().map(|v| v.version));
            adopted.extend(rules.declared().iter().map(|rule| Adopted {
                declaration: rule.declaration(view),
                definition: rule.hash.to_string(),
                version,
            }));
        }
        book.adopt(&adopted)?;
        let reader = Arc::new(RowReader::new(Arc::clone(&layers.speed), Arc::clone(&layers.batch)));
        Ok(Evaluator { layers, reader, book, rules, changed })
    }

    /// Evaluates until `stop` is true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut publications = self.layers.views.publications();
        // What the log replayed, and what an earlier process may have had no time for.
        let mut served: BTreeMap<ViewName, Arc<PublishedView>> = BTreeMap::new();
        loop {
            for rules in self.rules.values() {
                self.visit(rules, &mut served).await;
            }
            tokio::select! {
                () = self.changed.added() => {}
                published = publications.changed() => if published.is_err() { return },
                stopped = stop.wait_for(|stop| *stop) => { let _ = stopped; return }
            }
        }
    }

    /// Evaluates what has changed of one view, then judges a new version of it.
    async fn visit(&self, rules: &Arc<ViewRules>, served: &mut BTreeMap<ViewName, Arc<PublishedView>>) {
        let Some(published) = self.layers.views.get(rules.view.as_str()) else { return };
        let is_new = served.get(&rules.view).is_none_or(|before| !Arc::ptr_eq(before, &published));
        let view: ChangedView = (rules.view.clone(), Arc::clone(&published.definition_hash));
        if is_new {
            // The exact figures of the version may raise what the live ones of these rows did not.
            self.changed.add_all(view.clone());
        }
        while let Some(changes) = self.changed.take(&view, ALERT_ROWS_AT_ONCE) {
            // Rows that change from here on notify again.
            let is_last = !matches!(&changes, Changes::Rows(rows) if rows.len() >= ALERT_ROWS_AT_ONCE);
            if let Err(error) = self.evaluate(rules, changes).await {
                self.report(&rules.view, &error);
                if matches!(error, EvaluationError::Book(_)) {
                    self.changed.add_all(view.clone());
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                break;
            }
            if is_last {
                break;
            }
        }
        if is_new {
            match self.judge(rules, &published).await {
                Ok(()) => {
                    served.insert(rules.view.clone(), published);
                }
                Err(error) => self.report(&rules.view, &error),
            }
        }
    }

    fn report(&self, view: &ViewName, error: &EvaluationError) {
        metrics::counter!("trueup_alert_errors_total", "view" => view.to_string()).increment(1);
        tracing::warn!(%view, %error, "alerts were not evaluated; will retry with the next change");
    }

    async fn evaluate(&self, rules: &Arc<ViewRules>, changes: Changes) -> Result<(), EvaluationError> {
        match changes {
            Changes::Rows(rows) => self.evaluate_rows(rules, rows).await,
            Changes::All => {
                let Some(published) = self.layers.views.get(rules.view.as_str()) else { return Ok(()) };
                let pin = match self.layers.speed.pin(&published, &published.seam).await {
                    // The newer version marks all rows again.
                    Err(SpeedError::SeamMoved) => return Ok(()),
                    pin => pin.map_err(FetchError::from)?,
                };
                for generation in &pin.generations {
                    for rows in rows_of(&generation.part, ALERT_ROWS_AT_ONCE) {
                        self.evaluate_rows(rules, rows).await?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn evaluate_rows(&self, rules: &Arc<ViewRules>, changed: Vec<ChangedRow>) -> Result<(), EvaluationError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(published) = self.layers.views.get(rules.view.as_str()) else { return Ok(()) };
            let bound = rules.bound_to(&published);
            if bound.is_empty() || changed.is_empty() {
                return Ok(());
            }
            let reads_previous = bound.iter().any(|rule| rule.reads_previous);
            let affected = AffectedRows::of_changes(published.view.window, changed.clone(), reads_previous);
            let fetch = match self.reader.live(&published, &affected.wanted).await {
                Err(FetchError::Speed(SpeedError::SeamMoved)) if tries < TRIES => continue,
                fetch => fetch?,
            };
            let (matches, ..) = self.matches(fetch, affected, bound).await?;
            return self.raise(matches).await;
        }
    }

    /// Returns the rows that satisfy the conditions. Returns the evaluated rows for further use, too.
    pub(crate) async fn matches(
        &self,
        fetch: Fetch,
        affected: AffectedRows,
        rules: Arc<Vec<Rule>>,
    ) -> Result<(Vec<RuleMatches>, AffectedRows), EvaluationError> {
        let reader = Arc::clone(&self.reader);
        let evaluated = tokio::task::spawn_blocking(move || -> Result<_, EvaluationError> {
            let published = Arc::clone(&fetch.published);
            let rows = fetch.merge(&reader)?;
            let reads_previous = rules.iter().any(|rule| rule.reads_previous);
            let table = ConditionTable::new(&published.view, &rows, &affected, reads_previous)?;
            let mut all = Vec::new();
            for rule in rules.iter() {
                all.push((rule.clone(), table.matches(rule)?, rows.position.clone()));
            }
            Ok((all, affected))
        });
        evaluated.await?
    }

    /// Raises the alerts that are not raised yet.
    async fn raise(&self, matches: Vec<RuleMatches>) -> Result<(), EvaluationError> {
        let mut raised: BTreeMap<String, Entry> = BTreeMap::new();
        let now = self.layers.clock.now();
        let mut seq = self.book.last_seq();
        for (rule, matches, position) in matches {
            for found in matches {
                let before = self.book.record(&found.id);
                let is_open = before.as_ref().is_none_or(|before| before.record.state == AlertState::Withdrawn);
                if !is_open || raised.contains_key(&found.id) {
                    continue;
                }
                seq += 1;
                metrics::counter!("trueup_alerts_raised_total", "alert" => rule.alert.name.to_string()).increment(1);
                let times = before.map_or(0, |before| before.record.times) + 1;
                let record = AlertRecord {
                    state: AlertState::Raised,
                    raised_at: now,
                    changed_at: now,
                    times,
                    position: position.clone(),
                    seq,
                    ..new_record(&rule, &found)
                };
                raised.insert(found.id.clone(), entry(&rule, record, found));
            }
        }
        self.write(raised.into_values().collect()).await
    }

    pub(crate) async fn write(&self, mut entries: Vec<Entry>) -> Result<(), EvaluationError> {
        if entries.is_empty() {
            return Ok(());
        }
        // In the order of their numbers.
        entries.sort_by_key(|entry| if let Entry::Record { record, .. } = entry { record.seq } else { u64::MAX });
        let book = Arc::clone(&self.book);
        Ok(tokio::task::spawn_blocking(move || book.write(entries)).await??)
    }
}

/// Returns a record of a match, without what depends on how it was found.
pub(crate) fn new_record(rule: &Rule, found: &Match) -> AlertRecord {
    AlertRecord {
        id: found.id.clone(),
        alert: rule.alert.name.clone(),
        view: rule.alert.view.clone(),
        state: AlertState::Raised,
        key: found.key.clone(),
        row: found.row.clone(),
        condition: rule.alert.condition_sql.clone(),
        figures: found.figures.clone(),
        finality: found.finality.to_owned(),
        raised_at: shared::time::Micros(0),
        changed_at: shared::time::Micros(0),
        times: 1,
        position: BTreeMap::new(),
        version: None,
        cause: None,
        declared: true,
        seq: 0,
    }
}

/// Returns the entry of a record.
pub(crate) fn entry(rule: &Rule, record: AlertRecord, found: Match) -> Entry {
    Entry::Record {
        record: Box::new(record),
        definition: rule.hash.to_string(),
        place: found.place,
        target: rule.alert.target.as_ref().map(ToString::to_string),
    }
}
