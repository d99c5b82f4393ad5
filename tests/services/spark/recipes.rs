//! Runs the recipes of `docs/spark.md` as written, each in a Spark of its own: the first run, and the script that executes a plan
//! over a view with days of a time zone.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use world::oracle_check::published;
use world::{World, program, recipes, root};

use super::driver::python;
use crate::guarded::Guarded;

const DEFINITIONS: &str =
    "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, country STRING, amount BIGINT)
    WITH (event_time = 'at', max_ahead = '100 days');
CREATE VIEW weekly WITH (time_zone = 'Europe/Vienna') AS
SELECT window_start, country, COUNT(*) AS orders, SUM(amount) AS total FROM orders
GROUP BY HOP(at, INTERVAL '1' DAY, INTERVAL '1' WEEK), country;\n";

/// The block of the page in this language that contains a text.
fn block(language: &str, text: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/spark.md")).expect("the page");
    let found = recipes::blocks(&page).into_iter().find(|(kind, block)| kind == language && block.contains(text));
    found.unwrap_or_else(|| panic!("no block of {language} with {text}")).1
}

/// The search path with an interpreter and the program under test.
fn path(python: &Path) -> String {
    let folder = |program: &Path| program.parent().expect("a folder").display().to_string();
    let rest = std::env::var("PATH").unwrap_or_default();
    format!("{}:{}:{rest}", folder(python), folder(&program::path()))
}

#[test]
fn a_newcomer_gets_a_run_on_spark() {
    let Some(python) = python() else { return };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let port = free.port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let start = block("sh", "start-connect-server.sh").replace("15002", &port);
    let start: Vec<&str> = start.lines().filter(|line| !line.starts_with("pip install")).collect();
    let mut server = Command::new("bash");
    server
        .args(["-c", &format!("{}\nwait", start.join("\n"))])
        .env("PATH", path(&python))
        .env("SPARK_LOG_DIR", folder.path())
        .env("SPARK_PID_DIR", folder.path())
        .env("SPARK_LOCAL_IP", "127.0.0.1");
    let _server = Guarded::start(&server, folder.path());
    let begin = Instant::now();
    while TcpStream::connect(free).is_err() {
        let log = || std::fs::read_to_string(folder.path().join("out")).unwrap_or_default();
        assert!(begin.elapsed() < Duration::from_secs(120), "Spark did not start:\n{}", log());
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut world = World::stopped(&block("sql", "CREATE VIEW weekly"));
    world.set_settings(&block("toml", "[connections.spark]").replace("15002", &port));
    world.start();
    let commands = block("sh", "curl").replace("http://127.0.0.1:8080", world.url());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands])
        .env("PATH", path(&python))
        .env("TRUEUP_URL", world.url())
        .current_dir(folder.path())
        .output()
        .expect("bash runs");
    let printed = program::text(&output);
    assert!(output.status.success() && printed.contains("on Spark"), "{printed}\n{}", world.log());
    assert_eq!(world.rows("weekly", "")["rows"].as_array().map(Vec::len), Some(7), "{printed}");
}

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
    std::fs::write(folder.join("spark.py"), block("python", "spark.read")).expect("written");
    let commands = block("sh", "python spark.py").replace("orders.sql --data data", "definitions.sql --data store");
    let commands: Vec<&str> = commands.lines().filter(|line| !line.starts_with("pip install")).collect();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands.join("\n")])
        .env("PATH", path(&python))
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
