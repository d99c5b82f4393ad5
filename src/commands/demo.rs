//! `trueup demo`: what does Trueup look like at work? Real flights, replayed through our own HTTP door like any client's.
//!
//! [`replay`] sends the flights in their real order, [`watch`] follows the batch runs; here both are started beside the
//! server, and ended with it.

mod replay;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch as latest;

use crate::arguments::Demo;
use crate::client::Client;
use crate::data_dir::Place;
use crate::exit::Failure;
use crate::human_units::{counted, grouped};
use crate::signals::StopSignals;
use crate::wiring::WiringSettings;
use serving::http::Origins;

use super::serve::{addresses, log_to_stderr, shut_down, start};
use replay::{Flights, Replayed};
use watch::Watched;

const DEFINITIONS: &str = include_str!("../../examples/flights/flights.sql");
/// Name of the definitions, as messages show it.
const DEFINITIONS_NAME: &str = "examples/flights/flights.sql";
const STREAM: &str = "flights";
/// How often the runs are looked up and the status line is drawn.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest time that the last request of a replay may take when the demo ends.
const REPLAY_END_WAIT: Duration = Duration::from_secs(2);
/// How often a line is printed where stderr is no terminal.
const LINE_EVERY_LOOKS: u32 = 5;

pub async fn run(arguments: Demo) -> Result<(), Failure> {
    log_to_stderr("warn");
    let mut signals = StopSignals::install()?;
    // Removed when it goes out of scope, at the end of this function.
    let temporary = match &arguments.data {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("trueup-demo-").tempdir()?),
    };
    let kept = arguments.data;
    let data = kept.clone().or_else(|| Some(temporary.as_ref()?.path().display().to_string())).unwrap_or_default();
    let flights = Flights::embedded(arguments.rows.unwrap_or(usize::MAX))?;
    let wiring = WiringSettings {
        batch_memory_bytes: shared::limits::BATCH_MEMORY_BYTES,
        definitions: vec![(PathBuf::from(DEFINITIONS_NAME), DEFINITIONS.to_owned())],
        place: Place::new(&data, arguments.local.as_deref()),
        listen: arguments.listen,
        limits: crate::settings::Limits::default(),
        take_over: false,
        schedules: true,
        origins: Origins::default(),
    };
    let Some(mut running) = start(wiring, &mut signals).await? else { return Ok(()) };
    let (url, option) = addresses(running.local_addr);
    let folder = kept.unwrap_or_else(|| format!("{data} (temporary)"));
    eprint!("{}", greeting(&url, &option, &folder, &flights, arguments.speedup));

    let client = Client::new(&url)?;
    let (progress, replayed) = latest::channel(Replayed::default());
    let (stop_replay, replay_stopped) = latest::channel(false);
    let mut replay = tokio::spawn(flights.replay(client.clone(), arguments.speedup, progress, replay_stopped));
    let mut demo = Observed { client, watched: Watched::default(), replayed, views: running.views.clone() };
    let ended = tokio::select! {
        stopped = running.stopped() => Some(stopped),
        () = signals.next() => None,
        () = sleep_or_forever(arguments.duration) => None,
        never = demo.observe() => match never {},
    };
    // The request under way may end, so that the summary counts what the server has; a retry may not.
    stop_replay.send_replace(true);
    if tokio::time::timeout(REPLAY_END_WAIT, &mut replay).await.is_err() {
        replay.abort();
    }
    demo.look().await;
    writeln!(std::io::stdout(), "{}", summary(&demo.replayed.borrow(), &demo.watched))?;
    shut_down(running, ended.unwrap_or(Ok(())), signals).await
}

