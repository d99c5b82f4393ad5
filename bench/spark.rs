//! Measures runs over the same archive by Polars and by Apache Spark with one core and with two, on this machine: the start of
//! Spark, planning, computing, reading the states back, and comparing and committing apart.
//!
//! `TRUEUP_EVENTS` events (default 20 million) lie on [`DATES`] dates, and each view runs `TRUEUP_ROUNDS` times (default 3). Spark is `pyspark` of `TRUEUP_SPARK_PYTHON`, or of
//! `$HOME/.cache/trueup-spark`.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use batch::{BatchSettings, Engines, SparkUse};
use shared::ids::ViewName;
use shared::time::Day;
use spark_connect::ConnectionSettings;
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::archived::History;
use crate::memory::runtime;
use crate::server::{cpu_seconds, quantile};

const EVENTS: u64 = 20_000_000;
const DATES: i32 = 20;
const FILE_EVENTS: u64 = 1_000_000;
const VIEWS: &str = "
    CREATE VIEW counted AS SELECT window_start, channel, COUNT(*) AS bids, SUM(price) AS total, MAX(fare) AS highest
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), channel;
    CREATE VIEW bidders AS SELECT window_start, bidder, COUNT(*) AS bids, SUM(price) AS total
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' DAY), bidder;
    CREATE VIEW sketched AS SELECT window_start, channel, COUNT(DISTINCT bidder) AS bidders, MEDIAN(price) AS median,
      STDDEV_POP(fare) AS spread, TOP_K(bidder, 3) AS busiest
    FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), channel;";
const NAMES: [&str; 3] = ["counted", "bidders", "sketched"];

/// When the batch layer reached something, by its name.
type Moments = Arc<Mutex<Vec<(String, Instant)>>>;

pub fn measure() {
    let Some(python) = python() else {
        println!("spark: no Python with pyspark; set TRUEUP_SPARK_PYTHON");
        return;
    };
    let moments = Moments::default();
    let recorder = Recorder(Arc::clone(&moments));
    // Another subscriber writes the log; then there are no parts.
    let _ = tracing_subscriber::registry().with(recorder).try_init();
    let events = number("TRUEUP_EVENTS").unwrap_or(EVENTS);
    let folder = tempfile::tempdir().expect("a folder");
    let lake = folder.path().join("lake");
    std::fs::create_dir(&lake).expect("a folder");
    let first = Day::parse("2024-01-01").expect("a day");
    let engines = Engines::default();
    let settings = || BatchSettings { engines: engines.clone(), ..BatchSettings::default() };
    runtime().block_on(async {
        let history = History::open(&lake, VIEWS, settings()).await;
        for number in 0..DATES {
            let of_date = events / DATES as u64;
            history.write_day(Day(first.0 + number), of_date, FILE_EVENTS, 50_000).await;
        }
    });
    println!("{events} events on {DATES} dates, {:.0} MiB of archive", bytes(&lake) as f64 / f64::from(1 << 20));
    measure_engine("Polars", &lake, settings(), &moments);
    for cores in [1, 2] {
        let begin = Instant::now();
        let server = SparkServer::start(&python, folder.path(), cores);
        println!("Spark local[{cores}]: {:.1} s until it accepts connections", begin.elapsed().as_secs_f64());
        let connection = ConnectionSettings { url: format!("sc://127.0.0.1:{}", server.port), token: None };
        let view = |name: &&str| {
            let view: ViewName = name.parse().expect("a name");
            (view, SparkUse { connection: connection.clone(), from_bytes: 0 })
        };
        engines.replace(NAMES.iter().map(view).collect());
        measure_engine(&format!("Spark local[{cores}]"), &lake, settings(), &moments);
        println!("Spark local[{cores}]: {:.0} CPU-s in all, peak {:.0} MiB", server.cpu_seconds(), server.peak_mib());
    }
}

