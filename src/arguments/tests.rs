//! Tests which command lines parse, and the values they give.

use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Command, clap::Error> {
    // The line is split at spaces; `~` stands for a space inside a word.
    let words = line.split_whitespace().map(|word| word.replace('~', " "));
    Arguments::try_parse_from(words).map(|arguments| arguments.command.expect("a command was given"))
}

#[test]
fn the_declaration_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_understood() {
    for line in [
        "trueup serve a.sql b.sql --data dir --listen 127.0.0.1:9000 --config trueup.toml",
        "trueup demo",
        "trueup demo --listen 127.0.0.1:0 --data dir --rows 10 --speedup 100 --for 30s",
        "trueup check a.sql b.sql",
        "trueup ingest flights f.ndjson.gz --in-flight 4 --url http://h:1",
        "trueup ingest flights -",
        "trueup query v --from 2001-01-01 --to 2001-01-02T06:00:00Z --where a~=~1 --group-by a,b --grain 1h",
        "trueup query v --order-by -flights,origin --limit 5 --layer speed -o ndjson --measures a --as-of 3",
        "trueup query v --group-by= -o parquet",
        "trueup views",
        "trueup streams -o json",
        "trueup streams flights --url http://h:1",
        "trueup compare v --version 3",
        "trueup batch run v --full --wait",
        "trueup query v --version 3 --as-of 2001-01-01T00:00:00Z",
        "trueup batch status",
        "trueup batch versions v -o json",
        "trueup batch vacuum v --older-than 0s",
        "trueup completions zsh",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for line in [
        "trueup serve",
        "trueup frobnicate",
        "trueup serve a.sql --listen nowhere",
        "trueup demo --speedup 0",
        "trueup demo --speedup NaN",
        "trueup demo --for 30",
        "trueup ingest flights",
        "trueup streams ../flights",
        "trueup ingest Flights f.ndjson",
        "trueup ingest flights f.ndjson --in-flight 0",
        "trueup query ../etc/passwd",
        "trueup query v --from yesterday",
        "trueup query v -o excel",
        "trueup query v --layer both",
        "trueup batch",
        "trueup compare v --version latest",
    ] {
        match parse(line) {
            Ok(command) => panic!("{line} was understood as {command:?}"),
            Err(error) => assert_eq!(error.exit_code(), 2, "{line}"),
        }
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for line in ["trueup --help", "trueup --version", "trueup query --help", "trueup batch run -h"] {
        assert_eq!(parse(line).expect_err("clap prints instead of returning a command").exit_code(), 0, "{line}");
    }
}

#[test]
fn values_arrive_as_typed() {
    let Ok(Command::Query(query)) = parse("trueup query v --order-by -flights,origin --group-by= --from 2001-01-01")
    else {
        panic!("a query");
    };
    assert_eq!(query.order_by.as_deref(), Some("-flights,origin"));
    assert_eq!(query.group_by.as_deref(), Some(""));
    assert_eq!(query.from.map(|t| t.to_string()).as_deref(), Some("2001-01-01T00:00:00Z"));
    let Ok(Command::Demo(demo)) = parse("trueup demo --for 1m30s") else { panic!("a demo") };
    assert_eq!(demo.duration, Some(Duration::from_secs(90)));
    assert!(Arguments::try_parse_from(["trueup"]).expect("no command is no error").command.is_none());
}
