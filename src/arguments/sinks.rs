//! Defines the options of `trueup sinks`.

use clap::{Args, Subcommand};
use shared::ids::SinkName;
use shared::time::Micros;

use super::{Listing, Server};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  trueup sinks\n  trueup sinks pause order_counts\n  trueup sinks resume order_counts --from 2026-11-01T00:00:00Z"
)]
pub struct Sinks {
    #[command(subcommand)]
    pub command: Option<SinkCommand>,
    #[command(flatten)]
    pub listing: Listing,
}

#[derive(Debug, Subcommand)]
pub enum SinkCommand {
    /// Stop a sink after its present epoch, also over restarts
    Pause(SinkPause),
    /// Start a sink that is paused or stopped
    Resume(SinkResume),
}

#[derive(Debug, Args)]
pub struct SinkPause {
    /// Sink to pause
    pub sink: SinkName,
    #[command(flatten)]
    pub server: Server,
}

#[derive(Debug, Args)]
pub struct SinkResume {
    /// Sink to resume
    pub sink: SinkName,
    /// Write rows again whose windows start at this time or later, or events of such times: `start` for all, or a time
    #[arg(long, value_name = "TIME", value_parser = start_or_time)]
    pub from: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

fn start_or_time(text: &str) -> Result<String, String> {
    match text == "start" || Micros::parse(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err("expected `start` or a time such as 2026-11-01T00:00:00Z".to_owned()),
    }
}
