//! Compares declared sinks with those that a server has run: which write a topic for the first time, which continue, and which
//! stop until an operator decides.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use shared::ids::{Name, SinkName, StreamName, ViewName};
use shared::sink::Emit;
use shared::sql::Definitions;
use sinks::book::StoredBook;
use sinks::stored::{SinkDeclaration, StoredSink, stored_sinks};

use super::PlanStatus;

/// What a sink does after its definition has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkEffect {
    /// It writes every row of its view, or every final one.
    WritesAll,
    /// It writes what has changed since its last epoch.
    Continues,
    /// It stops: the brokers do not know its epochs under the new transactional id.
    NeedsResume,
    /// It stops: its records would not replace those of the topic.
    OtherKeys,
    /// It does not run any more; its topic and its state stay.
    Ends,
}

/// The planned changes of a sink.
#[derive(Debug, Serialize)]
pub struct SinkPlan {
    pub name: SinkName,
    pub view: Option<ViewName>,
    /// Of a sink of a stream.
    pub stream: Option<StreamName>,
    pub connection: Option<Name>,
    /// `None`: the webhook of the connection, if that is known.
    pub topic: Option<String>,
    pub status: PlanStatus,
    pub effect: SinkEffect,
    /// The last epoch in the topic.
    pub epoch: u64,
    /// Rows that the topic has.
    pub rows: usize,
    pub paused: bool,
    /// Options before and after, if they change.
    pub changes: Vec<(&'static str, String, String)>,
}

/// Compares the declared sinks with the books in `folder`.
pub fn sink_plans(definitions: &Definitions, folder: &Path) -> anyhow::Result<Vec<SinkPlan>> {
    let stored = stored_sinks(folder).context("cannot read the state of the sinks")?;
    let mut plans = Vec::new();
    for sink in &definitions.sinks {
        let Some(view) = definitions.views.iter().find(|view| view.name == sink.view) else { continue };
        let now = SinkDeclaration::of(sink, view);
        let known = stored.iter().find(|known| known.name == sink.name);
        let has_other_keys = known.is_some_and(|known| known.book.keys != sink.key_hash(view));
        plans.push(plan(&sink.name, &now, known.map(|known| &known.book), has_other_keys));
    }
    for sink in &definitions.event_sinks {
        let Some(stream) = definitions.streams.iter().find(|stream| stream.name == sink.stream) else { continue };
        let now = SinkDeclaration::of_events(sink, stream);
        let known = stored.iter().find(|known| known.name == sink.name);
        let has_other_keys = known.is_some_and(|known| known.book.keys != sink.key_hash());
        plans.push(plan(&sink.name, &now, known.map(|known| &known.book), has_other_keys));
    }
    let is_declared = |name: &SinkName| definitions.sink_targets().any(|(sink, _)| sink == name);
    for StoredSink { name, book } in stored.iter().filter(|known| !is_declared(&known.name)) {
        plans.push(SinkPlan {
            name: name.clone(),
            view: book.declaration.as_ref().and_then(|declared| declared.view.clone()),
            stream: book.declaration.as_ref().and_then(|declared| declared.stream.clone()),
            connection: book.declaration.as_ref().map(|declared| declared.connection.clone()),
            topic: book.declaration.as_ref().and_then(|declared| declared.topic.clone()),
            status: PlanStatus::Undeclared,
            effect: SinkEffect::Ends,
            epoch: book.epoch,
            rows: book.rows,
            paused: book.is_paused,
            changes: Vec::new(),
        });
    }
    Ok(plans)
}

fn plan(name: &SinkName, now: &SinkDeclaration, known: Option<&StoredBook>, has_other_keys: bool) -> SinkPlan {
    let before = known.and_then(|known| known.declaration.as_ref());
    let changes = before.map_or_else(Vec::new, |before| {
        let pairs = texts(before).into_iter().zip(texts(now));
        pairs.filter(|(a, b)| a != b).map(|((option, a), (_, b))| (option, a, b)).collect::<Vec<_>>()
    });
    let has_other_id = before.is_some_and(|before| before.transactional_id != now.transactional_id);
    let epoch = known.map_or(0, |known| known.epoch);
    let (status, effect) = match known {
        None => (PlanStatus::New, SinkEffect::WritesAll),
        Some(_) if has_other_keys => (PlanStatus::Changed, SinkEffect::OtherKeys),
        Some(_) if has_other_id && epoch > 0 => (PlanStatus::Changed, SinkEffect::NeedsResume),
        Some(_) if changes.is_empty() => (PlanStatus::Unchanged, SinkEffect::Continues),
        Some(_) => (PlanStatus::Options, SinkEffect::Continues),
    };
    SinkPlan {
        name: name.clone(),
        view: now.view.clone(),
        stream: now.stream.clone(),
        connection: Some(now.connection.clone()),
        topic: now.topic.clone(),
        status,
        effect,
        epoch,
        rows: known.map_or(0, |known| known.rows),
        paused: known.is_some_and(|known| known.is_paused),
        changes,
    }
}

fn texts(declared: &SinkDeclaration) -> [(&'static str, String); 12] {
    let name = |name: &Option<Name>| name.as_ref().map_or_else(String::new, Name::to_string);
    [
        ("view", name(&declared.view)),
        ("stream", name(&declared.stream)),
        ("join", declared.joins.join(" ")),
        ("where", declared.filter.clone().unwrap_or_else(|| "all events".to_owned())),
        ("select", declared.columns.join(", ")),
        ("connection", declared.connection.to_string()),
        ("target", declared.target()),
        ("format", declared.format.name().to_owned()),
        ("emit", declared.emit.map_or("events", Emit::name).to_owned()),
        ("key", declared.key.join(", ")),
        ("every", declared.every.clone()),
        ("transactional_id", declared.transactional_id.clone().unwrap_or_default()),
    ]
}
