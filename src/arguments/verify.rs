//! Defines the arguments of `trueup verify`.

use std::path::PathBuf;

use clap::Args;
use shared::ids::StreamName;

use super::{ListFormat, PlanEngine};

#[derive(Debug, Args)]
#[command(
    long_about = "Run both layers over the same file of events and compare their values.\n\n\
    Starts a temporary server and sends the events in file order, so events that are out of order in the file arrive \
    out of order. Starts batch runs at several points: each compares the figures served live so far with the exact \
    ones and counts every difference by its cause. At the end a full recompute must change nothing.\n\n\
    Evaluates the alerts over these views as the server does, and counts those that were raised live, and those that \
    the runs confirmed, withdrew or found missed. An independent fold of the accepted events determines the expected \
    alerts. No notices are sent.\n\n\
    Views that are joined with tables need the changes of these tables: --table customers=customers.ndjson.\n\n\
    With --engine spark, every second run is computed on Apache Spark, and so is another full recompute at the end, which \
    may differ from that of Polars in the last digits of DOUBLEs only. --config names the connection.\n\n\
    Exits with 1 if a difference has no cause, if estimates miss their intervals more often than allowed, or if alerts \
    differ from the fold.",
    after_help = "Examples:\n  trueup verify examples/flights/flights.sql --stream flights --events examples/flights/flights.parquet\n  \
    trueup verify shop.sql --stream orders --events orders.ndjson.gz --cuts 10\n  \
    trueup verify shop.sql --stream orders --events orders.ndjson --table customers=customers.ndjson\n  \
    trueup verify examples/fraud/fraud.sql --stream transactions --events transactions.ndjson\n  \
    trueup verify shop.sql --stream orders --events orders.ndjson.gz --engine spark --config trueup.toml"
)]
pub struct Verify {
    /// SQL files with CREATE STREAM, CREATE VIEW and CREATE ALERT
    #[arg(required = true, value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// Stream of the events; all its views and their alerts are compared
    #[arg(long, value_name = "NAME")]
    pub stream: StreamName,
    /// File of events: NDJSON (plain, gzip or zstd) or Parquet
    #[arg(long, value_name = "FILE")]
    pub events: PathBuf,
    /// File of changes of a table that views are joined with, as it receives them over HTTP; half of them are sent before the events, and
    /// the others between them
    #[arg(long = "table", value_name = "NAME=FILE", value_parser = table_file)]
    pub tables: Vec<(StreamName, PathBuf)>,
    /// Number of points within the file at which batch runs are started
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub cuts: u32,
    /// Settings file whose limits and connections apply, such as dedup_horizon_events
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Engine to compare with the others; `spark` computes every second run on Apache Spark, and everything again at the end
    #[arg(long, value_enum, default_value_t = PlanEngine::Polars)]
    pub engine: PlanEngine,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub output: ListFormat,
}

fn table_file(text: &str) -> Result<(StreamName, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("expected the name of a table, = and a file")?;
    let name = name.parse::<StreamName>().map_err(|error| error.to_string())?;
    Ok((name, PathBuf::from(file)))
}
