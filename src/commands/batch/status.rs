//! `trueup batch status`: shows the current, next and most recent runs of each view.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Deserialize;
use serde_json::{Value, json};
use shared::calendar::Zone;
use shared::clock::{Clock, SystemClock};
use shared::control::{Run, RunState};
use shared::time::Micros;

use crate::arguments::{ListFormat, Listing};
use crate::client::Client;
use crate::commands::listing::dash;
use crate::exit::Failure;
use crate::human_units::{grouped, length};
use crate::sparkline::sparkline;
use crate::table::{Align, draw};

use super::word;

/// Number of runs whose durations are drawn.
const DRAWN: usize = 20;

/// Number of runs fetched per view: enough that failed runs do not crowd out those to draw.
const FETCHED: usize = 200;

/// The state of a view, as the server reports it.
#[derive(Debug, Deserialize)]
struct ViewSchedule {
    name: String,
    schedule: Option<String>,
    /// Of a view that the speed layer alone computes.
    #[serde(default)]
    checkpoint_schedule: Option<String>,
    /// The declared definition, while an earlier one is active.
    #[serde(default)]
    shadow: Option<Value>,
    /// `speed`: the view has checkpoints and no batch runs.
    #[serde(default)]
    layers: Option<String>,
    #[serde(default)]
    schedule_time_zone: Option<String>,
    next_run: Option<Micros>,
    #[serde(default)]
    retry_at: Option<Micros>,
    #[serde(default)]
    last_success: Option<RunOutcome>,
    #[serde(default)]
    last_failure: Option<RunOutcome>,
}

