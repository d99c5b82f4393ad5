//! Judges alerts by a batch version: a raised one is confirmed or withdrawn, and one that speed never raised is corrected.
//!
//! 1. Of each record that is raised and whose figure includes no event after the version's seam, the exact row is evaluated.
//! 2. Of the window dates whose files the version replaced, every row is evaluated. One that satisfies a condition without a
//!    record, and did not in the version judged before, is a correction.
//! 3. All changes are written together with the number of the version, so a crash judges it again and nothing twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use shared::compare::{Comparison, Difference};
use shared::control::{AlertRecord, AlertState};
use shared::date_partition::DatePartition;
use shared::limits::{ALERT_ROWS_AT_ONCE, ALERTS_KEPT};
use shared::partial::query_budget::QueryBudget;
use shared::published::PublishedView;
use shared::readers::{Moment, PastVersion};
use shared::seam::Cut;
use shared::time::Day;
use shared::time_range::TimeRange;
use shared::version::{BatchVersion, Origin};
use shared::view::View;
use shared::window::{Window, WindowId};

use crate::affected::{AffectedRows, rows_of};
use crate::book::{Entry, StoredRecord};
use crate::condition::{ConditionTable, Match, from_hex};
use crate::evaluator::{EvaluationError, Evaluator, new_record};
use crate::fetch::FetchError;
use crate::rule::{Rule, ViewRules};

/// The exact verdict on a record: whether the condition holds, and the values of its measures; `None`: there is no such row.
type Verdict = Option<(bool, Vec<Value>)>;

impl Evaluator {
    /// Judges the alerts of a view by its active version, unless they have been.
    pub(crate) async fn judge(
        &self,
        rules: &Arc<ViewRules>,
        published: &Arc<PublishedView>,
    ) -> Result<(), EvaluationError> {
        // A checkpoint has what speed has: it confirms and corrects nothing.
        let of_batch = published.version.as_ref().filter(|version| version.origin == Origin::Batch);
        let Some(version) = of_batch else { return Ok(()) };
        for rule in rules.bound_to(published).iter() {
            let known = self.book.known(&rule.alert.name);
            let judged = known.and_then(|known| known.judged);
            if judged.is_some_and(|judged| judged >= version.version) {
                continue;
            }
            self.judge_rule((rules, rule), published, version, judged).await?;
        }
        Ok(())
    }

    async fn judge_rule(
        &self,
        (rules, rule): (&ViewRules, &Rule),
        published: &Arc<PublishedView>,
        version: &BatchVersion,
        judged: Option<i64>,
    ) -> Result<(), EvaluationError> {
        let mut records = self.book.unjudged(&rule.alert.name, &rule.hash);
        records.retain(|stored| is_covered(&stored.record, &version.seam));
        let exact = self.exact_matches((rules, rule), published, version, judged).await?;
        let mut verdicts: Vec<(Arc<StoredRecord>, Verdict)> = Vec::new();
        for some in records.chunks(ALERT_ROWS_AT_ONCE) {
            verdicts.extend(self.verdicts(rule, published, version, some).await?);
        }
        let comparison = self.layers.runs.comparison(published.view.name.as_str(), Some(version.version)).await;
        let causes = CauseFinder { comparison: comparison.map_err(FetchError::from)?, version };
        let mut changes =
            Changes { evaluator: self, rule, version, causes, seq: self.book.last_seq(), entries: Vec::new() };
        for (stored, verdict) in verdicts {
            // Another row of the same key may satisfy the condition.
            let holds_elsewhere = exact.contains_key(&stored.record.id);
            changes.judge(&stored, verdict, holds_elsewhere);
        }
        for found in exact.into_values() {
            changes.correct(found);
        }
        let mut entries = changes.entries;
        entries.push(Entry::Judged { alert: rule.alert.name.clone(), version: version.version });
        self.write(entries).await
    }

