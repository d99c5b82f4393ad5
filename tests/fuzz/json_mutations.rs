//! Changes JSON by what it means: values become other values, members disappear, appear twice or get other names.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Map, Value, json};

/// Texts that other places of a program may take for paths, numbers or dates.
const TEXTS: &[&str] = &[
    "",
    "..",
    "../../../secret.parquet",
    "/etc/passwd",
    "file:///etc/passwd",
    "s3://bucket/key",
    "%2e%2e%2fsecret.parquet",
    "_event_date=2001-01-01/part-0.parquet",
    "_event_date=2001-01-01/part-1.parquet",
    "_event_date=banana/x.parquet",
    "_delta_log/00000000000000000000.json",
    "a\\..\\b",
    "a\u{0}b",
    "9999999999999999999999",
    "-1",
    "NaN",
    "0001-01-01",
    "9999-12-31",
    "2001-02-30",
    "none",
    "name",
    "id",
    "u",
    "p",
    "{}",
    "[]",
    "null",
];

fn number(random: &mut StdRng) -> Value {
    match random.random_range(0..6) {
        0 => json!(0),
        1 => json!(-1),
        2 => json!([i64::MAX, i64::MIN, i64::from(i32::MAX) + 1].choose(random).expect("numbers")),
        3 => json!(u64::MAX),
        4 => json!([1e300, -0.0, 0.5, 1e18].choose(random).expect("numbers")),
        _ => json!(random.random_range(-3..70)),
    }
}

fn value(random: &mut StdRng) -> Value {
    match random.random_range(0..7) {
        0 => Value::Null,
        1 => json!(random.random_bool(0.5)),
        2 | 3 => number(random),
        4 => json!(TEXTS.choose(random).expect("texts")),
        5 => json!([]),
        _ => json!({}),
    }
}

/// Makes one change somewhere in `root`.
pub fn mutate(random: &mut StdRng, root: &mut Value) {
    let count = count(root);
    let at = random.random_range(0..count.max(1));
    change(random, root, &mut { at });
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value number `at`, counted from the root down. Returns whether it was found.
fn change(random: &mut StdRng, present: &mut Value, at: &mut usize) -> bool {
    if *at == 0 {
        change_here(random, present);
        return true;
    }
    *at -= 1;
    match present {
        Value::Array(items) => items.iter_mut().any(|item| change(random, item, at)),
        Value::Object(members) => members.values_mut().any(|member| change(random, member, at)),
        _ => false,
    }
}

fn change_here(random: &mut StdRng, present: &mut Value) {
    match present {
        Value::Object(members) if random.random_bool(0.8) => change_members(random, members),
        Value::Array(items) if random.random_bool(0.8) => match random.random_range(0..3) {
            0 if !items.is_empty() => _ = items.remove(random.random_range(0..items.len())),
            1 if !items.is_empty() => {
                let again = items.choose(random).cloned().unwrap_or_default();
                items.insert(random.random_range(0..=items.len()), again);
            }
            _ => items.push(value(random)),
        },
        Value::Number(_) if random.random_bool(0.7) => *present = number(random),
        Value::String(text) => match random.random_range(0..5) {
            // JSON in a text is JSON, too: schemas, statistics, notes.
            0 | 1 => match serde_json::from_str::<Value>(text) {
                Ok(mut inner @ (Value::Object(_) | Value::Array(_))) => {
                    mutate(random, &mut inner);
                    *text = inner.to_string();
                }
                _ => *text = (*TEXTS.choose(random).expect("texts")).to_owned(),
            },
            2 => *text = (*TEXTS.choose(random).expect("texts")).to_owned(),
            3 => text.push_str(TEXTS.choose(random).expect("texts")),
            _ => *present = value(random),
        },
        _ => *present = value(random),
    }
}

fn change_members(random: &mut StdRng, members: &mut Map<String, Value>) {
    let names: Vec<String> = members.keys().cloned().collect();
    let Some(name) = names.choose(random).cloned() else {
        members.insert((*TEXTS.choose(random).expect("texts")).to_owned(), value(random));
        return;
    };
    match random.random_range(0..4) {
        0 => _ = members.remove(&name),
        1 => _ = members.insert(name, value(random)),
        2 => {
            let moved = members.remove(&name).unwrap_or_default();
            members.insert(name + "2", moved);
        }
        _ => {
            let other = names.choose(random).and_then(|other| members.get(other)).cloned().unwrap_or_default();
            members.insert(name, other);
        }
    }
}
