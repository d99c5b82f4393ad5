//! Reads current rows: by key, in pages, after restarts, and with a limit on their memory.

use serde_json::{Value, json};
use world::World;

const TABLES: &str = "
    CREATE TABLE items (sku STRING PRIMARY KEY, price DECIMAL(10,2), at TIMESTAMP) WITH (event_time = 'at', partitions = 3);
    CREATE TABLE numbers (id INT PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at', partitions = 2);
    CREATE TABLE parts (shop STRING, number INT, at TIMESTAMP, PRIMARY KEY (shop, number)) WITH (event_time = 'at');
    CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP) WITH (event_time = 'at');
    CREATE VIEW item_counts AS SELECT COUNT(*) AS n FROM items;";

fn items(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("{{\"sku\":\"sku/{n:03} é\",\"price\":\"{n}.50\",\"at\":{n}}}\n")).collect()
}

/// All rows, read in pages of this size.
fn pages(world: &World, limit: usize) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/tables/items/rows?limit={limit}{after}")).json();
        let some = page["rows"].as_array().expect("rows").clone();
        assert!(some.len() <= limit, "{page}");
        rows.extend(some);
        let Some(next) = page["next"].as_str() else { return rows };
        after = format!("&after={}", world::encoded(next));
    }
}

#[test]
fn rows_are_read_by_key_and_in_pages_of_any_size() {
    let mut world = World::new(TABLES);
    world.set_limits("dedup_horizon_events = 10\nlog_segment_bytes = 2048\narchive_wait_ms = 20\n");
    assert_eq!(world.stop(), Some(0));
    world.start();
    assert_eq!(world.post("/v1/events/items", items(0, 60)).json()["accepted"], json!(60));
    let changed = "{\"sku\":\"sku/007 é\",\"price\":1,\"at\":7}\n{\"sku\":\"sku/008 é\",\"_deleted\":true}\n";
    assert_eq!(world.post("/v1/events/items", changed).json()["accepted"], json!(2));
    for restarted in [false, true] {
        if restarted {
            // The log is short: these rows are read from the archive.
            assert_eq!(world.run("item_counts", false)["state"], json!("published"));
            world.kill();
            world.start();
        }
        for limit in [1, 7, 59, 60, 10_000] {
            let rows = pages(&world, limit);
            let keys: Vec<&str> = rows.iter().map(|row| row["sku"].as_str().expect("a key")).collect();
            let expected: Vec<String> = (0..60).filter(|n| *n != 8).map(|n| format!("sku/{n:03} é")).collect();
            assert_eq!(keys, expected, "pages of {limit}, restarted: {restarted}");
        }
        let row = world.get(&format!("/v1/tables/items/rows/{}", world::encoded("sku/007 é")));
        let expected = json!({"sku": "sku/007 é", "price": "1.00", "at": "1970-01-01T00:00:00.007Z"});
        assert_eq!((row.status, row.json()), (200, expected));
        let gone = world.get(&format!("/v1/tables/items/rows/{}", world::encoded("sku/008 é")));
        assert_eq!((gone.status, gone.json()["code"].clone()), (404, json!("unknown_row")));
        assert_eq!(world.rows("item_counts", "")["rows"][0]["n"], json!(59));
    }
}

#[test]
fn requests_for_rows_that_cannot_be_are_refused() {
    let world = World::new(TABLES);
    for (path, status, code) in [
        ("/v1/tables/events/rows", 404, "no_table"),
        ("/v1/tables/events/rows/a", 404, "no_table"),
        ("/v1/tables/nothing/rows", 404, "unknown_stream"),
        ("/v1/tables/items/rows?limit=0", 400, "invalid_parameter"),
        ("/v1/tables/items/rows?limit=10001", 400, "invalid_parameter"),
        ("/v1/tables/items/rows?before=a", 400, "unknown_parameter"),
        ("/v1/tables/numbers/rows?after=x", 400, "invalid_parameter"),
        ("/v1/tables/numbers/rows/07", 400, "invalid_parameter"),
        ("/v1/tables/numbers/rows/3000000000", 400, "invalid_parameter"),
        ("/v1/tables/numbers/rows/7?x=1", 400, "unknown_parameter"),
        ("/v1/tables/numbers/rows/7", 404, "unknown_row"),
        ("/v1/tables/parts/rows/7", 400, "invalid_parameter"),
        ("/v1/tables/parts/rows/%5B%22a%22%5D", 400, "invalid_parameter"),
        ("/v1/tables/parts/rows/%5B7,%22a%22%5D", 400, "invalid_parameter"),
        ("/v1/tables/parts/rows?after=a", 400, "invalid_parameter"),
        ("/v1/tables/parts/rows/%5B%22a%22,7%5D", 404, "unknown_row"),
    ] {
        let answer = world.get(path);
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{path}: {}", answer.text);
    }
    let csv = world.try_post("/v1/events/items", b"sku,at\na,1\n".to_vec(), &[("content-type", "text/csv")]);
    assert!(csv.is_some_and(|answer| answer.status == 400 && answer.text.contains("receives its changes as JSON")));
    let numbers = "{\"id\":-5,\"at\":0}\n{\"id\":30,\"at\":0}\n{\"id\":4,\"at\":0}\n";
    assert_eq!(world.post("/v1/events/numbers", numbers).status, 200);
    let listed = world.get("/v1/tables/numbers/rows?limit=2").json();
    assert_eq!(listed["next"], json!("4"));
    let ids: Vec<_> = listed["rows"].as_array().expect("rows").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [json!(-5), json!(4)], "in the order of numbers");
    assert_eq!(world.get("/v1/tables/numbers/rows/-5").status, 200);
}

