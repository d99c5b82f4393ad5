//! Alerts to a topic of a real Kafka: every change of a record is in the topic, in order, also after kills of the server and
//! of the broker.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use crate::broker::{Broker, shared};
use crate::topic::{ReadRecord, Topic};

fn definitions(output: &Topic, options: &str) -> String {
    format!(
        "CREATE STREAM payments (id STRING PRIMARY KEY, at TIMESTAMP, user_id STRING, amount BIGINT)
             WITH (event_time = 'at', partitions = 2, watermark_delay = '1 minute', allowed_lateness = '1 minute');
         CREATE VIEW spend AS SELECT user_id, COUNT(*) AS n, SUM(amount) AS total FROM payments GROUP BY user_id;
         CREATE ALERT high_spend ON spend WHEN total > 100 WITH (to = 'kafka:main/{}'{options});",
        output.name
    )
}

fn payment(id: usize, user: &str, amount: i64) -> String {
    format!("{{\"id\":\"p{id}\",\"at\":\"2026-11-01T10:00:00Z\",\"user_id\":\"{user}\",\"amount\":{amount}}}\n")
}

/// The records of the alert as the server lists them.
fn listed(world: &World) -> Vec<Value> {
    world.get("/v1/alerts?limit=1000").json()["alerts"].as_array().expect("alerts").clone()
}

/// Waits until the topic has the last change of every record that is listed; returns the topic.
fn delivered(world: &World, output: &Topic, alerts: usize) -> Vec<ReadRecord> {
    world.wait_for("the notices", |world| {
        let table = output.table();
        let listed = listed(world);
        listed.len() == alerts
            && listed.iter().all(|alert| {
                table
                    .get(alert["id"].as_str().expect("an id"))
                    .is_some_and(|notice| notice["data"]["state"] == alert["state"])
            })
    });
    output.read()
}

/// The topic without what was sent again: the first record of every notice, by key.
fn notices(records: &[ReadRecord]) -> BTreeMap<String, Vec<String>> {
    let (mut seen, mut by_key) = (BTreeSet::new(), BTreeMap::<String, Vec<String>>::new());
    for record in records {
        if seen.insert(record.headers["notice_id"].clone()) {
            by_key.entry(record.key.clone()).or_default().push(record.headers["state"].clone());
        }
    }
    by_key
}

#[test]
fn every_change_of_an_alert_is_a_record() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 3);
    let world = output.world(&definitions(&output, ""));
    let body: String = (0..40).map(|id| payment(id, &format!("u{}", id % 4), 30 * (id as i64 % 4))).collect();
    assert_eq!(world.post("/v1/events/payments", body).status, 200);
    let records = delivered(&world, &output, 3);
    assert_eq!(records.len(), 3, "{records:?}");
    for record in &records {
        let notice = record.value.as_ref().expect("a notice");
        let of_alert = listed(&world).into_iter().find(|alert| alert["id"] == record.key.as_str()).expect("listed");
        assert_eq!((&notice["type"], &notice["data"]), (&json!("alert.raised"), &of_alert));
        assert_eq!((record.headers["alert"].as_str(), record.headers["state"].as_str()), ("high_spend", "raised"));
        assert_eq!(record.headers["notice_id"], format!("{}-raised-1", record.key));
    }
    assert_eq!(world.run("spend", false)["state"], json!("published"));
    let records = delivered(&world, &output, 3);
    assert!(
        records.len() == 6 && notices(&records).values().all(|states| *states == ["raised", "confirmed"]),
        "{records:?}"
    );
    let metrics = world.get("/metrics").text;
    let counted = format!("trueup_alert_notices_total{{target=\"kafka:main/{}\",result=\"delivered\"}} 6", output.name);
    assert!(metrics.contains(&counted), "{counted}");
}

#[test]
fn a_topic_that_does_not_exist_yet_gets_its_notices_later_and_a_rate_counts_the_others() {
    let Some(broker) = shared() else { return };
    let output = Topic::create(broker, 1);
    output.delete();
    let world = output.world(&definitions(&output, ", notices_per_minute = 2"));
    // One request per payment, so that each is evaluated by itself.
    for id in 0..2 {
        assert_eq!(world.post("/v1/events/payments", payment(id, &format!("u{id}"), 200)).status, 200);
    }
    let target = format!("trueup_alert_notices_total{{target=\"kafka:main/{}\",result=\"retried\"}}", output.name);
    world.wait_for("a retry", |world| world.get("/metrics").text.contains(&target));
    world.wait_for("the warning", |world| world.log().contains("a notice was not accepted"));
    let again = output.create_again(1);
    let records = delivered(&world, &again, 2);
    assert_eq!(notices(&records).len(), 2);
}

#[test]
fn no_notice_is_lost_whenever_trueup_or_the_broker_is_killed() {
    let Some(mut broker) = Broker::start() else { return };
    let output = Topic::create(&broker, 2);
    let mut world = output.world(&definitions(&output, ""));
    let mut dice = StdRng::seed_from_u64(crate::sink_kills::seed());
    let (mut id, mut totals) = (0, BTreeMap::<String, i64>::new());
    for round in 0..6 {
        for _ in 0..dice.random_range(5..30) {
            let (user, amount) = (format!("u{}", dice.random_range(0..40)), dice.random_range(20..120));
            if world
                .try_post("/v1/events/payments", payment(id, &user, amount).into_bytes(), &[])
                .is_some_and(|a| a.status == 200)
            {
                *totals.entry(user).or_default() += amount;
            }
            id += 1;
        }
        match round % 3 {
            0 => {
                world.kill();
                world.start();
            }
            1 => {
                broker.kill();
                broker.start_again();
            }
            _ => assert_eq!(world.run("spend", false)["state"], json!("published")),
        }
    }
    assert_eq!(world.run("spend", true)["state"], json!("published"));
    let expected = totals.values().filter(|total| **total > 100).count();
    let records = delivered(&world, &output, expected);
    let notices = notices(&records);
    assert_eq!(notices.len(), expected);
    assert!(notices.values().all(|states| *states == ["raised", "confirmed"]), "{notices:?}");
    let users: BTreeSet<String> = records
        .iter()
        .map(|record| {
            record.value.as_ref().expect("a notice")["data"]["key"]["user_id"].as_str().expect("a user").to_owned()
        })
        .collect();
    assert_eq!(users, totals.into_iter().filter(|(_, total)| *total > 100).map(|(user, _)| user).collect());
}
