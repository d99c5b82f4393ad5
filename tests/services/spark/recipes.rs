//! Runs the recipe of `docs/spark.md` as written, over a view with days of a time zone, in a Spark of its own.

use std::process::Command;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use world::oracle_check::published;
use world::{World, program, recipes, root};

use super::driver::python;

const DEFINITIONS: &str =
    "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, country STRING, amount BIGINT)
    WITH (event_time = 'at', max_ahead = '100 days');
CREATE VIEW weekly WITH (time_zone = 'Europe/Vienna') AS
SELECT window_start, country, COUNT(*) AS orders, SUM(amount) AS total FROM orders
GROUP BY HOP(at, INTERVAL '1' DAY, INTERVAL '1' WEEK), country;\n";

/// The counts and totals of the rows that Spark has written, in order.
fn written(folder: &std::path::Path) -> Vec<(i64, i64)> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    let mut rows = Vec::new();
    for file in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).expect("a file"));
        for batch in reader.and_then(|builder| builder.build()).expect("Parquet") {
            let batch = batch.expect("rows");
            let column = |name: &str| batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().clone();
            let (orders, totals) = (column("orders"), column("total"));
            rows.extend((0..batch.num_rows()).map(|row| (orders.value(row), totals.value(row))));
        }
    }
    rows.sort_unstable();
    rows
}

#[test]
fn the_recipe_of_the_page_gives_the_rows_of_batch() {
    let Some(python) = python() else { return };
    let page = std::fs::read_to_string(root().join("docs/spark.md")).expect("the page");
    let block = |language: &str| {
        let found = recipes::blocks(&page).into_iter().find(|(kind, _)| kind == language);
        found.unwrap_or_else(|| panic!("no block of {language}")).1
    };
    let world = World::new(DEFINITIONS);
    let event = |i: i64| {
        let country = if i % 2 == 0 { "AT" } else { "DE" };
        let at = format!("2024-03-{:02}T{:02}:30:00Z", 20 + i % 12, i % 24);
        json!({"order_id": format!("o{i}"), "at": at, "country": country, "amount": i}).to_string() + "\n"
    };
    let answer = world.post("/v1/events/orders", (0..200).map(event).collect::<String>());
    assert_eq!(answer.json()["accepted"], json!(200), "{}", answer.text);
    published(&world.run("weekly", false));
    let folder = world.data.path();
    std::fs::write(folder.join("spark.py"), block("python")).expect("written");
    let commands = block("sh").replace("orders.sql --data data", "definitions.sql --data store");
    let commands: Vec<&str> = commands.lines().filter(|line| !line.starts_with("pip install")).collect();
    let path = |program: &std::path::Path| program.parent().expect("a folder").display().to_string();
    let rest = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands.join("\n")])
        .env("PATH", format!("{}:{}:{rest}", path(&python), path(&program::path())))
        .env("PYSPARK_SUBMIT_ARGS", "--master local[1] --driver-memory 1g --conf spark.ui.enabled=false pyspark-shell")
        .current_dir(folder)
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{}", program::text(&output));
    let rows = world.get("/v1/views/weekly/rows.json?limit=1000&layer=batch").json();
    let number = |row: &Value, name: &str| row[name].as_i64().expect("a number");
    let rows = rows["rows"].as_array().expect("rows").iter();
    let mut expected: Vec<(i64, i64)> = rows.map(|row| (number(row, "orders"), number(row, "total"))).collect();
    expected.sort_unstable();
    assert!(expected.len() > 30, "windows over a clock change: {expected:?}");
    assert_eq!(written(&folder.join("spark-weekly")), expected);
}