/// Runs every view some times, with all of its windows.
fn measure_engine(name: &str, lake: &Path, settings: BatchSettings, moments: &Moments) {
    let runs = number("TRUEUP_ROUNDS").unwrap_or(3).max(1);
    runtime().block_on(async {
        let history = History::open(lake, VIEWS, settings).await;
        for view in NAMES {
            let mut rounds: Vec<(f64, BTreeMap<&str, f64>)> = Vec::new();
            for _ in 0..runs {
                moments.lock().expect("no panic").clear();
                let begin = Instant::now();
                let (run, took) = history.run(view, true).await;
                assert!(name.starts_with("Polars") || run.engine == Some(shared::engine::Engine::Spark), "{run:?}");
                rounds.push((took.as_secs_f64(), parts(begin, &moments.lock().expect("no panic"))));
            }
            let first = rounds[0].0;
            rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
            let seconds: Vec<f64> = rounds.iter().map(|(seconds, _)| *seconds).collect();
            let parts: Vec<String> =
                rounds[rounds.len() / 2].1.iter().map(|(part, seconds)| format!("{part} {seconds:.2}")).collect();
            println!(
                "{name}, {view}: first {first:.2} s, median of {runs} {:.2} s ({})",
                quantile(&seconds, 0.5),
                parts.join(", ")
            );
        }
    });
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|number| number.parse().ok())
}

/// Divides a run into parts, in seconds.
fn parts(begin: Instant, moments: &[(String, Instant)]) -> BTreeMap<&'static str, f64> {
    let at = |name: &str| moments.iter().find(|(known, _)| known == name).map(|(_, at)| *at);
    let mut parts = BTreeMap::new();
    let mut add = |part, from: Option<Instant>, to: Option<Instant>| {
        if let (Some(from), Some(to)) = (from, to) {
            parts.insert(part, to.duration_since(from).as_secs_f64());
        }
    };
    add("1 plan", Some(begin), at("recompute"));
    match at(COMPUTES) {
        Some(computes) => {
            add("2 session and files", at("recompute"), Some(computes));
            add("3 compute", Some(computes), at(WRITTEN));
            add("4 read the states", at(WRITTEN), at("write"));
        }
        None => add("3 compute", at("recompute"), at("write")),
    }
    add("5 compare", at("reconcile"), at("commit"));
    add("6 commit", at("commit"), at("retire"));
    parts
}

const COMPUTES: &str = "Spark computes the states";
const WRITTEN: &str = "Spark has written the states";

/// Notes when the batch layer reaches the steps of a run.
struct Recorder(Moments);

impl<S: tracing::Subscriber> Layer<S> for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("batch")
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let name = if seen.step.is_empty() { seen.message } else { seen.step };
        self.0.lock().expect("no panic").push((name, Instant::now()));
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    step: String,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            value.clone_into(&mut self.step);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// A server of Spark Connect in a process of its own.
struct SparkServer {
    child: Child,
    port: u16,
}

impl SparkServer {
    fn start(python: &Path, folder: &Path, cores: usize) -> SparkServer {
        let find = "import os, pyspark; print(os.path.dirname(pyspark.__file__))";
        let found = Command::new(python).args(["-c", find]).output().expect("Python runs");
        let home = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let log = std::fs::File::create(folder.join(format!("spark-{cores}.log"))).expect("a file");
        let settings = [
            format!("spark.connect.grpc.binding.port={port}"),
            "spark.connect.grpc.binding.address=127.0.0.1".to_owned(),
            "spark.driver.host=127.0.0.1".to_owned(),
            "spark.ui.enabled=false".to_owned(),
            format!("spark.sql.warehouse.dir={}", folder.display()),
            format!("spark.local.dir={}", folder.display()),
            format!("spark.driver.extraJavaOptions=-Dderby.system.home={}", folder.display()),
        ];
        // It ends with this process, however that ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(home.join("bin/spark-submit"))
            .args(["--class", "org.apache.spark.sql.connect.service.SparkConnectServer"])
            .args(["--master", &format!("local[{cores}]"), "--driver-memory", "4g"])
            .args(settings.iter().flat_map(|setting| ["--conf", setting]))
            .arg("spark-internal")
            .env("SPARK_HOME", &home)
            .env("SPARK_LOCAL_IP", "127.0.0.1")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("Spark starts");
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(180), "Spark did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        SparkServer { child, port }
    }

    fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child.id().to_string())
    }

    fn peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }
}

impl Drop for SparkServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("TRUEUP_SPARK_PYTHON").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/trueup-spark/bin/python"));
    named.or(home).filter(|python| python.exists())
}

/// Bytes of all files below a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) })
        .sum()
}
