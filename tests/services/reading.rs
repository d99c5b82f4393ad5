//! Topics become streams: events, metadata columns, starts, partitions that are added, transactions, and what clients see.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use world::{World, program};

use crate::broker::shared;
use crate::topic::{Topic, read_all, source};

/// Counts by `k`, and the sum of `v`, in the order of the keys.
fn by_key(world: &World, view: &str) -> Vec<(String, i64, i64)> {
    let rows = world.rows(view, "")["rows"].as_array().expect("rows").clone();
    let row = |row: &Value| {
        let number = |name: &str| row[name].as_i64().expect("a number");
        (row["k"].as_str().expect("a key").to_owned(), number("n"), number("total"))
    };
    let mut rows: Vec<_> = rows.iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn records_become_events_with_the_parts_that_columns_hold() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 2);
    let world = topic.world(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING METADATA FROM 'key', p INT METADATA FROM 'partition', \
             o BIGINT METADATA FROM 'offset', h STRING METADATA FROM 'headers', v BIGINT)
             WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total, MAX(o) AS last, MAX(p) AS part, MIN(h) AS headers FROM s GROUP BY k;",
        topic.options()
    ));
    topic.write((0..40).map(|i| {
        topic
            .record(i % 2, format!("{{\"v\":{i}}}"))
            .key(["a", "b"][i as usize % 2].as_bytes().to_vec())
            .header("h", "x")
    }));
    read_all(&world, "s", &topic);
    let rows = world.rows("sums", "")["rows"].as_array().expect("rows").clone();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (row, (k, part, total)) in rows.iter().zip([("a", 0, 380), ("b", 1, 400)]) {
        let expected = json!({"k": k, "n": 20, "total": total, "last": 19, "part": part, "headers": "{\"h\":\"x\"}"});
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&row[name], value, "{name} of {row}");
        }
    }
    // Both layers agree, and the archive has the offset of each record.
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    assert_eq!(world.rows("sums", "&layer=batch")["rows"].as_array().map(Vec::len), Some(2));
    let described = source(&world, "s");
    assert_eq!(
        (&described["kind"], &described["lag"], &described["state"]),
        (&json!("kafka"), &json!(0), &json!("reading"))
    );
    let metrics = world.get("/metrics").text;
    assert!(metrics.contains("trueup_source_lag{stream=\"s\",partition=\"1\"} 0"), "{metrics}");
    let refused = world.post("/v1/events/s", "{\"v\":1}");
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("stream_reads_topic")));
    assert!(refused.text.contains(&topic.name), "{}", refused.text);
    let listed = world.trueup().args(["streams", "s", "--url", world.url()]).output().expect("trueup runs");
    let listed = program::text(&listed);
    assert!(listed.contains(&format!("{} of connection main, reading", topic.name)), "{listed}");
    assert!(listed.contains("partition 1 at offset 20 of 20"), "{listed}");
    world.wait_for("the report to the group", |_| topic.committed("trueup-s") == [(0, Some(20)), (1, Some(20))]);
}

#[test]
fn records_have_the_time_of_the_broker_if_the_topic_says_so() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create_with(broker, 1, &[("message.timestamp.type", "LogAppendTime")]);
    let world = topic.world(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', v BIGINT) WITH (event_time = 'at', {});
         CREATE VIEW days AS SELECT window_start, COUNT(*) AS n FROM s GROUP BY TUMBLE(at, INTERVAL '1' DAY);",
        topic.options()
    ));
    let sent_in_2001 = (0..5).map(|v| topic.record(0, format!("{{\"v\":{v}}}")).timestamp(1_000_000_000_000 + v));
    topic.write(sent_in_2001);
    read_all(&world, "s", &topic);
    let answer = world.rows("days", "");
    let rows = answer["rows"].as_array().expect("rows");
    let n: i64 = rows.iter().filter_map(|row| row["n"].as_i64()).sum();
    assert_eq!(n, 5, "{answer}");
    assert!(rows.iter().all(|row| row["window_start"].as_str().is_some_and(|at| at > "2026")), "{answer}");
}

#[test]
fn aborted_records_are_never_events_and_markers_count_as_read() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let world = topic.world(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT) WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k;",
        topic.options()
    ));
    let records = |k: &str, n: i64| {
        let values: Vec<_> = (0..n).map(|v| topic.record(0, format!("{{\"k\":\"{k}\",\"v\":{v}}}"))).collect();
        values
    };
    for round in 0..3 {
        topic.transact(&format!("{}-c{round}", topic.name), records("committed", 5), true);
        topic.transact(&format!("{}-a{round}", topic.name), records("aborted", 7), false);
        topic.write(records("plain", 2));
    }
    topic.transact(&format!("{}-last", topic.name), records("aborted", 3), false);
    read_all(&world, "s", &topic);
    assert_eq!(by_key(&world, "sums"), [("committed".to_owned(), 15, 30), ("plain".to_owned(), 6, 3)]);
}

