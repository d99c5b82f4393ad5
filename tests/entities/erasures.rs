//! Erasure: nothing of an erased entity is read, figures are those of a fold without its events, no file keeps a byte of it, and
//! a crash at any step leaves nothing half erased.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use world::World;
use world::requests::ask;

use crate::client::{Client, event};

/// Orders with views over all time, by day and by another column, and an alert per order.
const DEFINITIONS: &str = "
    CREATE STREAM order_events (event_id STRING PRIMARY KEY, order_id STRING, at TIMESTAMP, kind STRING, amount BIGINT)
        WITH (event_time = 'at', entity = 'order_id', partitions = 2, allowed_lateness = '1 hour');
    CREATE VIEW order_states AS
        SELECT order_id, COUNT(*) AS events, SUM(amount) AS total, LAST_VALUE(kind) AS kind FROM order_events GROUP BY order_id;
    CREATE VIEW daily AS
        SELECT window_start, kind, COUNT(*) AS events, SUM(amount) AS total FROM order_events
        GROUP BY TUMBLE(at, INTERVAL '1' DAY), kind;
    CREATE ALERT large ON order_states WHEN total > 50;";

/// Replaced files are deleted at once.
const AT_ONCE: &str = "archive_wait_ms = 20\nvacuum_age_ms = 1\nvacuum_every_ms = 100\n";

/// Text of the subject that must be nowhere in the end.
const SUBJECT: &str = "ann-4711";
const SECRET: &str = "ann-lives-here";

/// Events and sums by order, and by day and kind.
type Figures = (BTreeMap<String, (i64, i64)>, BTreeMap<(u32, String), (i64, i64)>);

/// Events as the test knows them: id, order, day, kind, amount.
type Known = (String, String, u32, String, i64);

fn started(environment: &[(&str, &str)]) -> World {
    let mut world = World::stopped(DEFINITIONS);
    world.set_limits(AT_ONCE);
    world.set_environment(environment);
    world.start();
    world
}

/// Sends some events of many orders over three days, those of the subject among them; the last ones are not in a version.
fn fill(world: &World) -> Vec<Known> {
    let mut known = Vec::new();
    for round in 0..3 {
        let mut body = String::new();
        for number in 0..24u32 {
            let order = if number % 4 == 0 { SUBJECT.to_owned() } else { format!("o-{}", number % 5) };
            let kind =
                if number % 8 == 0 { SECRET.to_owned() } else { ["created", "paid"][number as usize % 2].to_owned() };
            let (id, day, amount) = (format!("{SUBJECT}-{round}-{number}"), 1 + number % 3, i64::from(number) - 3);
            let id = if order == SUBJECT { id } else { format!("e-{round}-{number}") };
            let mut line = event(&id, &kind, amount);
            line["order_id"] = json!(order);
            line["at"] = json!(format!("2026-11-{day:02}T10:00:00Z"));
            body.push_str(&format!("{line}\n"));
            known.push((id, order, day, kind, amount));
        }
        assert_eq!(world.post("/v1/events/order_events", body).status, 200);
        if round < 2 {
            assert_eq!(world.run("order_states", false)["state"], json!("published"));
            assert_eq!(world.run("daily", false)["state"], json!("published"));
        }
    }
    // Rejected, and listed as late.
    let wrong =
        format!("{{\"event_id\": \"x\", \"order_id\": \"{SUBJECT}\", \"at\": \"never\", \"kind\": \"{SECRET}\"}}\n");
    assert_eq!(world.post("/v1/events/order_events", wrong).status, 200);
    let late = format!(
        "{{\"event_id\": \"{SUBJECT}-late\", \"order_id\": \"{SUBJECT}\", \"at\": \"2026-10-01T10:00:00Z\", \"kind\": \"{SECRET}\", \"amount\": 1}}\n"
    );
    assert_eq!(world.post("/v1/events/order_events", late).status, 200);
    known
}

