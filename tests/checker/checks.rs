//! Checks histories. Each check is a function of the history alone and returns what contradicts the promise:
//!
//! - a batch that was acknowledged before a read was invoked is in it, and in every later one;
//! - no read counts more than was submitted before it was completed, so every batch counts once;
//! - what a read showed never goes back in a later one: counts, watermark, version, seam, accepted events;
//! - `complete` is true unless the view is new and has no version, and then it says whether the ledger balances;
//! - differences between live and exact figures have causes.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::history::{Count, Entry, Operation, Outcome, PartitionState, ViewState};

/// What the checks know of a view.
#[derive(Debug, Clone, Copy)]
pub struct ViewModel {
    pub name: &'static str,
    pub stream: &'static str,
    /// Whether its rows are divided by batch.
    pub by_batch: bool,
    /// Whether events can be late, so that only a batch run counts them.
    pub lateness: bool,
    /// Whether the view was declared over existing events: before its first version it may be incomplete.
    pub added: bool,
}

/// All attempts to send one batch.
#[derive(Debug, Default)]
struct Batch {
    count: Count,
    /// When an attempt was invoked that may have been accepted.
    possible_from: Option<u64>,
    /// When the first acknowledgement was complete.
    acknowledged_at: Option<u64>,
    /// Events that a read may lack although they are acknowledged, before the seam has reached `offsets`.
    late: u64,
    offsets: Option<BTreeMap<String, (u64, u64)>>,
}

impl Batch {
    fn add(&mut self, entry: &Entry, count: Count, outcome: &Outcome) {
        self.count = count;
        if !matches!(outcome, Outcome::Refused { .. }) {
            self.possible_from = Some(self.possible_from.map_or(entry.invoked, |from| from.min(entry.invoked)));
        }
        let Outcome::Acknowledged { accepted, late, offsets } = outcome else { return };
        if self.acknowledged_at.is_none_or(|at| entry.completed < at) {
            self.acknowledged_at = Some(entry.completed);
            // After an earlier attempt without an answer, nothing is known of the events that it brought in.
            let is_whole = *accepted == count.events;
            (self.late, self.offsets) = if is_whole { (*late, Some(offsets.clone())) } else { (count.events, None) };
        }
    }

    /// Returns the fewest events of the batch that a read invoked at `invoked` must count.
    fn at_least(&self, invoked: u64, state: &ViewState, lateness: bool) -> u64 {
        if self.acknowledged_at.is_none_or(|at| at >= invoked) {
            return 0;
        }
        let is_covered =
            |(partition, (_, end)): (&String, &(u64, u64))| state.seam.get(partition).is_some_and(|seam| seam >= end);
        let covered = state.live == 0 || self.offsets.as_ref().is_some_and(|offsets| offsets.iter().all(is_covered));
        if lateness && !covered { self.count.events - self.late.min(self.count.events) } else { self.count.events }
    }

    /// Returns the most events of the batch that a read completed at `completed` may count.
    fn at_most(&self, completed: u64) -> u64 {
        self.possible_from.filter(|from| *from <= completed).map_or(0, |_| self.count.events)
    }
}

/// Returns everything in `history` that contradicts the promise.
pub fn check(history: &[Entry], views: &[ViewModel]) -> Vec<String> {
    let mut found = Vec::new();
    for view in views {
        let batches = batches_of(history, view.stream);
        let mut reads = Vec::new();
        for entry in history {
            match &entry.operation {
                Operation::Read { view: name, state } if name == view.name => {
                    check_state(view, &batches, entry, state, entry.invoked, &mut found);
                    reads.push((entry, state));
                }
                // A feed may be behind, so nothing has to be in it; the order of its own events is checked below.
                Operation::Feed { view: name, state } if name == view.name => {
                    check_state(view, &batches, entry, state, 0, &mut found);
                }
                _ => {}
            }
        }
        check_order(view.name, &reads, &mut found);
        for (client, feed) in feeds_of(history, view.name) {
            check_order(&format!("{} as {client} sees it", view.name), &feed, &mut found);
        }
    }
    check_partitions(history, &mut found);
    for entry in history {
        match &entry.operation {
            Operation::Compare { view, unexplained } if *unexplained > 0 => {
                found.push(format!("{view}: {unexplained} differences without a cause, seen at {}", entry.completed));
            }
            Operation::Wrong { what } => found.push(format!("{} at {}: {what}", entry.client, entry.completed)),
            _ => {}
        }
    }
    found
}

/// Returns the batches of a stream.
fn batches_of(history: &[Entry], of: &str) -> BTreeMap<u64, Batch> {
    let mut batches: BTreeMap<u64, Batch> = BTreeMap::new();
    for entry in history {
        if let Operation::Send { stream, batch, count, outcome } = &entry.operation
            && *stream == of
        {
            batches.entry(*batch).or_default().add(entry, *count, outcome);
        }
    }
    batches
}

/// Returns the events that each client got of live queries of `view`, in order.
fn feeds_of<'a>(history: &'a [Entry], view: &str) -> BTreeMap<&'a str, Vec<(&'a Entry, &'a ViewState)>> {
    let mut feeds: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for entry in history {
        if let Operation::Feed { view: name, state } = &entry.operation
            && name == view
        {
            feeds.entry(entry.client.as_str()).or_default().push((entry, state));
        }
    }
    feeds
}

