//! What may be typed on the command line? Every command with its options and examples, as clap reads them.
//!
//! Sentences here are what `--help` shows. Nothing is done here, and defaults that a settings file may give are left out.

mod batch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::ids::{StreamName, ViewName};
use shared::time::{Day, Micros};

use crate::human_units::parse_bytes;

pub use self::batch::{Backfill, Batch, BatchCancel, BatchCompact, BatchRun, BatchRuns, BatchVacuum, BatchVersions};

/// What `trueup` alone says.
pub const FIRST_STEPS: &str = "\
Trueup answers dashboard queries at once from live events, and trues every figure up with exact batch runs.

First steps:
  trueup demo             a live dashboard over real flights, in one command
  trueup serve FILE.sql   serve your own streams and views
  trueup --help           all commands, with examples
";

const EXAMPLES: &str = "\
Examples:
  trueup demo                                       look at it live: http://127.0.0.1:8080/
  trueup check examples/flights/flights.sql         is the definition right, and what will happen?
  trueup plan examples/flights/flights.sql          what would it change in the data there is?
  trueup serve examples/flights/flights.sql         serve it
  trueup ingest flights examples/flights/flights.parquet
  trueup query departures --where \"origin = 'ATL'\" --order-by=-flights --limit 10
  trueup batch run departures --wait                true the figures up now
  trueup compare departures                         how far off was what was served?

Exit codes: 0 done, 1 the answer is no (a check failed), 2 wrong usage, 3 the server could not be reached or refused.
Data goes to stdout, everything else to stderr.";

/// A Lambda-architecture analytics platform in one program: live figures, trued up by exact batch runs.
///
/// Declare a stream of events and views over it in SQL. The speed layer keeps every view up to date as events arrive,
/// the batch layer recomputes it exactly from the archive, and a query gets both as one answer, without a gap and
/// without counting anything twice.
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
    /// Check SQL files and show what both layers will do
    Check(Check),
    /// Show what would change if SQL files were served over the data there is
    Plan(Plan),
    /// Run both layers over a file of events and compare them
    Verify(Verify),
    /// Send events from a file to a stream
    Ingest(Ingest),
    /// Ask a view for its rows
    Query(Query),
    /// List the views of a server
    Views(Listing),
    /// List the streams of a server, or show one with the lateness of its events
    Streams(Streams),
    /// Show how far what was served was from the exact figures
    Compare(Compare),
    /// Start and watch batch runs
    #[command(subcommand)]
    Batch(Batch),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  trueup completions bash > ~/.local/share/bash-completion/completions/trueup")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into a folder
    #[command(after_help = "Examples:\n  trueup man | man -l -\n  trueup man ~/.local/share/man/man1")]
    Man {
        /// Folder for the pages of all commands
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// Which server to ask.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// Where the server is
    #[arg(long, env = "TRUEUP_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    pub url: String,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Show a live dashboard over real flights, in one command.\n\n\
    Serves examples/flights/flights.sql and replays 15 days of US domestic flights (245,522 of them, all inside this \
    program) through its own HTTP door, in the order in which they were really reported. So events come out of order, \
    some of them hours late, and batch runs every few seconds true the figures up.",
    after_help = "Examples:\n  trueup demo\n  trueup demo --speedup 20000 --for 1m\n  \
    trueup demo --data demo-data          keeps the log, the archive (Delta tables) and the views"
)]
pub struct Demo {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Folder or URL to keep the data in [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub data: Option<String>,
    /// Folder of what must be on this machine [default: that of --data; with a URL trueup-local]
    #[arg(long, value_name = "DIR", requires = "data")]
    pub local: Option<PathBuf>,
    /// Replay only the first N flights
    #[arg(long, value_name = "N")]
    pub rows: Option<usize>,
    /// How many times faster than real time; 4320 replays the 15 days in 5 minutes
    #[arg(long, value_name = "X", default_value_t = 4320.0, value_parser = speedup)]
    pub speedup: f64,
    /// Stop after this time, such as 30s or 5m [default: stay up until Ctrl-C]
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
    Object storage takes its usual environment variables (docs/operations.md).\n\
    SIGTERM or Ctrl-C stops it: requests under way are finished and the log is synced. A second one ends it at once.\n\
    TRUEUP_LOG=debug says more on stderr.")]
pub struct Serve {
    /// SQL files with CREATE STREAM and CREATE VIEW
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// Folder or URL (s3://, gs://, az://, abfss://) of the archive and the views [default: data]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub data: Option<String>,
    /// Folder of what must be on this machine: log, quarantine, spool [default: that of --data; with a URL trueup-local]
    #[arg(long, value_name = "DIR")]
    pub local: Option<PathBuf>,
    /// Go on with a lake whose log is gone for good; the new log begins where the archive ends
    #[arg(long)]
    pub take_over: bool,
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    // As a text, since an address in a comment becomes a link of the documentation.
    #[arg(
        long,
        value_name = "ORIGIN",
        help = "Let pages of this origin, such as https://app.example, read answers and send events; may be given several times"
    )]
    pub cors_origin: Vec<String>,
    /// Memory that a batch run may take, such as 512MiB or 4GiB; what does not fit is computed in passes [default: 2 GiB]
    #[arg(long, value_name = "SIZE", value_parser = batch_memory)]
    pub batch_memory: Option<u64>,
    /// Threads that batch computes with [default: all cores but one]
    #[arg(long, value_name = "N")]
    pub batch_threads: Option<std::num::NonZeroUsize>,
    /// Settings file; what the command line says wins
    #[arg(long, value_name = "trueup.toml")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  trueup check examples/flights/flights.sql\n\n\
    Exits with 1 if there is a mistake. Nothing is started and no data is touched.")]
pub struct Check {
    /// SQL files, in the order in which `serve` would read them
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Show what would change if SQL files were served over the data there is.\n\n\
    Compares the definitions with what is stored: columns that come and go, views that would be computed anew, how much \
    that reads and about how long it takes, and what `serve` would refuse. No server is needed, and one may be running. \
    Nothing is changed.",
    after_help = "Examples:\n  trueup plan flights.sql --data data\n  trueup plan streams.sql views.sql --data /var/lib/trueup -o json\n\n\
    Exits with 1 if something would be refused, with 0 if all of it can be served, whether anything changes or not."
)]
pub struct Plan {
    /// SQL files, in the order in which `serve` would read them
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// Folder or URL of the log, the archive and the views
    #[arg(long, value_name = "DIR_OR_URL", default_value = "data")]
    pub data: String,
    /// Folder of the log [default: that of --data; with a URL trueup-local]
    #[arg(long, value_name = "DIR")]
    pub local: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Send events from a file to a stream.\n\n\
    The file holds one JSON object per line (plain, gzip or zstd) or is a Parquet file; which of them is seen from its \
    first bytes. Every batch carries an Idempotency-Key, so a retry never counts an event twice. A server that asks to \
    slow down (429) is waited for.\n\n\
    With --historical the files go straight into the archive instead, past the log and the live figures: for years of \
    old events, many GB at once. No server is needed, and one may be running over the same data; the next batch run of \
    each view takes the events in. Killed at any moment and started again with the same files, it goes on where it was \
    and takes in every event exactly once. A file is known by its content, whatever its name.",
    after_help = "Examples:\n  trueup ingest flights examples/flights/flights.parquet\n  \
    trueup ingest clicks clicks.ndjson.zst\n  tail -n 1000 clicks.ndjson | trueup ingest clicks -\n  \
    trueup ingest flights 2019/*.parquet 2020/*.parquet --historical --definitions flights.sql --data /var/lib/trueup\n\n\
    Exits with 1 if a line was rejected; its neighbours are accepted all the same."
)]
pub struct Ingest {
    /// The stream to send to
    pub stream: StreamName,
    /// The files, or - for standard input; with --historical also folders of files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Requests under way at once; with more than 1 the order of batches is not kept
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub in_flight: u8,
    #[command(flatten)]
    pub historical: Historical,
    #[command(flatten)]
    pub server: Server,
}

