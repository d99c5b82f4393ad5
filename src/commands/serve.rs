//! `trueup serve`: runs all layers in one process until a signal stops it.

use std::net::SocketAddr;
use std::sync::Arc;

use auth::Guard;
use auth::guard::GuardSettings;
use auth::key_file::KeyFile;
use auth::keyring::KeyRing;
use batch::Engines;
use serving::http::{Hosts, Origins, Perimeter};
use shared::clock::{Clock, SystemClock};
use shared::ids::ViewName;
use shared::limits;
use shared::stream::Stream;
use shared::time::Micros;
use tracing_subscriber::EnvFilter;

use crate::arguments::Serve;
use crate::connections;
use crate::cores::default_threads;
use crate::data_dir::DataDir;
use crate::definitions;
use crate::engines;
use crate::exit::{FAILED, Failure, USAGE};
use crate::exposure::Protection;
use crate::human_units::counted;
use crate::listen::tls::Tls;
use crate::sample;
use crate::secret_files;
use crate::settings::{AuthSettings, Settings};
use crate::signals::StopSignals;
use crate::token_keys;
use crate::wiring::{self, RunningServer, WiringSettings};

/// The data folder, unless it is named.
pub const DEFAULT_DATA: &str = "data";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);

pub async fn run(arguments: Serve) -> Result<(), Failure> {
    log_to_stderr("info");
    let settings = match &arguments.config {
        Some(path) => Settings::read(path).map_err(|error| Failure::new(USAGE, error))?,
        None => Settings::default(),
    };
    crate::cores::limit_batch_threads(
        arguments.batch_threads.or(settings.batch.threads).unwrap_or_else(default_threads),
    );
    let sources = definitions::read(&arguments.files)?;
    let parsed = definitions::parse(&sources)?;
    let webhooks = connections::webhooks(&settings.connections, &parsed)?;
    let topics = connections::of_topics(&settings.connections, &parsed)?;
    let engines = Engines::new(engines::of_views(&settings, &parsed)?);
    let batch_memory_bytes =
        arguments.batch_memory.or(settings.batch.memory_limit).unwrap_or(limits::BATCH_MEMORY_BYTES);
    let data = arguments.data.or(settings.data).unwrap_or_else(|| DEFAULT_DATA.to_owned());
    let listen = arguments.listen.or(settings.listen).unwrap_or(DEFAULT_LISTEN);
    let local = arguments.local.or(settings.local);
    let data_dir = DataDir::new(&data, local.as_deref());
    let tls = settings.tls.map(Tls::load).transpose().map_err(|error| Failure::new(USAGE, error))?.map(Arc::new);
    secret_files::warn_of_readable(arguments.config.as_deref(), KeyFile::in_folder(data_dir.local_folder()).path());
    let guard = guard(&data_dir, &settings.auth, tls.is_some())?;
    let guard = match settings.jwt {
        Some(jwt) => guard.with_tokens(token_keys::verifier(jwt)),
        None => guard,
    };
    let is_waived = arguments.insecure_open;
    Protection { has_keys: guard.is_required(), has_tls: tls.is_some(), is_waived }.check(listen)?;
    let origins = if arguments.cors_origin.is_empty() { settings.cors_origins } else { arguments.cors_origin };
    let origins = Origins::parse(origins.iter().map(String::as_str)).map_err(|error| Failure::new(USAGE, error))?;
    let hosts = if arguments.allow_host.is_empty() { settings.allowed_hosts } else { arguments.allow_host };
    let hosts = Hosts::parse(hosts.iter().map(String::as_str)).map_err(|error| Failure::new(USAGE, error))?;
    let has_tls = tls.is_some();
    let wiring = WiringSettings {
        definitions: sources,
        data_dir: data_dir.clone(),
        listen,
        limits: settings.limits,
        webhooks,
        topics,
        engines,
        take_over: arguments.take_over,
        batch_memory_bytes,
        as_declared: true,
        perimeter: Perimeter { roles: arguments.roles.unwrap_or_default(), ..Perimeter::new(guard, hosts, origins) },
        tls,
    };
    // Before recovery, which may be slow, so that no signal meets the default handler.
    let mut signals = StopSignals::install()?;
    let Some(mut running) = start(wiring, &mut signals).await? else { return Ok(()) };
    eprint!("{}", greeting(addresses(running.local_addr, has_tls), &running.streams, &running.views, &data_dir, now()));
    let mut grown = running.grown();
    let mut starts_again = false;
    let outcome = tokio::select! {
        failed = running.failed() => failed,
        () = signals.next() => Ok(()),
        Ok(_) = grown.wait_for(|grown| *grown) => {
            starts_again = true;
            Ok(())
        }
    };
    match starts_again {
        true => eprintln!("starting again: a topic has new partitions"),
        false => eprintln!("stopping: finishing requests and syncing the log (a second signal stops immediately)"),
    }
    shut_down(running, outcome, signals).await?;
    match starts_again {
        true => Err(crate::cores::start_again()),
        false => Ok(()),
    }
}

