//! `trueup silence`: makes, lists and ends times in which notices of alerts are not sent.

use std::io::Write;

use reqwest::Method;
use serde_json::json;
use shared::control::Silence;

use crate::arguments::{Listing, SilenceAdd, SilenceCommand, SilenceEnd};
use crate::client::Client;
use crate::exit::Failure;
use crate::table::{Align, draw};

use super::listing::{Entries, dash, show};

const HEADER: [(&str, Align); 6] = [
    ("silence", Align::Left),
    ("alert", Align::Left),
    ("key", Align::Left),
    ("until", Align::Left),
    ("by", Align::Left),
    ("reason", Align::Left),
];

pub async fn run(command: SilenceCommand) -> Result<(), Failure> {
    match command {
        SilenceCommand::Add(arguments) => add(arguments).await,
        SilenceCommand::List(arguments) => list(arguments).await,
        SilenceCommand::End(arguments) => end(arguments).await,
    }
}

async fn add(arguments: SilenceAdd) -> Result<(), Failure> {
    let SilenceAdd { alert, all: _, duration, key, reason, server } = arguments;
    let client = Client::new(&server.url)?;
    let key: serde_json::Map<_, _> = key.into_iter().map(|(column, value)| (column, json!(value))).collect();
    let body = json!({"for_seconds": duration.as_secs(), "alert": alert, "key": key, "reason": reason});
    let silence: Silence = client.json(client.request(Method::POST, "/v1/alerts/silences").json(&body)).await?;
    let what = silence.alert.map_or_else(|| "all alerts".to_owned(), |alert| alert.to_string());
    Ok(writeln!(std::io::stdout(), "silence {}: no notices of {what} until {}", silence.id, silence.until)?)
}

async fn list(arguments: Listing) -> Result<(), Failure> {
    show(&arguments, "/v1/alerts/silences", |Entries(silences)| table(&silences)).await
}

async fn end(arguments: SilenceEnd) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/alerts/silences/{}", arguments.silence);
    let silence: Silence = client.json(client.request(Method::DELETE, &path)).await?;
    Ok(writeln!(std::io::stdout(), "silence {} is over", silence.id)?)
}

fn table(silences: &[Silence]) -> String {
    let rows = silences.iter().map(|silence| {
        let key: Vec<String> = silence.key.iter().map(|(column, pattern)| format!("{column}={pattern}")).collect();
        vec![
            silence.id.clone(),
            silence.alert.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string),
            if key.is_empty() { dash() } else { key.join(", ") },
            silence.until.to_string(),
            silence.by.clone(),
            silence.reason.clone().unwrap_or_else(dash),
        ]
    });
    draw(&HEADER, rows, None)
}
