//! Defines the command line: every command with its options and examples, as clap parses them.
//!
//! The docstrings are the texts that `--help` shows. Nothing runs here. Options that a settings file may set too have no
//! default value here, so that the command knows whether they were given.

mod batch;
mod key;
mod silence;
mod sinks;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serving::http::Roles;
use shared::control::AlertState;
use shared::ids::{AlertName, StreamName, ViewName};
use shared::limits::ALERTS_DEFAULT;
use shared::time::{Day, Micros};

use crate::human_units::parse_bytes;

pub use self::batch::{
    Backfill, Batch, BatchCancel, BatchCompact, BatchRun, BatchRuns, BatchVacuum, BatchVersions, Checkpoint,
};
pub use self::key::{Expiry, Key, KeyCreate, KeyFolder, KeyList, KeyRevoke};
pub use self::silence::{SilenceAdd, SilenceCommand, SilenceEnd};
pub use self::sinks::{SinkCommand, SinkPause, SinkResume, Sinks};
pub use self::verify::Verify;

/// Printed by `trueup` without a command.
pub const FIRST_STEPS: &str = "\
Trueup answers dashboard queries instantly from live events and trues up every figure with exact batch runs.

First steps:
  trueup demo             show a live dashboard over real flights, in one command
  trueup serve FILE.sql   serve your own streams and views
  trueup --help           all commands, with examples
";

const EXAMPLES: &str = "\
Examples:
  trueup demo                                       open http://127.0.0.1:8080/ and watch it live
  trueup check examples/flights/flights.sql         check the definitions and show both execution plans
  trueup plan examples/flights/flights.sql          show what serving them would change in the stored data
  trueup serve examples/flights/flights.sql         serve them
  trueup ingest flights examples/flights/flights.parquet
  trueup query departures --where \"origin = 'ATL'\" --order-by=-flights --limit 10
  trueup batch run departures --wait                true up the figures now
  trueup compare departures                         show how accurate the served figures were

Exit codes: 0 success, 1 a check or a run failed, 2 wrong usage, 3 the server is unreachable or refused the request, 4 a layer of the running server failed.
Data goes to stdout, everything else to stderr.";

