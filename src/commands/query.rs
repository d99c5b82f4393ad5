//! `trueup query`: queries a view and prints the result.
//!
//! Tables are drawn here; every other format comes from the server and is copied to stdout. [`follow`] prints rows as they
//! change.

mod follow;
mod result_table;

use std::io::{IsTerminal, Write};

use futures::TryStreamExt;
use reqwest::{Method, RequestBuilder};

use crate::arguments::{Layer, Query, RowFormat};
use crate::client::{Client, ClientError};
use crate::exit::{Failure, USAGE};

use result_table::QueryResult;

pub async fn run(arguments: Query) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/views/{}/rows.{}", arguments.view, extension(arguments.output));
    let request = client.request(Method::GET, &path).query(&parameters(&arguments));
    if matches!(arguments.output, RowFormat::Parquet | RowFormat::Arrow) && std::io::stdout().is_terminal() {
        let name = extension(arguments.output);
        return Err(Failure::new(USAGE, format!("cannot print {name} to a terminal"))
            .next_step(format!("write it to a file: trueup query {0} -o {name} > {0}.{name}", arguments.view)));
    }
    if arguments.follow && !matches!(arguments.output, RowFormat::Table | RowFormat::Json | RowFormat::Ndjson) {
        let name = extension(arguments.output);
        return Err(Failure::new(USAGE, format!("--follow does not support -o {name}"))
            .next_step("use -o table, json (one event per line) or ndjson (one changed row per line)"));
    }
    let outcome = match arguments.output {
        _ if arguments.follow => follow::follow(&client, &arguments).await,
        RowFormat::Table => draw(&client, request).await,
        _ => copy_body(&client, request).await,
    };
    match outcome {
        Err(QueryFailure::Request(error)) => {
            if let Some(caret) = caret_in_condition(&error, arguments.condition.as_deref()) {
                eprintln!("{caret}");
            }
            Err(error.into())
        }
        Err(QueryFailure::Output(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
enum QueryFailure {
    #[error(transparent)]
    Request(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

async fn draw(client: &Client, request: RequestBuilder) -> Result<(), QueryFailure> {
    let result: QueryResult = client.json(request).await?;
    std::io::stdout().write_all(result.table(None).as_bytes())?;
    eprintln!("{}", result.footer());
    Ok(())
}

async fn copy_body(client: &Client, request: RequestBuilder) -> Result<(), QueryFailure> {
    let response = client.send(request).await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let warnings = result_table::warnings(header("trueup-complete") != Some("false"), header("trueup-next"));
    let mut pieces = response.bytes_stream();
    let mut stdout = std::io::stdout();
    while let Some(piece) = pieces.try_next().await.map_err(|error| client.unreachable(&error))? {
        stdout.write_all(&piece)?;
    }
    stdout.flush()?;
    warnings.iter().for_each(|line| eprintln!("{line}"));
    Ok(())
}

fn extension(format: RowFormat) -> &'static str {
    match format {
        RowFormat::Table | RowFormat::Json => "json",
        RowFormat::Ndjson => "ndjson",
        RowFormat::Csv => "csv",
        RowFormat::Parquet => "parquet",
        RowFormat::Arrow => "arrow",
    }
}

fn parameters(arguments: &Query) -> Vec<(&'static str, String)> {
    let layer = match arguments.layer {
        Layer::Merged => None,
        Layer::Batch => Some("batch".to_owned()),
        Layer::Speed => Some("speed".to_owned()),
    };
    let all = [
        ("from", arguments.from.map(|time| time.to_string())),
        ("to", arguments.to.map(|time| time.to_string())),
        ("where", arguments.condition.clone()),
        ("group_by", arguments.group_by.clone()),
        ("grain", arguments.grain.clone()),
        ("measures", arguments.measures.clone()),
        ("order_by", arguments.order_by.clone()),
        ("limit", arguments.limit.map(|limit| limit.to_string())),
        ("cursor", arguments.cursor.clone()),
        ("layer", layer),
        ("as_of", arguments.as_of.clone()),
        ("version", arguments.batch_version.map(|version| version.to_string())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Returns the condition with a caret under the position of the error.
fn caret_in_condition(error: &ClientError, condition: Option<&str>) -> Option<String> {
    let ClientError::Refused(refusal) = error else { return None };
    let (line, column) = refusal.problem.as_ref()?.position()?;
    let line = condition?.lines().nth(line.checked_sub(1)?)?;
    let before = column.checked_sub(1)?;
    (before <= line.chars().count()).then(|| format!("  {line}\n  {}^", " ".repeat(before)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use problem::{Code, Problem};

    use super::*;
    use crate::arguments::{Arguments, Command};
    use crate::client::Refusal;

    #[test]
    fn options_become_query_parameters() {
        let line = ["trueup", "query", "v", "--from", "2001-01-01", "--where", "a = 'x y'", "--group-by=", "--layer"];
        let parsed = Arguments::try_parse_from(line.into_iter().chain(["speed", "--order-by=-n,a", "--limit", "5"]));
        let Ok(Arguments { command: Some(Command::Query(query)) }) = parsed else { panic!("a query: {parsed:?}") };
        let expected = [
            ("from", "2001-01-01T00:00:00Z"),
            ("where", "a = 'x y'"),
            ("group_by", ""),
            ("order_by", "-n,a"),
            ("limit", "5"),
            ("layer", "speed"),
        ];
        assert_eq!(parameters(&query), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn the_caret_marks_the_error_in_the_condition() {
        let status = reqwest::StatusCode::BAD_REQUEST;
        let refused = |problem| ClientError::Refused(Box::new(Refusal { status, problem, retry_after_s: None }));
        let wrong = Problem::new(Code::InvalidPredicate, "unknown column `b`");
        for (line, column, condition, expected) in [
            (1, 5, Some("a = b"), Some("  a = b\n      ^")),
            (1, 99, Some("a = b"), None),
            (2, 1, Some("a = b"), None),
            (0, 0, Some("a = b"), None),
            (1, 1, None, None),
        ] {
            let error = refused(Some(wrong.clone().at(line, column)));
            assert_eq!(caret_in_condition(&error, condition).as_deref(), expected);
        }
        assert_eq!(caret_in_condition(&refused(Some(wrong)), Some("a = b")), None);
        assert_eq!(caret_in_condition(&refused(None), Some("a = b")), None);
    }
}
