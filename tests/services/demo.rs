//! `trueup demo --kafka`: the flights go through a topic into the stream, and a view comes out in another topic.

use std::collections::BTreeMap;

use serde_json::Value;
use world::demo::Demo;

use crate::broker::shared;
use crate::topic::Topic;

#[test]
fn the_demo_goes_through_topics_and_back_out() {
    let Some(broker) = shared() else { return };
    let demo = Demo::start(&["--kafka", &broker.address(), "--rows", "3000", "--speedup", "1000000"]);
    let source = || demo.get("/v1/streams/flights")["source"].clone();
    let departures = |demo: &Demo| -> BTreeMap<String, Value> {
        let rows = demo.get("/v1/views/departures/rows?limit=10000")["rows"].as_array().expect("rows").clone();
        let row = |row: Value| (format!("{}{}", row["window_start"], row["origin"]), row["flights"].clone());
        rows.into_iter().map(row).collect()
    };
    let flights = |demo: &Demo| departures(demo).values().filter_map(Value::as_u64).sum::<u64>();
    wait_for(
        "the flights",
        || source()["lag"] == 0 && flights(&demo) > 2_900,
        || format!("{} {}", source(), flights(&demo)),
    );
    let sink = || demo.get("/v1/sinks/departures_table");
    let output = Topic::existing(broker, sink()["topic"].as_str().expect("a topic"));
    // Batch runs correct late flights meanwhile, so both are compared until they agree.
    wait_for(
        "the sink",
        || {
            let table = output.table();
            let written =
                table.values().map(|row| (format!("{}{}", row["window_start"], row["origin"]), row["flights"].clone()));
            sink()["state"] == "running" && written.collect::<BTreeMap<_, _>>() == departures(&demo)
        },
        || sink().to_string(),
    );
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool, state: impl Fn() -> String) {
    let begin = std::time::Instant::now();
    while !is_there() {
        assert!(begin.elapsed() < std::time::Duration::from_secs(90), "{what} did not come: {}", state());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