    /// Returns what the exact rows of `records` say.
    async fn verdicts(
        &self,
        rule: &Rule,
        published: &Arc<PublishedView>,
        version: &BatchVersion,
        records: &[Arc<StoredRecord>],
    ) -> Result<Vec<(Arc<StoredRecord>, Verdict)>, EvaluationError> {
        // A trailing window ended at the instant of its record.
        let mut by_instant: BTreeMap<Option<i64>, Vec<Arc<StoredRecord>>> = BTreeMap::new();
        records.iter().for_each(|stored| by_instant.entry(stored.place.instant).or_default().push(Arc::clone(stored)));
        let mut verdicts = Vec::with_capacity(records.len());
        for (instant, records) in by_instant {
            let rows =
                records.iter().filter_map(|stored| Some((WindowId(stored.place.window), from_hex(&stored.place.key)?)));
            let affected = AffectedRows::of_rows(published.view.window, rows, rule.reads_previous);
            let fetch = self.reader.exact(published, version, &affected.wanted, instant).await?;
            let (reader, rule, view) = (Arc::clone(&self.reader), rule.clone(), Arc::clone(&published.view));
            let judged = tokio::task::spawn_blocking(move || -> Result<_, EvaluationError> {
                let rows = fetch.merge(&reader)?;
                let table = ConditionTable::new(&view, &rows, &affected, rule.reads_previous)?;
                let verdict = |stored: Arc<StoredRecord>| {
                    let names: Vec<&str> = stored.record.figures.keys().map(String::as_str).collect();
                    let verdict = table.at(&rule, &stored.place, &names)?;
                    Ok((stored, verdict))
                };
                records.into_iter().map(verdict).collect::<Result<Vec<_>, EvaluationError>>()
            });
            verdicts.extend(judged.await??);
        }
        Ok(verdicts)
    }

    /// Returns the rows of replaced window dates that satisfy the condition, by the id of their record: those whose record is
    /// still to be judged, and those without one that did not satisfy it in the version `judged`.
    async fn exact_matches(
        &self,
        (rules, rule): (&ViewRules, &Rule),
        published: &Arc<PublishedView>,
        version: &BatchVersion,
        judged: Option<i64>,
    ) -> Result<HashMap<String, Match>, EvaluationError> {
        let mut found: HashMap<String, Match> = HashMap::new();
        // The rows of a trailing window's version are panes: no window of it ended when the run did.
        if matches!(published.view.window, Window::Slide { .. }) {
            return Ok(found);
        }
        let before = match judged {
            Some(judged) => self.layers.past.at(&published.view.name, Moment::Version(judged)).await.ok(),
            None => None,
        };
        for date in changed_dates(version, before.as_ref().map(|before| &*before.version)) {
            let range = date.day().map_or(TimeRange::ALL, |day| TimeRange {
                from: day.start(),
                to: Day(day.0.saturating_add(1)).start(),
            });
            let parts = self.layers.batch.parts(published, version, range, &QueryBudget::unlimited()).await;
            for part in parts.map_err(FetchError::from)? {
                for mut rows in rows_of(&part, ALERT_ROWS_AT_ONCE) {
                    let starts = |window: WindowId| published.view.window.bounds(window).0;
                    rows.retain(|(window, _)| date.day().is_none() || range.contains(starts(*window)));
                    if rows.is_empty() || found.len() >= ALERTS_KEPT {
                        continue;
                    }
                    let affected = AffectedRows::of_rows(published.view.window, rows, rule.reads_previous);
                    let fetch = self.reader.exact(published, version, &affected.wanted, None).await?;
                    let (mut matches, _) = self.matches(fetch, affected, Arc::new(vec![rule.clone()])).await?;
                    let matches = matches.pop().map_or_else(Vec::new, |(_, matches, _)| matches);
                    let new = self.without_known((rules, rule, &published.view), matches, before.as_ref()).await?;
                    found.extend(new.into_iter().map(|found| (found.id.clone(), found)));
                }
            }
        }
        Ok(found)
    }

