//! Calls Spark for a run: checks that it sees the lake, and lets it compute.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use lake::Exchange;
use spark_connect::{ConnectionSettings, Outcome, Plan, Progress, Session, SparkError};

use crate::failure::RunFailure;
use crate::recompute::on_spark::SparkRun;
use crate::recompute::on_spark::results::{COPIES, STATES, SparkResults};
use crate::recompute::on_spark::versions;
use crate::step::SparkStep;
use crate::watch::Watch;

/// The file by which a run finds out whether Spark sees the exchange.
const PROBE: &str = "probe.txt";

/// The name under which what was written is counted.
const WRITTEN: &str = "written_states";

/// A session for one run.
pub struct SparkCalls {
    session: Session,
}

impl SparkCalls {
    /// Opens a session.
    pub async fn open(connection: &ConnectionSettings) -> Result<SparkCalls, SparkError> {
        SparkStep::Session.reach();
        Ok(SparkCalls { session: Session::open(connection).await? })
    }

    /// Computes the states of a run. Whatever happens, Spark does not continue with it afterwards.
    pub async fn compute(self, run: &SparkRun<'_>, results: SparkResults) -> Result<SparkResults, RunFailure> {
        let computed = match run.watch.cancel.or_cancelled(self.steps(run, &results)).await {
            Ok(computed) => computed,
            Err(cancelled) => {
                self.session.interrupt().await;
                Err(cancelled)
            }
        };
        self.session.close().await;
        match computed {
            Ok(written) => Ok(results.written(written)),
            Err(failure) => {
                results.discard().await;
                Err(failure)
            }
        }
    }

    /// Returns the number of rows of states that Spark wrote.
    async fn steps(&self, run: &SparkRun<'_>, results: &SparkResults) -> Result<u64, RunFailure> {
        SparkStep::Exchange.reach();
        self.check_exchange(results.exchange()).await?;
        SparkStep::Declare.reach();
        self.session.set(spark::SETTINGS).await?;
        self.session.set(spark::RUN_SETTINGS).await?;
        self.execute(Plan::table(spark::EVENTS, &run.schema, run.urls())).await?;
        self.check_rows(run).await?;
        let lookups = run.query.lookups.as_deref().cloned().unwrap_or_default();
        for table in &run.statement.versions {
            let urls = versions::write(results.exchange(), &lookups, table).await?;
            self.execute(Plan::table(&table.name, &table.schema(), urls)).await?;
        }
        for statement in &run.calendar {
            self.execute(Plan::statement(statement)).await?;
        }
        let (spark, files) = (self.session.version(), run.files().count());
        tracing::info!(view = %run.view().name, spark, files, "Spark computes the states");
        SparkStep::Compute.reach();
        let exchange = results.exchange();
        let written = self.write(&run.statement.query, &exchange.url_of(STATES), run.watch).await?;
        if let Some(copies) = &run.copies {
            self.write(copies, &exchange.url_of(COPIES), run.watch).await?;
        }
        tracing::debug!(view = %run.view().name, rows = written, "Spark has written the states");
        Ok(written)
    }

    /// Checks that Spark reads what is in the exchange.
    async fn check_exchange(&self, exchange: &Arc<Exchange>) -> Result<(), RunFailure> {
        let url = exchange.url_of(PROBE);
        exchange.write(PROBE, format!("{url}\n")).await?;
        let unreadable = |reason: String| RunFailure::SparkCannotRead { url: url.clone(), reason };
        let found = match self.execute(Plan::lines(&url)).await {
            Ok(outcome) => first_text(&outcome).map_err(|error| unreadable(error.to_string()))?,
            Err(error @ (SparkError::Refused(_) | SparkError::Failed(_))) => return Err(unreadable(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        if found.as_deref() == Some(url.as_str()) {
            return Ok(());
        }
        Err(unreadable("it finds another file there".to_owned()))
    }

    /// Checks that Spark finds every row that the archive notes.
    async fn check_rows(&self, run: &SparkRun<'_>) -> Result<(), RunFailure> {
        let outcome = self.execute(Plan::query(&format!("SELECT count(*) FROM {}", spark::EVENTS))).await?;
        let found = first_number(&outcome)?;
        let expected: u64 = run.files().map(|file| file.tags.rows).sum();
        if found == Some(expected) {
            return Ok(());
        }
        let (first, last) = (run.plan.read.first(), run.plan.read.last());
        let date = |read: Option<&crate::plan::EventDate>| read.map(|read| read.date.to_string()).unwrap_or_default();
        Err(RunFailure::RowsOfDates { first: date(first), last: date(last), expected, found: found.unwrap_or(0) })
    }

    async fn execute(&self, plan: Plan) -> Result<Outcome, SparkError> {
        self.session.execute(plan, &mut |_| {}).await
    }

    /// Writes the rows of a query, and counts the bytes that Spark reads for it.
    async fn write(&self, query: &str, url: &str, watch: &Watch) -> Result<u64, RunFailure> {
        let before = watch.bytes.load(Ordering::Relaxed);
        let mut progress = |progress: Progress| {
            watch.bytes.store(before.saturating_add(progress.bytes_read), Ordering::Relaxed);
        };
        let outcome = self.session.execute(Plan::write(query, url, spark::DATE), &mut progress).await?;
        if let Some(rows) = outcome.rows_written {
            return Ok(rows);
        }
        // Spark does not report it if it finds on the way that the result is empty.
        self.execute(Plan::table(WRITTEN, &format!("{} BIGINT", spark::DATE), [url.to_owned()])).await?;
        let outcome = self.execute(Plan::query(&format!("SELECT count(*) FROM {WRITTEN}"))).await?;
        let missing = || SparkError::Protocol("the number of rows written is missing".to_owned());
        Ok(first_number(&outcome)?.ok_or_else(missing)?)
    }
}

/// Returns the first value of a result, if it is a text.
fn first_text(outcome: &Outcome) -> Result<Option<String>, RunFailure> {
    for batch in outcome.batches.iter() {
        for batch in StreamReader::try_new(Cursor::new(batch.as_ref()), None)? {
            let batch = batch?;
            if let Some(texts) = batch.column(0).as_string_opt::<i32>().filter(|texts| !texts.is_empty()) {
                return Ok(Some(texts.value(0).to_owned()));
            }
        }
    }
    Ok(None)
}

/// Returns the first value of a result, if it is a number.
fn first_number(outcome: &Outcome) -> Result<Option<u64>, RunFailure> {
    for batch in outcome.batches.iter() {
        for batch in StreamReader::try_new(Cursor::new(batch.as_ref()), None)? {
            let batch = batch?;
            if let Some(numbers) = batch.column(0).as_primitive_opt::<Int64Type>().filter(|n| !n.is_empty()) {
                return Ok(u64::try_from(numbers.value(0)).ok());
            }
        }
    }
    Ok(None)
}
