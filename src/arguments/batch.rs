//! Defines the subcommands of `trueup batch`.

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
    /// Recompute a range of a view's windows, whether or not their events changed
    #[command(
        long_about = "Recompute a range of a view's windows, whether or not their events changed.\n\n\
        The run also includes all new events since the last version, as every run does, so the version that it \
        publishes is consistent.",
        after_help = "Example:\n  trueup batch backfill departures --from 2001-01-01 --to 2001-02-01 --wait\n\n\
        --to is exclusive: this example recomputes the whole of January."
    )]
    Backfill(Backfill),
    /// Show the current, next and most recent runs of each view
    #[command(
        after_help = "Example:\n  trueup batch status\n\nTo list all runs, including failed ones: trueup batch runs"
    )]
    Status(Listing),
    /// List runs, newest first, including runs before a restart
    #[command(after_help = "Examples:\n  trueup batch runs departures\n  trueup batch runs --state failed --limit 5")]
    Runs(BatchRuns),
    /// Cancel a run, or the retry of a failed run
    #[command(
        after_help = "Examples:\n  trueup batch cancel departures                     all running and queued runs of the view\n  \
        trueup batch cancel departures-1795624355056-5    one run\n\nA cancelled run leaves nothing behind: the previous version stays active."
    )]
    Cancel(BatchCancel),
    /// List the versions of a view, and which of them can still be queried
    #[command(after_help = "Example:\n  trueup batch versions departures\n  \
        trueup query departures --version 12        query version 12")]
    Versions(BatchVersions),
    /// Delete files that no kept version of a view needs
    #[command(after_help = "Examples:\n  trueup batch vacuum departures\n  \
        trueup batch vacuum departures --older-than 1h\n\n\
        The server does this by itself, about once an hour. It never deletes files that its own queries and runs need; \
        the age protects queries and runs of other servers over the same lake.")]
    Vacuum(BatchVacuum),
    /// Compact the archive of a stream: merge small files and drop events that are older than the stream's retention
    #[command(after_help = "Examples:\n  trueup batch compact flights\n  \
        trueup batch compact flights --vacuum 1h     also delete files that were replaced more than an hour ago\n\n\
        The server does this by itself, every few minutes. It moves or drops only events that every view of the stream \
        includes; queries and runs continue.")]
    Compact(BatchCompact),
}

#[derive(Debug, Args)]
pub struct BatchCompact {
    /// Stream
    pub stream: StreamName,
    /// Also delete files that have been unneeded for this time, such as 1h or 0s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub vacuum: Option<Duration>,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct BatchVersions {
    /// View
    pub view: ViewName,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct BatchVacuum {
    /// View
    pub view: ViewName,
    /// Delete files that have been unneeded for this time, such as 1h or 0s [default: vacuum_age_ms of the settings]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub older_than: Option<Duration>,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct Backfill {
    /// View
    pub view: ViewName,
    /// First day of window starts (UTC)
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub from: Day,
    /// End of the range of days, exclusive
    #[arg(long, value_name = "DATE", value_parser = date)]
    pub to: Day,
    /// Wait for the run to finish, with a progress bar; exits with 1 if it fails
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct BatchRun {
    /// View
    pub view: ViewName,
    /// Recompute all dates, not only those with new events
    #[arg(long)]
    pub full: bool,
    /// Wait for the run to finish, with a progress bar; exits with 1 if it fails
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct Checkpoint {
    /// View
    pub view: ViewName,
    /// Replay the archive instead of publishing the state in memory
    #[arg(long)]
    pub full: bool,
    /// Wait for the checkpoint to finish, with a progress bar; exits with 1 if it fails
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct BatchRuns {
    /// List only runs of this view
    #[arg(value_name = "VIEW")]
    pub view: Option<ViewName>,
    /// List only runs in this state: queued, running, published, failed or cancelled
    #[arg(long, value_name = "STATE")]
    pub state: Option<RunState>,
    /// Maximum number of runs
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// List only runs older than this run
    #[arg(long, value_name = "RUN")]
    pub before: Option<String>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Args)]
pub struct BatchCancel {
    /// Run to cancel, or a view to cancel all its running and queued runs
    #[arg(value_name = "RUN_OR_VIEW")]
    pub run: String,
    #[command(flatten)]
    pub server: Server,
}
