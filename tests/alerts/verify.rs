//! `trueup verify` says of every alert how often it was raised, confirmed, withdrawn and missed over a file of events, and that
//! this is what its independent fold expects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::program;

use super::fraud::{definitions, time};

const DAY_MS: i64 = 86_400_000;
/// 2026-01-05T00:00:00Z.
const BEGIN_MS: i64 = 1_767_571_200_000;

/// Runs `trueup verify` over `lines`; returns its exit code and figures. Intake forgets ids after 100 events.
fn verify(definitions: &str, stream: &str, lines: &str) -> (Option<i32>, Value) {
    verify_with(definitions, (stream, lines), None)
}

/// The same with the changes of a table.
fn verify_with(definitions: &str, (stream, lines): (&str, &str), table: Option<(&str, &str)>) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writes");
    write("views.sql", definitions);
    write("events.ndjson", lines);
    write("trueup.toml", "[limits]\ndedup_horizon_events = 100\n");
    let options = ["--events", "events.ndjson", "--config", "trueup.toml", "-o", "json"];
    let mut command = program::trueup_in(folder.path());
    command.args(["verify", "views.sql", "--stream", stream]).args(options);
    if let Some((name, changes)) = table {
        write("table.ndjson", changes);
        command.args(["--table", &format!("{name}=table.ndjson")]);
    }
    let output = command.output().expect("trueup runs");
    let figures = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", program::text(&output)));
    (output.status.code(), figures)
}

fn counts(figures: &Value, alert: &str) -> [u64; 4] {
    let alert = &figures["alerts"][alert];
    ["raised", "confirmed", "withdrawn", "missed"].map(|name| alert[name].as_u64().expect("a number"))
}

#[test]
fn alerts_of_the_fraud_example_are_as_the_fold_of_verify_expects() {
    let mut random = StdRng::seed_from_u64(15);
    let (mut lines, mut sent, mut now) = (String::new(), Vec::<String>::new(), BEGIN_MS);
    let (mut totals, mut days) = (BTreeMap::<String, i64>::new(), BTreeMap::<(String, i64), i64>::new());
    for n in 0..12_000 {
        if sent.len() > 800 && random.random_range(0..8) == 0 {
            // Sent again long after: only batch finds it.
            lines += &sent[sent.len() - random.random_range(200..800)];
            continue;
        }
        now += random.random_range(0..180_000);
        let is_late = random.random_range(0..8) == 0 && now > BEGIN_MS + 3 * DAY_MS;
        let at = if is_late { now - random.random_range(DAY_MS..3 * DAY_MS) } else { now };
        let user = format!("u{}", random.random_range(0..150));
        let cents = random.random_range(1..30_000) + if random.random_range(0..20) == 0 { 90_000 } else { 0 };
        *totals.entry(user.clone()).or_default() += cents;
        *days.entry((user.clone(), at.div_euclid(DAY_MS))).or_default() += cents;
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        let event = json!({"id": format!("t{n}"), "at": time(at), "user_id": user, "amount": amount});
        sent.push(event.to_string() + "\n");
        lines += &sent[sent.len() - 1];
    }
    // The example as it is: nothing is sent to its webhook.
    let (exit, figures) = verify(&definitions(), "transactions", &lines);
    assert_eq!((exit, &figures["holds"], &figures["cuts"]), (Some(0), &json!(true), &json!(4)), "{figures:#}");
    let exact = [
        totals.values().filter(|total| **total > 1_000_000).count(),
        days.values().filter(|total| **total > 100_000).count(),
    ];
    for (alert, exact) in ["high_spend", "high_daily_spend"].into_iter().zip(exact) {
        let [raised, confirmed, withdrawn, missed] = counts(&figures, alert);
        assert!(confirmed > 20 && withdrawn > 2, "{alert}: {figures:#}");
        assert_eq!(raised, confirmed + withdrawn, "{alert}");
        // Amounts are positive: a key that exceeds the threshold exactly is confirmed or corrected, once.
        assert_eq!(confirmed + missed, exact as u64, "{alert}: {figures:#}");
        assert_eq!(figures["alerts"][alert]["expected_raised"], json!([raised, raised]), "{alert}");
        assert_eq!(figures["alerts"][alert]["differences"], json!(0), "{alert}");
    }
    assert!(counts(&figures, "high_daily_spend")[3] > 2, "late events are missed live: {figures:#}");
    let first = figures["alerts"]["high_daily_spend"]["first_missed"][0].as_str().expect("a key");
    assert!(first.contains("window_start") && first.contains("(late)"), "{first}");
}