/// How old events go into the archive.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Historical events")]
pub struct Historical {
    /// Put the events straight into the archive, without a server
    #[arg(long, requires = "definitions", conflicts_with = "in_flight")]
    pub historical: bool,
    /// SQL file with the CREATE STREAM; may be given several times
    #[arg(long, value_name = "FILE.sql", requires = "historical")]
    pub definitions: Vec<PathBuf>,
    /// Folder or URL of the archive, as for `trueup serve` [default: data]
    #[arg(long, value_name = "DIR_OR_URL", requires = "historical")]
    pub data: Option<String>,
    /// Settings file, as for `trueup serve`; what the command line says wins
    #[arg(long, value_name = "trueup.toml", requires = "historical")]
    pub config: Option<PathBuf>,
    /// Take files in once more that have been taken in already
    #[arg(long, requires = "historical")]
    pub again: bool,
    /// Where rejected lines are appended, with file, line and reason [default: STREAM-rejected.ndjson]
    #[arg(long, value_name = "FILE", requires = "historical")]
    pub rejects: Option<PathBuf>,
    /// Memory for events on their way; more makes fewer and larger files of events out of order
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = memory, requires = "historical")]
    pub memory: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trueup query departures --from 2001-01-02 --to 2001-01-03 --where \"origin = 'ATL'\"\n  \
    trueup query departures --grain 1d --group-by origin --order-by=-flights --limit 10\n  \
    trueup query departures --grain all --group-by= --layer batch\n  \
    trueup query departures --as-of 2024-03-01T12:00:00Z     as the batch layer answered then\n  \
    trueup query departures -o parquet > departures.parquet"
)]
pub struct Query {
    /// The view to ask
    pub view: ViewName,
    /// First window start, such as 2001-01-01 or 2001-01-01T06:00:00Z (UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<Micros>,
    /// End of the window starts, not included
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<Micros>,
    /// SQL condition over dimensions and measures
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
    /// Dimensions to group by, comma separated; empty for none [default: all]
    #[arg(long, value_name = "NAMES")]
    pub group_by: Option<String>,
    /// Coarser windows: a multiple of the view's, such as 1h or 1d, or all
    #[arg(long, value_name = "GRAIN")]
    pub grain: Option<String>,
    /// Measures to show, comma separated [default: all]
    #[arg(long, value_name = "NAMES")]
    pub measures: Option<String>,
    /// Columns to sort by, comma separated; a minus in front sorts downwards
    #[arg(long, value_name = "NAMES", allow_hyphen_values = true)]
    pub order_by: Option<String>,
    /// Most rows to return [default: 10000, at most 1000000]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Where to go on, from the footer of the answer before
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
    /// Which layer answers
    #[arg(long, value_enum, default_value_t = Layer::Merged)]
    pub layer: Layer,
    /// Answer as the batch layer did then: with the version published at a time, or with the version of this number.
    /// On a view with SLIDE: the instant its window ends, latest or now
    #[arg(long, value_name = "TIME_OR_VERSION")]
    pub as_of: Option<String>,
    /// Answer as the batch layer did with this version (`trueup batch versions VIEW` lists them)
    #[arg(long = "version", value_name = "N")]
    pub batch_version: Option<u32>,
    /// Go on: print what changes as it changes (table, json or ndjson), until Ctrl-C
    #[arg(short, long, conflicts_with_all = ["cursor", "batch_version"])]
    pub follow: bool,
    /// How often to look for changes, 100ms to 60m [default: 1s]
    #[arg(long, value_name = "TIME", requires = "follow")]
    pub every: Option<String>,
    /// How to print the rows
    #[arg(short, long, value_enum, default_value_t = RowFormat::Table)]
    pub output: RowFormat,
    #[command(flatten)]
    pub server: Server,
}