/// Checks the counts of one result, and whether it is complete when it has to be.
fn check_state(
    view: &ViewModel,
    batches: &BTreeMap<u64, Batch>,
    entry: &Entry,
    state: &ViewState,
    since: u64,
    found: &mut Vec<String>,
) {
    let context =
        format!("{}, {} invoked at {} and completed at {}", view.name, entry.client, entry.invoked, entry.completed);
    let is_new = view.added && state.version.is_none();
    if state.complete != state.balanced {
        found.push(format!("{context}: complete is {}, but the ledger says {}", state.complete, state.balanced));
    }
    if !state.complete && !is_new {
        found.push(format!("{context}: complete is false without a reason"));
    }
    let bounds = |batch: &Batch| {
        let least = if state.complete { batch.at_least(since, state, view.lateness) } else { 0 };
        (least, batch.at_most(entry.completed))
    };
    if !view.by_batch {
        let (least, most) = batches.values().map(bounds).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let counted = state.counts.get(&0).copied().unwrap_or_default().events;
        if !(least..=most).contains(&counted) {
            found.push(format!("{context}: {counted} events counted, expected {least} to {most}"));
        }
        return;
    }
    for (number, batch) in batches {
        let (least, most) = bounds(batch);
        let counted = state.counts.get(number).copied().unwrap_or_default();
        if counted.events < least {
            found.push(format!(
                "{context}: batch {number} counts {counted:?}, but {least} of its events are acknowledged"
            ));
        }
        let wrong_sum = counted.events == batch.count.events && counted.sum != batch.count.sum;
        if counted.events > most || wrong_sum {
            found.push(format!(
                "{context}: batch {number} counts {counted:?}, but at most {most} of {:?} were submitted",
                batch.count
            ));
        }
    }
    if let Some(number) = state.counts.keys().find(|number| !batches.contains_key(number)) {
        found.push(format!("{context}: batch {number} was never sent"));
    }
}

/// The largest of each figure that earlier results showed.
#[derive(Default)]
struct Shown {
    counts: BTreeMap<u64, u64>,
    seam: BTreeMap<String, u64>,
    watermark: Option<i64>,
    version: Option<i64>,
    accepted: u64,
}

impl Shown {
    fn add(&mut self, state: &ViewState) {
        for (batch, count) in &state.counts {
            raise(&mut self.counts, batch, count.events);
        }
        for (partition, offset) in &state.seam {
            raise(&mut self.seam, partition, *offset);
        }
        self.watermark = self.watermark.max(state.watermark);
        self.version = self.version.max(state.version);
        self.accepted = self.accepted.max(state.accepted);
    }
}

fn raise<K: Ord + Clone>(all: &mut BTreeMap<K, u64>, key: &K, value: u64) {
    let known = all.entry(key.clone()).or_default();
    *known = value.max(*known);
}

/// Checks that nothing in a result is less than in another one that was complete before it was invoked.
fn check_order(what: &str, reads: &[(&Entry, &ViewState)], found: &mut Vec<String>) {
    let (mut by_invocation, mut by_completion) = (reads.to_vec(), reads.to_vec());
    by_invocation.sort_by_key(|(entry, _)| entry.invoked);
    by_completion.sort_by_key(|(entry, _)| entry.completed);
    let mut earlier = by_completion.into_iter().peekable();
    let mut shown = Shown::default();
    for (entry, state) in by_invocation {
        while let Some((_, before)) = earlier.next_if(|(before, _)| before.completed < entry.invoked) {
            shown.add(before);
        }
        let mut less = |figure: &str, before: &dyn Debug, now: &dyn Debug| {
            found.push(format!("{what}: {figure} went back from {before:?} to {now:?}, invoked at {}", entry.invoked));
        };
        if state.watermark < shown.watermark {
            less("watermark", &shown.watermark, &state.watermark);
        }
        if state.version < shown.version {
            less("version", &shown.version, &state.version);
        }
        if state.accepted < shown.accepted {
            less("accepted", &shown.accepted, &state.accepted);
        }
        for (partition, before) in &shown.seam {
            let now = state.seam.get(partition).copied().unwrap_or(0);
            if now < *before {
                less(&format!("seam of partition {partition}"), before, &now);
            }
        }
        if state.complete {
            for (batch, before) in &shown.counts {
                let now = state.counts.get(batch).copied().unwrap_or_default().events;
                if now < *before {
                    less(&format!("count of batch {batch}"), before, &now);
                }
            }
        }
    }
}

/// Checks that no partition's watermark or number of events goes back. One client asks for them, again and again.
fn check_partitions(history: &[Entry], found: &mut Vec<String>) {
    let mut shown: BTreeMap<(&str, u64), PartitionState> = BTreeMap::new();
    for entry in history {
        let Operation::Partitions { stream, partitions } = &entry.operation else { continue };
        for (partition, now) in partitions {
            let before = shown.entry((*stream, *partition)).or_default();
            if now.watermark < before.watermark || now.head < before.head {
                let at = entry.invoked;
                found.push(format!(
                    "{stream}, partition {partition}: went back from {before:?} to {now:?}, invoked at {at}"
                ));
            } else {
                *before = *now;
            }
        }
    }
}

#[cfg(test)]
mod tests;
