//! Defines the options of `trueup silence`.

use std::time::Duration;

use clap::{Args, Subcommand};
use shared::ids::AlertName;

use super::{Listing, Server};

#[derive(Debug, Subcommand)]
pub enum SilenceCommand {
    /// Suppress the notices of an alert for a given time
    #[command(
        after_help = "Examples:\n  trueup silence add high_spend --for 2h --reason 'known test account' --key user_id=test-*\n  \
        trueup silence add --all --for 30m\n\nAlerts are still raised, judged and listed. In a value, `*` stands for any text."
    )]
    Add(SilenceAdd),
    /// List the silences that have not ended
    List(Listing),
    /// End a silence
    End(SilenceEnd),
}

#[derive(Debug, Args)]
pub struct SilenceAdd {
    /// Alert to silence
    #[arg(required_unless_present = "all")]
    pub alert: Option<AlertName>,
    /// Silence all alerts
    #[arg(long, conflicts_with = "alert")]
    pub all: bool,
    /// Duration of the silence, such as 30m or 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Silence only records with this value; may be repeated
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = column_and_value)]
    pub key: Vec<(String, String)>,
    /// Reason, shown in the list of silences
    #[arg(long)]
    pub reason: Option<String>,
    #[command(flatten)]
    pub server: Server,
}

fn column_and_value(text: &str) -> Result<(String, String), String> {
    let (column, value) = text.split_once('=').ok_or_else(|| "expected COLUMN=VALUE".to_owned())?;
    Ok((column.to_owned(), value.to_owned()))
}

#[derive(Debug, Args)]
pub struct SilenceEnd {
    /// Id of the silence, from `trueup silence list`
    pub silence: String,
    #[command(flatten)]
    pub server: Server,
}