/// The figures of a fold without the events of some orders.
fn expected(known: &[Known], erased: &[&str]) -> Figures {
    let (mut states, mut daily) = (BTreeMap::new(), BTreeMap::new());
    for (_, order, day, kind, amount) in known.iter().filter(|(_, order, ..)| !erased.contains(&order.as_str())) {
        let state: &mut (i64, i64) = states.entry(order.clone()).or_default();
        *state = (state.0 + 1, state.1 + amount);
        let row: &mut (i64, i64) = daily.entry((*day, kind.clone())).or_default();
        *row = (row.0 + 1, row.1 + amount);
    }
    (states, daily)
}

/// The figures that are served.
fn served(world: &World) -> Figures {
    let rows = |view: &str| -> Vec<Value> {
        let answer = world.rows(view, "");
        assert_eq!(answer["complete"], json!(true), "{answer}");
        answer["rows"].as_array().expect("rows").clone()
    };
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{name}: {row}"));
    let text = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let figures = |row: &Value| (number(row, "events"), number(row, "total"));
    let states = rows("order_states").iter().map(|row| (text(row, "order_id"), figures(row))).collect();
    let day = |row: &Value| text(row, "window_start")[8..10].parse::<u32>().expect("a day");
    let daily = rows("daily").iter().map(|row| ((day(row), text(row, "kind")), figures(row))).collect();
    (states, daily)
}

/// Everything that reads the entity answers 410.
fn assert_gone(world: &World) {
    let of = |rest: &str| format!("/v1/entities/order_events/{SUBJECT}{rest}");
    for path in [of(""), of("?sequence=1"), of("?as_of=2026-12-01T00:00:00Z"), of("/events"), of("/live")] {
        let answer = world.get(&path);
        assert_eq!((answer.status, &answer.json()["code"]), (410, &json!("entity_erased")), "{path}");
    }
    assert_eq!(world.get(&format!("/entity/order_events/{SUBJECT}")).status, 410);
    let listed = world.get("/v1/entities/order_events?limit=100").json();
    let rows = listed["rows"].as_array().expect("rows");
    assert!(rows.len() == 5 && rows.iter().all(|row| row["order_id"] != SUBJECT), "{listed}");
    let client = Client::of(world);
    let refused = client.append(SUBJECT, &[event("again", "created", 1)], &[]);
    assert_eq!((refused.status, &refused.body["code"]), (410, &json!("entity_erased")), "{}", refused.body);
    let both = format!("{}\n{}\n", with_order("again", SUBJECT), with_order("e-0-1", "o-1"));
    let answer = world.post("/v1/events/order_events", both).json();
    assert_eq!(
        (&answer["accepted"], &answer["duplicates"], &answer["erased"]),
        (&json!(0), &json!(1), &json!(1)),
        "{answer}"
    );
}

fn with_order(id: &str, order: &str) -> Value {
    let mut event = event(id, "created", 1);
    event["order_id"] = json!(order);
    event
}

fn erase(world: &World, order: &str) -> Value {
    let answer = ask(world, "DELETE", &format!("/v1/entities/order_events/{order}?reference=ticket-7"), &[], "");
    assert!([200, 202].contains(&answer.status), "{} {}", answer.status, answer.body);
    answer.json()
}

fn erasures(world: &World) -> Vec<Value> {
    world.get("/v1/erasures").json()["erasures"].as_array().expect("erasures").clone()
}

/// The files under `folder` with a text of the subject. Parquet is compressed: its rows are read.
fn files_with_subject(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let text = match path.extension().is_some_and(|extension| extension == "parquet") {
                true => parquet_text(&bytes),
                false => String::from_utf8_lossy(&bytes).into_owned(),
            };
            if text.contains(SUBJECT) || text.contains(SECRET) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn parquet_text(bytes: &[u8]) -> String {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes)).expect("Parquet");
    let footer = format!("{:?}", reader.metadata());
    let rows: Vec<String> =
        reader.build().expect("a reader").map(|rows| format!("{:?}", rows.expect("rows"))).collect();
    footer + &rows.concat()
}

fn wait_until_complete(world: &World) {
    world.wait_for("the erasure to complete", |world| {
        erasures(world).iter().all(|erasure| erasure["state"] == "complete")
    });
}

