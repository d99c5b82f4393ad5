//! `trueup serve`: all layers in one process, from the definitions to the last signal.

use std::net::SocketAddr;
use std::time::SystemTime;

use serving::http::Origins;
use shared::ids::ViewName;
use shared::limits;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use tracing_subscriber::EnvFilter;

use crate::arguments::Serve;
use crate::cores::default_threads;
use crate::data_dir::Place;
use crate::definitions;
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::counted;
use crate::sample;
use crate::settings::Settings;
use crate::signals::StopSignals;
use crate::wiring::{self, Running, WiringSettings};

const DEFAULT_DATA: &str = "data";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub async fn run(arguments: Serve) -> Result<(), Failure> {
    log_to_stderr("info");
    let settings = match &arguments.config {
        Some(path) => Settings::read(path).map_err(|error| Failure::new(USAGE, error))?,
        None => Settings::default(),
    };
    crate::cores::bound(arguments.batch_threads.or(settings.batch.threads).unwrap_or_else(default_threads));
    let sources = definitions::read(&arguments.files)?;
    definitions::parse(&sources)?;
    let batch_memory_bytes =
        arguments.batch_memory.or(settings.batch.memory_limit).unwrap_or(limits::BATCH_MEMORY_BYTES);
    let data = arguments.data.or(settings.data).unwrap_or_else(|| DEFAULT_DATA.to_owned());
    let listen = arguments.listen.or(settings.listen).unwrap_or(DEFAULT_LISTEN);
    if !listen.ip().is_loopback() {
        eprintln!("warning: {listen} can be reached from other machines, and anyone who reaches it may read and write");
    }
    let local = arguments.local.or(settings.local);
    let place = Place::new(&data, local.as_deref());
    let origins = if arguments.cors_origin.is_empty() { settings.cors_origins } else { arguments.cors_origin };
    let origins = Origins::parse(origins.iter().map(String::as_str)).map_err(|error| Failure::new(USAGE, error))?;
    let wiring = WiringSettings {
        definitions: sources,
        place: place.clone(),
        listen,
        limits: settings.limits,
        take_over: arguments.take_over,
        batch_memory_bytes,
        schedules: true,
        origins,
    };
    // Before recovery, which may take long, so that no signal finds the default handler.
    let mut signals = StopSignals::install()?;
    let Some(mut running) = start(wiring, &mut signals).await? else { return Ok(()) };
    eprint!("{}", greeting(running.local_addr, &running.streams, &running.views, &place, now()));
    let stopped = tokio::select! {
        stopped = running.stopped() => stopped,
        () = signals.next() => Ok(()),
    };
    eprintln!("stopping: finishing requests and syncing the log; a second signal stops at once");
    shut_down(running, stopped, signals).await
}

/// Starts all layers; `None`: a signal came first.
pub async fn start(wiring: WiringSettings, signals: &mut StopSignals) -> Result<Option<Running>, Failure> {
    tokio::select! {
        running = wiring::start(wiring) => Ok(Some(running?)),
        () = signals.next() => Ok(None),
    }
}

/// Stops all layers. `stopped`: why the server ended by itself, if it did.
pub async fn shut_down(running: Running, stopped: anyhow::Result<()>, signals: StopSignals) -> Result<(), Failure> {
    signals.exit_on_next();
    let shut_down = running.shutdown().await;
    stopped.map_err(|error| Failure::new(NO, format!("a layer failed: {error:#}")))?;
    Ok(shut_down?)
}

/// The Delta library tells of every snapshot it reads, the object store of every request it repeats; that is of no use to
/// who runs a server.
const QUIET_LIBRARIES: &str = "buoyant_kernel=warn,deltalake_core=warn,object_store=warn";

/// Lets the layers speak on stderr; `TRUEUP_LOG` says how much, `default` otherwise.
pub fn log_to_stderr(default: &str) {
    let default = || EnvFilter::new(format!("{default},{QUIET_LIBRARIES}"));
    let filter = EnvFilter::try_from_env("TRUEUP_LOG").unwrap_or_else(|_| default());
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
}

/// Where the page and the API of a server are, and what to add to a command for it.
pub fn addresses(local: SocketAddr) -> (String, String) {
    // A server on all addresses is reached by this machine at its loopback address.
    let host = match local {
        SocketAddr::V4(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
        other => other.to_string(),
    };
    let url = format!("http://{host}");
    let option = if local == DEFAULT_LISTEN { String::new() } else { format!(" --url {url}") };
    (url, option)
}

/// What a newcomer needs after the start: where it is, and what to try next.
fn greeting(local: SocketAddr, streams: &[Stream], views: &[ViewName], place: &Place, now: Micros) -> String {
    let (url, option) = addresses(local);
    let mut text = format!(
        "trueup {} serves {} and {}\n  page  {url}/\n  API   {url}/v1\n{}",
        env!("CARGO_PKG_VERSION"),
        counted(streams.len(), "stream"),
        counted(views.len(), "view"),
        place.lines().iter().map(|(what, place)| format!("  {what:<5} {place}\n")).collect::<String>(),
    );
    let mut steps: Vec<String> = streams.first().map(|stream| post(stream, &url, now)).into_iter().collect();
    if let Some(view) = views.first() {
        steps.push(format!("trueup query {view}{option}"));
        steps.push(format!("trueup batch run {view} --wait{option}"));
    }
    if !steps.is_empty() {
        text += &format!("Try next:\n  {}\n", steps.join("\n  "));
    }
    text += "Ctrl-C stops it.\n";
    text
}

fn post(stream: &Stream, url: &str, now: Micros) -> String {
    // A quote inside a shell's quotes: none of our sample values has one, and names cannot.
    format!("curl --json '{}' {url}/v1/events/{}", sample::event(stream, now), stream.name)
}

fn now() -> Micros {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Micros(micros_of(since_1970) / 1_000_000 * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_addresses_that_work_and_three_commands() {
        let text = "CREATE STREAM clicks (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at')";
        let definitions = shared::sql::parse_definitions(&[("s".to_owned(), text.to_owned())]).expect("right");
        let now = Micros::parse("2024-02-29T10:00:00Z").expect("a time");
        let views = ["per_hour".parse().expect("a name")];
        let greet = |local: &str, data: &str| {
            let place = Place::new(data, None);
            greeting(local.parse().expect("an address"), &definitions.streams, &views, &place, now)
        };
        let usual = greet("127.0.0.1:8080", "s3://bucket/x");
        for line in [
            "  page  http://127.0.0.1:8080/\n",
            "  data  s3://bucket/x\n",
            "  curl --json '{\"id\":\"sample-1\",\"at\":\"2024-02-29T10:00:00Z\"}' http://127.0.0.1:8080/v1/events/clicks\n",
            "  trueup query per_hour\n",
            "  trueup batch run per_hour --wait\n",
        ] {
            assert!(usual.contains(line), "{line}\nis not in\n{usual}");
        }
        let everywhere = greet("0.0.0.0:9000", "d");
        assert!(everywhere.contains("trueup query per_hour --url http://127.0.0.1:9000\n"), "{everywhere}");
    }
}
