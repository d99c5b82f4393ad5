//! Measures the work of `docs/performance.md` through HTTP, durable and archived: one view each of several kinds, more and more
//! views of one stream, and more and more keys. Rounds go over all of them in turn.

use std::fmt::Write;

use crate::events::{STREAM, bids};
use crate::server::{Server, quantile};

const EVENTS: u64 = 4_000_000;
const BODY_EVENTS: u64 = 25_000;
const ROUNDS: usize = 3;

/// A name, whether events have a primary key, and the views beside the one that counts.
struct Workload {
    name: String,
    has_key: bool,
    views: String,
}

pub fn measure() {
    let of = |name: &str, has_key: bool, view: &str| Workload {
        name: name.to_owned(),
        has_key,
        views: format!("CREATE VIEW v AS SELECT {view};"),
    };
    let tumbling = "window_start, channel, COUNT(*) AS n, SUM(price) AS s, MAX(price) AS mx";
    let by_channel = "FROM bids GROUP BY TUMBLE(ts, INTERVAL '10' SECOND), channel";
    compare(&[
        of("tumbling 10 s by channel", false, &format!("{tumbling} {by_channel}")),
        of("the same, with a primary key", true, &format!("{tumbling} {by_channel}")),
        of(
            "with distinct bidders and a p99",
            false,
            &format!(
                "{tumbling}, COUNT(DISTINCT bidder) AS u, PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY price) AS p99 {by_channel}"
            ),
        ),
        of(
            "hopping 1 min / 10 s by channel",
            false,
            "window_start, channel, COUNT(*) AS n FROM bids GROUP BY HOP(ts, INTERVAL '10' SECOND, INTERVAL '1' MINUTE), channel",
        ),
        of(
            "sessions of 30 s by bidder",
            false,
            "window_start, bidder, COUNT(*) AS n FROM bids GROUP BY SESSION(ts, INTERVAL '30' SECOND), bidder",
        ),
    ]);
}

/// Measures more and more views of one stream, and more and more keys of one view.
pub fn growth() {
    let views = |count: usize, keys: &str| Workload {
        name: format!("{count} views by {keys}"),
        has_key: false,
        views: views_by(keys, count),
    };
    compare(&[1, 10, 40, 100].map(|count| views(count, "channel")));
    compare(&[1, 10].map(|count| views(count, "bidder")));
    compare(&[10, 1_000, 100_000].map(|keys| Workload {
        name: format!("{keys} keys"),
        has_key: false,
        views: format!(
            "CREATE VIEW v AS SELECT bidder % {keys} AS key, COUNT(*) AS n, SUM(price) AS s FROM bids \
             GROUP BY TUMBLE(ts, INTERVAL '1' HOUR), key;"
        ),
    }));
}

/// Views with the same dimensions; every other one has a window or a measure of its own.
fn views_by(keys: &str, count: usize) -> String {
    let mut text = String::new();
    for view in 0..count {
        let measure = ["SUM(price)", "MAX(price)", "MIN(auction)", "AVG(price)"][view % 4];
        let seconds = [10, 30, 50, 20][view / 4 % 4];
        let _ = writeln!(
            text,
            "CREATE VIEW v{view} AS SELECT window_start, {keys}, COUNT(*) AS n, {measure} AS m FROM bids \
             GROUP BY TUMBLE(ts, INTERVAL '{seconds}' SECOND), {keys};"
        );
    }
    text
}

fn compare(workloads: &[Workload]) {
    let mut figures = vec![(Vec::new(), Vec::new(), Vec::new()); workloads.len()];
    for _ in 0..ROUNDS {
        for (workload, (rates, costs, peaks)) in workloads.iter().zip(&mut figures) {
            let (rate, cost, peak) = run(workload);
            rates.push(rate);
            costs.push(cost);
            peaks.push(peak);
        }
    }
    println!("{:<36} {:>12} {:>22} {:>14}", "", "M events/s", "server CPU-s per M", "peak MiB");
    for (workload, (rates, costs, peaks)) in workloads.iter().zip(&mut figures) {
        for values in [&mut *rates, &mut *costs, &mut *peaks] {
            values.sort_by(f64::total_cmp);
        }
        let median = |values: &[f64]| quantile(values, 0.5);
        println!("{:<36} {:>12.2} {:>22.2} {:>14.0}", workload.name, median(rates), median(costs), median(peaks));
    }
}

/// Millions of events a second until all are acknowledged and counted, CPU seconds of the server per million, peak memory.
fn run(workload: &Workload) -> (f64, f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let stream = if workload.has_key { STREAM.to_owned() } else { STREAM.replace(" PRIMARY KEY", "") };
    let definitions = format!("{stream}CREATE VIEW counted AS SELECT COUNT(*) AS n FROM bids;{}", workload.views);
    let server = Server::start(folder.path(), &definitions);
    let (mut seconds, before) = (0.0, server.cpu_seconds());
    // In parts, so that this process does not hold all of them.
    for part in 0..4 {
        let first = part * EVENTS / 4;
        let bodies = (0..EVENTS / 4 / BODY_EVENTS).map(|body| first + body * BODY_EVENTS);
        seconds +=
            server.send("/v1/events/bids", bodies.map(|from| bids(from, from + BODY_EVENTS, EVENTS)).collect(), 4);
    }
    let begin = std::time::Instant::now();
    let answer = server.get("/v1/views/counted/rows");
    seconds += begin.elapsed().as_secs_f64();
    assert_eq!(answer["rows"][0]["n"], serde_json::json!(EVENTS), "{}", answer["ledger"]);
    let millions = EVENTS as f64 / 1e6;
    (millions / seconds, (server.cpu_seconds() - before) / millions, server.peak_mib())
}