/// A Lambda-architecture analytics platform in one program: live figures, trued up by exact batch runs.
///
/// Declare a stream of events and views over it in SQL. The speed layer keeps every view up to date as events arrive,
/// the batch layer recomputes it exactly from the archive, and every query merges both into one result, without gaps and
/// without double counting.
#[derive(Debug, Parser)]
#[command(name = "trueup", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a live dashboard over real flights, in one command
    Demo(Demo),
    /// Serve streams and views declared in SQL files
    Serve(Serve),
    /// Check SQL files and show the execution plans of both layers
    Check(Check),
    /// Show what serving SQL files would change in the stored data
    Plan(Plan),
    /// Run both layers over a file of events and compare them
    Verify(Verify),
    /// Send events from a file to a stream
    Ingest(Ingest),
    /// Query the rows of a view
    Query(Query),
    /// List the views of a server
    Views(Listing),
    /// List the streams of a server, or show one stream and how late its events arrive
    Streams(Streams),
    /// List the alerts of a server: raised, confirmed, withdrawn and corrected ones
    Alerts(Alerts),
    /// Permanently erase an entity and all of its events, in every layer; this cannot be undone
    Erase(Erase),
    /// List the erasures of a server
    Erasures(Listing),
    /// Create, list and end silences: times in which notices of alerts are not sent
    #[command(subcommand)]
    Silence(SilenceCommand),
    /// List the sinks of a server, and pause or resume them
    Sinks(Sinks),
    /// Compare served figures with the exact ones
    Compare(Compare),
    /// Start and monitor batch runs
    #[command(subcommand)]
    Batch(Batch),
    /// Publish the state of a view that only the speed layer computes
    #[command(
        after_help = "Examples:\n  trueup checkpoint orders --wait\n  trueup checkpoint orders --full --wait    replay the archive\n\n\
        The view must have layers = 'speed'. A restart replays only the events after the last checkpoint."
    )]
    Checkpoint(Checkpoint),
    /// Find archive files that are gone, and give up their events so that runs work again
    Repair(Repair),
    /// Create, list and revoke the keys of a server
    #[command(subcommand)]
    Key(Key),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  trueup completions bash > ~/.local/share/bash-completion/completions/trueup")]
    Completions {
        /// Shell to print the script for
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands to a folder
    #[command(after_help = "Examples:\n  trueup man | man -l -\n  trueup man ~/.local/share/man/man1")]
    Man {
        /// Folder for the pages of all commands
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// Selects the server that a command talks to.
#[derive(Debug, Clone, Args)]
pub struct Server {
    // Keys are not options: other users of the machine see those.
    /// Server URL; a key for it is read from TRUEUP_KEY, or from the file that TRUEUP_KEY_FILE names
    #[arg(long, env = "TRUEUP_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Show a live dashboard over real flights, in one command.\n\n\
    Serves examples/flights/flights.sql and replays 15 days of US domestic flights (245,522 flights, embedded in this \
    program) through its own HTTP API, in the order in which they were reported. Events therefore arrive out of order, \
    some of them hours late, and batch runs true up the figures every few seconds.",
    after_help = "Examples:\n  trueup demo\n  trueup demo --speedup 20000 --for 1m\n  \
    trueup demo --data demo-data          keeps the log, the archive (Delta tables) and the views"
)]
pub struct Demo {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Listen on an address that other machines reach, although the demo has neither keys nor TLS
    #[arg(long)]
    pub insecure_open: bool,
    /// Data folder or URL [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub data: Option<String>,
    /// Folder for the log, the quarantine and the spool, on this machine [default: the folder of --data; for a URL trueup-local]
    #[arg(long, value_name = "DIR", requires = "data")]
    pub local: Option<PathBuf>,
    /// Send the flights through a Kafka topic and write a view to another: brokers as HOST:PORT, separated by commas
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// Replay only the first N flights
    #[arg(long, value_name = "N")]
    pub rows: Option<usize>,
    /// Replay speed as a multiple of real time; 4320 replays the 15 days in 5 minutes
    #[arg(long, value_name = "X", default_value_t = 4320.0, value_parser = speedup)]
    pub speedup: f64,
    /// Stop after this time, such as 30s or 5m [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  trueup serve examples/flights/flights.sql\n  \
    trueup serve streams.sql views.sql --data /var/lib/trueup --listen 127.0.0.1:9000\n  \
    trueup serve flights.sql --config trueup.toml\n  \
    trueup serve flights.sql --batch-memory 512MiB --batch-threads 2\n  \
    AWS_ENDPOINT_URL=http://minio:9000 AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... \\\n    \
    trueup serve flights.sql --data s3://bucket/prefix --local /var/lib/trueup\n\n\
    Object storage is configured with its usual environment variables (docs/operations.md).\n\
    SIGTERM or Ctrl-C stops the server: it finishes requests in progress and syncs the log. A second signal stops it \
    immediately.\n\
    TRUEUP_LOG=debug logs more to stderr.")]
pub struct Serve {
    /// SQL files with CREATE STREAM and CREATE VIEW
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// Folder or URL (s3://, gs://, az://, abfss://) of the archive and the views [default: data]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub data: Option<String>,
    /// Folder for the log, the quarantine and the spool, on this machine [default: the folder of --data; for a URL trueup-local]
    #[arg(long, value_name = "DIR")]
    pub local: Option<PathBuf>,
    /// Take ownership of a lake whose log is lost; the new log starts where the archive ends
    #[arg(long)]
    pub take_over: bool,
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    // A string, because an address in a docstring becomes a link in the documentation.
    #[arg(
        long,
        value_name = "ORIGIN",
        help = "Allow pages of this origin, such as https://app.example, to query and to send events; may be repeated"
    )]
    pub cors_origin: Vec<String>,
    /// Accept requests for this host name, beside addresses and localhost; may be repeated
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Listen on addresses that other machines reach even without keys and TLS
    #[arg(long)]
    pub insecure_open: bool,
    /// Serve only commands (appending events) or only queries (views, runs and pages) [default: both]
    #[arg(long, value_name = "commands|queries")]
    pub roles: Option<Roles>,
    /// Memory limit of a batch run, such as 512MiB or 4GiB; larger runs are computed in passes [default: 2 GiB]
    #[arg(long, value_name = "SIZE", value_parser = batch_memory)]
    pub batch_memory: Option<u64>,
    /// Number of threads for batch runs [default: all cores but one]
    #[arg(long, value_name = "N")]
    pub batch_threads: Option<std::num::NonZeroUsize>,
    /// Settings file; options on the command line take precedence
    #[arg(long, value_name = "trueup.toml")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  trueup check examples/flights/flights.sql\n  \
    trueup check examples/flights/flights.sql --engine spark > flights-spark.sql\n\n\
    Exits with 1 if there are errors. Starts nothing and touches no data.")]
pub struct Check {
    /// SQL files, in the order in which `serve` reads them
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// Settings file; checks that it has the connections that streams name
    #[arg(long, value_name = "trueup.toml")]
    pub config: Option<PathBuf>,
    /// Engine whose plan to print; `spark` prints the query of each view and refuses views that Spark cannot compute
    #[arg(long, value_enum, default_value_t = PlanEngine::Polars)]
    pub engine: PlanEngine,
}

/// An engine of batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanEngine {
    /// In the process of the server
    Polars,
    /// Apache Spark 4
    Spark,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Show what serving SQL files would change in the stored data.\n\n\
    Compares the definitions with the stored data and lists added and removed columns, views that `serve` would \
    recompute, how much data that reads and roughly how long it takes, and changes that `serve` would refuse. Works \
    with or without a running server and changes nothing.",
    after_help = "Examples:\n  trueup plan flights.sql --data data\n  trueup plan streams.sql views.sql --data /var/lib/trueup -o json\n  \
    trueup plan flights.sql --data data --engine spark > flights-spark.json\n\n\
    Exits with 1 if `serve` would refuse a change, otherwise with 0."
)]
pub struct Plan {
    /// SQL files, in the order in which `serve` reads them
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// Folder or URL of the log, the archive and the views
    #[arg(long, value_name = "DIR_OR_URL", default_value = "data")]
    pub data: String,
    /// Folder of the log [default: the folder of --data; for a URL trueup-local]
    #[arg(long, value_name = "DIR")]
    pub local: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
    /// Engine to plan for; `spark` prints, as JSON, the query of each view and the files of the archive that it reads
    #[arg(long, value_enum, default_value_t = PlanEngine::Polars)]
    pub engine: PlanEngine,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Send events from a file to a stream.\n\n\
    The file holds one JSON object per line (plain, gzip or zstd) or is a Parquet file; the format is detected from its \
    first bytes. Every batch carries an Idempotency-Key, so a retry never counts an event twice. If the server asks to \
    slow down (429), the command waits and retries.\n\n\
    With --historical the events go straight into the archive, bypassing the log and the live figures: for years of \
    events, many GB at once. This works with or without a server running over the same data; the next batch run of \
    each view includes the events. If the command is killed and started again with the same files, it resumes where it \
    stopped and ingests every event exactly once. A file is identified by its content, not by its name.",
    after_help = "Examples:\n  trueup ingest flights examples/flights/flights.parquet\n  \
    trueup ingest clicks clicks.ndjson.zst\n  tail -n 1000 clicks.ndjson | trueup ingest clicks -\n  \
    trueup ingest flights 2019/*.parquet 2020/*.parquet --historical --definitions flights.sql --data /var/lib/trueup\n\n\
    Exits with 1 if a line was rejected; the other lines are accepted."
)]
pub struct Ingest {
    /// Stream to send the events to
    pub stream: StreamName,
    /// Files of events, or - for standard input; with --historical also folders of files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Number of concurrent requests; with more than 1, batches may arrive out of order
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub in_flight: u8,
    #[command(flatten)]
    pub historical: Historical,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  trueup repair flights --data data\n  trueup repair flights --data data --apply")]
pub struct Repair {
    /// Stream whose archive to check, or view whose table to check
    pub stream: StreamName,
    /// Folder or URL of the archive, as for `trueup serve` [default: data]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub data: Option<String>,
    /// Settings file, as for `trueup serve`; options on the command line take precedence
    #[arg(long, value_name = "trueup.toml")]
    pub config: Option<PathBuf>,
    /// Take the missing files out of the archive: their events are lost
    #[arg(long)]
    pub apply: bool,
}

/// Options for ingesting events straight into the archive.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Historical events")]
pub struct Historical {
    /// Write the events straight into the archive, without a server
    #[arg(long, requires = "definitions", conflicts_with = "in_flight")]
    pub historical: bool,
    /// SQL file with the CREATE STREAM statement; may be repeated
    #[arg(long, value_name = "FILE.sql", requires = "historical")]
    pub definitions: Vec<PathBuf>,
    /// Folder or URL of the archive, as for `trueup serve` [default: data]
    #[arg(long, value_name = "DIR_OR_URL", requires = "historical")]
    pub data: Option<String>,
    /// Settings file, as for `trueup serve`; options on the command line take precedence
    #[arg(long, value_name = "trueup.toml", requires = "historical")]
    pub config: Option<PathBuf>,
    /// Re-import files that were already imported
    #[arg(long, requires = "historical")]
    pub again: bool,
    /// File to append rejected lines to, with file, line and reason [default: rejected/STREAM.ndjson in the local folder of the data]
    #[arg(long, value_name = "FILE", requires = "historical")]
    pub rejects: Option<PathBuf>,
    /// Memory for buffered events; more memory makes fewer and larger files if events are out of order
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = memory, requires = "historical")]
    pub memory: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trueup query departures --from 2001-01-02 --to 2001-01-03 --where \"origin = 'ATL'\"\n  \
    trueup query departures --grain 1d --group-by origin --order-by=-flights --limit 10\n  \
    trueup query departures --grain all --group-by= --layer batch\n  \
    trueup query departures --as-of 2024-03-01T12:00:00Z     what the batch layer returned then\n  \
    trueup query departures -o parquet > departures.parquet"
)]
pub struct Query {
    /// View to query
    pub view: ViewName,
    /// First window start, such as 2001-01-01 or 2001-01-01T06:00:00Z (UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<Micros>,
    /// End of the range of window starts, exclusive
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<Micros>,
    /// SQL condition over dimensions and measures
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
    /// Dimensions to group by, comma-separated; empty for none [default: all]
    #[arg(long, value_name = "NAMES")]
    pub group_by: Option<String>,
    /// Coarser windows: a multiple of the view's window, such as 1h or 1d, or `all` for a single window
    #[arg(long, value_name = "GRAIN")]
    pub grain: Option<String>,
    /// Measures to show, comma-separated [default: all]
    #[arg(long, value_name = "NAMES")]
    pub measures: Option<String>,
    /// Columns to sort by, comma-separated; prefix with - for descending order
    #[arg(long, value_name = "NAMES", allow_hyphen_values = true)]
    pub order_by: Option<String>,
    /// Maximum number of rows [default: 10000, at most 1000000]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Continue after the previous page; its footer prints the cursor
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Layer to query
    #[arg(long, value_enum, default_value_t = Layer::Merged)]
    pub layer: Layer,
    /// Query the batch version that was active at this time, or the version with this number. On a view with SLIDE: the
    /// instant at which the window ends, `latest` or `now`
    #[arg(long, value_name = "TIME_OR_VERSION")]
    pub as_of: Option<String>,
    /// Query this batch version (`trueup batch versions VIEW` lists the versions)
    #[arg(long = "version", value_name = "N")]
    pub batch_version: Option<u32>,
    /// Keep printing rows as they change (table, json or ndjson), until Ctrl-C
    #[arg(short, long, conflicts_with_all = ["cursor", "batch_version"])]
    pub follow: bool,
    /// Interval between updates, 100ms to 60m [default: 1s]
    #[arg(long, value_name = "TIME", requires = "follow")]
    pub every: Option<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = RowFormat::Table)]
    pub output: RowFormat,
    #[command(flatten)]
    pub server: Server,
}

