//! Sends events to the partitions of a stream, some of them twice, and keeps what each partition must hold.

use std::sync::Arc;

use intake::event_id::hash_ids;
use intake::partition::{BodyFingerprint, IdempotencyKey, KeyClaims, PartitionLog, Submission};
use shared::clock::{Clock, ManualClock};
use shared::ids::Partition;
use shared::stream::Stream;
use shared::time::Micros;
use tokio::sync::oneshot;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::model::{Event, PartitionModel, Request, rows};

pub const SECOND: i64 = 1_000_000;

/// The clients of one stream.
pub struct Clients {
    dice: Dice,
    stream: Arc<Stream>,
    clock: ManualClock,
    next_id: u64,
    pub partitions: Vec<PartitionModel>,
}

impl Clients {
    pub fn new(seed: u64, stream: &Arc<Stream>, clock: &ManualClock) -> Clients {
        Clients {
            dice: Dice::new(seed, 3),
            stream: Arc::clone(stream),
            clock: clock.clone(),
            next_id: 0,
            partitions: (0..stream.partitions).map(|p| PartitionModel::new(Partition(p), stream)).collect(),
        }
    }

    /// Events that must be in the log or the archive.
    pub fn accepted(&self) -> u64 {
        self.partitions.iter().map(PartitionModel::head).sum()
    }

    /// Sends new events, or a request a second time.
    pub fn submit(&mut self, claims: &Arc<KeyClaims>, log: &PartitionLog, partition: usize) {
        let repeatable = self.partitions[partition].repeatable();
        let request = match repeatable.is_empty() || self.dice.percent(75) {
            true => self.new_request(),
            false => repeatable[self.dice.of(0..repeatable.len() as u64) as usize].clone(),
        };
        let key = request.key.as_ref().map(|key| {
            let key = IdempotencyKey { key: key.clone(), body: BodyFingerprint::of(key.as_bytes()) };
            claims.claim(&key).expect("every request with a key has the same body")
        });
        let rows = rows(&self.stream, &request.events);
        let (reply, receiver) = oneshot::channel();
        let submission = Submission {
            id_hashes: Some(hash_ids(rows.column(0))),
            entities: None,
            kept: Vec::new(),
            rows,
            key,
            source: None,
            reply,
        };
        self.partitions[partition].send(request, receiver);
        log.try_submit(submission).expect("there is room");
    }

    fn new_request(&mut self) -> Request {
        let count = self.dice.of(1..5);
        let events = (0..count).map(|_| {
            self.next_id += 1;
            // Most are in time; some are late, and some from a future that moves no watermark.
            let seconds = if self.dice.percent(90) { self.dice.of(0..30) } else { self.dice.of(0..200) } as i64 - 25;
            Event { id: self.next_id, at: self.clock.now().0 + seconds * SECOND }
        });
        let events: Vec<Event> = events.collect();
        let key = self.dice.percent(30).then(|| format!("key {}", events[0].id));
        Request { events, key }
    }

    /// Lets the writer of a partition make a step, and reads its replies.
    pub fn step(&mut self, disk: &Disk, log: &PartitionLog, partition: usize) -> Result<bool, String> {
        let stepped = log.step();
        disk.note(format!("step of {partition}: {stepped:?}"));
        assert!(stepped.is_ok() || disk.failed() > 0, "the writer ended without a reason: {stepped:?}");
        self.read_replies(disk);
        stepped
    }

    /// Reads all replies. The clock shows the time of the last step.
    pub fn read_replies(&mut self, disk: &Disk) {
        let now = self.clock.now();
        self.partitions.iter_mut().for_each(|model| model.read_replies(now));
        if disk.has_refused_keys() {
            self.partitions.iter_mut().for_each(PartitionModel::keys_were_refused);
        }
    }

    /// Moves the clock a little, in both directions.
    pub fn turn_clock(&mut self) {
        let by = self.dice.of(0..40) as i64 - 15;
        self.clock.set(Micros(self.clock.now().0 + by * SECOND));
    }
}