async fn sleep_or_forever(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn greeting(url: &str, option: &str, data: &str, flights: &Flights, speedup: f64) -> String {
    let span = Duration::from_secs_f64((flights.span_s() / speedup).clamp(1.0, 1e9).round());
    format!(
        "trueup demo: {} real flights, {speedup} times faster than they happened (about {})\n  \
         page  {url}/\n  API   {url}/v1\n  data  {data}\n\
         While it runs:\n  \
         trueup query departures --where \"origin = 'ATL'\" --order-by=-window_start --limit 10{option}\n  \
         trueup query departures --grain all --order-by=-flights --limit 10{option}\n  \
         trueup compare departures{option}\n\
         Ctrl-C stops it.\n",
        grouped(flights.len() as u64),
        humantime::format_duration(span),
    )
}

/// The demo, as its status line shows it.
struct Observed {
    client: Client,
    watched: Watched,
    replayed: latest::Receiver<Replayed>,
    views: Vec<shared::ids::ViewName>,
}

impl Observed {
    /// Draws the status again and again.
    async fn observe(&mut self) -> std::convert::Infallible {
        let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a constant template");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style));
        let mut looks = 0;
        let mut told = Told::default();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            looks += 1;
            self.look().await;
            let replayed = self.replayed.borrow().clone();
            if let Some(news) = told.news(&replayed) {
                match &bar {
                    Some(bar) => bar.suspend(|| eprintln!("{news}")),
                    None => eprintln!("{news}"),
                }
            }
            let status = status(&replayed, &self.watched);
            match &bar {
                Some(bar) => {
                    bar.set_message(status);
                    bar.tick();
                }
                None if looks % LINE_EVERY_LOOKS == 0 => eprintln!("{status}"),
                None => {}
            }
        }
    }

    /// Looks the runs up. A server too busy to answer is asked again at the next look.
    async fn look(&mut self) {
        if let Err(error) = self.watched.look(&self.client, &self.views).await {
            tracing::debug!(%error, "the runs could not be looked up");
        }
    }
}

/// What has been said once and is not said again.
#[derive(Debug, Default)]
struct Told {
    end: bool,
    error: bool,
}

impl Told {
    fn news(&mut self, replayed: &Replayed) -> Option<String> {
        if let Some(error) = &replayed.error
            && !std::mem::replace(&mut self.error, true)
        {
            return Some(format!("the replay stopped: {error}"));
        }
        if replayed.finished && !std::mem::replace(&mut self.end, true) {
            return Some("all flights have been sent; the server stays up until Ctrl-C".to_owned());
        }
        None
    }
}

fn status(replayed: &Replayed, watched: &Watched) -> String {
    let clock = replayed.clock.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let drift = watched.last.as_deref().unwrap_or("no run yet");
    format!(
        "{} events | flight time {clock} | {} published | {drift}",
        grouped(replayed.sent()),
        counted(watched.published as usize, "version")
    )
}

fn summary(replayed: &Replayed, watched: &Watched) -> String {
    let mut text = String::from("demo summary");
    for (what, count) in [
        ("events accepted", replayed.receipt.accepted),
        ("duplicates", replayed.receipt.duplicates),
        ("late events", replayed.receipt.late),
        ("events rejected", replayed.receipt.rejected),
        ("versions published", watched.published),
        ("rows compared", watched.rows_compared),
        ("rows equal", watched.rows_equal),
        ("unexplained", watched.unexplained),
    ] {
        text += &format!("\n  {what:<20}{:>12}", grouped(count));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_definitions_are_right() {
        let files = [(DEFINITIONS_NAME.to_owned(), DEFINITIONS.to_owned())];
        let definitions = shared::sql::parse_definitions(&files).expect("no mistakes");
        assert_eq!(definitions.streams[0].name.as_str(), STREAM);
        let views: Vec<&str> = definitions.views.iter().map(|view| view.name.as_str()).collect();
        assert_eq!(views, ["departures", "delays", "totals"]);
        assert!(definitions.views.iter().all(|view| view.schedule.is_some()), "batch runs by itself");
    }

    #[test]
    fn news_is_told_once() {
        let mut told = Told::default();
        let mut replayed = Replayed::default();
        assert_eq!(told.news(&replayed), None);
        replayed.finished = true;
        assert!(told.news(&replayed).is_some());
        assert_eq!(told.news(&replayed), None);
    }
}
