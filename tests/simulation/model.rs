//! Defines what a partition must hold: the list of its accepted events, and requests whose outcome is unknown. Everything
//! else follows from the list by a plain fold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use intake::log::LogError;
use intake::partition::{PartitionLog, PartitionReceipt, SubmitError};
use shared::handoff::LogBatch;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use tokio::sync::oneshot;

/// Events that every partition keeps and among which it finds duplicates.
pub const HORIZON: u64 = 24;

/// What a partition replies.
pub type Reply = oneshot::Receiver<Result<PartitionReceipt, SubmitError>>;

/// One event; everything else in it follows from its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub id: u64,
    pub at: i64,
}

/// An event with its arrival: what the log must return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub event: Event,
    pub arrived_at: i64,
    /// The watermark before it; `i64::MIN` before the first.
    pub watermark: i64,
}

/// The part of a request that one partition gets.
#[derive(Debug, Clone)]
pub struct Request {
    pub events: Vec<Event>,
    pub key: Option<String>,
}

/// A request that can be sent again: its events are among the last ones.
#[derive(Debug, Clone)]
struct Repeatable {
    request: Request,
    /// The oldest of its events.
    first: u64,
}

/// The rules of the stream, in microseconds.
#[derive(Debug, Clone, Copy)]
struct Rules {
    delay: i64,
    lateness: i64,
    ahead: i64,
}

/// One partition.
pub struct PartitionModel {
    pub partition: Partition,
    rules: Rules,
    /// Acknowledged, or found by a recovery: they must stay, each at its offset.
    pub accepted: Vec<Accepted>,
    /// Sent and neither acknowledged nor refused, in order.
    pending: VecDeque<(Request, Option<Reply>)>,
    receipts: BTreeMap<String, PartitionReceipt>,
    /// Keys that may have been forgotten: there was no room to save them.
    unsaved_keys: BTreeSet<String>,
    repeatable: VecDeque<Repeatable>,
    /// Events before it may be deleted.
    pub released: u64,
    watermark: i64,
    late: u64,
    ahead: u64,
}

impl Event {
    pub fn value(self) -> i64 {
        (self.id % 1_000) as i64 - 300
    }

    /// The number of the event whose id is `text`.
    pub fn number(text: &str) -> u64 {
        text.strip_prefix("event ").and_then(|number| number.parse().ok()).expect("the id of an event")
    }
}

/// The columns of events, as the stream declares them.
pub fn rows(stream: &Stream, events: &[Event]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(events.iter().map(|event| format!("event {}", event.id)))),
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.at)).with_timezone("UTC")),
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.value()))),
    ];
    RecordBatch::try_new(stream.schema(), columns).expect("columns of the stream")
}

impl PartitionModel {
    pub fn new(partition: Partition, stream: &Stream) -> PartitionModel {
        let rules = Rules {
            delay: micros_of(stream.watermark_delay),
            lateness: micros_of(stream.allowed_lateness),
            ahead: micros_of(stream.max_ahead),
        };
        PartitionModel {
            partition,
            rules,
            accepted: Vec::new(),
            pending: VecDeque::new(),
            receipts: BTreeMap::new(),
            unsaved_keys: BTreeSet::new(),
            repeatable: VecDeque::new(),
            released: 0,
            watermark: i64::MIN,
            late: 0,
            ahead: 0,
        }
    }

    pub fn head(&self) -> u64 {
        self.accepted.len() as u64
    }

    /// The watermark after the accepted events; `i64::MIN` before the first that moves it.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// Records that `request` is about to be sent.
    pub fn send(&mut self, request: Request, reply: Reply) {
        self.pending.push_back((request, Some(reply)));
    }

    /// The last requests that may be repeated: their events are within the horizon, whatever was deleted.
    pub fn repeatable(&self) -> Vec<Request> {
        let waiting: usize = self.pending.iter().map(|(request, _)| request.events.len()).sum();
        let first = (self.head() + waiting as u64).saturating_sub(HORIZON / 2);
        self.repeatable.iter().filter(|known| known.first >= first).map(|known| known.request.clone()).collect()
    }

    /// Reads the replies. `now` is the time at which the writer accepted events.
    pub fn read_replies(&mut self, now: Micros) {
        let mut unknown = VecDeque::new();
        for (request, reply) in std::mem::take(&mut self.pending) {
            let Some(mut waiting) = reply else {
                unknown.push_back((request, None));
                continue;
            };
            match waiting.try_recv() {
                Ok(Ok(receipt)) => {
                    assert!(unknown.is_empty(), "a request was acknowledged before one that was sent earlier");
                    self.forget_key(&request, &receipt);
                    let expected = self.accept(&request, now.0);
                    assert_eq!(receipt, expected, "the receipt of {request:?}");
                }
                // Nothing was written, and nothing may appear later.
                Ok(Err(SubmitError::Exhausted(_))) => {}
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => unknown.push_back((request, None)),
                Err(oneshot::error::TryRecvError::Empty) => unknown.push_back((request, Some(waiting))),
            }
        }
        self.pending = unknown;
    }

    /// Notes that keys may be forgotten after a restart: the disk had no room to save them.
    pub fn keys_were_refused(&mut self) {
        self.unsaved_keys.extend(self.receipts.keys().cloned());
    }

