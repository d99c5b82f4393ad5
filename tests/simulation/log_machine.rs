//! Simulates a machine with nothing but the log of one stream: clients, writers, recovery, segments and their deletion.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;

use intake::log::{LogDisk, LogError};
use intake::partition::PartitionLog;
use shared::clock::ManualClock;
use shared::ids::Offset;
use shared::stream::Stream;
use shared::time::Micros;

use crate::clients::{Clients, SECOND};
use crate::dice::Dice;
use crate::disk::{Crash, Disk, Faults};
use crate::logs::{Logs, stream};
use crate::scenarios::Machine;

const STREAM: &str = "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, value BIGINT) WITH (event_time = 'at',
    watermark_delay = '5 seconds', allowed_lateness = '10 seconds', max_ahead = '1 minute', partitions = 2);";
/// The reader that releases the log.
const READER: &str = "archive";

/// A machine, its disk, its clients and what they know.
pub struct LogMachine {
    dice: Dice,
    disk: Disk,
    clock: ManualClock,
    stream: Arc<Stream>,
    clients: Clients,
    crashes: u64,
}

/// Why a process ended, unless it crashed.
enum End {
    Stopped,
    /// It could not start or continue, because calls failed.
    Failed,
}

impl Machine for LogMachine {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn accepted(&self) -> u64 {
        self.clients.accepted()
    }

    fn run(&mut self, crashes: u64) {
        while self.crashes < crashes {
            let calls_left = self.dice.percent(60).then(|| self.dice.up_to_one(&[60, 200, 600]));
            let faults = Faults::any(&mut self.dice);
            self.live(faults, calls_left);
        }
        for _ in 0..2 {
            let disk = self.disk.start_process(Faults::NONE, None);
            self.disk.note("last process".to_owned());
            let logs = self.open(disk).expect("a log without faults opens");
            assert!(matches!(self.stop(&logs), End::Stopped), "a log without faults stops");
        }
    }
}

impl LogMachine {
    /// A machine with an empty disk.
    pub fn new(seed: u64) -> LogMachine {
        let stream = stream(STREAM);
        let clock = ManualClock::at(Micros(1_000_000 * SECOND));
        LogMachine {
            dice: Dice::new(seed, 0),
            disk: Disk::new(seed, Path::new("/data")),
            clients: Clients::new(seed, &stream, &clock),
            clock,
            stream,
            crashes: 0,
        }
    }

    /// One process, from its start to its end, and what the machine does then.
    fn live(&mut self, faults: Faults, calls_left: Option<u64>) {
        let disk = self.disk.start_process(faults, calls_left);
        self.disk.note(format!("process, {faults:?}, crash after {calls_left:?}"));
        let lived = catch_unwind(AssertUnwindSafe(|| self.process(disk)));
        let has_crashed = match &lived {
            Ok(End::Stopped) => false,
            Ok(End::Failed) => true,
            Err(panic) if panic.is::<Crash>() => true,
            Err(_) => resume_unwind(lived.err().expect("a panic")),
        };
        self.disk.end_process();
        match self.dice.of(0..10) {
            0..6 => {
                self.disk.cut_power();
                self.crashes += 1;
            }
            6 | 7 => self.disk.evict(),
            _ => {}
        }
        self.crashes += u64::from(has_crashed);
        // Replies that were sent before the crash count.
        self.clients.read_replies(&self.disk);
    }

    fn process(&mut self, disk: Arc<dyn LogDisk>) -> End {
        let logs = match self.open(disk) {
            Ok(logs) => logs,
            Err(error) => {
                assert!(matches!(error, LogError::Io { .. }) && self.disk.failed() > 0, "cannot start: {error}");
                return End::Failed;
            }
        };
        for _ in 0..self.dice.of(1..40) {
            let partition = self.dice.of(0..u64::from(self.stream.partitions)) as usize;
            let log = &logs.partitions[partition];
            match self.dice.of(0..100) {
                0..45 => self.clients.submit(&logs.claims, log, partition),
                45..85 => {
                    if self.clients.step(&self.disk, log, partition).is_err() {
                        return End::Failed;
                    }
                }
                85..90 => {
                    let model = &mut self.clients.partitions[partition];
                    model.released = self.dice.of(model.released..model.head() + 1);
                    log.release(READER, Offset(model.released));
                }
                90..95 => self.read(log, partition),
                _ => self.clients.turn_clock(),
            }
        }
        if self.dice.percent(30) {
            return self.stop(&logs);
        }
        End::Stopped
    }

    fn open(&mut self, disk: Arc<dyn LogDisk>) -> Result<Logs, LogError> {
        let logs = Logs::open(&mut self.clients, &self.stream, &self.clock, (&self.disk, &disk))?;
        for (model, log) in self.clients.partitions.iter().zip(&logs.partitions) {
            log.register_reader(READER);
            log.release(READER, Offset(model.released));
            log.start_stepwise();
        }
        Ok(logs)
    }

    /// Writes what waits, marks the logs as durable and closes them.
    fn stop(&mut self, logs: &Logs) -> End {
        for (partition, log) in logs.partitions.iter().enumerate() {
            loop {
                match self.clients.step(&self.disk, log, partition) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => return End::Failed,
                }
            }
            self.clients.partitions[partition].check_totals(log);
            log.close();
        }
        End::Stopped
    }

    /// Reads a part of the log while the writer works.
    fn read(&mut self, log: &PartitionLog, partition: usize) {
        let (Offset(start), Offset(head)) = log.range();
        let from = self.dice.of(start..head + 1);
        let mut next = from;
        let read = log.replay(Offset(from), Offset(head), &mut |batch| {
            assert_eq!(batch.first_offset, Offset(next));
            next = batch.end_offset().0;
        });
        match read {
            Ok(()) => assert_eq!((next, head), (head, self.clients.partitions[partition].head())),
            Err(error) => assert!(matches!(error, LogError::Io { .. }) && self.disk.failed() > 0, "{error}"),
        }
    }
}