/// The outcome of a finished run.
#[derive(Debug, Deserialize)]
struct RunOutcome {
    version: Option<i64>,
    finished_at: Option<Micros>,
    duration_ms: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Views {
    views: Vec<ViewSchedule>,
}

pub async fn run(arguments: Listing) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let views: Value = client.get("/v1/views").await?;
    let mut runs: Vec<Value> = Vec::new();
    for view in views["views"].as_array().into_iter().flatten().filter_map(|view| view["name"].as_str()) {
        // Per view: runs of a view that runs every minute would crowd out those of a view that runs every night.
        let mut page: Value = client.get(&format!("/v1/runs?view={view}&limit={FETCHED}")).await?;
        runs.extend(page["runs"].as_array_mut().map(std::mem::take).unwrap_or_default());
    }
    let text = match arguments.output {
        ListFormat::Json => format!("{:#}\n", json!({ "views": views["views"], "runs": runs })),
        ListFormat::Table => {
            let unreadable = |cause| client.unreadable(&cause);
            let Views { views } = serde_json::from_value(views).map_err(unreadable)?;
            let runs: Vec<Run> = serde_json::from_value(Value::Array(runs)).map_err(unreadable)?;
            table(&views, &runs, SystemClock.now(), None)
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn table(views: &[ViewSchedule], runs: &[Run], now: Micros, width: Option<u16>) -> String {
    let header = [
        ("view", Align::Left),
        ("now", Align::Left),
        ("next run", Align::Left),
        ("last success", Align::Left),
        ("durations, newest on the right", Align::Left),
        ("last failure", Align::Left),
    ];
    let mut of_view: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    runs.iter().for_each(|run| of_view.entry(run.view.as_str()).or_default().push(run));
    let rows = views.iter().map(|view| {
        let runs = of_view.get(view.name.as_str()).map_or(&[][..], Vec::as_slice);
        vec![
            view.name.clone(),
            current(view, runs),
            next(view, now),
            success(view, now),
            durations(runs),
            failure(view, now),
        ]
    });
    let mut text = draw(&header, rows, width);
    if runs.is_empty() {
        text += "no runs yet; start one: trueup batch run VIEW --wait\n";
    }
    text
}

/// Describes the running and queued runs.
fn current(view: &ViewSchedule, runs: &[&Run]) -> String {
    let open = runs.iter().rev().filter(|run| !run.state.is_over());
    let replays = view.shadow.is_some() && view.layers.as_deref() == Some("speed");
    let verb = if replays { "replaying a changed definition" } else { "running" };
    let words = open.map(|run| match (run.state, run.progress.dates) {
        (RunState::Running, 1..) => {
            format!("{verb}, {} of {} dates", grouped(run.progress.dates_done), grouped(run.progress.dates))
        }
        (state, _) => word(state).to_owned(),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "idle".to_owned() } else { words.join("; ") }
}

/// Describes the next run, with its time in the time zone of the schedule.
fn next(view: &ViewSchedule, now: Micros) -> String {
    let zone: Zone = view.schedule_time_zone.as_deref().and_then(|name| name.parse().ok()).unwrap_or(Zone::UTC);
    let at = |time: Micros| {
        let wall = Micros(zone.wall_clock(time.0)).to_string();
        let wall = wall.get(11..16).map_or(wall.clone(), str::to_owned);
        format!("in {}, at {wall} {}", span(now, time), zone.name())
    };
    let schedule = view.schedule.as_deref().or(view.checkpoint_schedule.as_deref());
    match (view.retry_at, view.next_run) {
        (Some(retry), next) if next.is_none_or(|next| retry < next) => format!("retry {}", at(retry)),
        (_, Some(next)) if schedule.is_some_and(|line| line.starts_with("@every")) => {
            format!("in {}", span(now, next))
        }
        (_, Some(next)) => at(next),
        _ => "on request".to_owned(),
    }
}

/// Formats the time between two instants, to the second.
fn span(earlier: Micros, later: Micros) -> String {
    match (later.0.saturating_sub(earlier.0).max(0) as f64 / 1e6).round() {
        seconds if seconds < 2.0 => format!("{seconds} s"),
        seconds => length(seconds * 1e3),
    }
}

fn ago(end: &RunOutcome, now: Micros) -> String {
    end.finished_at.map_or_else(|| "at an unknown time".to_owned(), |at| format!("{} ago", span(at, now)))
}

fn success(view: &ViewSchedule, now: Micros) -> String {
    let Some(end) = &view.last_success else { return dash() };
    let version = end.version.map_or(String::new(), |version| format!("version {version}, "));
    let took = end.duration_ms.map_or(String::new(), |ms| format!(", took {}", length(ms as f64)));
    format!("{version}{}{took}", ago(end, now))
}

fn failure(view: &ViewSchedule, now: Micros) -> String {
    let Some(end) = &view.last_failure else { return dash() };
    format!("{}: {}", ago(end, now), end.error.as_deref().unwrap_or("no reason given"))
}

fn durations(runs: &[&Run]) -> String {
    let published = runs.iter().filter(|run| run.state == RunState::Published);
    let mut durations: Vec<f64> = published.filter_map(|run| run.duration_ms).take(DRAWN).map(|ms| ms as f64).collect();
    if durations.is_empty() {
        return dash();
    }
    durations.reverse();
    let longest = durations.iter().copied().fold(0.0, f64::max);
    format!("{} up to {}", sparkline(&durations), length(longest))
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_run;
    use super::*;

    #[test]
    fn a_view_shows_its_current_next_and_recent_runs() {
        let views = serde_json::from_value::<Views>(json!({"views": [
            {"name": "departures", "schedule": "0 2 * * *", "schedule_time_zone": "Europe/Berlin",
             "next_run": "2024-07-02T00:00:00Z", "last_failure": null,
             "last_success": {"run": "r1", "version": 12, "finished_at": "2024-07-01T00:00:04Z", "duration_ms": 4200, "error": null}},
            {"name": "delays", "schedule": "@every 5m", "schedule_time_zone": "UTC", "next_run": "2024-07-01T12:04:10Z",
             "retry_at": "2024-07-01T12:00:31Z",
             "last_failure": {"run": "r2", "version": null, "finished_at": "2024-07-01T12:00:00Z", "duration_ms": 20,
                              "error": "the store is unreachable"}},
            {"name": "totals", "schedule": null, "next_run": null}
        ]}));
        let mut runs: Vec<Run> =
            [400, 800, 4200, 100].map(|ms| Run { duration_ms: Some(ms), ..a_run("published", Some(4), None) }).into();
        runs.insert(0, a_run("running", None, None));
        let now = Micros::parse("2024-07-01T12:00:01Z").expect("a time");
        insta::assert_snapshot!(table(&views.expect("views").views, &runs, now, Some(200)), @r#"
         view         now                     next run                          last success                       durations, newest on the right   last failure
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         departures   running, 3 of 3 dates   in 12 h, at 02:00 Europe/Berlin   version 12, 12 h ago, took 4.2 s   ▂█▃▂ up to 4.2 s                 -
         delays       idle                    retry in 30 s, at 12:00 UTC       -                                  -                                1 s ago: the store is unreachable
         totals       idle                    on request                        -                                  -                                -
        "#);
    }
}
