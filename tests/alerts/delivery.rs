//! Every notice reaches its webhook, signed, at least once and under one id, through refusals, kills and restarts.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "
    CREATE STREAM visits (id STRING PRIMARY KEY, at TIMESTAMP, user STRING) WITH (event_time = 'at');
    CREATE VIEW whole AS SELECT user, COUNT(*) AS n FROM visits GROUP BY user;
    CREATE ALERT often ON whole WHEN n >= 2 WITH (to = 'webhook:ops');";

/// A notice as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A webhook that refuses its first requests.
pub struct Receiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub fn start(refusals: usize) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&received);
        std::thread::spawn(move || {
            let mut left = refusals;
            for socket in listener.incoming().map_while(Result::ok) {
                if let Some(request) = read(&socket) {
                    let is_refused = left > 0;
                    left = left.saturating_sub(1);
                    if !is_refused {
                        seen.lock().expect("no panic").push(request);
                    }
                    let status = if is_refused { "503 Service Unavailable" } else { "204 No Content" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = (&socket).write_all(answer.as_bytes());
                }
            }
        });
        Receiver { port, received }
    }

    /// Every notice so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    fn ids(&self) -> Vec<String> {
        let received = self.received.lock().expect("no panic");
        received.iter().map(|notice| notice.headers["webhook-id"].clone()).collect()
    }
}

fn read(socket: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(socket);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Received { headers, body: String::from_utf8(body).ok()? })
}

fn settings(port: u16) -> String {
    format!("[connections.ops]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/alerts\"\nsecret = \"a secret\"\n")
}

fn event(id: &str, user: &str) -> String {
    json!({"id": id, "at": "2026-01-05T10:00:00Z", "user": user}).to_string()
}

#[test]
fn notices_are_signed_retried_and_survive_kills() {
    let receiver = Receiver::start(2);
    let mut world = World::stopped(DEFINITIONS);
    world.set_limits(&format!("\n{}", settings(receiver.port)));
    world.start();
    for (id, user) in [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b")] {
        assert_eq!(world.post("/v1/events/visits", event(id, user)).status, 200);
    }
    world.wait_for("both notices", |_| receiver.ids().len() >= 2);
    let notice = receiver.received.lock().expect("no panic")[0].clone();
    let body: Value = serde_json::from_str(&notice.body).expect("JSON");
    assert_eq!(body["type"], json!("alert.raised"));
    assert_eq!((&body["data"]["key"], &body["data"]["figures"]["n"]["served"]), (&json!({"user": "a"}), &json!(2)));
    let id = &notice.headers["webhook-id"];
    assert_eq!(notice.headers["idempotency-key"], *id);
    assert!(id.starts_with(body["data"]["id"].as_str().expect("an id")) && id.ends_with("-raised-1"), "{id}");
    let signed = format!("{id}.{}.{}", notice.headers["webhook-timestamp"], notice.body);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"a secret"), signed.as_bytes());
    let base64 = notice.headers["webhook-signature"].strip_prefix("v1,").expect("a version").to_owned();
    assert_eq!(base64, base64_of(tag.as_ref()));
    // A run confirms both, and each change is a notice of its own. After a kill none is lost.
    assert_eq!(world.run("whole", false)["state"], json!("published"));
    world.kill();
    world.start();
    world.wait_for("the confirmations", |_| {
        let ids: std::collections::BTreeSet<String> = receiver.ids().into_iter().collect();
        ids.len() == 4
    });
    let ids = receiver.ids();
    assert_eq!(ids.iter().filter(|id| id.contains("-confirmed-")).collect::<std::collections::BTreeSet<_>>().len(), 2);
    assert_eq!(world.get("/v1/alerts/dead_letters").json(), json!({"dead_letters": []}));
    // Secrets are in no log, and no restart sends what was delivered.
    assert!(!world.log().contains("a secret"));
}

fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char;
            text.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    text
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