#[test]
fn a_topic_that_gains_partitions_gives_its_stream_more() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 1);
    let definitions = format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT) WITH (event_time = 'at', start = 'latest', {});
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k;",
        topic.options()
    );
    let mut world = World::stopped(&definitions);
    world.set_settings(&topic.settings());
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    world.start_at(&port.to_string());
    world.wait_for("the position", |world| source(world, "s")["partitions"][0]["position"] == 0);
    let id = world.id();
    topic.write([topic.record(0, "{\"k\":\"a\",\"v\":1}")]);
    read_all(&world, "s", &topic);
    // A version whose seam does not have the new partitions.
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    topic.grow(3);
    topic.write((1..3).map(|partition| topic.record(partition, "{\"k\":\"b\",\"v\":2}")));
    world.wait_for("the new partitions", |world| {
        let streams = world.try_get("/v1/streams/s").filter(|answer| answer.status == 200);
        streams.is_some_and(|s| {
            s.json()["partitions"].as_array().map(Vec::len) == Some(3) && s.json()["source"]["lag"] == 0
        })
    });
    assert_eq!(by_key(&world, "sums"), [("a".to_owned(), 1, 1), ("b".to_owned(), 2, 4)]);
    assert_eq!(world.id(), id, "the process is the same");
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    assert_eq!(by_key(&world, "sums"), [("a".to_owned(), 1, 1), ("b".to_owned(), 2, 4)]);
}

#[test]
fn a_log_that_is_lost_is_rebuilt_from_the_archive_and_the_topic() {
    let Some(broker) = shared() else { return };
    let topic = Topic::create(broker, 2);
    let mut world = topic.world(&format!(
        "CREATE STREAM s (at TIMESTAMP METADATA FROM 'timestamp', k STRING, v BIGINT) WITH (event_time = 'at', {});
         CREATE VIEW sums AS SELECT k, COUNT(*) AS n, SUM(v) AS total FROM s GROUP BY k;",
        topic.options()
    ));
    let records = |from: i64, to: i64| {
        let value = |v: i64| topic.record((v % 2) as i32, format!("{{\"k\":\"k\",\"v\":{v}}}"));
        (from..to).map(value).collect::<Vec<_>>()
    };
    topic.write(records(0, 30));
    read_all(&world, "s", &topic);
    assert_eq!(world.run("sums", true)["state"], json!("published"));
    topic.write(records(30, 50));
    read_all(&world, "s", &topic);
    world.kill();
    std::fs::remove_dir_all(world.store().join("log")).expect("the log is lost");
    world.set_arguments(&["--take-over"]);
    topic.write(records(50, 60));
    world.start();
    read_all(&world, "s", &topic);
    assert_eq!(by_key(&world, "sums"), [("k".to_owned(), 60, 59 * 30)]);
}

/// Figures for docs: the same events over HTTP and from a topic.
#[test]
#[ignore = "takes minutes: docs/testing.md has the command"]
fn throughput_beside_http() {
    let Some(broker) = shared() else { return };
    let count: usize = std::env::var("TRUEUP_RECORDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000_000);
    let topic = Topic::create(broker, 2);
    let columns = "id STRING, at TIMESTAMP, user BIGINT, page STRING, price DOUBLE";
    let event = |i: usize| {
        format!(
            "{{\"id\":\"event-{i:09}\",\"at\":{},\"user\":{},\"page\":\"/products/{}\",\"price\":{}.25}}",
            1_700_000_000_000_u64 + i as u64,
            i * 7919 % 10_007,
            i % 97,
            i % 1_000
        )
    };
    (0..count).step_by(50_000).for_each(|from| {
        topic.write((from..(from + 50_000).min(count)).map(|i| topic.record((i % 2) as i32, event(i))));
    });
    let accepted = |world: &World, stream: &str| {
        let partitions = world.get(&format!("/v1/streams/{stream}")).json()["partitions"].clone();
        partitions.as_array().expect("partitions").iter().map(|p| p["accepted"].as_u64().expect("a count")).sum::<u64>()
    };
    let begin = Instant::now();
    let world = topic.world(&format!("CREATE STREAM s ({columns}) WITH (event_time = 'at', {})", topic.options()));
    let started = begin.elapsed();
    while accepted(&world, "s") < count as u64 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let read = begin.elapsed().saturating_sub(started);
    drop(world);
    let world = World::new(&format!("CREATE STREAM s ({columns}) WITH (event_time = 'at', partitions = 2)"));
    let bodies: Vec<Vec<u8>> = (0..count)
        .step_by(10_000)
        .map(|from| (from..(from + 10_000).min(count)).map(|i| event(i) + "\n").collect::<String>().into_bytes())
        .collect();
    let url = world.url().to_owned();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for part in bodies.chunks(bodies.len().div_ceil(4)) {
            let url = &url;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let client = reqwest::Client::builder().no_proxy().build().expect("a client");
                for body in part {
                    loop {
                        let request = client.post(format!("{url}/v1/events/s")).body(body.clone());
                        let status = runtime.block_on(async { request.send().await.expect("an answer").status() });
                        if status.is_success() {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            });
        }
    });
    let sent = begin.elapsed();
    assert_eq!(accepted(&world, "s"), count as u64);
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    println!(
        "{count} events: topic {:.0}/s, HTTP {:.0}/s, ratio {:.2} (start of the server {started:?})",
        rate(read),
        rate(sent),
        rate(read) / rate(sent)
    );
}
