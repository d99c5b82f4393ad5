//! Mutates the JSON that the product keeps in the lake beside rows: notes of versions, dropped and lost events, claims and
//! heartbeats of owners, tags of files. Each is read, and what was read can be used, or refused with a reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use lake::{ArchiveTags, DroppedEvents, Heartbeat, LostEvents, OwnerClaim};
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};
use shared::ledger::Ledger;
use shared::seam::Cut;
use shared::stream::Stream;
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use world::World;

use crate::fuzzer::{Target, fuzz, kind_of};
use crate::json_mutations;

const DEFINITIONS: &str = "
    CREATE STREAM s (id STRING PRIMARY KEY, at TIMESTAMP, n BIGINT) WITH (event_time = 'at', partitions = 2);
    CREATE VIEW v AS SELECT window_start, COUNT(*) AS c, AVG(n) AS mean FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR);";

/// The notes of two versions, as a server wrote them, and other content of the lake.
fn seeds() -> Vec<Vec<u8>> {
    let world = World::new(DEFINITIONS);
    for batch in 0..2 {
        let event =
            |i: u64| json!({"id": format!("{batch}-{i}"), "at": 978_307_200_000 + i, "n": i}).to_string() + "\n";
        assert_eq!(world.post("/v1/events/s", (0..9).map(event).collect::<String>()).status, 200);
        assert_eq!(world.run("v", false)["state"], json!("published"));
    }
    let mut seeds = Vec::new();
    for version in 1..=2 {
        let path = world.store().join(format!("lake/views/v/_delta_log/{version:020}.json"));
        let text = std::fs::read_to_string(path).expect("the log of the view");
        for line in text.lines() {
            let action: Value = serde_json::from_str(line).expect("JSON");
            seeds.extend(action["commitInfo"]["trueup"].as_object().map(|note| json!(note).to_string().into_bytes()));
            seeds.extend(action["add"]["tags"].as_object().map(|tags| json!(tags).to_string().into_bytes()));
        }
    }
    assert!(seeds.len() >= 2, "the versions have notes");
    let ledger = json!({"events": 3, "positions": "00000000000000000000000000000007"});
    let parts = json!({"0": {"to": 3, "ledger": ledger}, "1000000": {"to": 9, "ledger": ledger}});
    let ledger_text = ledger.to_string();
    for other in [
        json!({"retained_from": "2001-01-01", "partitions": parts}),
        json!({"partitions": parts}),
        json!({"epoch": 1, "log": "id", "claimed_at": "2001-01-01T00:00:00Z"}),
        json!({"host": "h", "process": 1, "since": "2001-01-01T00:00:00Z", "seen_at": "2001-01-01T00:00:00Z"}),
        json!({"partition": "0", "from": "0", "to": "3", "rows": "3", "ledger": ledger_text, "latest_watermark": "7"}),
    ] {
        seeds.push(other.to_string().into_bytes());
    }
    seeds
}

fn mutate(random: &mut StdRng, input: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(input) else { return input.to_vec() };
    json_mutations::mutate(random, &mut value);
    value.to_string().into_bytes()
}

/// Reads a note, and uses the version as its readers do.
fn version(stream: &Stream, note: Map<String, Value>) -> String {
    let (version, problem) = match BatchVersion::from_note(note) {
        Ok(read) => read,
        Err(error) => return kind_of(&error.to_string()),
    };
    let again =
        BatchVersion::from_note(version.to_note()).unwrap_or_else(|error| panic!("cannot be read back: {error}"));
    assert_eq!(again.0.seam, version.seam);
    let _ = version.events_per_second();
    let files = version.files_touching(TimeRange::ALL).count().min(2);
    let _ = (version.by_date(), version.seam.offsets(), version.ledger + version.ledger);
    let accepted: Ledger = version.seam.0.values().map(|point| point.accepted).sum();
    let old = batch::old_definition(stream, &[], &version).is_some();
    format!("{} {files} {old} {}", problem.is_some(), accepted == version.ledger)
}

fn tags(members: &Map<String, Value>) -> String {
    let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    let tags: BTreeMap<String, String> = members.iter().filter_map(text).collect();
    match ArchiveTags::from_tags(&tags) {
        Err(error) => error.to_string(),
        Ok(read) => {
            assert_eq!(ArchiveTags::from_tags(&read.to_tags()), Ok(read));
            let lost = LostEvents::default().with(&read).with(&read);
            format!("{}", lost.ledger() == read.ledger)
        }
    }
}

fn others(value: &Value) -> String {
    fn kind<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, String> {
        serde_json::from_value(value.clone()).map_err(|error| kind_of(&error.to_string()))
    }
    let dropped = kind::<DroppedEvents>(value).map(|dropped| {
        format!("{:?} {}", dropped.beyond(&Cut::default()).is_some(), dropped.ledger() == Ledger::EMPTY)
    });
    let lost = kind::<LostEvents>(value).map(|lost| format!("{}", lost.ledger() == Ledger::EMPTY));
    let claim = kind::<OwnerClaim>(value).map(|claim| format!("{}", claim.epoch > 0));
    let seen = kind::<Heartbeat>(value).map(|beat| format!("{}", beat.seen_at >= beat.since));
    [dropped, lost, claim, seen].map(|outcome| outcome.unwrap_or_else(|error| error)).join(" ")
}

#[test]
fn notes_are_read_or_refused() {
    let files = [("s.sql".to_owned(), DEFINITIONS.to_owned())];
    let mut parsed = shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0]));
    let stream = Arc::new(parsed.streams.remove(0));
    let tokens = ["18446744073709551615", "-9223372036854775808", "\"1000000\":", "null", "{}", "[]"];
    let target = Target {
        name: "notes",
        seeds: seeds(),
        tokens: &tokens,
        inputs: 20_000,
        bytes_max: 32 * 1024,
        mutate: Some(mutate),
        ..Target::default()
    };
    fuzz(&target, |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return "not JSON".to_owned() };
        let Value::Object(members) = &value else { return "not an object".to_owned() };
        format!("{} {} {}", version(&stream, members.clone()), tags(members), others(&value))
    });
}