    /// Removes matches whose record says so already, and those without a record that satisfied the condition before.
    async fn without_known(
        &self,
        (rules, rule, view): (&ViewRules, &Rule, &View),
        matches: Vec<Match>,
        before: Option<&PastVersion>,
    ) -> Result<Vec<Match>, EvaluationError> {
        let state = |found: &Match| self.book.record(&found.id).map(|stored| stored.record.state);
        let (mut open, unknown): (Vec<Match>, Vec<Match>) = matches
            .into_iter()
            .filter(|found| !matches!(state(found), Some(AlertState::Confirmed | AlertState::Corrected)))
            .partition(|found| state(found).is_some());
        let Some(past) = before.filter(|_| !unknown.is_empty()) else {
            open.extend(unknown);
            return Ok(open);
        };
        // The rows of another definition can be compared if it has the same groups and the columns of the condition.
        let of_past = rules.bound_to(&past.published).iter().find(|of_past| of_past.hash == rule.hash).cloned();
        let Some(of_past) = of_past.filter(|_| same_groups(&past.published.view, view)) else {
            open.extend(unknown);
            return Ok(open);
        };
        let rows = unknown.iter().filter_map(|found| Some((WindowId(found.place.window), from_hex(&found.place.key)?)));
        let affected = AffectedRows::of_rows(past.published.view.window, rows, of_past.reads_previous);
        let fetch = self.reader.exact(&past.published, &past.version, &affected.wanted, None).await?;
        let (mut earlier, _) = self.matches(fetch, affected, Arc::new(vec![of_past])).await?;
        let earlier: BTreeSet<String> =
            earlier.pop().into_iter().flat_map(|(_, matches, _)| matches).map(|found| found.id).collect();
        open.extend(unknown.into_iter().filter(|found| !earlier.contains(&found.id)));
        Ok(open)
    }
}

/// Returns whether the live figure of a record includes only events before `seam`, so that a version with this seam has them all.
fn is_covered(record: &AlertRecord, seam: &Cut) -> bool {
    record.position.iter().all(|(partition, to)| *to <= seam.offset(*partition))
}

/// Returns whether rows of both views are named by the same windows and dimensions.
fn same_groups(a: &View, b: &View) -> bool {
    a.window == b.window && a.dimensions == b.dimensions
}

/// Returns the dates of files that only `version` has.
fn changed_dates(version: &BatchVersion, before: Option<&BatchVersion>) -> BTreeSet<DatePartition> {
    let known: BTreeSet<&str> = before.iter().flat_map(|v| &v.files).map(|file| file.path.as_str()).collect();
    version.files.iter().filter(|file| !known.contains(file.path.as_str())).map(|file| file.date).collect()
}

/// The changes that a version makes to the records of one alert.
struct Changes<'a> {
    evaluator: &'a Evaluator,
    rule: &'a Rule,
    version: &'a BatchVersion,
    causes: CauseFinder<'a>,
    seq: u64,
    entries: Vec<Entry>,
}

impl Changes<'_> {
    /// Confirms or withdraws a record.
    fn judge(&mut self, stored: &StoredRecord, verdict: Verdict, holds_elsewhere: bool) {
        let is_dropped = self.version.retained_from.is_some_and(|first| is_before(&stored.record, first));
        let (holds, values) = match verdict {
            // Retention has dropped the row: there is no exact figure any more.
            None if is_dropped => return,
            None => (false, Vec::new()),
            Some(verdict) => verdict,
        };
        let state = if holds || holds_elsewhere { AlertState::Confirmed } else { AlertState::Withdrawn };
        let mut record = stored.record.clone();
        let values = values.into_iter().chain(std::iter::repeat(Value::Null));
        record.figures.values_mut().zip(values).for_each(|(figure, exact)| figure.exact = Some(exact));
        let differs = record.figures.values().any(|figure| figure.exact.as_ref() != Some(&figure.served));
        record.cause = match differs {
            true => Some(self.causes.of(&record, state)),
            false => None,
        };
        self.change(record, state, stored.place.clone());
    }

    /// Records what speed had missed.
    fn correct(&mut self, found: Match) {
        let before = self.evaluator.book.record(&found.id);
        // Records that were to be judged have been; one that is raised includes later events.
        if before.as_ref().is_some_and(|before| before.record.state != AlertState::Withdrawn) {
            return;
        }
        let place = found.place.clone();
        let mut record = new_record(self.rule, &found);
        record.times = before.map_or(0, |before| before.record.times) + 1;
        record.raised_at = self.evaluator.layers.clock.now();
        for (name, figure) in &mut record.figures {
            figure.exact = Some(std::mem::take(&mut figure.served));
            figure.served = self.causes.listed(&record.row, name).map_or(Value::Null, |listed| listed.served.clone());
        }
        record.cause = Some(self.causes.of(&record, AlertState::Corrected));
        self.change(record, AlertState::Corrected, place);
    }

    fn change(&mut self, mut record: AlertRecord, state: AlertState, place: crate::condition::RowPlace) {
        let alert = self.rule.alert.name.to_string();
        metrics::counter!("trueup_alerts_judged_total", "alert" => alert, "state" => state.name()).increment(1);
        self.seq += 1;
        record.seq = self.seq;
        record.state = state;
        record.version = Some(self.version.version);
        record.changed_at = self.evaluator.layers.clock.now();
        let target = self.rule.alert.target.as_ref().map(ToString::to_string);
        let definition = self.rule.hash.to_string();
        self.entries.push(Entry::Record { record: Box::new(record), definition, place, target });
    }
}

