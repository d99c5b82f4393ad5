//! `trueup demo`: serves the flights example and replays real flights through its HTTP API.
//!
//! [`replay`] sends the flights in their real order, over HTTP or through a Kafka topic ([`topics`]), and
//! [`run_totals`] follows the batch runs. Both run beside the server and end with it.

mod replay;
mod run_totals;
mod topics;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use batch::Engines;
use indicatif::{ProgressBar, ProgressStyle};
use intake::sources::Connections;
use tokio::sync::watch;

use crate::arguments::Demo;
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::exit::Failure;
use crate::exposure::Protection;
use crate::human_units::{counted, grouped};
use crate::sender::Receipt;
use crate::signals::StopSignals;
use crate::wiring::WiringSettings;
use serving::http::Perimeter;
use shared::control::StreamStatus;

use super::serve::{addresses, log_to_stderr, shut_down, start};
use replay::{Destination, Flights, ReplayProgress};
use run_totals::RunTotals;
use topics::DemoTopics;

const DEFINITIONS: &str = include_str!("../../examples/flights/flights.sql");
/// Path of the definitions in messages.
const DEFINITIONS_NAME: &str = "examples/flights/flights.sql";
const STREAM: &str = "flights";
/// Interval at which the runs are polled and the status line is drawn.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the last request of the replay when the demo ends.
const REPLAY_END_WAIT: Duration = Duration::from_secs(2);
/// Number of polls per printed line if stderr is not a terminal.
const POLLS_PER_LINE: u32 = 5;

#[expect(clippy::disallowed_methods, reason = "the command awaits the task")]
pub async fn run(arguments: Demo) -> Result<(), Failure> {
    log_to_stderr("warn");
    let protection = Protection { has_keys: false, has_tls: false, is_waived: arguments.insecure_open };
    protection.check(arguments.listen)?;
    let mut signals = StopSignals::install()?;
    // Removed when it goes out of scope at the end of this function.
    let temporary = match &arguments.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("trueup-demo-").tempdir()?),
    };
    let permanent = arguments.data;
    let data = permanent.clone().or_else(|| Some(temporary.as_ref()?.path().display().to_string())).unwrap_or_default();
    let flights = Flights::embedded(arguments.rows.unwrap_or(usize::MAX))?;
    let topics = match &arguments.kafka {
        Some(brokers) => Some(DemoTopics::create(brokers).await.context("cannot create the topics of the demo")?),
        None => None,
    };
    let definitions = topics.as_ref().map_or_else(|| DEFINITIONS.to_owned(), |topics| topics.definitions(DEFINITIONS));
    let wiring = WiringSettings {
        batch_memory_bytes: shared::limits::BATCH_MEMORY_BYTES,
        definitions: vec![(PathBuf::from(DEFINITIONS_NAME), definitions)],
        data_dir: DataDir::new(&data, arguments.local.as_deref()),
        listen: arguments.listen,
        limits: crate::settings::Limits::default(),
        webhooks: BTreeMap::new(),
        topics: topics.as_ref().map_or_else(Connections::default, DemoTopics::connections),
        engines: Engines::default(),
        take_over: false,
        as_declared: true,
        perimeter: Perimeter::open(),
        tls: None,
    };
    let Some(mut running) = start(wiring, &mut signals).await? else { return Ok(()) };
    let (url, option) = addresses(running.local_addr, false);
    let folder = permanent.unwrap_or_else(|| format!("{data} (temporary)"));
    eprint!("{}", greeting(&url, &option, &folder, (&flights, topics.as_ref()), arguments.speedup));

    let client = Client::new(&url)?;
    let (progress, replay_progress) = watch::channel(ReplayProgress::default());
    let (stop_replay, replay_stopped) = watch::channel(false);
    let destination = match &topics {
        Some(topics) => Destination::Topic(topics.writer().await.context("cannot write to the topic of flights")?),
        None => Destination::Http(client.clone()),
    };
    let mut replay = tokio::spawn(flights.replay(destination, arguments.speedup, progress, replay_stopped));
    let mut status = DemoStatus { client, totals: RunTotals::default(), replay_progress, views: running.views.clone() };
    let ended = tokio::select! {
        failed = running.failed() => Some(failed),
        () = signals.next() => None,
        () = sleep_or_forever(arguments.duration) => None,
        never = status.run() => match never {},
    };
    // Let the current request finish, so that the summary counts all events that the server has, but do not retry it.
    stop_replay.send_replace(true);
    if tokio::time::timeout(REPLAY_END_WAIT, &mut replay).await.is_err() {
        replay.abort();
    }
    status.poll().await;
    let mut receipt = status.replay_progress.borrow().receipt.clone();
    if topics.is_some() {
        // The replay knows only what it has written to the topic.
        receipt = read_from_topic(&status.client).await?;
    }
    writeln!(std::io::stdout(), "{}", summary(&receipt, &status.totals))?;
    shut_down(running, ended.unwrap_or(Ok(())), signals).await
}

