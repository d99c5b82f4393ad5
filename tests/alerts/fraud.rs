//! The example of a fraud detector over generated transactions, some of them late, some of them twice: every alert equals
//! that of an independent fold, through runs, kills and restarts.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use super::fold::{AlertFold, Event};
use super::{key, wait_for_records};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;
/// 2026-01-05T00:00:00Z.
const BEGIN_MS: i64 = 1_767_571_200_000;
/// Intake recognises duplicates among this many events.
const HORIZON: usize = 100;

/// Returns a time as the program writes it.
pub fn time(ms: i64) -> String {
    let (days, ms) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    // Days since 2026-01-01; the test stays within a month.
    let day = days - 20_454;
    assert!((0..31).contains(&day), "{day}");
    let (hour, minute, second, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("2026-01-{:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z", day + 1)
}

pub fn definitions() -> String {
    std::fs::read_to_string(world::root().join("examples/fraud/fraud.sql")).expect("the example")
}

/// Transactions in the order in which they are sent.
struct Generator {
    random: StdRng,
    sent: Vec<Event>,
    now: i64,
}

impl Generator {
    fn next(&mut self) -> Event {
        let random = &mut self.random;
        let kind = random.random_range(0..100);
        if kind < 6 && self.sent.len() > 5 {
            // Sent again at once: intake recognises it.
            let at = self.sent.len() - 1 - random.random_range(0..5);
            return self.sent[at].clone();
        }
        if kind < 18 && self.sent.len() > 6 * HORIZON {
            // Sent again long after: only batch finds it.
            let at = random.random_range(0..self.sent.len() - 5 * HORIZON);
            return self.sent[at].clone();
        }
        self.now += random.random_range(0..15 * MINUTE_MS);
        let is_late = kind < 32 && self.now > BEGIN_MS + 4 * DAY_MS;
        let at = if is_late { self.now - random.random_range(DAY_MS..4 * DAY_MS) } else { self.now };
        let user = format!("u{}", random.random_range(0..40));
        let amount = random.random_range(1..30_000) + if random.random_range(0..20) == 0 { 90_000 } else { 0 };
        let event = Event { id: format!("t{}", self.sent.len()), at, user, amount };
        self.sent.push(event.clone());
        event
    }
}

fn line(event: &Event) -> String {
    let amount = format!("{}.{:02}", event.amount / 100, event.amount % 100);
    json!({"id": event.id, "at": time(event.at), "user_id": event.user, "amount": amount}).to_string()
}

#[test]
fn every_alert_equals_that_of_an_independent_fold() {
    let seed = std::env::var("TRUEUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(15);
    let cases: u64 = std::env::var("TRUEUP_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1);
    let mut sums = [0; 3];
    for seed in seed..seed + cases {
        let counts = one_history(seed);
        println!("confirmed, withdrawn, corrected: {counts:?}");
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(sums.iter().all(|sum| *sum > 5), "the histories are too dull: {sums:?}");
}

/// Returns how often runs confirmed, withdrew and corrected records of both alerts.
fn one_history(seed: u64) -> [usize; 3] {
    println!("seed {seed}");
    let mut world =
        World::stopped(&definitions().replace("to = 'webhook:ops', ", "").replace("\nWITH (to = 'webhook:ops')", ""));
    world.set_limits(&format!("dedup_horizon_events = {HORIZON}\n"));
    world.start();
    let mut generator = Generator { random: StdRng::seed_from_u64(seed), sent: Vec::new(), now: BEGIN_MS };
    let mut running = AlertFold::new(1_000_000, None, MINUTE_MS, 60 * MINUTE_MS);
    let mut daily = AlertFold::new(100_000, Some(DAY_MS), MINUTE_MS, 60 * MINUTE_MS);
    let (mut accepted, mut sent): (Vec<String>, usize) = (Vec::new(), 0);
    let mut raised_at = std::collections::BTreeMap::new();
    for step in 0..36 {
        let mut body = String::new();
        for _ in 0..generator.random.random_range(1..160) {
            let event = generator.next();
            body += &(line(&event) + "\n");
            // Intake accepts an event unless its id is among those of the last accepted ones.
            let recent = accepted.len().saturating_sub(HORIZON);
            if !accepted[recent..].contains(&event.id) {
                accepted.push(event.id.clone());
                running.push(event.clone());
                daily.push(event);
            }
        }
        let answer = world.post("/v1/events/transactions", body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        sent += answer.json()["accepted"].as_u64().expect("a number") as usize;
        assert_eq!(sent, accepted.len());
        if generator.random.random_range(0..6) == 0 {
            // Whether it was evaluated before or not: nothing is lost, and nothing is raised twice.
            world.kill();
            world.start();
        }
        wait_for_records(&world, "high_spend", &running.expected());
        wait_for_records(&world, "high_daily_spend", &daily.expected());
        if generator.random.random_range(0..7) == 0 || step == 35 {
            for (view, alert, fold) in
                [("spend", "high_spend", &mut running), ("daily_spend", "high_daily_spend", &mut daily)]
            {
                assert_eq!(world.run(view, generator.random.random_range(0..3) == 0)["state"], json!("published"));
                fold.run();
                if generator.random.random_range(0..4) == 0 {
                    world.kill();
                    world.start();
                }
                wait_for_records(&world, alert, &fold.expected());
                check_judged(&world, (view, alert), fold);
            }
        }
        check_unchanged(&world, &mut raised_at);
    }
    std::array::from_fn(|at| running.judged[at] + daily.judged[at])
}

/// Judged alerts have the exact figure, and the cause of what differs.
fn check_judged(world: &World, (view, alert): (&str, &str), fold: &AlertFold) {
    let version = world.rows(view, "")["seam"]["version"].clone();
    let listed = world.get(&format!("/v1/alerts?limit=10000&alert={alert}")).json();
    for record in listed["alerts"].as_array().expect("alerts") {
        let figure = &record["figures"]["total"];
        let (state, cause) = (record["state"].as_str().expect("a state"), record["cause"].as_str());
        match state {
            "withdrawn" => assert!(matches!(cause, Some("duplicate" | "late")), "{record}"),
            "corrected" => assert!(matches!(cause, Some("late" | "duplicate")), "{record}"),
            _ => {}
        }
        // A record that was judged earlier has the figure of that version.
        if record["version"] == version && state != "raised" {
            let exact = fold.exact_sum(&key(&record["key"]));
            let text = format!("{}.{:02}", exact / 100, exact % 100);
            assert_eq!(figure["exact"], Value::from(text), "{record}");
        }
    }
}

/// A record that was raised once was raised once, at the same time.
fn check_unchanged(world: &World, raised_at: &mut std::collections::BTreeMap<(String, u64), String>) {
    let listed = world.get("/v1/alerts?limit=10000").json();
    for record in listed["alerts"].as_array().expect("alerts") {
        let id = (record["id"].as_str().expect("an id").to_owned(), record["times"].as_u64().expect("a number"));
        let at = record["raised_at"].as_str().expect("a time").to_owned();
        let before = raised_at.entry(id).or_insert_with(|| at.clone());
        assert_eq!(*before, at, "{record}");
    }
}