    /// Forgets the key of the request if its partition has forgotten it, as it may have.
    fn forget_key(&mut self, request: &Request, receipt: &PartitionReceipt) {
        let Some(key) = &request.key else { return };
        let is_forgotten = receipt.duplicates == request.events.len() as u64 && self.receipts.get(key) != Some(receipt);
        if is_forgotten && self.unsaved_keys.remove(key) {
            self.receipts.remove(key);
        }
    }

    /// Accepts the request and returns its receipt.
    fn accept(&mut self, request: &Request, now: i64) -> PartitionReceipt {
        let known = request.key.as_ref().and_then(|key| self.receipts.get(key)).copied();
        let receipt = known.unwrap_or_else(|| {
            let (first, late, ahead) = (self.head(), self.late, self.ahead);
            for event in self.new_events(request) {
                self.push(event, now);
            }
            let accepted = self.head() - first;
            PartitionReceipt {
                accepted,
                duplicates: request.events.len() as u64 - accepted,
                late: self.late - late,
                ahead: self.ahead - ahead,
                erased: 0,
                first_offset: (accepted > 0).then_some(Offset(first)),
                end_offset: (accepted > 0).then_some(Offset(first + accepted)),
                last_sequence: None,
            }
        });
        if let Some(key) = &request.key {
            self.receipts.insert(key.clone(), receipt);
        }
        let place = |event: &Event| self.accepted.iter().rposition(|known| known.event.id == event.id);
        let first = request.events.iter().filter_map(place).min().unwrap_or(0) as u64;
        self.repeatable.push_back(Repeatable { request: request.clone(), first });
        if self.repeatable.len() > 10 {
            self.repeatable.pop_front();
        }
        receipt
    }

    /// The events of the request that are not accepted yet.
    fn new_events(&self, request: &Request) -> Vec<Event> {
        let is_known = |event: &Event| self.accepted.iter().rev().any(|known| known.event.id == event.id);
        request.events.iter().filter(|event| !is_known(event)).copied().collect()
    }

    fn push(&mut self, event: Event, arrived_at: i64) {
        let (before, rules) = (self.watermark, self.rules);
        self.accepted.push(Accepted { event, arrived_at, watermark: before });
        self.late += u64::from(before != i64::MIN && event.at + rules.lateness <= before);
        match event.at > arrived_at + rules.ahead {
            true => self.ahead += 1,
            false => self.watermark = before.max(event.at - rules.delay),
        }
    }

    /// Compares a recovered log with the model: known events must be there, and after them nothing but whole requests whose
    /// outcome was unknown, in the order in which they were sent.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn check_recovered(&mut self, log: &PartitionLog) -> Result<(), LogError> {
        let (Offset(start), Offset(head)) = log.range();
        let deletable = self.released.min(self.head().saturating_sub(HORIZON));
        assert!(start <= deletable, "events from {deletable} on must stay, the log starts at {start}");
        assert!(head >= self.head(), "the log ends at {head}, {} events were acknowledged", self.head());
        let mut batches = Vec::new();
        log.replay(Offset(start), Offset(head), &mut |batch| batches.push(batch))?;
        let found: Vec<Accepted> = batches.iter().flat_map(|batch| self.read(batch)).collect();
        assert_eq!(found.len() as u64, head - start, "offsets without events");
        let (known, new) = found.split_at((self.head() - start) as usize);
        assert_eq!(known, &self.accepted[start as usize..], "acknowledged events have changed");
        self.find_pending(new);
        assert_eq!(found, self.accepted[start as usize..], "the watermarks are not those of the events");
        for batch in &batches {
            let end = batch.end_offset();
            assert_eq!(batch.accepted, Ledger::of_range(self.partition, Offset(0), end));
            let after = self.accepted.get(end.0 as usize).map_or(self.watermark, |next| next.watermark);
            assert_eq!(batch.watermark.0, after, "the watermark before offset {end}");
        }
        self.check_totals(log);
        Ok(())
    }

    /// Compares the totals of the log with those of the list.
    pub fn check_totals(&self, log: &PartitionLog) {
        let totals = log.totals();
        assert_eq!(totals.accepted, Ledger::of_range(self.partition, Offset(0), Offset(self.head())));
        assert_eq!((totals.watermark.0, totals.late, totals.ahead), (self.watermark, self.late, self.ahead));
    }

    /// Accepts those of the pending requests that a recovery found.
    fn find_pending(&mut self, found: &[Accepted]) {
        let mut rest = found;
        for (request, _) in std::mem::take(&mut self.pending) {
            let new = self.new_events(&request);
            let is_here = rest.len() >= new.len() && rest.iter().zip(&new).all(|(found, new)| found.event == *new);
            if !is_here || rest.is_empty() {
                break;
            }
            let arrived_at = rest[0].arrived_at;
            rest = &rest[new.len()..];
            self.accept(&request, arrived_at);
        }
        assert!(rest.is_empty(), "recovered events that are no whole request: {rest:?}");
    }

    fn read(&self, batch: &LogBatch) -> Vec<Accepted> {
        let ids = batch.rows["id"].as_string_view().iter();
        let times = batch.rows["at"].as_primitive::<TimestampMicrosecondType>().values();
        let watermarks = batch.rows["_watermark"].as_primitive::<TimestampMicrosecondType>().iter();
        let rows = ids.zip(times).zip(watermarks).map(|((id, at), watermark)| {
            let event = Event { id: Event::number(id.expect("an id")), at: *at };
            Accepted { event, arrived_at: batch.arrived_at.0, watermark: watermark.unwrap_or(i64::MIN) }
        });
        rows.collect()
    }
}