#[test]
fn every_form_of_a_condition_is_folded_as_the_server_evaluates_it() {
    let definitions = "
        CREATE STREAM moves (id STRING PRIMARY KEY, at TIMESTAMP, account STRING, amount BIGINT, rate DOUBLE)
            WITH (event_time = 'at', watermark_delay = '1 minute', allowed_lateness = '1 hour');
        CREATE VIEW balances AS SELECT account, SUM(amount) AS total, AVG(rate) AS mean, MAX(amount) AS most FROM moves GROUP BY account;
        CREATE VIEW hours AS SELECT window_start, account, SUM(amount) AS total, COUNT(*) FILTER (WHERE amount < 0) AS out FROM moves
            WHERE amount <> 7 GROUP BY TUMBLE(at, INTERVAL '1' HOUR), account HAVING COUNT(*) > 2;
        CREATE VIEW sliding AS SELECT window_start, account, SUM(rate) AS total, COUNT(*) AS n FROM moves
            GROUP BY HOP(at, INTERVAL '1' HOUR, INTERVAL '3' HOUR), account;
        CREATE VIEW visits AS SELECT window_start, account, COUNT(*) AS n FROM moves GROUP BY SESSION(at, INTERVAL '10' MINUTE), account;
        CREATE ALERT overdrawn ON balances WHEN total < -200;
        CREATE ALERT unusual ON balances WHEN mean > 0.5 AND most >= 99 AND account <> 'a3';
        CREATE ALERT falling ON hours WHEN total < previous(total) - 150 AND out > 1;
        CREATE ALERT any_hour ON hours WHEN total > 250 WITH (once_per = 'account');
        CREATE ALERT busy ON sliding WHEN total + lower(n) > 25;
        CREATE ALERT long_visit ON visits WHEN n > 3;";
    let mut random = StdRng::seed_from_u64(4);
    let (mut lines, mut now) = (String::new(), BEGIN_MS);
    for n in 0..9_000 {
        now += random.random_range(0..60_000);
        let at = now - if random.random_range(0..6) == 0 { random.random_range(0..8 * 3_600_000) } else { 0 };
        let id = if random.random_range(0..10) == 0 { n - 300 } else { n };
        let (account, amount) = (format!("a{}", random.random_range(0..20)), random.random_range(-100..100));
        let rate: f64 = random.random_range(0.0..1.0);
        writeln!(
            lines,
            "{}",
            json!({"id": format!("m{id}"), "at": time(at), "account": account, "amount": amount, "rate": rate})
        )
        .expect("a String takes any text");
    }
    let (exit, figures) = verify(definitions, "moves", &lines);
    assert_eq!(exit, Some(0), "{figures:#}");
    let alerts = figures["alerts"].as_object().expect("alerts");
    let names: BTreeSet<&str> = alerts.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["any_hour", "busy", "falling", "long_visit", "overdrawn", "unusual"]));
    for (name, alert) in alerts {
        let is_folded = name != "long_visit";
        assert_eq!(alert["not_folded"].is_null(), is_folded, "{name}: {alert}");
        assert!(counts(&figures, name)[0] > 5, "{name}: {figures:#}");
        if is_folded {
            let bound = |at: usize| alert["expected_raised"][at].as_u64().expect("a number");
            assert!((bound(0)..=bound(1)).contains(&counts(&figures, name)[0]), "{name}: {alert}");
        }
    }
}

#[test]
fn the_file_has_what_a_topic_would_have_and_nothing_is_written_to_topics() {
    let definitions = "
        CREATE STREAM payments (paid_at TIMESTAMP METADATA FROM 'timestamp', id STRING PRIMARY KEY METADATA FROM 'header:id', amount BIGINT)
            WITH (event_time = 'paid_at', source = 'kafka', connection = 'main', topic = 'payments');
        CREATE VIEW totals AS SELECT COUNT(*) AS n, SUM(amount) AS total FROM payments GROUP BY TUMBLE(paid_at, INTERVAL '1' HOUR);
        CREATE SINK out FROM VIEW totals WITH (connection = 'main', topic = 'totals');
        CREATE ALERT large ON totals WHEN total > 100 WITH (to = 'kafka:main/alerts');";
    let mut lines = String::new();
    for n in 0..3_000_i64 {
        // Every thirtieth event is sent again instead of the next one.
        let id = format!("p{}", n - i64::from(n % 30 == 29));
        let event = json!({"id": id, "paid_at": time(BEGIN_MS + n * 60_000), "amount": n % 7});
        writeln!(lines, "{event}").expect("a text");
    }
    let (code, figures) = verify(definitions, "payments", &lines);
    assert_eq!((code, &figures["sent"]["duplicates"]), (Some(0), &json!(100)), "{figures}");
    let [raised, confirmed, withdrawn, missed] = counts(&figures, "large");
    assert!(raised > 40 && raised == confirmed + withdrawn && missed == 0, "{figures}");
}

#[test]
fn alerts_over_joined_views_are_counted_and_not_folded() {
    let definitions = "
        CREATE TABLE accounts (id BIGINT PRIMARY KEY, country STRING, changed_at TIMESTAMP) WITH (event_time = 'changed_at');
        CREATE STREAM moves (at TIMESTAMP, account BIGINT) WITH (event_time = 'at');
        CREATE VIEW countries AS SELECT country, COUNT(*) AS n FROM moves LEFT JOIN accounts ON account = accounts.id GROUP BY country;
        CREATE VIEW whole AS SELECT account, COUNT(*) AS n FROM moves GROUP BY account;
        CREATE ALERT joined ON countries WHEN n > 100;
        CREATE ALERT plain ON whole WHEN n > 100;";
    let moves: String =
        (0..2_000).map(|n| json!({"at": time(BEGIN_MS + n * 1_000), "account": n % 10}).to_string() + "\n").collect();
    let accounts: String = (0..10)
        .map(|id| json!({"id": id, "country": format!("c{}", id % 3), "changed_at": time(BEGIN_MS)}).to_string() + "\n")
        .collect();
    let (exit, figures) = verify_with(definitions, ("moves", &moves), Some(("accounts", &accounts)));
    assert_eq!(exit, Some(0), "{figures:#}");
    let reason = figures["alerts"]["joined"]["not_folded"].as_str().unwrap_or_default();
    assert!(reason.contains("table accounts"), "{figures:#}");
    assert!(figures["alerts"]["plain"]["not_folded"].is_null(), "{figures:#}");
    assert!(counts(&figures, "joined")[0] > 2 && counts(&figures, "plain")[0] == 10, "{figures:#}");
}