/// Makes the guard of a server, with the keys in its data folder.
fn guard(data_dir: &DataDir, settings: &AuthSettings, has_tls: bool) -> Result<Guard, Failure> {
    let clock = Arc::new(SystemClock);
    let keys = KeyRing::open(KeyFile::in_folder(data_dir.local_folder()), Arc::clone(&clock) as _)?;
    let settings = GuardSettings { is_required: settings.required, has_tls };
    Ok(Guard::new(keys, settings, clock))
}

/// Starts all layers. Returns `None` if a signal arrives first.
pub async fn start(wiring: WiringSettings, signals: &mut StopSignals) -> Result<Option<RunningServer>, Failure> {
    crate::listen::descriptors::raise();
    tokio::select! {
        running = wiring::start(wiring) => Ok(Some(running?)),
        () = signals.next() => Ok(None),
    }
}

/// Stops all layers. `outcome` is the failure for which the server has to stop, if there is one.
pub async fn shut_down(
    running: RunningServer,
    outcome: anyhow::Result<()>,
    signals: StopSignals,
) -> Result<(), Failure> {
    signals.exit_on_next();
    let shut_down = running.shutdown().await;
    outcome.map_err(|error| Failure::new(FAILED, format!("a layer failed: {error:#}")))?;
    Ok(shut_down?)
}

/// Log levels of libraries. The Delta library logs every snapshot that it reads, the object store every request that it
/// retries, the client of Kafka every attempt to connect, none of which is useful to operators.
const QUIET_LIBRARIES: &str = "buoyant_kernel=warn,deltalake_core=warn,object_store=warn,krafka=error";

/// Logs to stderr, at the level of `TRUEUP_LOG` or else at `default`.
pub fn log_to_stderr(default: &str) {
    let default = || EnvFilter::new(format!("{default},{QUIET_LIBRARIES}"));
    let filter = EnvFilter::try_from_env("TRUEUP_LOG").unwrap_or_else(|_| default());
    let coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
}

/// Returns the URL of a server, and the option that other commands need to reach it.
pub fn addresses(local: SocketAddr, has_tls: bool) -> (String, String) {
    // From this machine, a server on all addresses is reached at the loopback address.
    let host = match local {
        SocketAddr::V4(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
        other => other.to_string(),
    };
    let url = format!("{}://{host}", if has_tls { "https" } else { "http" });
    let option = if local == DEFAULT_LISTEN && !has_tls { String::new() } else { format!(" --url {url}") };
    (url, option)
}

/// Returns the startup message: URLs, data folder, and commands to try next.
fn greeting(
    (url, option): (String, String),
    streams: &[Stream],
    views: &[ViewName],
    data_dir: &DataDir,
    now: Micros,
) -> String {
    let mut text = format!(
        "trueup {} is serving {} and {}\n  page  {url}/\n  API   {url}/v1\n{}",
        env!("CARGO_PKG_VERSION"),
        counted(streams.len(), "stream"),
        counted(views.len(), "view"),
        data_dir.lines().iter().map(|(label, location)| format!("  {label:<5} {location}\n")).collect::<String>(),
    );
    let sent = streams.iter().find(|stream| stream.is_sent());
    let mut steps: Vec<String> = sent.map(|stream| post(stream, &url, now)).into_iter().collect();
    if let Some(view) = views.first() {
        steps.push(format!("trueup query {view}{option}"));
        steps.push(format!("trueup batch run {view} --wait{option}"));
    }
    if !steps.is_empty() {
        text += &format!("Try next:\n  {}\n", steps.join("\n  "));
    }
    text += "Press Ctrl-C to stop.\n";
    text
}

fn post(stream: &Stream, url: &str, now: Micros) -> String {
    // Neither the sample values nor names contain a single quote, which would end the shell's quotes.
    format!("curl --json '{}' {url}/v1/events/{}", sample::event(stream, now), stream.name)
}

fn now() -> Micros {
    Micros(SystemClock.now().0 / 1_000_000 * 1_000_000)
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
            let data_dir = DataDir::new(data, None);
            greeting(addresses(local.parse().expect("an address"), false), &definitions.streams, &views, &data_dir, now)
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
