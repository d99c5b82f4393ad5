//! Trueup and Spark are killed at every step of a run on Spark: every event counts once, and the version before stays until the
//! next one is complete.

use batch::step::SparkStep;
use serde_json::json;
use world::World;

use super::connect::{ConnectServer, shared};

const DEFINITIONS: &str = "CREATE STREAM orders (order_id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT, price DOUBLE)
       WITH (event_time = 'at', max_ahead = '100 days');
     CREATE VIEW hourly AS SELECT window_start, region, COUNT(*) AS n, SUM(amount) AS total, COUNT(DISTINCT order_id) AS ids,
       STDDEV(price) AS spread FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region;\n";

/// Events posted before each kill.
const EVENTS: i64 = 60;

/// A server whose runs Spark computes, with what it has accepted.
struct Orders {
    world: World,
    posted: i64,
}

impl Orders {
    fn new(connection: &str) -> Orders {
        let mut world = World::stopped(DEFINITIONS);
        world.set_settings(&format!(
            "[batch]\nengine = \"spark\"\n[limits]\nrun_retry_first_ms = 200\nrun_retry_max_ms = 200\narchive_wait_ms = 20\n{connection}"
        ));
        world.start();
        Orders { world, posted: 0 }
    }

    /// Posts more events, on the dates of those before and on a new one.
    fn post(&mut self) {
        let event = |i: i64| {
            let at = format!("2024-03-{:02}T{:02}:00:00Z", 1 + i % 3 + i / EVENTS, i % 24);
            json!({"order_id": format!("o{i}"), "at": at, "region": format!("r{}", i % 3), "amount": i, "price": i as f64 / 3.0})
                .to_string()
                + "\n"
        };
        let answer =
            self.world.post("/v1/events/orders", (self.posted..self.posted + EVENTS).map(event).collect::<String>());
        assert_eq!(answer.json()["accepted"], json!(EVENTS), "{}", answer.text);
        self.posted += EVENTS;
    }

    /// Counts and totals of a layer, over all rows.
    fn sums(&self, layer: &str) -> [i64; 3] {
        let rows = self.world.get(&format!("/v1/views/hourly/rows.json?limit=100000{layer}")).json();
        let of = |name: &str| -> i64 {
            let rows = rows["rows"].as_array().unwrap_or_else(|| panic!("{rows}"));
            rows.iter().map(|row| row[name].as_i64().expect("a number")).sum()
        };
        ["n", "total", "ids"].map(of)
    }

    /// What all events add up to.
    fn expected(&self) -> [i64; 3] {
        [self.posted, (0..self.posted).sum(), self.posted]
    }

    /// Requests a run, which is not waited for.
    fn request(&self) -> Option<String> {
        let answer = self.world.try_post("/v1/views/hourly/runs", b"{}".to_vec(), &[])?;
        answer.json()["id"].as_str().map(str::to_owned)
    }

    /// Checks that batch has all events, by the run that is under way or another.
    fn check_after_a_run(&self, step: &str) {
        let run = self.world.run("hourly", false);
        assert_eq!(run["state"], json!("published"), "{step}: {run}");
        assert_eq!((self.sums("&layer=batch"), self.sums("")), (self.expected(), self.expected()), "{step}");
        let compared = self.world.get("/v1/views/hourly/compare").json();
        assert_eq!(compared["causes"]["unexplained"], json!(0), "{step}: {compared}");
    }
}

#[test]
fn trueup_killed_at_any_step_of_a_run_on_spark_has_every_event_once() {
    let Some(spark) = shared() else { return };
    let mut orders = Orders::new(&spark.settings());
    orders.post();
    orders.check_after_a_run("no kill");
    for step in SparkStep::ALL.iter().map(|step| step.name()) {
        assert_eq!(orders.world.stop(), Some(0));
        orders.world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
        orders.world.start();
        orders.post();
        orders.request();
        orders.world.wait_for_exit();
        orders.world.set_environment(&[]);
        orders.world.start();
        orders.check_after_a_run(step);
    }
    // All of it equals what Polars computes.
    let on_spark = orders.world.rows("hourly", "")["rows"].clone();
    assert_eq!(orders.world.stop(), Some(0));
    orders.world.set_settings("");
    orders.world.start();
    assert_eq!(orders.world.run("hourly", true)["engine"], json!("polars"));
    let by_polars = orders.world.rows("hourly", "")["rows"].clone();
    let (on_spark, by_polars) = (on_spark.as_array().expect("rows"), by_polars.as_array().expect("rows"));
    assert_eq!(on_spark.len(), by_polars.len());
    for (a, b) in on_spark.iter().zip(by_polars) {
        assert!(world::oracle::table::equal(a, b, 0.0), "{a} is not {b}");
    }
}

/// Spark is killed while the run waits at each step, and started again.
#[test]
#[ignore = "takes some minutes: Spark starts six times"]
fn spark_killed_at_any_step_of_a_run_delays_it() {
    let Some(mut spark) = ConnectServer::start(&[]) else { return };
    let mut orders = Orders::new(&spark.settings());
    orders.post();
    orders.check_after_a_run("no kill");
    for step in SparkStep::ALL.iter().map(|step| step.name()) {
        assert_eq!(orders.world.stop(), Some(0));
        orders.world.set_environment(&[("TRUEUP_WAIT_AT", &format!("{step}:4000"))]);
        orders.world.start();
        orders.post();
        let id = orders.request().expect("a run");
        std::thread::sleep(std::time::Duration::from_secs(3));
        spark.kill();
        spark.start_again();
        let run = orders.world.finished(&id);
        let error = run["error"].as_str().unwrap_or_default();
        println!("{step}: {} {error}", run["state"]);
        assert!(run["state"] == json!("published") || error.contains("Spark"), "{step}: {run}");
        orders.world.wait_for("the run or its retry", |world| {
            world.get("/v1/runs?view=hourly").json()["runs"][0]["state"] == json!("published")
        });
        assert_eq!(orders.sums("&layer=batch"), orders.expected(), "{step}");
    }
}
