//! Tests the recipes of docs/connect.md: runs each shell and Python recipe as written, against a real server with the
//! flights, and compares the output with the page; and checks that the Grafana dashboard uses only existing columns.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use world::{World, flights_file, program, root};

const ADDRESS: &str = "http://127.0.0.1:8080";

/// A server as on the page: with all flights, published by batch.
fn served() -> World {
    let definitions = std::fs::read_to_string(root().join("examples/flights/flights.sql")).expect("the example");
    let world = World::new(&definitions);
    world.ingest("flights", &flights_file());
    for view in ["departures", "delays", "totals"] {
        assert_eq!(world.run(view, false)["state"], "published");
    }
    world
}

/// A block of code: its language, its text, and the output that follows it.
#[derive(Debug)]
struct Recipe {
    language: String,
    text: String,
    output: Option<String>,
}

fn recipes(page: &str) -> Vec<Recipe> {
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut lines = page.lines();
    // Is the last block the one that the next output belongs to?
    let mut adjacent = false;
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            adjacent &= line.is_empty();
            continue;
        };
        let text: String = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        match (language, adjacent, recipes.last_mut()) {
            ("text", true, Some(recipe)) => recipe.output = Some(text),
            _ => recipes.push(Recipe { language: language.to_owned(), text, output: None }),
        }
        adjacent = language != "text";
    }
    recipes
}

/// What a recipe prints.
fn run(recipe: &Recipe, world: &World, python: Option<&Path>) -> Option<String> {
    let text = recipe.text.replace(ADDRESS, world.url());
    let mut command = match recipe.language.as_str() {
        "sh" => {
            let mut command = Command::new("bash");
            command.args(["-euo", "pipefail", "-c", &text]);
            command
        }
        "python" => {
            let mut command = Command::new(python?);
            command.args(["-c", &text]);
            command
        }
        _ => return None,
    };
    let program = program::path();
    let path =
        format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let output = command
        .env("PATH", path)
        .env("TRUEUP_URL", world.url())
        .current_dir(world.data.path())
        .env("NO_PROXY", "127.0.0.1")
        .output();
    let output = output.expect("it starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{out}{error}");
    Some(out.into_owned())
}

#[test]
fn every_recipe_prints_the_documented_output() {
    let python = program::python();
    let page = std::fs::read_to_string(root().join("docs/connect.md")).expect("the page");
    let recipes = recipes(&page);
    let world = served();
    let (mut ran, mut wrong) = (0, String::new());
    for recipe in &recipes {
        let Some(output) = run(recipe, &world, python.as_deref()) else { continue };
        ran += 1;
        match &recipe.output {
            Some(expected) if *expected == output => {}
            expected => {
                wrong += &format!("{}\nshows\n{}\nprints\n{output}\n", recipe.text, expected.as_deref().unwrap_or(""))
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let expected = if python.is_some() { 8 } else { 3 };
    assert!(ran >= expected, "{ran} recipes ran: {recipes:?}");
}

/// Sends every query of the dashboard as Infinity's backend parser does.
#[test]
fn grafana_finds_every_column_that_its_panels_name() {
    let text = std::fs::read_to_string(root().join("infra/grafana/dashboards/departures.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let world = served();
    let metrics = world.get("/metrics").text;
    let (mut asked, mut measured) = (0, 0);
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            if let Some(expression) = target["expr"].as_str() {
                let start = expression.find("trueup_").expect("a metric of ours");
                let name = expression[start..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
                let name = name.expect("a name");
                assert!(metrics.contains(&format!("# HELP {name} ")), "{name} is no metric\n{metrics}");
                measured += 1;
                continue;
            }
            for origins in ["true", "origin = 'ATL'"] {
                let parameters = target["url_options"]["params"].as_array().expect("parameters").iter().map(|p| {
                    let value = p["value"].as_str().expect("a text");
                    let value = value.replace("${__from:date:iso}", "2001-01-01T00:00:00.000Z");
                    let value = value.replace("${__to:date:iso}", "2001-01-16T00:00:00.000Z");
                    let value = value.replace("${origins:raw}", origins);
                    assert!(!value.contains("${"), "a variable that Grafana would have to know: {value}");
                    format!("{}={}", p["key"].as_str().expect("a text"), world::encoded(&value))
                });
                let query = parameters.collect::<Vec<_>>().join("&");
                let answer = world.get(&format!("{}?{query}", target["url"].as_str().expect("a path")));
                assert_eq!(answer.status, 200, "{}", answer.text);
                let answer = answer.json();
                // The parser reads a bare array as rows, and an object as one row.
                let rows = answer.as_array().cloned().unwrap_or_else(|| vec![answer]);
                assert!(!rows.is_empty(), "{query} has no rows");
                for column in target["columns"].as_array().expect("columns") {
                    let selector = column["selector"].as_str().expect("a text");
                    let found = rows.iter().any(|row| {
                        let path = format!("/{}", selector.replace('.', "/"));
                        row.pointer(&path).is_some_and(|value| match column["type"].as_str() {
                            Some("number") => value.is_number(),
                            _ => value.is_string(),
                        })
                    });
                    // Only estimates have intervals.
                    assert!(
                        found || selector.starts_with("_bounds."),
                        "{selector} is in no row of {query}: {}",
                        rows[0]
                    );
                }
                asked += 1;
            }
        }
    }
    assert!(asked >= 10 && measured == 3, "{asked} questions, {measured} metrics");
}

/// Promtool accepts the rules, and each alert fires exactly when it must.
#[test]
fn promtool_accepts_rules_metrics_and_alerts() {
    let folder = root().join("infra/prometheus");
    let promtool = |arguments: &[&str], input: Option<&str>| {
        use std::io::Write;
        use std::process::Stdio;
        let mut command = Command::new("promtool");
        command
            .args(arguments)
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "promtool cannot be started: {error}");
                eprintln!("SKIPPED: promtool cannot be started: {error}");
                return None;
            }
        };
        child.stdin.take().expect("piped").write_all(input.unwrap_or_default().as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let text = program::text(&output);
        assert!(output.status.success(), "promtool {arguments:?}: {text}");
        Some(text)
    };
    for arguments in [
        &["check", "config", "scrape.yml"][..],
        &["check", "rules", "alerts.yml"],
        &["test", "rules", "alerts.test.yml"],
    ] {
        if promtool(arguments, None).is_none() {
            return;
        }
    }
    let world = served();
    let metrics = world.get("/metrics").text;
    promtool(&["check", "metrics"], Some(&metrics));
    // The metrics that alerts read exist.
    let rules = std::fs::read_to_string(folder.join("alerts.yml")).expect("the rules");
    let names =
        rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("trueup_"));
    let described = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    for name in names {
        assert!(described.contains(&format!("`{name}`")), "{name} is no metric");
    }
}
