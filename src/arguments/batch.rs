//! What may be typed behind `trueup batch`?

use std::time::Duration;

use clap::{Args, Subcommand};
use shared::control::RunState;
use shared::ids::{StreamName, ViewName};
use shared::time::Day;

use super::{Listing, Server, date};

#[derive(Debug, Subcommand)]
pub enum Batch {
    /// Start a batch run of a view
    #[command(after_help = "Examples:\n  trueup batch run departures --wait\n  trueup batch run departures --full")]
    Run(BatchRun),
    /// Recompute a range of a view's windows exactly, whether or not anything changed there
    #[command(
        long_about = "Recompute a range of a view's windows exactly, whether or not anything changed there.\n\n\
        The run also takes in everything that is new since the last version, as every run does, so that the version it \
        publishes is consistent.",
        after_help = "Example:\n  trueup batch backfill departures --from 2001-01-01 --to 2001-02-01 --wait\n\n\
        --to is not included: this is the whole of January."
    )]
    Backfill(Backfill),
    /// Show for each view what runs now and next, and how the last runs went
    #[command(after_help = "Example:\n  trueup batch status\n\nAll runs, also those that failed: trueup batch runs")]
    Status(Listing),
    /// List runs, newest first, those before a restart among them
    #[command(after_help = "Examples:\n  trueup batch runs departures\n  trueup batch runs --state failed --limit 5")]
    Runs(BatchRuns),
    /// Stop a run, or let a failed one not be tried again
    #[command(
        after_help = "Examples:\n  trueup batch cancel departures                     whatever runs or waits of the view\n  \
        trueup batch cancel departures-1795624355056-5    one run\n\nNothing of a cancelled run stays: the version before goes on answering."
    )]
    Cancel(BatchCancel),
    /// List the versions of a view, and which of them can still be asked for
    #[command(after_help = "Example:\n  trueup batch versions departures\n  \
        trueup query departures --version 12        what did version 12 say?")]
    Versions(BatchVersions),
    /// Delete files that no kept version of a view needs
    #[command(after_help = "Examples:\n  trueup batch vacuum departures\n  \
        trueup batch vacuum departures --older-than 1h\n\n\
        The server does this by itself, about once an hour. What queries and runs of this server need is never deleted; \
        the age protects those of other servers over the same lake.")]
    Vacuum(BatchVacuum),
    /// Rewrite the small files of a stream's archive into few, and say what was done
    #[command(after_help = "Examples:\n  trueup batch compact flights\n  \
        trueup batch compact flights --vacuum 1h     also delete what was replaced more than an hour ago\n\n\
        The server does this by itself, every few minutes. Only events that every view of the stream has taken in are \
        moved; queries and runs go on.")]
    Compact(BatchCompact),
}

#[derive(Debug, Args)]
pub struct BatchCompact {
    /// The stream
    pub stream: StreamName,
    /// Delete files that nobody has needed for this time, such as 1h or 0s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub vacuum: Option<Duration>,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct BatchVersions {
    /// The view
    pub view: ViewName,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct BatchVacuum {
    /// The view
    pub view: ViewName,
    /// Delete what has not been needed for this time, such as 1h or 0s [default: vacuum_age_ms of the settings]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct Backfill {
    /// The view
    pub view: ViewName,
    /// First day of the windows, by their start (UTC)
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub from: Day,
    /// End of the days, not included
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub to: Day,
    /// Wait until the run is over, with a progress bar; exits with 1 if it fails
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct BatchRun {
    /// The view
    pub view: ViewName,
    /// Recompute every date, not only those with new events
    #[arg(long)]
    pub full: bool,
    /// Wait until the run is over, with a progress bar; exits with 1 if it fails
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct BatchRuns {
    /// Only those of this view
    #[arg(value_name = "VIEW")]
    pub view: Option<ViewName>,
    /// Only those in this state: queued, running, published, failed or cancelled
    #[arg(long, value_name = "STATE")]
    pub state: Option<RunState>,
    /// Most runs to list
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Only those older than this run
    #[arg(long, value_name = "RUN")]
    pub before: Option<String>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct BatchCancel {
    /// A run, or a view of which everything that runs or waits is stopped
    #[arg(value_name = "RUN_OR_VIEW")]
    pub run: String,
    #[command(flatten)]
    pub server: Server,
}