fn is_before(record: &AlertRecord, first: Day) -> bool {
    let start = record.row.get("window_start").and_then(Value::as_str).and_then(shared::time::Micros::parse);
    start.is_some_and(|start| start < first.start())
}

/// Finds why exact figures differ from those that were served.
struct CauseFinder<'a> {
    comparison: Option<Comparison>,
    version: &'a BatchVersion,
}

impl CauseFinder<'_> {
    /// Returns the difference of a measure in this row, if the comparison lists it.
    fn listed(&self, row: &serde_json::Map<String, Value>, measure: &str) -> Option<&Difference> {
        let comparison = self.comparison.as_ref()?;
        let is_row = |difference: &&Difference| {
            let start = difference.window_start.map(|start| Value::from(start.to_string()));
            difference.measure == measure
                && start.as_ref() == row.get("window_start")
                && difference.dimensions.iter().all(|(name, value)| row.get(name) == Some(value))
        };
        comparison.rows.iter().find(is_row)
    }

    fn of(&self, record: &AlertRecord, state: AlertState) -> String {
        let listed = record.figures.keys().find_map(|measure| self.listed(&record.row, measure));
        if let Some(difference) = listed {
            return text_of(&difference.cause);
        }
        let summary = self.version.comparison.as_deref().or(self.comparison.as_ref());
        let Some(summary) = summary else { return "unlisted".to_owned() };
        // A difference that is not listed is among the omitted ones, or there is none: then the served figure was exact at the
        // cut, and events after the alert was raised have changed it.
        let is_listed_completely = summary.rows_omitted == 0 && self.comparison.is_some();
        if is_listed_completely && state != AlertState::Corrected {
            return "later_events".to_owned();
        }
        let mut causes = summary.causes.named().into_iter().filter(|(_, values)| *values > 0).map(|(name, _)| name);
        match (causes.next(), causes.next()) {
            (Some(only), None) => only.to_owned(),
            _ => "unlisted".to_owned(),
        }
    }
}

fn text_of(cause: &shared::compare::Cause) -> String {
    match serde_json::to_value(cause) {
        Ok(Value::String(text)) => text,
        _ => "unexplained".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use shared::ids::{Offset, Partition};
    use shared::seam::CutPoint;

    use super::*;
    use crate::book::tests::record;

    #[test]
    fn an_alert_that_includes_events_after_the_cut_waits_for_the_next_run() {
        let Entry::Record { mut record, .. } = record("a", 1, AlertState::Raised) else { unreachable!("a record") };
        let point = |offset| CutPoint { offset: Offset(offset), ..CutPoint::default() };
        let seam = Cut(BTreeMap::from([(Partition(0), point(10)), (Partition(1), point(5))]));
        for (positions, expected) in [([10, 5], true), ([9, 0], true), ([11, 5], false), ([10, 6], false)] {
            record.position = (0..).map(Partition).zip(positions.map(Offset)).collect();
            assert_eq!(is_covered(&record, &seam), expected, "{positions:?}");
        }
    }
}
