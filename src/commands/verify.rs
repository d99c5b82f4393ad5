//! `trueup verify`: checks that both layers agree over a file of events.
//!
//! Starts a temporary server, sends it the events with batch runs in between, and runs a full recompute at the end. With Spark,
//! every second run is computed on it, and a second full recompute.
//! [`agreement`] adds up the comparisons of all runs, [`alert_check`] compares alerts with an independent fold of the events.

mod agreement;
mod alert_agreement;
mod alert_check;
mod alert_fold;
mod naive_sums;
mod table_changes;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use batch::{Engines, SparkUse};
use indicatif::{ProgressBar, ProgressStyle};
use intake::sources::Connections;
use reqwest::Method;
use serde_json::json;
use shared::compare::Comparison;
use shared::control::{Run, RunState};
use shared::engine::Engine;
use shared::ids::ViewName;
use shared::stream::Stream;
use tokio::sync::mpsc;

use crate::arguments::{ListFormat, PlanEngine, Verify};
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::definitions;
use crate::engines;
use crate::events_file::EventsFile;
use crate::exit::{Failure, NO, USAGE};
use crate::line_batch::LineBatch;
use crate::sender::{Receipt, RetryLimits, Sender};
use crate::settings::Settings;
use crate::signals::StopSignals;
use crate::wiring::WiringSettings;
use serving::http::Perimeter;

use super::serve::{addresses, log_to_stderr, shut_down, start};
use agreement::{Agreement, Compared};
use alert_check::AlertCheck;
use table_changes::TableChanges;

/// Size of a request in bytes. Requests are sent one after another, so that the log has the order of the file.
const BATCH_BYTES: usize = 256 * 1024;
const READ_AHEAD: usize = 4;
const POLL_EVERY: Duration = Duration::from_millis(20);

pub async fn run(arguments: Verify) -> Result<(), Failure> {
    log_to_stderr("error");
    let sources = definitions::read(&arguments.files)?;
    let mut definitions = definitions::parse(&sources)?;
    // The events come from the file, not from topics.
    definitions.streams.iter_mut().for_each(Stream::detach);
    let Some(stream) = definitions.streams.iter().find(|stream| stream.name == arguments.stream) else {
        let names: Vec<&str> = definitions.streams.iter().map(|stream| stream.name.as_str()).collect();
        let error = Failure::new(USAGE, format!("the files do not declare a stream \"{}\"", arguments.stream));
        return Err(error.next_step(format!("declared streams: {}", names.join(", "))));
    };
    let of_stream = definitions.views.iter().filter(|view| view.stream == arguments.stream);
    let views: Vec<ViewName> = of_stream.map(|view| view.name.clone()).collect();
    if views.is_empty() {
        return Err(Failure::new(USAGE, format!("no view reads the stream \"{}\"", arguments.stream)));
    }
    let settings = match &arguments.config {
        Some(path) => Settings::read(path).map_err(|error| Failure::new(USAGE, error))?,
        None => Settings::default(),
    };
    let engines = Engines::default();
    let (mut agreement, mut spark) = (Agreement::default(), None);
    if arguments.engine == PlanEngine::Spark {
        let found = engines::of_stream(&settings, &definitions, &arguments.stream)?;
        if let (true, Some((view, reason))) = (found.computed.is_empty(), found.refused.first_key_value()) {
            return Err(Failure::new(NO, format!("Spark cannot compute any of the views: {view}: {reason}")));
        }
        found.refused.into_iter().for_each(|(view, reason)| agreement.refused(&view, reason));
        spark = Some(SparkPart { engines: engines.clone(), views: found.computed });
    }
    let name = arguments.events.display().to_string();
    let file = EventsFile::open(&arguments.events).map_err(|cause| Failure::new(USAGE, format!("{name}: {cause}")))?;

    let mut signals = StopSignals::install()?;
    let data = tempfile::Builder::new().prefix("trueup-verify-").tempdir()?;
    let wiring = WiringSettings {
        batch_memory_bytes: shared::limits::BATCH_MEMORY_BYTES,
        definitions: sources,
        data_dir: DataDir::new(&data.path().display().to_string(), None),
        listen: ([127, 0, 0, 1], 0).into(),
        limits: settings.limits,
        // Nothing is sent: the alerts are of the past.
        webhooks: BTreeMap::new(),
        topics: Connections::default(),
        engines,
        take_over: false,
        as_declared: false,
        perimeter: Perimeter::open(),
        tls: None,
    };
    let Some(mut running) = start(wiring, &mut signals).await? else { return Ok(()) };
    let client = Client::new(&addresses(running.local_addr, false).0)?;
    let log = running.log(&arguments.stream).context("the server does not have the stream")?;
    let tables = TableChanges::read(&definitions, &arguments.tables, &client)?;
    let verification = Verification {
        client,
        tables,
        views,
        alerts: AlertCheck::new(&definitions, stream, (running.alert_book(), log)),
        agreement,
        spark,
        bar: progress_bar(file.size()),
    };
    let sender = Sender::new(verification.client.clone(), &arguments.stream, RetryLimits::default());
    let (outcome, server) = tokio::select! {
        outcome = verification.run(file, sender, arguments.cuts) => (outcome, Ok(())),
        failed = running.failed() => (Err(Failure::silent(NO)), failed),
        () = signals.next() => (Err(Failure::new(NO, "interrupted")), Ok(())),
    };
    shut_down(running, server, signals).await?;
    let agreement = outcome?;
    let text = match arguments.output {
        ListFormat::Table => agreement.table(None),
        ListFormat::Json => agreement.json() + "\n",
    };
    std::io::stdout().write_all(text.as_bytes())?;
    if agreement.holds() { Ok(()) } else { Err(Failure::new(NO, "the layers do not agree")) }
}