#[test]
fn an_erased_entity_is_nowhere_and_figures_are_those_without_it() {
    let mut world = started(&[]);
    let known = fill(&world);
    world.wait_for("an alert of the subject", |world| {
        let alerts = world.get("/v1/alerts").json();
        alerts["alerts"].as_array().is_some_and(|all| all.iter().any(|alert| alert["key"]["order_id"] == SUBJECT))
    });
    assert_ne!(files_with_subject(&world.store()), Vec::<String>::new());
    let long = format!("/v1/entities/order_events/{SUBJECT}?reference={}", "r".repeat(201));
    assert_eq!(ask(&world, "DELETE", &long, &[], "").status, 400);
    let erased = erase(&world, SUBJECT);
    assert_eq!(
        (&erased["events"], &erased["by"], &erased["reference"]),
        (&json!(19), &json!("everyone"), &json!("ticket-7"))
    );
    assert_gone(&world);
    wait_until_complete(&world);
    assert_gone(&world);
    assert_eq!(served(&world), expected(&known, &[SUBJECT]));
    let alerts = world.get("/v1/alerts").json();
    assert!(!alerts.to_string().contains(SUBJECT), "{alerts}");
    for list in ["quarantine", "late"] {
        let listed = world.get(&format!("/v1/streams/order_events/{list}")).json().to_string();
        assert!(!listed.contains(SUBJECT), "{listed}");
    }
    for view in ["order_states", "daily"] {
        let compared = world.get(&format!("/v1/views/{view}/compare")).json();
        let causes = &compared["causes"];
        assert!(causes["erased"].as_u64() > Some(0) && causes["unexplained"] == json!(0), "{view}: {causes}");
        assert!(!compared.to_string().contains(SUBJECT) && !compared.to_string().contains(SECRET), "{compared}");
    }
    assert_eq!(files_with_subject(&world.store()), Vec::<String>::new());
    let records = erasures(&world);
    assert_eq!((records.len(), &records[0]["state"], &records[0]["events"]), (1, &json!("complete"), &json!(19)));
    assert!(!records[0].to_string().contains(SUBJECT), "{}", records[0]);
    assert_eq!(erase(&world, SUBJECT)["state"], json!("complete"), "once more changes nothing");
    let unknown = ask(&world, "DELETE", "/v1/entities/order_events/no-such-order", &[], "");
    assert_eq!((unknown.status, unknown.code()), (404, "unknown_entity".to_owned()));
    world.kill();
    world.start();
    assert_gone(&world);
    assert_eq!(served(&world), expected(&known, &[SUBJECT]));
    for view in ["order_states", "daily"] {
        assert_eq!(world.run(view, true)["state"], json!("published"));
    }
    assert_eq!(served(&world), expected(&known, &[SUBJECT]));
    // A second one, in files that were written without the first.
    erase(&world, "o-1");
    wait_until_complete(&world);
    assert_eq!(served(&world), expected(&known, &[SUBJECT, "o-1"]));
    assert_eq!(world.run("daily", true)["state"], json!("published"));
    assert_eq!(served(&world), expected(&known, &[SUBJECT, "o-1"]));
}

#[test]
fn a_crash_at_any_step_leaves_nothing_half_erased() {
    for step in [
        "erase-tombstone",
        "erase-sync",
        "erase-files",
        "erase-commit",
        "erase-segment",
        "commit",
        "publish",
        "erase-complete",
    ] {
        let mut world = started(&[]);
        let known = fill(&world);
        world.kill();
        world.set_environment(&[("TRUEUP_FAIL_AT", step)]);
        world.start();
        let target = format!("/v1/entities/order_events/{SUBJECT}");
        let http = Client::of(&world);
        let acknowledged = http.try_delete(&target).is_some_and(|status| status == 202);
        world.wait_for_exit();
        // Vacuum keeps files that no commit names for an hour.
        world.age_files();
        world.set_environment(&[]);
        world.start();
        if !acknowledged {
            // Whether the tombstone is there or not, the client asks again.
            erase(&world, SUBJECT);
        }
        assert_gone(&world);
        wait_until_complete(&world);
        assert_eq!(served(&world), expected(&known, &[SUBJECT]), "{step}");
        assert_eq!(files_with_subject(&world.store()), Vec::<String>::new(), "{step}");
    }
}