/// The layer that answers a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layer {
    /// Batch up to the seam, speed from it on
    Merged,
    /// Only the last batch version
    Batch,
    /// Only what came since
    Speed,
}

/// How rows are printed.
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

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct Listing {
    /// How to print
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  trueup streams\n  trueup streams flights           how late do its events come, and which settings would fit?"
)]
pub struct Streams {
    /// Show this stream only, with the lateness of its events
    pub stream: Option<StreamName>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Run both layers over the same bounded file of events and compare them, value by value.\n\n\
    The events go in through the door of a server of its own, in the order of the file, so what is out of order there \
    comes out of order. At several points batch runs are started: each makes exact what had been served live until then, \
    and every difference is counted by its cause. At the end everything is recomputed from nothing, which must change \
    nothing. Exits with 1 if a difference has no cause, or if estimates miss their intervals more often than they may.",
    after_help = "Examples:\n  trueup verify examples/flights/flights.sql --stream flights --events examples/flights/flights.parquet\n  \
    trueup verify shop.sql --stream orders --events orders.ndjson.gz --cuts 10"
)]
pub struct Verify {
    /// SQL files with CREATE STREAM and CREATE VIEW
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// The stream the events belong to; its views are compared
    #[arg(long, value_name = "NAME")]
    pub stream: StreamName,
    /// NDJSON (plain, gzip or zstd) or Parquet
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// Points in the midst of the file at which batch runs are started
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub cuts: u32,
    /// How to print the table
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  trueup compare departures\n  trueup compare departures --version 12 -o json\n  \
                 trueup compare departures --history")]
pub struct Compare {
    /// The view
    pub view: ViewName,
    /// The batch version [default: the latest]
    #[arg(long = "version", value_name = "N")]
    pub batch_version: Option<i64>,
    /// How drift went on from version to version
    #[arg(long, conflicts_with = "batch_version")]
    pub history: bool,
    #[command(flatten)]
    pub listing: Listing,
}

fn time(text: &str) -> Result<Micros, String> {
    Micros::parse(text).ok_or_else(|| "write it like 2001-01-01 or 2001-01-01T06:00:00Z".to_owned())
}

fn date(text: &str) -> Result<Day, String> {
    let day = Day::parse(text).filter(|day| day.to_string() == text);
    day.ok_or_else(|| "write it like 2001-01-31".to_owned())
}

/// Less would make a commit of every few events.
const MEMORY_MIN_BYTES: u64 = 64 * 1024;

fn memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text).ok_or_else(|| "write it like 512MiB or 2GiB".to_owned())?;
    if bytes < MEMORY_MIN_BYTES { Err("at least 64KiB are needed".to_owned()) } else { Ok(bytes) }
}

fn speedup(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("a number greater than 0 is needed".to_owned()),
    }
}

fn batch_memory(text: &str) -> Result<u64, String> {
    let least = shared::limits::BATCH_MEMORY_BYTES_MIN;
    match crate::human_units::parse_bytes(text) {
        Some(bytes) if bytes >= least => Ok(bytes),
        Some(_) => Err("a batch run needs at least 64 MiB".to_owned()),
        None => Err("expected a number of bytes or a size such as 512MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests;
