//! Every notice reaches its webhook, signed, at least once and under one id, through refusals, kills and restarts.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use world::World;
use world::webhook_receiver::WebhookReceiver;

const DEFINITIONS: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING) WITH (event_time = 'at');
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;
    CREATE ALERT often ON whole WHEN n >= 2 WITH (to = 'webhook:ops');";

fn ids(receiver: &WebhookReceiver) -> Vec<String> {
    receiver.received().iter().map(|notice| notice.headers["webhook-id"].clone()).collect()
}

fn settings(port: u16) -> String {
    format!("[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/alerts\"\nsecret = \"a secret\"\n")
}

fn event(id: &str, user: &str) -> String {
    json!({"id": id, "at": "2026-01-05T10:00:00Z", "user": user}).to_string()
}

#[test]
fn notices_are_signed_retried_and_survive_kills() {
    let receiver = WebhookReceiver::start(2);
    let mut world = World::stopped(DEFINITIONS);
    world.set_limits(&format!("\n{}", settings(receiver.port)));
    world.start();
    for (id, user) in [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")] {
        assert_eq!(world.post("/v1/events/visits", event(id, user)).status, 200);
    }
    world.wait_for("both notices", |_| ids(&receiver).len() >= 2);
    let notice = receiver.received()[0].clone();
    let body: Value = serde_json::from_str(&notice.body).expect("JSON");
    assert_eq!(body["type"], json!("alert.raised"));
    assert_eq!((&body["data"]["key"], &body["data"]["figures"]["n"]["served"]), (&json!({"user": "a"}), &json!(2)));
    let id = &notice.headers["webhook-id"];
    assert_eq!(notice.headers["idempotency-key"], *id);
    assert!(id.starts_with(body["data"]["id"].as_str().expect("an id")) && id.ends_with("-raised-1"), "{id}");
    let signed = format!("{id}.{}.{}", notice.headers["webhook-timestamp"], notice.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"a secret"), signed.as_bytes());
    let base64 = notice.headers["webhook-signature"].strip_prefix("v1,").expect("a version").to_owned();
    assert_eq!(base64, STANDARD.encode(tag.as_ref()));
    // A run confirms both, and each change is a notice of its own. After a kill none is lost.
    assert_eq!(world.run("whole", false)["state"], json!("published"));
    world.kill();
    world.start();
    world.wait_for("the confirmations", |_| {
        let ids: std::collections::BTreeSet<String> = self::ids(&receiver).into_iter().collect();
        ids.len() == 4
    });
    let ids = self::ids(&receiver);
    assert_eq!(ids.iter().filter(|id| id.contains("-confirmed-")).collect::<std::collections::BTreeSet<_>>().len(), 2);
    assert_eq!(world.get("/v1/alerts/dead_letters").json(), json!({"dead_letters": []}));
    // Secrets are in no log, and no restart sends what was delivered.
    assert!(!world.log().contains("a secret"));
}

#[test]
fn a_target_without_a_connection_refuses_the_start() {
    let mut world = World::stopped(DEFINITIONS);
    world.set_limits("\n[connections.ops2]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\n");
    let (code, output) = world.start_refused();
    assert_eq!(code, Some(2), "{output}");
    assert!(
        output.contains("alert often: the settings have no connection \"ops\" (did you mean \"ops2\"?)"),
        "{output}"
    );
    world.set_limits("\n[connections.ops]\nkind = \"webhook\"\nurl = \"ftp://x\"\n");
    let (code, output) = world.start_refused();
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("connection ops: url must start with http:// or https://"), "{output}");
}
