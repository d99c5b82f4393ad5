//! Silences and rates keep notices back and count them; templates give notices the form of their receiver.

use serde_json::{Value, json};
use world::webhook_receiver::WebhookReceiver;
use world::{World, root};

const STREAM: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING) WITH (event_time = 'at');
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;";

fn alert(options: &str) -> String {
    format!("{STREAM} CREATE ALERT often ON whole WHEN n >= 1 WITH (to = 'webhook:ops'{options});")
}

fn connection(receiver: &WebhookReceiver, more: &str) -> String {
    format!("\n[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\n{more}\n", receiver.port)
}

fn send(world: &World, user: &str) {
    let event = json!({"id": user, "at": "2026-01-05T10:00:00Z", "user": user}).to_string();
    assert_eq!(world.post("/v1/events/visits", event).status, 200);
}

/// The value of `trueup_alert_notices_total` by `result`.
fn notices(world: &World, result: &str) -> u64 {
    let metrics = world.get("/metrics").text;
    let has =
        |line: &&str| line.starts_with("trueup_alert_notices_total{") && line.contains(&format!("result=\"{result}\""));
    let line = metrics.lines().find(has).and_then(|line| line.rsplit(' ').next());
    line.map_or(0, |count| count.parse().expect("a number"))
}

fn bodies(receiver: &WebhookReceiver) -> Vec<Value> {
    receiver.received().iter().map(|notice| serde_json::from_str(&notice.body).expect("JSON")).collect()
}

#[test]
fn silenced_notices_are_not_sent_but_counted_also_after_a_restart() {
    let receiver = WebhookReceiver::start(0);
    let mut world = World::stopped(&alert(""));
    world.set_limits(&connection(&receiver, ""));
    world.start();
    let silence = json!({"for_seconds": 3600, "alert": "often", "key": {"user": "test-*"}, "reason": "load test"});
    let made = world.post("/v1/alerts/silences", silence.to_string());
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    world.kill();
    world.start();
    let listed = world.get("/v1/alerts/silences").json();
    assert_eq!((&listed["silences"][0]["id"], &listed["silences"][0]["by"]), (&json!(id), &json!("everyone")));
    send(&world, "test-1");
    send(&world, "test-2");
    world.wait_for("both to be kept back", |world| notices(world, "silenced") == 2);
    send(&world, "real");
    world.wait_for("the notice", |_| !receiver.received().is_empty());
    let body = &bodies(&receiver)[0];
    assert_eq!((&body["data"]["key"]["user"], &body["suppressed"]), (&json!("real"), &json!(2)));
    assert_eq!(world.get("/v1/alerts").json()["total"], json!(3), "silenced alerts are raised all the same");
    assert_eq!(world.delete(&format!("/v1/alerts/silences/{id}")).status, 200);
    let over = world.delete(&format!("/v1/alerts/silences/{id}"));
    assert_eq!((over.status, &over.json()["code"]), (404, &json!("unknown_silence")));
    send(&world, "test-3");
    world.wait_for("the notice after the silence", |_| receiver.received().len() == 2);
    assert_eq!(bodies(&receiver)[1]["suppressed"], json!(null), "the previous notice reported them");
}

#[test]
fn silences_that_mean_nothing_are_refused() {
    let receiver = WebhookReceiver::start(0);
    let mut world = World::stopped(&alert(""));
    world.set_limits(&connection(&receiver, ""));
    world.start();
    for (body, reason) in [
        (json!({"for_seconds": 0}), "for_seconds: expected a number from 1 to 7776000"),
        (json!({"for_seconds": 7_776_001}), "for_seconds: expected a number from 1 to 7776000"),
        (json!({"for_seconds": 1, "alert": "oftn"}), "(did you mean \"often\"?)"),
        (json!({"for_seconds": 1, "until": 7}), "unknown field"),
        (json!({}), "for_seconds"),
    ] {
        let refused = world.post("/v1/alerts/silences", body.to_string());
        let detail = refused.json()["detail"].to_string().replace("\\\"", "\"");
        assert!(refused.status == 400 && detail.contains(reason), "{body}: {}", refused.text);
    }
}

#[test]
fn notices_beyond_the_rate_of_an_alert_are_not_sent_but_counted() {
    let receiver = WebhookReceiver::start(0);
    let mut world = World::stopped(&alert(", notices_per_minute = 1"));
    world.set_limits(&connection(&receiver, ""));
    world.start();
    for user in ["a", "b", "c", "d"] {
        send(&world, user);
    }
    world.wait_for("all to be sent or kept back", |world| notices(world, "delivered") + notices(world, "limited") == 4);
    // A minute may begin in between.
    let sent = receiver.received().len();
    assert!((1..=2).contains(&sent), "{sent}");
    assert_eq!(notices(&world, "limited"), 4 - sent as u64);
}

#[test]
fn templates_give_notices_the_form_of_their_receiver() {
    for (name, more) in [("slack", ""), ("pagerduty", "values = { routing_key = \"a key\" }")] {
        let receiver = WebhookReceiver::start(0);
        let mut world = World::stopped(&alert(""));
        let file = root().join(format!("examples/alerts/{name}.json"));
        world.set_limits(&connection(&receiver, &format!("template = \"file:{}\"\n{more}", file.display())));
        world.start();
        send(&world, "a \"quoted\" name");
        world.wait_for("the notice", |_| !receiver.received().is_empty());
        let body = &bodies(&receiver)[0];
        if name == "slack" {
            assert_eq!(body["text"], json!("often raised for user = a \"quoted\" name: n 1"));
            assert_eq!(body["blocks"][0]["text"]["type"], json!("mrkdwn"));
        } else {
            assert_eq!((&body["routing_key"], &body["event_action"]), (&json!("a key"), &json!("trigger")));
            assert_eq!(body["payload"]["custom_details"]["key"]["user"], json!("a \"quoted\" name"));
            assert!(["summary", "source", "severity"].iter().all(|field| body["payload"][field].is_string()), "{body}");
            assert_eq!(body["dedup_key"], body["payload"]["custom_details"]["id"]);
        }
    }
}

#[test]
fn a_template_that_makes_no_json_refuses_the_start() {
    let receiver = WebhookReceiver::start(0);
    let mut world = World::stopped(&alert(""));
    world.set_limits(&connection(&receiver, "template = '{\"text\": \"{{ summary }}\"}'"));
    let (code, output) = world.start_refused();
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("connection ops: the template does not make JSON"), "{output}");
}