#[test]
fn rows_with_keys_of_several_columns_are_named_by_an_array() {
    let world = World::new(TABLES);
    let part = |shop: &str, number: i64| json!({"shop": shop, "number": number, "at": number}).to_string();
    let body = [part("b", 2), part("a", 10), part("b", 1), part("a", -3), part("", 5)].join("\n");
    assert_eq!(world.post("/v1/events/parts", body).json()["accepted"], json!(5));
    let page = |after: &str| {
        let answer = world.get(&format!("/v1/tables/parts/rows?limit=2{after}")).json();
        let rows = answer["rows"].as_array().expect("rows").iter();
        (rows.map(|row| json!([row["shop"], row["number"]])).collect::<Vec<_>>(), answer["next"].clone())
    };
    let (first, next) = page("");
    assert_eq!((first, &next), (vec![json!(["", 5]), json!(["a", -3])], &json!("[\"a\",-3]")));
    let (second, next) = page(&format!("&after={}", world::encoded(next.as_str().expect("a key"))));
    assert_eq!((second, &next), (vec![json!(["a", 10]), json!(["b", 1])], &json!("[\"b\",1]")));
    let (third, next) = page(&format!("&after={}", world::encoded(next.as_str().expect("a key"))));
    assert_eq!((third, next), (vec![json!(["b", 2])], Value::Null));
    // Any spacing is the same key.
    let row = world.get(&format!("/v1/tables/parts/rows/{}", world::encoded("[ \"a\", 10 ]")));
    assert_eq!((row.status, &row.json()["at"]), (200, &json!("1970-01-01T00:00:00.010Z")));
    let detail = world.get("/v1/tables/parts/rows/a").json()["detail"].clone();
    let example = "the key of parts is a JSON array of the values of shop, number, such as [\"abc\",2], not a";
    assert_eq!(detail, json!(example));
    let gone = world.get(&format!("/v1/tables/parts/rows/{}", world::encoded("[\"c\",1]"))).json()["detail"].clone();
    assert_eq!(gone, json!("the table parts has no row with the key [\"c\",1]"));
}

#[test]
fn a_table_without_room_refuses_more_rows_with_507() {
    let mut world = World::new(TABLES);
    assert_eq!(world.stop(), Some(0));
    world.set_limits("table_bytes_max = \"4 KiB\"\n");
    world.start();
    let refused = world.post("/v1/events/items", items(0, 200));
    assert_eq!((refused.status, &refused.json()["code"]), (507, &json!("table_full")), "{}", refused.text);
    assert_eq!(world.post("/v1/events/items", items(0, 20)).status, 200);
    let rows = pages(&world, 100);
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let all_deleted: String =
        rows.iter().map(|row| format!("{{\"sku\":{},\"_deleted\":true}}\n", row["sku"])).collect();
    assert_eq!(world.post("/v1/events/items", all_deleted).json()["accepted"], json!(rows.len()));
    assert_eq!(pages(&world, 100), Vec::<Value>::new());
    assert_eq!(world.get("/v1/views/item_counts/rows").json()["rows"], json!([]));
}

#[test]
fn pages_end_at_their_number_of_rows_and_of_bytes() {
    let world = World::new(TABLES);
    assert_eq!(world.post("/v1/events/items", items(0, 1_200)).status, 200);
    let page = world.get("/v1/tables/items/rows").json();
    assert_eq!(page["rows"].as_array().map(Vec::len), Some(1_000));
    // Keys of almost 1 MiB: some of these rows are more than a response may have.
    let long = "x".repeat(1_000_000);
    for n in 0..12 {
        let line = format!("{{\"sku\":\"z{n:02}{long}\",\"at\":0}}");
        assert_eq!(world.post("/v1/events/items", line).status, 200);
    }
    let page = world.get("/v1/tables/items/rows?after=sku0").json();
    let rows = page["rows"].as_array().expect("rows");
    assert!((5..12).contains(&rows.len()) && page["next"] == rows[rows.len() - 1]["sku"], "{} rows", rows.len());
}
