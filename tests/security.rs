//! Tests keys, scopes, row filters, sessions, host names and open addresses through the program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use world::requests::{ask, id, key, trueup, with_key};
use world::{World, encoded, program};

const DEFINITIONS: &str = "
CREATE STREAM orders (at TIMESTAMP, country STRING, shop STRING, amount BIGINT) WITH (event_time = 'at');
CREATE VIEW sales AS SELECT window_start, country, shop, COUNT(*) AS orders, SUM(amount) AS amount
FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR), country, shop;
CREATE VIEW totals AS SELECT window_start, COUNT(*) AS orders FROM orders GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
";
const EVENTS: &str = r#"{"at":"2024-01-01T10:00:00Z","country":"AT","shop":"a","amount":5}
{"at":"2024-01-01T10:10:00Z","country":"DE","shop":"a","amount":70}
{"at":"2024-01-01T10:20:00Z","country":"AT","shop":"b","amount":3}
"#;

fn said(output: &Output) -> String {
    program::text(output)
}

#[test]
fn every_endpoint_asks_for_the_scope_of_the_table() {
    let world = World::new(DEFINITIONS);
    assert_eq!(world.get("/v1/views").status, 200, "without keys everything is open");
    let admin = key(&world, &["--scope", "admin"]);
    // The first key closes the server, at the latest a second later; it works at once.
    assert_eq!(with_key(&world, &admin, "GET", "/v1/views", "").status, 200);
    world.wait_for("the keys", |world| world.get("/v1/views").status == 401);
    let nothing = key(&world, &["--scope", "read:nothing"]);
    let description = with_key(&world, &admin, "GET", "/openapi.json", "").json();
    let mut refused = 0;
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let path = path.replace("{view}", "sales").replace("{stream}", "orders").replace("{run}", "r0");
        for method in methods.as_object().expect("methods").keys().map(|method| method.to_uppercase()) {
            let anonymous = ask(&world, &method, &path, &[], "");
            if ["/livez", "/readyz"].contains(&path.as_str()) {
                assert_eq!(anonymous.status, 200, "{path}");
                continue;
            }
            assert_eq!(
                (anonymous.status, anonymous.code()),
                (401, "authentication_required".into()),
                "{method} {path}"
            );
            assert_eq!(anonymous.headers("www-authenticate"), ["Bearer realm=\"trueup\""], "{method} {path}");
            if path == "/v1/alerts/live" {
                // A stream without an end; it sends only what the list shows (`tests/alerts/lists.rs`).
                continue;
            }
            // Its body says which alert.
            let is_silence = path == "/v1/alerts/silences" && method == "POST";
            let body = if is_silence { "{\"for_seconds\": 60}" } else { "" };
            let other = with_key(&world, &nothing, &method, &path, body);
            match path.as_str() {
                "/v1/views" => assert_eq!(other.json()["views"], serde_json::json!([])),
                "/v1/streams" => assert_eq!(other.json()["streams"], serde_json::json!([])),
                "/v1/runs" => assert_eq!(other.json()["runs"], serde_json::json!([])),
                "/v1/alerts" => assert_eq!(other.json()["alerts"], serde_json::json!([])),
                "/v1/alerts/dead_letters" => assert_eq!(other.json()["dead_letters"], serde_json::json!([])),
                "/v1/alerts/silences" if method == "GET" => {
                    assert_eq!(other.json()["silences"], serde_json::json!([]));
                }
                "/v1/sinks" => assert_eq!(other.json()["sinks"], serde_json::json!([])),
                path if path.starts_with("/v1/sinks/") => assert_eq!(other.status, 404),
                "/v1/alerts/silences/{silence}" => assert_eq!(other.status, 404),
                "/v1/runs/r0" => assert_eq!(other.status, 404),
                _ => {
                    assert_eq!((other.status, other.code()), (403, "missing_scope".into()), "{method} {path}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 20, "{refused}");
    for page in [
        "/",
        "/view/sales",
        "/compare/sales",
        "/batch",
        "/streams",
        "/alerts",
        "/sinks",
        "/docs/",
        "/openapi.json",
        "/metrics",
        "/x",
    ] {
        assert_eq!(ask(&world, "GET", page, &[], "").status, 401, "{page}");
        let browser = ask(&world, "GET", page, &[("accept", "text/html")], "");
        assert_eq!((browser.status, browser.headers("location")), (303, vec!["/login"]), "{page}");
    }
}

#[test]
fn keys_are_created_listed_and_revoked_without_a_restart() {
    let world = World::new(DEFINITIONS);
    let sender = key(&world, &["--scope", "ingest:orders", "--label", "collector", "--rate", "1000/h"]);
    let reader = key(&world, &["--scope", "read:sales", "--scope", "run:sales", "--expires", "90d"]);
    assert_eq!(with_key(&world, &sender, "POST", "/v1/events/orders", EVENTS).json()["accepted"], 3);
    assert_eq!(with_key(&world, &reader, "POST", "/v1/events/orders", EVENTS).code(), "missing_scope");
    assert_eq!(with_key(&world, &sender, "GET", "/v1/views/sales/rows", "").code(), "missing_scope");
    let views = with_key(&world, &reader, "GET", "/v1/views", "").json();
    assert_eq!(views["views"].as_array().map(Vec::len), Some(1), "{views}");
    assert_eq!(with_key(&world, &sender, "GET", "/v1/streams/orders", "").status, 200);
    // A run belongs to its view.
    let run = with_key(&world, &reader, "POST", "/v1/views/sales/runs", "").json();
    let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
    assert_eq!(with_key(&world, &reader, "GET", &path, "").status, 200);
    assert_eq!(with_key(&world, &sender, "GET", &path, "").code(), "missing_scope");
    assert_eq!(with_key(&world, &sender, "DELETE", &path, "").code(), "missing_scope");

    // The command line sends the key of the environment, or of a file.
    let rows = |variables: &[(&str, &str)]| trueup(&["query", "sales", "-o", "json", "--url", world.url()], variables);
    let without = rows(&[]);
    assert!(without.status.code() == Some(3) && said(&without).contains("TRUEUP_KEY"), "{}", said(&without));
    assert!(rows(&[("TRUEUP_KEY", &reader)]).status.success());
    let file = world.data.path().join("reader.key");
    std::fs::write(&file, format!("{reader}\n")).expect("written");
    assert!(rows(&[("TRUEUP_KEY_FILE", &file.display().to_string())]).status.success());

    let store = world.store().display().to_string();
    let list = said(&trueup(&["key", "list", "--data", &store], &[]));
    for text in [id(&sender), "ingest:orders", "collector", "1000/h", "read:sales run:sales", "valid"] {
        assert!(list.contains(text), "{text} is not in\n{list}");
    }
    assert!(trueup(&["key", "revoke", id(&reader), "--data", &store], &[]).status.success());
    world.wait_for("the revocation", |world| {
        with_key(world, &reader, "GET", "/v1/views", "").code() == "invalid_credentials"
    });
    assert_eq!(trueup(&["key", "revoke", "0", "--data", &store], &[]).status.code(), Some(2));
    // Secrets are in no file, in no list and in no log line.
    let secret = |key: &str| key.rsplit('_').next().expect("a secret").to_owned();
    let stored = std::fs::read_to_string(world.store().join("keys.json")).expect("the keys");
    let json = said(&trueup(&["key", "list", "-o", "json", "--data", &store], &[]));
    for text in [list, stored, json, world.log()] {
        assert!(!text.contains(&secret(&sender)) && !text.contains(&secret(&reader)), "{text}");
    }
}

#[test]
fn a_row_filter_applies_to_every_way_to_read_a_view() {
    let world = World::new(DEFINITIONS);
    world.post("/v1/events/orders", EVENTS);
    assert_eq!(world.run("sales", false)["state"], "published");
    let all = key(&world, &["--scope", "read:*"]);
    let austria = key(&world, &["--scope", "read:*", "--scope", "run:*", "--where", "country = 'AT'"]);
    let germany = key(&world, &["--scope", "read:*", "--where", "country = 'DE'"]);
    let get = |key: &str, path: &str| with_key(&world, key, "GET", path, "");
    let amount = |key: &str, parameters: &str| {
        let reply = get(key, &format!("/v1/views/sales/rows.json?{parameters}"));
        let rows = reply.json()["rows"].as_array().unwrap_or_else(|| panic!("{}", reply.body)).clone();
        rows.iter().map(|row| row["amount"].as_i64().expect("a sum")).sum::<i64>()
    };
    let wide = format!("where={}", encoded("country = 'DE' OR 1 = 1"));
    let narrow = format!("where={}", encoded("shop = 'a'"));
    for layer in ["", "&layer=batch", "&version=1"] {
        for (parameters, of_all, of_austria, of_germany) in [
            ("grain=1h", 78, 8, 70),
            ("group_by=&grain=all", 78, 8, 70),
            (wide.as_str(), 78, 8, 70),
            (narrow.as_str(), 75, 5, 70),
        ] {
            let parameters = format!("{parameters}{layer}");
            // Twice: the second response comes from caches.
            for _ in 0..2 {
                assert_eq!(amount(&all, &parameters), of_all, "{parameters}");
                assert_eq!(amount(&austria, &parameters), of_austria, "{parameters}");
                assert_eq!(amount(&germany, &parameters), of_germany, "{parameters}");
            }
        }
    }
    for extension in ["csv", "ndjson"] {
        let text = get(&austria, &format!("/v1/views/sales/rows.{extension}")).body;
        assert!(text.contains("AT") && !text.contains("DE"), "{text}");
    }
    // A file that is read in ranges is kept for one filter only.
    let path = "/v1/views/sales/rows.parquet";
    let range = |key: &str| {
        let bearer = format!("Bearer {key}");
        let reply = ask(&world, "GET", path, &[("authorization", &bearer), ("range", "bytes=0-9")], "");
        assert_eq!(reply.status, 206);
        reply.headers("content-range").concat()
    };
    assert_ne!(range(&all), range(&austria));
    let tag = get(&all, "/v1/views/sales/rows.json").headers("etag").concat();
    let bearer = format!("Bearer {austria}");
    let reply =
        ask(&world, "GET", "/v1/views/sales/rows.json", &[("authorization", &bearer), ("if-none-match", &tag)], "");
    assert_eq!(reply.status, 200, "the tag of another principal is not known");
    assert!(reply.headers("cache-control").concat().contains("private"));

    // Where the filter cannot be applied, the key cannot read.
    for path in [
        "/v1/views/totals/rows",
        "/v1/views/totals/live",
        "/v1/views/sales/compare",
        "/v1/views/sales/drift",
        "/v1/views/sales/versions",
        "/compare/sales",
        "/metrics",
    ] {
        let reply = get(&austria, path);
        assert_eq!((reply.status, reply.code()), (403, "row_filter".into()), "{path}: {}", reply.body);
        // A live query has no end.
        if !path.ends_with("/live") {
            assert_ne!(get(&all, path).status, 403, "{path}");
        }
    }
    for path in ["late", "ahead", "failed", "quarantine"] {
        assert_eq!(get(&austria, &format!("/v1/streams/orders/{path}")).status, 403, "{path}");
    }
    // One feed per filter.
    let first = |key: &str| {
        let bearer = format!("authorization: Bearer {key}");
        let address = world.url().trim_start_matches("http://").to_owned();
        let mut socket = TcpStream::connect(address).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let request = format!("GET /v1/views/sales/live HTTP/1.1\r\nhost: localhost\r\n{bearer}\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("sent");
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains("\"next\":") {
            let count = socket.read(&mut buffer).expect("an event");
            assert!(count > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        text
    };
    let (of_all, of_austria) = (first(&all), first(&austria));
    assert!(
        of_all.contains("\"DE\"") && of_austria.contains("\"AT\"") && !of_austria.contains("\"DE\""),
        "{of_austria}"
    );
}

#[test]
fn browsers_log_in_and_changes_need_the_token_of_their_session() {
    let world = World::new(DEFINITIONS);
    let reader = key(&world, &["--scope", "read:*", "--scope", "run:*"]);
    let form = |key: &str| format!("key={key}");
    let page = with_key(&world, &reader, "GET", "/view/sales", "");
    for name in ["content-security-policy", "x-frame-options", "x-content-type-options", "referrer-policy"] {
        assert_eq!(page.headers(name).len(), 1, "{name}: {}", page.head);
    }
    let wrong = ask(&world, "POST", "/login", &[], &form("trueup_00_00"));
    assert!(wrong.status == 401 && wrong.body.contains("the key is unknown"), "{}", wrong.body);
    let login = ask(&world, "POST", "/login", &[("content-type", "application/x-www-form-urlencoded")], &form(&reader));
    assert_eq!((login.status, login.headers("location")), (303, vec!["/"]), "{}", login.body);
    let set = login.headers("set-cookie");
    assert!(set.len() == 2 && set.iter().all(|cookie| cookie.contains("SameSite=Strict")), "{set:?}");
    assert!(set[0].contains("HttpOnly"), "{set:?}");
    let pairs: Vec<&str> = set.iter().filter_map(|cookie| cookie.split(';').next()).collect();
    let (cookie, token) = (pairs.join("; "), pairs[1].split_once('=').expect("a token").1);
    let change = |extra: &[(&str, &str)]| {
        ask(&world, "POST", "/v1/views/sales/runs", &[&[("cookie", cookie.as_str())][..], extra].concat(), "")
    };
    assert_eq!(ask(&world, "GET", "/", &[("cookie", &cookie), ("accept", "text/html")], "").status, 200);
    assert_eq!(change(&[]).code(), "missing_csrf_token");
    assert_eq!(change(&[("x-trueup-csrf", token), ("origin", "http://other.example")]).code(), "cross_origin");
    assert_eq!(change(&[("x-trueup-csrf", token)]).status, 202);
    assert_eq!(ask(&world, "POST", "/logout", &[("cookie", &cookie)], "").code(), "missing_csrf_token");
    assert_eq!(ask(&world, "POST", "/logout", &[("cookie", &cookie), ("x-trueup-csrf", token)], "").status, 204);
    assert_eq!(ask(&world, "GET", "/v1/views", &[("cookie", &cookie)], "").status, 401);
}

#[test]
fn other_names_of_the_server_are_refused() {
    let mut world = World::new(DEFINITIONS);
    let read = |world: &World, host: &str| ask(world, "GET", "/v1/views", &[("host", host)], "");
    let rebound = ask(
        &world,
        "POST",
        "/v1/events/orders",
        &[("host", "evil.example:8080"), ("origin", "http://evil.example:8080")],
        EVENTS,
    );
    assert_eq!((rebound.status, rebound.code()), (421, "unknown_host".into()));
    assert!(rebound.body.contains("allowed_hosts"), "{}", rebound.body);
    assert_eq!(read(&world, "evil.example").status, 421);
    assert_eq!(read(&world, "127.0.0.1:8080").status, 200);
    world.stop();
    std::fs::write(world.data.path().join("trueup.toml"), "allowed_hosts = [\"figures.example\"]\n").expect("written");
    world.start();
    assert_eq!(read(&world, "figures.example").status, 200);
    assert_eq!(read(&world, "evil.example").status, 421);
}

#[test]
fn an_address_that_other_machines_reach_needs_keys_and_tls_or_a_waiver() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("v.sql").display().to_string();
    std::fs::write(&file, DEFINITIONS).expect("written");
    let data = folder.path().join("data").display().to_string();
    for arguments in
        [vec!["serve", &file, "--data", &data, "--listen", "0.0.0.0:0"], vec!["demo", "--listen", "[::]:0"]]
    {
        let refused = trueup(&arguments, &[]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        for way in ["127.0.0.1", "trueup key create", "--insecure-open"] {
            assert!(said(&refused).contains(way), "{way}: {}", said(&refused));
        }
    }
    assert!(trueup(&["key", "create", "--scope", "admin", "--data", &data], &[]).status.success());
    let refused = trueup(&["serve", &file, "--data", &data, "--listen", "0.0.0.0:0"], &[]);
    assert!(refused.status.code() == Some(2) && said(&refused).contains("no TLS"), "{}", said(&refused));
}

/// The audit log, as docs/security.md shows it.
fn audited() -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).expect("the page");
    let statements = page.split("```sql").nth(1).and_then(|rest| rest.split("```").next()).expect("statements");
    format!("{DEFINITIONS}\n{statements}")
}

#[test]
fn changes_and_refusals_are_in_the_audit_log_with_their_request() {
    let world = World::new(&audited());
    let runner = key(&world, &["--scope", "read:*", "--scope", "run:*", "--label", "night shift"]);
    let admin = key(&world, &["--scope", "admin"]);
    let bearer = format!("Bearer {runner}");
    let named = [("authorization", bearer.as_str()), ("x-request-id", "req-7")];
    let run = ask(&world, "POST", "/v1/views/sales/runs?secret=1", &named, "");
    assert_eq!((run.status, run.headers("x-request-id")), (400, vec!["req-7"]), "no parameter is called secret");
    assert_eq!(ask(&world, "POST", "/v1/views/sales/runs", &named, "").status, 202);
    assert_eq!(with_key(&world, &runner, "POST", "/v1/views/sales/vacuum", "").status, 403);
    assert_eq!(ask(&world, "GET", "/v1/views", &[], "").status, 401);
    let read = with_key(&world, &runner, "GET", "/v1/views/sales/rows", "");
    assert_eq!((read.status, read.headers("x-request-id").len()), (200, 1));
    let forged = with_key(&world, &admin, "POST", "/v1/events/trueup_audit", "{}");
    assert_eq!((forged.status, forged.code()), (404, "unknown_stream".into()));

    let rows = |key: &str| {
        let path = format!("/v1/views/refusals/rows.json?grain=all&where={}", encoded("requests > 0"));
        with_key(&world, key, "GET", &path, "").json()["rows"].as_array().cloned().unwrap_or_default()
    };
    let has = |rows: &[Value], principal: &str, code: &str| {
        rows.iter().any(|row| row["principal"] == principal && row["code"] == code && row["requests"] == 1)
    };
    let principal = format!("key {} (night shift)", id(&runner));
    world.wait_for("the audit log", |_| {
        let rows = rows(&admin);
        has(&rows, &principal, "missing_scope") && has(&rows, "visitor", "authentication_required")
    });
    let rows = rows(&admin);
    assert!(has(&rows, &principal, "unknown_parameter"), "{rows:?}");
}

/// The public key of an issuer, a token that is valid until 2100, and one that has expired.
const JWKS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "test", "alg": "ES256", "use": "sig", "x": "cDE6UySu-h3IVndhEF6R6PkCL7j0D4TIkYHumFozTw8", "y": "6xY9vsp3TLkaYE5hbYj9zxcsQon3S9jHmH4YbcXRpcs"}]}"#;
const TOKEN: &str = "eyJhbGciOiAiRVMyNTYiLCAia2lkIjogInRlc3QiLCAidHlwIjogIkpXVCJ9.eyJpc3MiOiAiaHR0cHM6Ly9sb2dpbi5leGFtcGxlLyIsICJhdWQiOiAidHJ1ZXVwIiwgInN1YiI6ICJhZGEiLCAiZXhwIjogNDEwMjQ0NDgwMCwgInNjb3BlIjogIm9wZW5pZCByZWFkOnNhbGVzIn0.Lqn5Ku4CbxkUE805_CVyFfNrRSZyPO-Mm0VGashD7r4Wb18hj50TW2SEBkSWQO16czLLxtPquYcdsdY9HO3NIA";
const EXPIRED: &str = "eyJhbGciOiAiRVMyNTYiLCAia2lkIjogInRlc3QiLCAidHlwIjogIkpXVCJ9.eyJpc3MiOiAiaHR0cHM6Ly9sb2dpbi5leGFtcGxlLyIsICJhdWQiOiAidHJ1ZXVwIiwgInN1YiI6ICJhZGEiLCAiZXhwIjogMTUwMDAwMDAwMCwgInNjb3BlIjogInJlYWQ6c2FsZXMifQ.YaJ9HMRD-4f-AXJtMOJsQLOC9xw0nzgl5vRor7UeimUikSop-ZNQi2L99W_4VJgAfPHPKjSyZGLifT5VOax73Q";

#[test]
fn tokens_of_a_trusted_issuer_are_accepted_beside_keys() {
    let mut world = World::new(DEFINITIONS);
    world.stop();
    let jwks = world.data.path().join("jwks.json");
    std::fs::write(&jwks, JWKS).expect("written");
    let settings = format!(
        "[jwt]\nissuer = \"https://login.example/\"\naudience = \"trueup\"\njwks = {:?}\n",
        jwks.display().to_string()
    );
    std::fs::write(world.data.path().join("trueup.toml"), settings).expect("written");
    world.start();
    assert_eq!(ask(&world, "GET", "/v1/views", &[], "").status, 401);
    // The keys are read in the background.
    world.wait_for("the keys", |world| with_key(world, TOKEN, "GET", "/v1/views/sales/rows", "").status == 200);
    assert_eq!(with_key(&world, TOKEN, "POST", "/v1/views/sales/runs", "").code(), "missing_scope");
    assert_eq!(with_key(&world, TOKEN, "GET", "/v1/views/totals/rows", "").code(), "missing_scope");
    assert_eq!(with_key(&world, EXPIRED, "GET", "/v1/views", "").code(), "invalid_credentials");
    let key = key(&world, &["--scope", "read:*"]);
    assert_eq!(with_key(&world, &key, "GET", "/v1/views/totals/rows", "").status, 200);
}
