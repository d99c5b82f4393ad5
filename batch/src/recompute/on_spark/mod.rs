//! Lets Apache Spark compute the states of a run, and makes the rows of the new version from them.
//!
//! A run is a chain of complete values:
//! ```text
//! SparkRun ─► SparkResults ─► ExactFiles
//! ```
//! 1. [`SparkRun::new`] writes the query, and checks that Spark can compute this run.
//! 2. [`SparkRun::compute`] opens a session and an exchange ([`lake::Exchange`]) in the view's table; checks that Spark sees the
//!    exchange; declares exactly the files of the plan, and checks that Spark finds their rows; writes the versions of the rows that events
//!    are joined with ([`versions`]); lets it write the states.
//! 3. [`results`] reads the states, date by date, and writes the rows as every other run does.
//!
//! Whatever happens, the exchange is deleted; if the process ends first, vacuum deletes it. Nothing is visible before the commit.

mod results;
mod session;
mod versions;

use std::collections::BTreeSet;
use std::sync::Arc;

use lake::{DataFile, with_scheme};
use shared::date_partition::DatePartition;
use shared::time::Day;
use shared::view::View;
use shared::window::Window;
use spark::{Scope, Statement};
use spark_connect::ConnectionSettings;

pub use self::results::SparkResults;
use crate::failure::RunFailure;
use crate::plan::{ArchiveFile, Plan};
use crate::recompute::Bounds;
use crate::recompute::on_spark::session::SparkCalls;
use crate::recompute::reduce::group_by::ArchiveQuery;
use crate::recompute::staging::Staging;
use crate::watch::Watch;

/// A run that Spark can compute.
pub struct SparkRun<'a> {
    plan: &'a Plan,
    bounds: Bounds,
    watch: &'a Watch,
    staging: &'a Arc<Staging>,
    query: &'a ArchiveQuery,
    statement: Statement,
    /// Statements to execute before the query.
    calendar: Vec<String>,
    /// The query for the copies among the events; `None`: there are none.
    copies: Option<String>,
    /// The columns of the archive.
    schema: String,
}

impl<'a> SparkRun<'a> {
    /// Prepares a run.
    pub fn new(
        query: &'a ArchiveQuery,
        plan: &'a Plan,
        bounds: Bounds,
        watch: &'a Watch,
        staging: &'a Arc<Staging>,
    ) -> Result<SparkRun<'a>, RunFailure> {
        let (view, stream) = (&query.view, &query.source.stream);
        let refused = |reason: &str| Err(RunFailure::NotOnSpark(reason.to_owned()));
        let is_part = !plan.everything || plan.horizon.first_computed().is_some();
        if matches!(view.window, Window::Session { .. }) && plan.horizon.first_computed().is_some() {
            return refused("retention has dropped sessions, and events that belong to them must be left aside");
        }
        let scope = Scope { dedup: bounds.dedup, starts: is_part.then(|| starts(&plan.window_dates)) };
        let not_possible = |refusal: spark::Refusal| RunFailure::NotOnSpark(refusal.to_string());
        let statement = spark::states(view, stream, &scope).map_err(not_possible)?;
        let calendar = match &statement.calendar {
            None => Vec::new(),
            Some(tables) => {
                let days: Option<Vec<Day>> = plan.read.iter().map(|read| read.date.day()).collect();
                match days {
                    Some(days) => tables.statements(days),
                    None => return refused("there are events outside the years 1 to 9999, whose days it cannot list"),
                }
            }
        };
        let copies = if bounds.dedup { spark::copies(stream) } else { None };
        let schema = spark::schema(stream);
        Ok(SparkRun { plan, bounds, watch, staging, query, statement, calendar, copies, schema })
    }

    /// Computes the states. If the run is cancelled, Spark is interrupted.
    pub async fn compute(&self, connection: &ConnectionSettings) -> Result<SparkResults, RunFailure> {
        let _ = self.watch.failed.lock().take();
        let results = SparkResults::new(self);
        // A table without files has no rows; there is nothing to ask for.
        if self.files().next().is_none() {
            return Ok(results);
        }
        match self.watch.cancel.or_cancelled(SparkCalls::open(connection)).await? {
            Ok(calls) => calls.compute(self, results).await,
            Err(error) => Err(error.into()),
        }
    }

    fn view(&self) -> &Arc<View> {
        &self.query.view
    }

    fn files(&self) -> impl Iterator<Item = &'a ArchiveFile> {
        self.plan.read.iter().flat_map(|read| &read.files)
    }

    fn urls(&self) -> Vec<String> {
        let url = |file: &DataFile| with_scheme(&self.query.source.table.url_of(file));
        self.files().map(|file| url(&file.file)).collect()
    }
}

/// Returns the starts of the windows of some dates, half-open, in microseconds. Neighbouring days are one range.
fn starts(dates: &BTreeSet<DatePartition>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for date in dates {
        match date {
            DatePartition::Day(day) => {
                let (from, to) = (day.start().0, Day(day.0 + 1).start().0);
                match ranges.last_mut() {
                    Some((_, end)) if *end == from => *end = to,
                    _ => ranges.push((from, to)),
                }
            }
            DatePartition::Undated => {
                let (first, last) = DatePartition::readable_days();
                ranges.extend([(i64::MIN, first.start().0), (Day(last.0 + 1).start().0, i64::MAX)]);
            }
            DatePartition::AllTime => ranges.push((i64::MIN, i64::MAX)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_days_are_one_range() {
        let day = |number: i32| DatePartition::Day(Day(number));
        let at = |number: i32| Day(number).start().0;
        let of = |dates: &[DatePartition]| starts(&dates.iter().copied().collect());
        assert_eq!(of(&[day(1), day(2), day(4)]), [(at(1), at(3)), (at(4), at(5))]);
        assert_eq!(of(&[]), []);
        let (first, last) = DatePartition::readable_days();
        let undated = of(&[DatePartition::Undated, DatePartition::Day(first)]);
        assert_eq!(undated[0], (i64::MIN, first.start().0));
        assert_eq!(undated[1], (Day(last.0 + 1).start().0, i64::MAX));
        assert_eq!(undated[2], (first.start().0, Day(first.0 + 1).start().0));
    }
}