/// A batch of lines to send.
struct Step {
    batch: LineBatch,
    /// Whether to start batch runs after the batch.
    cut: bool,
}

struct Verification {
    client: Client,
    /// The changes of joined tables that are not sent yet.
    tables: TableChanges,
    views: Vec<ViewName>,
    alerts: AlertCheck,
    agreement: Agreement,
    /// `None`: Spark takes no part.
    spark: Option<SparkPart>,
    bar: ProgressBar,
}

/// The views that Spark computes when it is its turn.
struct SparkPart {
    /// Those of the server.
    engines: Engines,
    views: BTreeMap<ViewName, SparkUse>,
}

impl Verification {
    async fn run(mut self, file: EventsFile, sender: Sender, cuts: u32) -> Result<Agreement, Failure> {
        self.tables.send_half().await?;
        let (step_sender, mut steps) = mpsc::channel::<Step>(READ_AHEAD);
        let (bar, size) = (self.bar.clone(), file.size());
        let reader = tokio::task::spawn_blocking(move || {
            let mut cuts_made = 0;
            file.read(BATCH_BYTES, &bar, &mut |batch| {
                // The cuts divide the file into equal parts.
                let due = size.map_or(0, |size| u64::from(cuts + 1) * bar.position() / size.max(1));
                let cut = due > cuts_made && cuts_made < u64::from(cuts);
                cuts_made += u64::from(cut);
                step_sender.blocking_send(Step { batch, cut }).is_ok()
            })
        });
        while let Some(Step { batch, cut }) = steps.recv().await {
            let receipt = self.send(&sender, batch).await?;
            self.agreement.sent.add(&receipt);
            self.tables.send_some().await?;
            if cut {
                self.agreement.cuts += 1;
                let is_second = self.agreement.cuts.is_multiple_of(2);
                self.true_up(Compared::Live, if is_second { Engine::Spark } else { Engine::Polars }).await?;
            }
        }
        reader.await.context("reading the file failed")??;
        self.tables.send_rest().await?;
        self.true_up(Compared::Live, Engine::Polars).await?;
        self.true_up(Compared::Full, Engine::Polars).await?;
        if self.spark.is_some() {
            self.true_up(Compared::Spark, Engine::Spark).await?;
        }
        self.bar.finish_and_clear();
        self.agreement.alerts = self.alerts.into_agreements();
        Ok(self.agreement)
    }

    async fn send(&self, sender: &Sender, batch: LineBatch) -> Result<Receipt, Failure> {
        let LineBatch { number, format, body, .. } = batch;
        let sent = sender.send(number, format, body, |error| self.bar.set_message(format!("waiting: {error}"))).await;
        self.bar.set_message("sending");
        Ok(sent?)
    }

    /// Starts a run of every view and adds its comparison. Runs that are not compared with live figures are full.
    async fn true_up(&mut self, compared: Compared, engine: Engine) -> Result<(), Failure> {
        self.alerts.before_runs().await?;
        let (mut versions, mut views, full) = (BTreeMap::new(), self.views.clone(), compared != Compared::Live);
        if let Some(spark) = &self.spark {
            spark.engines.replace(if engine == Engine::Spark { spark.views.clone() } else { BTreeMap::new() });
            views.retain(|view| compared != Compared::Spark || spark.views.contains_key(view));
        }
        for view in views {
            self.bar.set_message(format!("{} {view}", if full { "recomputing" } else { "truing up" }));
            let path = format!("/v1/views/{view}/runs");
            let mut run: Run =
                self.client.json(self.client.request(Method::POST, &path).json(&json!({ "full": full }))).await?;
            let path = format!("/v1/runs/{}", run.id);
            while !run.state.is_over() {
                tokio::time::sleep(POLL_EVERY).await;
                run = self.client.get(&path).await?;
            }
            if run.state != RunState::Published {
                let reason = run.error.unwrap_or_else(|| "cancelled".to_owned());
                return Err(Failure::new(NO, format!("the run of {view} failed: {reason}")));
            }
            versions.extend(run.version.map(|version| (view.clone(), version)));
            let version = run.version.unwrap_or_default();
            let path = format!("/v1/views/{view}/compare?version={version}");
            match self.client.get::<Comparison>(&path).await {
                Ok(comparison) => self.agreement.add(&view, comparison, compared),
                // A run without new events publishes no version and makes no comparison.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.alerts.after_runs(&versions).await;
        Ok(())
    }
}

/// Makes the progress bar, which is hidden if stderr is not a terminal.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {msg} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a constant template"))
}