/// The layer that a query reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layer {
    /// Batch before the seam, speed from the seam on
    Merged,
    /// Only the active batch version
    Batch,
    /// Only events since the seam
    Speed,
}

/// Output format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    Table,
    Json,
    Ndjson,
    Csv,
    Parquet,
    /// An Arrow IPC stream
    Arrow,
}

/// Output format of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct Listing {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trueup streams\n  trueup streams flights           how late its events arrive, and which settings would fit"
)]
pub struct Streams {
    /// Show only this stream, with the lateness of its events
    pub stream: Option<StreamName>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  trueup alerts\n  trueup alerts high_spend --state withdrawn")]
pub struct Alerts {
    /// Show only this alert
    pub alert: Option<AlertName>,
    /// Show only alerts in this state: raised, confirmed, withdrawn or corrected
    #[arg(long, value_parser = alert_state)]
    pub state: Option<AlertState>,
    /// Maximum number of alerts
    #[arg(long, default_value_t = ALERTS_DEFAULT)]
    pub limit: usize,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trueup erase order_events o-1\n  trueup erase order_events o-1 --reference ticket-4711"
)]
pub struct Erase {
    /// Stream of the entity
    pub stream: StreamName,
    /// Id of the entity
    pub id: String,
    /// Reference to the request, such as a ticket number; kept with the erasure
    #[arg(long, value_name = "TEXT")]
    pub reference: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

fn alert_state(text: &str) -> Result<AlertState, String> {
    AlertState::from_name(text)
        .ok_or_else(|| format!("not a state: use {}", AlertState::ALL.map(AlertState::name).join(", ")))
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  trueup compare departures\n  trueup compare departures --version 12 -o json\n  \
                 trueup compare departures --history")]
pub struct Compare {
    /// View
    pub view: ViewName,
    /// Batch version [default: the latest]
    #[arg(long = "version", value_name = "N")]
    pub batch_version: Option<i64>,
    /// Show the drift of all kept versions
    #[arg(long, conflicts_with = "batch_version")]
    pub history: bool,
    #[command(flatten)]
    pub listing: Listing,
}

fn time(text: &str) -> Result<Micros, String> {
    Micros::parse(text).ok_or_else(|| "expected a time such as 2001-01-01 or 2001-01-01T06:00:00Z".to_owned())
}

fn date(text: &str) -> Result<Day, String> {
    let day = Day::parse(text).filter(|day| day.to_string() == text);
    day.ok_or_else(|| "expected a date such as 2001-01-31".to_owned())
}

/// Smallest memory for historical ingestion; with less, a commit would hold only a few events.
const MEMORY_MIN_BYTES: u64 = 64 * 1024;

fn memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).ok_or_else(|| "expected a size such as 512MiB or 2GiB".to_owned())?;
    if bytes < MEMORY_MIN_BYTES { Err("must be at least 64 KiB".to_owned()) } else { Ok(bytes) }
}

fn speedup(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("expected a number greater than 0".to_owned()),
    }
}

fn batch_memory(text: &str) -> Result<u64, String> {
    let least = shared::limits::BATCH_MEMORY_BYTES_MIN;
    match crate::human_units::parse_bytes(text) {
        Some(bytes) if bytes >= least => Ok(bytes),
        Some(_) => Err("must be at least 64 MiB".to_owned()),
        None => Err("expected a size such as 512MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests;
