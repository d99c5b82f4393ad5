//! Compares a running server with the oracle: sends events to both and compares any result of either layer.

use serde_json::{Value, json};

use crate::World;
use crate::oracle::dialect::measures;
use crate::oracle::events::{Event, Log, PATIENT, Stream, ndjson, rfc3339};
use crate::oracle::table::{Coverage, compare};
use crate::oracle::views::{Dimension, View};
use crate::oracle::windows::Window;

/// The definitions a server reads.
pub fn definitions(stream: Stream, views: &[View]) -> String {
    stream.sql() + &views.iter().map(View::sql).collect::<String>()
}

/// Sends events to the server and to the oracle, which must agree on the duplicates.
pub fn post(world: &World, log: &mut Log, events: &[Event]) {
    let answer = world.post("/v1/events/events", ndjson(events));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let accepted = events.iter().filter(|e| log.post(e)).count();
    assert_eq!(answer.json()["accepted"], json!(accepted), "{}", answer.text);
    let rejected = events.iter().filter(|e| e.id.is_none()).count();
    assert_eq!(answer.json()["rejected"], json!(rejected), "{}", answer.text);
    assert_eq!(answer.json()["duplicates"], json!(events.len() - accepted - rejected));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Merged,
    Batch,
    Speed,
}

/// A query of a view.
#[derive(Debug, Clone)]
pub struct Question {
    pub layer: Layer,
    /// Dimensions to group by, as indexes into the view's; `None`: all.
    pub by: Option<Vec<usize>>,
    /// Coarser windows: `grain` as it is written, and what it means.
    pub grain: Option<(&'static str, Window)>,
    /// The end of trailing windows; `None`: after the latest event.
    pub as_of: Option<i64>,
}

impl Question {
    pub fn of(layer: Layer) -> Question {
        Question { layer, by: None, grain: None, as_of: None }
    }

    /// The parameters of the query.
    fn text(&self, view: &View) -> String {
        let mut text = match self.layer {
            Layer::Merged => String::new(),
            Layer::Batch => "&layer=batch".to_owned(),
            Layer::Speed => "&layer=speed".to_owned(),
        };
        if let Some(by) = &self.by {
            let names: Vec<&str> = by.iter().map(|i| view.dimensions[*i].name).collect();
            text += &format!("&group_by={}", names.join(","));
        }
        if let Some((grain, _)) = self.grain {
            text += &format!("&grain={grain}");
        }
        if matches!(view.window, Window::Slide { .. }) {
            text += &format!("&as_of={}", self.as_of.map_or_else(|| "latest".to_owned(), rfc3339));
        }
        text
    }
}

/// Queries the server and compares its response with the oracle's. In a stream of several partitions nothing may be late and
/// all events or none must be before the seam.
pub fn check(
    world: &World,
    log: &Log,
    view: &View,
    question: &Question,
    coverage: &mut Coverage,
) -> Result<Value, String> {
    let text = question.text(view);
    let answer = world.get(&format!("/v1/views/{}/rows.json?limit=1000000{text}", view.name));
    let context = |e: String| format!("{} {:?} in {} {text}: {e}", view.name, view.window, view.zone);
    if answer.status != 200 {
        return Err(context(answer.text));
    }
    let answer = answer.json();
    let seam = seam(log, &answer).map_err(context)?;
    let batch = question.layer != Layer::Speed;
    let speed = question.layer != Layer::Batch;
    let rows = view.counted(log, seam, batch, speed);
    let latest = log.accepted.iter().map(|a| a.event.at + 1).max().unwrap_or(0);
    let all: Vec<usize> = (0..view.dimensions.len()).collect();
    let by = question.by.as_ref().unwrap_or(&all);
    let mut shown = view.clone();
    if let Some((_, window)) = question.grain {
        shown.window = window;
    }
    let expected = shown.groups(&rows, by, question.as_of.unwrap_or(latest));
    compare(&answer, &shown, by, &expected, coverage).map_err(|e| context(format!("seam {seam}: {e}")))?;
    check_ledger(log, view, seam, question.layer, &answer).map_err(context)?;
    Ok(answer)
}

/// Events before the seam.
fn seam(log: &Log, answer: &Value) -> Result<usize, String> {
    let offsets = answer["seam"]["offsets"].as_object();
    let before = offsets.map_or(0, |of| of.values().filter_map(Value::as_u64).sum::<u64>()) as usize;
    if log.stream.partitions > 1 && before != 0 && before != log.accepted.len() {
        return Err(format!("the seam {before} of {} is somewhere between the partitions", log.accepted.len()));
    }
    Ok(before)
}

/// Every accepted event is accounted for, once.
fn check_ledger(log: &Log, view: &View, seam: usize, layer: Layer, answer: &Value) -> Result<(), String> {
    if layer != Layer::Merged {
        return Ok(());
    }
    let ledger = &answer["ledger"];
    let count = |part: &str| ledger[part].as_u64().ok_or_else(|| format!("no {part} in {ledger}"));
    let accepted = log.accepted.len() as u64;
    let sum = count("batch")? + count("speed")? + count("late")?;
    if count("accepted")? != accepted || sum != accepted || answer["complete"] != json!(true) {
        return Err(format!("{accepted} events were accepted, the ledger says {ledger}"));
    }
    let late = view.late(log)[seam..].iter().filter(|late| **late).count() as u64;
    if count("late")? != late {
        return Err(format!("{late} events are late, the ledger says {ledger}"));
    }
    Ok(())
}

/// Checks after a run that every difference has a known cause.
pub fn check_causes(world: &World, view: &str) -> Result<(), String> {
    let drift = world.get(&format!("/v1/views/{view}/compare"));
    if drift.status == 200 && drift.json()["causes"]["unexplained"] != json!(0) {
        return Err(format!("unexplained differences of {view}: {}", drift.text));
    }
    Ok(())
}

/// One partition in which nothing is late.
pub const PATIENT_ALONE: Stream = Stream { partitions: 1, ..PATIENT };

/// Microseconds of an RFC 3339 text.
pub fn micros(text: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
}

/// Asserts that a run has published.
pub fn published(run: &Value) {
    assert_eq!(run["state"], json!("published"), "{run}");
}

/// Returns the checked response, or panics.
pub fn must(checked: Result<Value, String>) -> Value {
    checked.unwrap_or_else(|e| panic!("{e}"))
}

/// A view in UTC over all events.
pub fn view(name: &str, window: Window, dimensions: &[Dimension], names: &[&str]) -> View {
    View {
        name: name.to_owned(),
        window,
        zone: chrono_tz::Tz::UTC,
        filter: None,
        dimensions: dimensions.to_vec(),
        measures: measures(names),
        having: None,
    }
}
