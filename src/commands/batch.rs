//! `trueup batch`: starts batch runs and waits for them. [`status`] shows their state, [`runs`] lists and cancels them.

mod runs;
mod status;

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Value, json};
use shared::control::{Run, RunState};
use shared::engine::Engine;
use shared::ids::ViewName;
use shared::time::{Day, Micros};

use crate::arguments::{Backfill, Batch, BatchRun, Checkpoint, Server};
use crate::client::Client;
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::{bytes, grouped};

use super::compact;
use super::listing::dash;
use super::versions;

/// Interval at which the state of a run is polled.
const POLL_EVERY: Duration = Duration::from_millis(200);

pub async fn run(arguments: Batch) -> Result<(), Failure> {
    match arguments {
        Batch::Run(BatchRun { view, full, wait, server }) => {
            start(&view, "runs", json!({ "full": full }), wait, &server).await
        }
        Batch::Backfill(Backfill { view, from, to, wait, server }) => {
            if from >= to {
                let error = Failure::new(USAGE, format!("--from {from} --to {to} is an empty range"));
                let step = if from == to { Day(to.0.saturating_add(1)) } else { from };
                let from = from.min(to);
                return Err(error.next_step(format!("--to is exclusive; use --from {from} --to {step}")));
            }
            start(&view, "runs", json!({ "from": from.to_string(), "to": to.to_string() }), wait, &server).await
        }
        Batch::Status(arguments) => status::run(arguments).await,
        Batch::Runs(arguments) => runs::list(arguments).await,
        Batch::Cancel(arguments) => runs::cancel(arguments).await,
        Batch::Versions(arguments) => versions::list(arguments).await,
        Batch::Vacuum(arguments) => versions::vacuum(arguments).await,
        Batch::Compact(arguments) => compact::run(arguments).await,
    }
}

/// Publishes the state of a view that the speed layer alone computes.
pub async fn checkpoint(arguments: Checkpoint) -> Result<(), Failure> {
    let Checkpoint { view, full, wait, server } = arguments;
    start(&view, "checkpoints", json!({ "full": full }), wait, &server).await
}

async fn start(view: &ViewName, kind: &str, scope: Value, wait_for_end: bool, server: &Server) -> Result<(), Failure> {
    let client = Client::new(&server.url)?;
    let path = format!("/v1/views/{view}/{kind}");
    let mut run: Run = client.json(client.request(Method::POST, &path).json(&scope)).await?;
    if wait_for_end {
        run = wait(&client, run).await?;
    }
    writeln!(std::io::stdout(), "{}", sentence(&run))?;
    match run.state {
        RunState::Failed | RunState::Cancelled => Err(Failure::silent(NO)),
        RunState::Queued | RunState::Running | RunState::Published => Ok(()),
    }
}

async fn wait(client: &Client, mut run: Run) -> Result<Run, Failure> {
    let style = "{spinner} {prefix} {wide_bar} {pos}/{len} dates {msg} {elapsed}";
    let style = ProgressStyle::with_template(style).expect("a constant template");
    let bar = ProgressBar::new(0).with_style(style).with_prefix(run.view.to_string());
    let path = format!("/v1/runs/{}", run.id);
    while !run.state.is_over() {
        tokio::time::sleep(POLL_EVERY).await;
        run = client.get(&path).await?;
        bar.set_length(run.progress.dates);
        bar.set_position(run.progress.dates_done);
        bar.set_message(format!("{} rows, {} read", grouped(run.progress.rows), bytes(run.progress.bytes_read)));
    }
    bar.finish_and_clear();
    Ok(run)
}

fn sentence(run: &Run) -> String {
    let kind = match (run.trigger.as_str(), run.full) {
        ("checkpoint", true) => "full checkpoint",
        ("checkpoint", false) => "checkpoint",
        (_, true) => "full run",
        (_, false) => "run",
    };
    let ranges: Vec<String> = run.ranges.iter().map(|range| format!("{} to {}", range.from, range.to)).collect();
    let ranges = if ranges.is_empty() { String::new() } else { format!(" with {}", ranges.join(", ")) };
    let begin = format!("{kind} {} of {}{ranges}", run.id, run.view);
    match (run.state, run.version) {
        (RunState::Published, Some(version)) => format!("{begin} published version {version}{}", how_much(run)),
        (RunState::Failed, _) => {
            let again = run.retry_at.map_or(String::new(), |at| format!("; next attempt at {at}"));
            format!("{begin} failed: {}{again}", run.error.as_deref().unwrap_or("no reason given"))
        }
        (state, _) => format!("{begin} is {}", word(state)),
    }
}

fn how_much(run: &Run) -> String {
    let progress = &run.progress;
    let engine = if run.engine == Some(Engine::Spark) { ", on Spark" } else { "" };
    format!(" ({} dates, {} rows, {}{engine})", grouped(progress.dates), grouped(progress.rows), took(run))
}

fn took(run: &Run) -> String {
    let span = |from: Micros, to: Micros| format!("{:.1} s", to.0.saturating_sub(from.0) as f64 / 1e6);
    run.started_at.zip(run.finished_at).map_or_else(dash, |(from, to)| span(from, to))
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Queued => "queued",
        RunState::Running => "running",
        RunState::Published => "published",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn a_run(state: &str, version: Option<i64>, error: Option<&str>) -> Run {
        let run = json!({
            "id": "r7", "view": "departures", "state": state, "full": false, "trigger": "request", "cut": {"0": 41200},
            "version": version, "queued_at": "2024-01-01T00:00:00Z", "started_at": "2024-01-01T00:00:01Z",
            "finished_at": "2024-01-01T00:00:03.500Z",
            "progress": {"dates": 3, "dates_done": 3, "rows": 41200, "bytes": 1024}, "error": error
        });
        serde_json::from_value(run).expect("the contract's shape")
    }

    #[test]
    fn every_outcome_of_a_run_has_a_sentence() {
        for (run, words) in [
            (
                a_run("published", Some(4), None),
                "run r7 of departures published version 4 (3 dates, 41,200 rows, 2.5 s)",
            ),
            (a_run("failed", None, Some("disk full")), "run r7 of departures failed: disk full"),
            (a_run("cancelled", None, None), "run r7 of departures is cancelled"),
            (a_run("queued", None, None), "run r7 of departures is queued"),
        ] {
            assert_eq!(sentence(&run), words);
        }
    }
}
