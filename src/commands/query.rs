//! `trueup query`: what does a view say? The request, and the answer in the format that was asked for.
//!
//! Tables are drawn here; every other format is the server's own, passed on to stdout as it comes. [`following`] prints what
//! changes.

mod answer;
mod following;

use std::io::{IsTerminal, Write};

use futures::TryStreamExt;
use reqwest::{Method, RequestBuilder};

use crate::arguments::{Layer, Query, RowFormat};
use crate::client::{Client, ClientError};
use crate::exit::{Failure, USAGE};

use answer::Answer;

pub async fn run(arguments: Query) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = format!("/v1/views/{}/rows.{}", arguments.view, extension(arguments.output));
    let request = client.request(Method::GET, &path).query(&parameters(&arguments));
    if matches!(arguments.output, RowFormat::Parquet | RowFormat::Arrow) && std::io::stdout().is_terminal() {
        let name = extension(arguments.output);
        return Err(Failure::new(USAGE, format!("{name} is not for a terminal"))
            .next_step(format!("write it into a file: trueup query {0} -o {name} > {0}.{name}", arguments.view)));
    }
    if arguments.follow && !matches!(arguments.output, RowFormat::Table | RowFormat::Json | RowFormat::Ndjson) {
        let name = extension(arguments.output);
        return Err(Failure::new(USAGE, format!("changes are not told as {name}"))
            .next_step("follow with -o table, json (an event a line) or ndjson (a changed row a line)"));
    }
    let outcome = match arguments.output {
        _ if arguments.follow => following::follow(&client, &arguments).await,
        RowFormat::Table => draw(&client, request).await,
        _ => pass_on(&client, request).await,
    };
    match outcome {
        Err(Stop::NoAnswer(error)) => {
            if let Some(place) = place_in_condition(&error, arguments.condition.as_deref()) {
                eprintln!("{place}");
            }
            Err(error.into())
        }
        Err(Stop::Output(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Why no rows were printed.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error(transparent)]
    NoAnswer(#[from] ClientError),
    #[error(transparent)]
    Output(#[from] std::io::Error),
}

async fn draw(client: &Client, request: RequestBuilder) -> Result<(), Stop> {
    let answer: Answer = client.json(request).await?;
    std::io::stdout().write_all(answer.table(None).as_bytes())?;
    eprintln!("{}", answer.footer());
    Ok(())
}

async fn pass_on(client: &Client, request: RequestBuilder) -> Result<(), Stop> {
    let answer = client.send(request).await?;
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let attention = answer::attention(header("trueup-complete") != Some("false"), header("trueup-next"));
    let mut pieces = answer.bytes_stream();
    let mut stdout = std::io::stdout();
    while let Some(piece) = pieces.try_next().await.map_err(|error| client.unreachable(&error))? {
        stdout.write_all(&piece)?;
    }
    stdout.flush()?;
    attention.iter().for_each(|line| eprintln!("{line}"));
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

/// The condition with a caret under the place that the server complains about.
fn place_in_condition(error: &ClientError, condition: Option<&str>) -> Option<String> {
    let ClientError::Refused(problem) = error else { return None };
    let line = condition?.lines().nth(problem.line?.checked_sub(1)?)?;
    let before = problem.column?.checked_sub(1)?;
    (before <= line.chars().count()).then(|| format!("  {line}\n  {}^", " ".repeat(before)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};
    use crate::client::Problem;

    #[test]
    fn options_become_the_parameters_of_the_contract() {
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
    fn a_caret_stands_under_the_mistake_in_the_condition() {
        let problem = |line, column| ClientError::Refused(Box::new(Problem { line, column, ..Problem::default() }));
        for (line, column, condition, expected) in [
            (Some(1), Some(5), Some("a = b"), Some("  a = b\n      ^")),
            (Some(1), Some(99), Some("a = b"), None),
            (Some(2), Some(1), Some("a = b"), None),
            (Some(0), Some(0), Some("a = b"), None),
            (None, None, Some("a = b"), None),
            (Some(1), Some(1), None, None),
        ] {
            assert_eq!(place_in_condition(&problem(line, column), condition).as_deref(), expected);
        }
    }
}
