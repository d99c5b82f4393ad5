//! `trueup sinks`: lists the sinks of a server, and pauses and resumes them.

use std::io::Write;

use reqwest::Method;
use serde_json::json;
use shared::control::SinkStatus;
use shared::sink::Emit;

use crate::arguments::{SinkCommand, SinkPause, SinkResume, Sinks};
use crate::client::Client;
use crate::exit::Failure;
use crate::table::{Align, draw};

use super::listing::{Entries, dash, show, time_or_dash};

const HEADER: [(&str, Align); 9] = [
    ("sink", Align::Left),
    ("source", Align::Left),
    ("target", Align::Left),
    ("emit", Align::Left),
    ("state", Align::Left),
    ("epoch", Align::Right),
    ("committed", Align::Left),
    ("lag", Align::Right),
    ("error", Align::Left),
];

pub async fn run(arguments: Sinks) -> Result<(), Failure> {
    match arguments.command {
        None => show(&arguments.listing, "/v1/sinks", |Entries(sinks)| table(&sinks, None)).await,
        Some(SinkCommand::Pause(arguments)) => pause(arguments).await,
        Some(SinkCommand::Resume(arguments)) => resume(arguments).await,
    }
}

async fn pause(arguments: SinkPause) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/sinks/{}/pause", arguments.sink);
    let sink: SinkStatus = client.json(client.request(Method::POST, &path)).await?;
    Ok(writeln!(std::io::stdout(), "sink {} is paused after epoch {}", sink.name, sink.epoch)?)
}

async fn resume(arguments: SinkResume) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/sinks/{}/resume", arguments.sink);
    let body = json!({"from": arguments.from});
    let sink: SinkStatus = client.json(client.request(Method::POST, &path).json(&body)).await?;
    let again = arguments.from.map_or_else(String::new, |from| format!(", and writes rows again from {from} on"));
    Ok(writeln!(std::io::stdout(), "sink {} continues after epoch {}{again}", sink.name, sink.epoch)?)
}

fn table(sinks: &[SinkStatus], width: Option<u16>) -> String {
    let rows = sinks.iter().map(|sink| {
        vec![
            sink.name.to_string(),
            sink.source().to_owned(),
            sink.target(),
            sink.emit.map_or("events", Emit::name).to_owned(),
            sink.state.name().to_owned(),
            sink.epoch.to_string(),
            time_or_dash(sink.committed_at),
            sink.lag.to_string(),
            sink.error.clone().unwrap_or_else(dash),
        ]
    });
    draw(&HEADER, rows, width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_printed_with_its_lag_and_error() {
        let sink = json!({
            "name": "counts", "view": "order_counts", "connection": "main", "topic": "order-counts", "emit": "changes",
            "key": ["window_start"], "state": "failing", "error": "cannot reach the brokers k:1", "epoch": 7,
            "committed_at": "2026-11-29T10:00:00Z", "position": {"0": 7}, "lag": 12, "version": 2, "rows": 3, "records": 9
        });
        let sinks: Entries<SinkStatus> =
            serde_json::from_value(json!({"sinks": [sink]})).expect("the contract's shape");
        insta::assert_snapshot!(table(&sinks.0, Some(160)), @r"
         sink     source         target         emit      state     epoch   committed              lag   error
        ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
         counts   order_counts   order-counts   changes   failing       7   2026-11-29T10:00:00Z    12   cannot reach the brokers k:1
        ");
    }
}
