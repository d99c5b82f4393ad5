//! Defines the commands for the keys of a server.

use std::path::PathBuf;
use std::time::Duration;

use auth::Scope;
use auth::rate::Rate;
use clap::{Args, Subcommand};

use super::ListFormat;

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Create a key and print it, once
    #[command(after_help = "Examples:\n  trueup key create --scope read:departures --expires 90d\n  \
        trueup key create --scope 'ingest:*' --label 'collector on host-a' --rate 500/s\n  \
        trueup key create --scope 'read:*' --where \"country = 'AT'\" --rate 10/s --rate 50000/d\n  \
        trueup key create --scope admin > admin.key\n\n\
        Only a hash of the key is stored. A running server accepts the key at once. With the first key, a server asks for \
        a key at every endpoint (docs/security.md).")]
    Create(KeyCreate),
    /// List all keys, without their secrets
    List(KeyList),
    /// Revoke a key; running servers refuse it within a second
    #[command(after_help = "Example:\n  trueup key revoke 3f9c0a7be112")]
    Revoke(KeyRevoke),
}

/// Selects the folder of the keys.
#[derive(Debug, Clone, Args)]
pub struct KeyFolder {
    /// Data folder or URL, as for `trueup serve` [default: data]
    #[arg(long, value_name = "DIR_OR_URL")]
    pub data: Option<String>,
    /// Folder of the log and the keys [default: the folder of --data; for a URL trueup-local]
    #[arg(long, value_name = "DIR")]
    pub local: Option<PathBuf>,
    /// Settings file, as for `trueup serve`; options on the command line take precedence
    #[arg(long, value_name = "trueup.toml")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    /// Permission: read:VIEW, run:VIEW, ingest:STREAM (* for all) or admin; may be repeated
    #[arg(long = "scope", required = true, value_name = "SCOPE")]
    pub scopes: Vec<Scope>,
    /// Time until the key expires, such as 90d, or never
    #[arg(long, value_name = "DURATION", default_value = "365d", value_parser = expiry)]
    pub expires: Expiry,
    /// Row filter: a condition over dimensions that every row has to meet
    #[arg(long = "where", value_name = "SQL")]
    pub row_filter: Option<String>,
    /// Most requests per s, m, h or d, such as 100/s; may be repeated
    #[arg(long = "rate", value_name = "N/UNIT")]
    pub rates: Vec<Rate>,
    /// What the key is for
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    #[command(flatten)]
    pub folder: KeyFolder,
}

/// When a key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    Never,
    After(Duration),
}

#[derive(Debug, Args)]
pub struct KeyList {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
    #[command(flatten)]
    pub folder: KeyFolder,
}

#[derive(Debug, Args)]
pub struct KeyRevoke {
    /// Id of the key, as `trueup key list` shows it
    pub id: String,
    #[command(flatten)]
    pub folder: KeyFolder,
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    let after = humantime::parse_duration(text).ok().filter(|after| !after.is_zero());
    after.map(Expiry::After).ok_or_else(|| "expected a time such as 90d or 12h, or never".to_owned())
}