async fn sleep_or_forever(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn greeting(
    url: &str,
    option: &str,
    data: &str,
    (flights, topics): (&Flights, Option<&DemoTopics>),
    speedup: f64,
) -> String {
    let topics = topics.map_or_else(String::new, |topics| {
        format!("  topics {} → stream flights, sink departures_table → {}\n", topics.flights, topics.departures)
    });
    let span = Duration::from_secs_f64((flights.span_s() / speedup).clamp(1.0, 1e9).round());
    format!(
        "trueup demo: {} real flights, {speedup} times faster than real time (about {})\n  \
         page  {url}/\n  API   {url}/v1\n  data  {data}\n{topics}\
         While it runs:\n  \
         trueup query departures --where \"origin = 'ATL'\" --order-by=-window_start --limit 10{option}\n  \
         trueup query departures --grain all --order-by=-flights --limit 10{option}\n  \
         trueup compare departures{option}\n\
         Press Ctrl-C to stop.\n",
        grouped(flights.len() as u64),
        humantime::format_duration(span),
    )
}

/// The status line of the demo.
struct DemoStatus {
    client: Client,
    totals: RunTotals,
    replay_progress: watch::Receiver<ReplayProgress>,
    views: Vec<shared::ids::ViewName>,
}

impl DemoStatus {
    /// Redraws the status line until the future is dropped.
    async fn run(&mut self) -> std::convert::Infallible {
        let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a constant template");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style));
        let mut polls = 0;
        let mut notices = Notices::default();
        loop {
            tokio::time::sleep(POLL_EVERY).await;
            polls += 1;
            self.poll().await;
            let progress = self.replay_progress.borrow().clone();
            if let Some(notice) = notices.next(&progress) {
                match &bar {
                    Some(bar) => bar.suspend(|| eprintln!("{notice}")),
                    None => eprintln!("{notice}"),
                }
            }
            let status = status(&progress, &self.totals);
            match &bar {
                Some(bar) => {
                    bar.set_message(status);
                    bar.tick();
                }
                None if polls % POLLS_PER_LINE == 0 => eprintln!("{status}"),
                None => {}
            }
        }
    }

    /// Polls the runs. If the server is too busy to respond, the next poll catches up.
    async fn poll(&mut self) {
        if let Err(error) = self.totals.poll(&self.client, &self.views).await {
            tracing::debug!(%error, "cannot poll the runs");
        }
    }
}

/// Notices about the replay, each shown once.
#[derive(Debug, Default)]
struct Notices {
    end_shown: bool,
    error_shown: bool,
}

impl Notices {
    /// Returns the next notice, if there is a new one.
    fn next(&mut self, progress: &ReplayProgress) -> Option<String> {
        if let Some(error) = &progress.error
            && !std::mem::replace(&mut self.error_shown, true)
        {
            return Some(format!("the replay stopped: {error}"));
        }
        if progress.finished && !std::mem::replace(&mut self.end_shown, true) {
            return Some("all flights have been sent; the server keeps running until Ctrl-C".to_owned());
        }
        None
    }
}

fn status(progress: &ReplayProgress, totals: &RunTotals) -> String {
    let clock = progress.clock.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let drift = totals.last.as_deref().unwrap_or("no runs yet");
    format!(
        "{} events | flight time {clock} | {} published | {drift}",
        grouped(progress.sent()),
        counted(totals.published as usize, "version")
    )
}

/// Returns the counts of the events that the stream has read from its topic.
async fn read_from_topic(client: &Client) -> Result<Receipt, Failure> {
    let stream: StreamStatus = client.get(&format!("/v1/streams/{STREAM}")).await?;
    let mut receipt = Receipt { rejected: stream.rejected, ..Receipt::default() };
    for partition in &stream.partitions {
        receipt.accepted += partition.accepted;
        receipt.duplicates += partition.duplicates;
        receipt.late += partition.late;
    }
    Ok(receipt)
}

fn summary(receipt: &Receipt, totals: &RunTotals) -> String {
    let mut text = String::from("demo summary");
    for (what, count) in [
        ("events accepted", receipt.accepted),
        ("duplicates", receipt.duplicates),
        ("late events", receipt.late),
        ("events rejected", receipt.rejected),
        ("versions published", totals.published),
        ("rows compared", totals.rows_compared),
        ("rows equal", totals.rows_equal),
        ("unexplained", totals.unexplained),
    ] {
        text += &format!("\n  {what:<20}{:>12}", grouped(count));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_definitions_are_valid() {
        let files = [(DEFINITIONS_NAME.to_owned(), DEFINITIONS.to_owned())];
        let definitions = shared::sql::parse_definitions(&files).expect("no mistakes");
        assert_eq!(definitions.streams[0].name.as_str(), STREAM);
        let views: Vec<&str> = definitions.views.iter().map(|view| view.name.as_str()).collect();
        assert_eq!(views, ["departures", "delays", "totals"]);
        assert!(definitions.views.iter().all(|view| view.schedule.is_some()), "batch runs by itself");
    }

    #[test]
    fn every_notice_is_shown_once() {
        let mut notices = Notices::default();
        let mut progress = ReplayProgress::default();
        assert_eq!(notices.next(&progress), None);
        progress.finished = true;
        assert!(notices.next(&progress).is_some());
        assert_eq!(notices.next(&progress), None);
    }
}
