//! Runs on Spark over a lake in an object store, which Spark reads and writes through `hadoop-aws`.
//!
//! The jars have 690 MB, so the test runs by a command, and `TRUEUP_SPARK_JARS` names the folder that has them:
//! `mvn -f tests/services/spark/pom.xml dependency:copy-dependencies -DoutputDirectory=FOLDER`.

use std::path::PathBuf;

use serde_json::json;
use world::World;
use world::oracle_check::published;
use world::s3::{S3, SECRET};

use super::connect::ConnectServer;

const DEFINITIONS: &str = "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT)
       WITH (event_time = 'at', max_ahead = '100 days');
     CREATE VIEW daily WITH (time_zone = 'Europe/Vienna') AS SELECT window_start, region, COUNT(*) AS n, SUM(amount) AS total,
       COUNT(DISTINCT order_id) AS ids, MEDIAN(amount) AS median, STDDEV(amount) AS spread
       FROM orders GROUP BY TUMBLE(at, INTERVAL '1' DAY), region;\n";

/// A Spark that has access to the store, as the page says.
fn spark(store: &S3) -> Option<ConnectServer> {
    let folder = std::env::var_os("TRUEUP_SPARK_JARS").map(PathBuf::from);
    let folder = folder.expect("TRUEUP_SPARK_JARS names a folder with hadoop-aws: see the head of this file");
    let jars = std::fs::read_dir(folder).expect("a folder of jars").map(|jar| jar.expect("a file").path());
    let jars: Vec<String> = jars.map(|jar| jar.display().to_string()).collect();
    let settings = [
        "spark.hadoop.fs.s3.impl=org.apache.hadoop.fs.s3a.S3AFileSystem".to_owned(),
        format!("spark.hadoop.fs.s3a.endpoint={}", store.proxy.url()),
        "spark.hadoop.fs.s3a.endpoint.region=us-east-1".to_owned(),
        "spark.hadoop.fs.s3a.path.style.access=true".to_owned(),
        "spark.hadoop.fs.s3a.access.key=test".to_owned(),
        format!("spark.hadoop.fs.s3a.secret.key={SECRET}"),
    ];
    let mut options = vec!["--jars".to_owned(), jars.join(",")];
    options.extend(settings.into_iter().flat_map(|setting| ["--conf".to_owned(), setting]));
    ConnectServer::start(&options)
}

#[test]
#[ignore = "needs 690 MB of jars in TRUEUP_SPARK_JARS"]
fn spark_reads_and_writes_a_lake_in_an_object_store() {
    let Some(store) = S3::start(16) else { return };
    let Some(spark) = spark(&store) else { return };
    let mut world = World::elsewhere(DEFINITIONS, store.place());
    let settings = |engine: &str| format!("[batch]\nengine = \"{engine}\"\n{}", spark.settings());
    let mut posted = 0;
    for engine in ["spark", "polars", "spark"] {
        assert_eq!(world.stop(), Some(0));
        world.set_settings(&settings(engine));
        world.start();
        let event = |i: i64| {
            let at = format!("2024-03-{:02}T{:02}:30:00Z", 29 + i % 3, i % 24);
            json!({"order_id": format!("o{i}"), "at": at, "region": format!("r{}", i % 2), "amount": i}).to_string()
                + "\n"
        };
        let answer = world.post("/v1/events/orders", (posted..posted + 300).map(event).collect::<String>());
        assert_eq!(answer.json()["accepted"], json!(300), "{}", answer.text);
        posted += 300;
        let before = world.rows("daily", "")["rows"].clone();
        let run = world.run("daily", false);
        published(&run);
        assert_eq!(run["engine"], json!(engine), "{run}");
        let after = world.rows("daily", "&layer=batch")["rows"].clone();
        let (before, after) = (before.as_array().expect("rows"), after.as_array().expect("rows"));
        assert_eq!(before.len(), after.len());
        for (a, b) in before.iter().zip(after) {
            assert!(world::oracle::table::equal(a, b, 1e-9), "{engine}: {a} is not {b}");
        }
        let n: i64 = after.iter().map(|row| row["n"].as_i64().expect("a number")).sum();
        assert_eq!(n, posted);
    }
    let listed = spark.log();
    assert!(!listed.contains(SECRET), "Spark logs no secret");
}
