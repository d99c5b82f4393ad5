//! Runs the recipes of `docs/kafka.md` as written, with the address of the broker and the name of the topic of this test.

use std::process::Command;

use serde_json::json;
use world::{World, program, recipes, root};

use crate::broker::shared;
use crate::sinks::written;
use crate::topic::{Topic, read_all};

/// The first block of a language on the page.
fn block(page: &str, language: &str) -> String {
    recipes::blocks(page).into_iter().find(|(kind, _)| kind == language).expect("a block").1
}

/// Runs the recipes of the section about sinks.
fn sinks(page: &str, world: &mut World, input: &Topic, definitions: &str) {
    let section = &page[page.find("## Sinks").expect("the section")..];
    let output = input.beside(1);
    let statement = block(section, "sql").replace("topic = 'revenue'", &format!("topic = '{}'", output.name));
    world.redefine(&format!("{definitions}\n{statement}"));
    assert_eq!(world.stop(), Some(0));
    world.start();
    written(world, "revenue_table");
    let example = section.split("```text\n").nth(1).expect("an example");
    let part = |name: &str| example.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned();
    let read = || output.read().into_iter().filter(|record| record.key == part("key")).collect::<Vec<_>>();
    let value: serde_json::Value = serde_json::from_str(&part("value")).expect("JSON");
    assert_eq!(read().first().expect("the record of the example").value, Some(value));
    let kinds = &read()[0].headers;
    assert_eq!(part("headers"), format!("_kind: {}   _layer: {}", kinds["_kind"], kinds["_layer"]));
    let commands = block(section, "sh");
    for line in commands.lines() {
        let arguments: Vec<&str> = line.split(' ').skip(1).collect();
        let output = world.trueup().args(arguments).env("TRUEUP_URL", world.url()).output().expect("trueup runs");
        assert!(output.status.success(), "{line}: {}", program::text(&output));
    }
    world.wait_for("the rows again", |_| read().len() == 2);
}

#[test]
fn the_recipes_of_the_page_work() {
    let Some(broker) = shared() else { return };
    let page = std::fs::read_to_string(root().join("docs/kafka.md")).expect("the page");
    let topic = Topic::create(broker, 2);
    let settings = block(&page, "toml").replace("127.0.0.1:9092", &broker.address());
    let definitions = block(&page, "sql").replace("topic = 'orders'", &format!("topic = '{}'", topic.name));
    let mut world = World::stopped(&definitions);
    world.set_settings(&settings);
    world.start();
    let order = |country: &str, amount: &str| format!("{{\"country\":\"{country}\",\"amount\":\"{amount}\"}}");
    topic.write([("AT", "10.50"), ("AT", "2.00"), ("DE", "1.00")].map(|(c, a)| topic.record(0, order(c, a)).key("c1")));
    read_all(&world, "orders", &topic);
    world.wait_for("the rows", |world| world.rows("revenue", "")["rows"].as_array().map(Vec::len) == Some(2));
    std::fs::copy(world.definitions(), world.data.path().join("orders.sql")).expect("copied");
    let program = program::path();
    let path =
        format!("{}:{}", program.parent().expect("a folder").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block(&page, "sh")])
        .env("PATH", path)
        .env("TRUEUP_URL", world.url())
        .current_dir(world.data.path())
        .output()
        .expect("bash runs");
    let text = program::text(&output);
    assert!(
        output.status.success() && text.contains("\"country\":\"AT\",\"orders\":2,\"revenue\":\"12.50\""),
        "{text}"
    );
    sinks(&page, &mut world, &topic, &definitions);
    let wrong =
        "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at', source = 'kafka', connection = 'main2', topic = 't')";
    std::fs::write(world.data.path().join("wrong.sql"), wrong).expect("written");
    let output = world.trueup().args(["check", "wrong.sql", "--config", "trueup.toml"]).output().expect("trueup runs");
    let text = program::text(&output);
    assert!(
        output.status.code() == Some(2) && text.contains("the settings have no connection \"main2\" (did you mean"),
        "{text}"
    );
    assert_eq!(world.rows("revenue", "")["complete"], json!(true));
}
