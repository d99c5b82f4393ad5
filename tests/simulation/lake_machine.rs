//! Simulates a machine with the log of one stream and its archivers, which commit to a lake in a simulated store.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use intake::archive::{ArchiverContext, ArchiverSettings, READER, StepwiseArchiver};
use intake::log::{LogDisk, LogError};
use lake::Lake;
use object_store::ObjectStore;
use shared::clock::ManualClock;
use shared::handoff::LogRetention;
use shared::stream::Stream;
use shared::time::Micros;
use shared::vital::Vitals;
use tokio::runtime::Runtime;

use crate::clients::{Clients, SECOND};
use crate::dice::Dice;
use crate::disk::{Crash, Disk, Faults};
use crate::lake_contents::LakeContents;
use crate::logs::{Logs, stream};
use crate::scenarios::Machine;
use crate::store::Store;

const STREAM: &str = "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, value BIGINT) WITH (event_time = 'at',
    watermark_delay = '5 seconds', allowed_lateness = '10 seconds', max_ahead = '1 minute', partitions = 2);";

/// Carries out the requests of all lakes.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
});

/// A machine, its disk, the store of its lake, its clients and what they know.
pub struct LakeMachine {
    dice: Dice,
    disk: Disk,
    store: Store,
    clock: ManualClock,
    stream: Arc<Stream>,
    clients: Clients,
    contents: LakeContents,
    crashes: u64,
}

/// What runs on the machine.
struct Process {
    logs: Arc<Logs>,
    archivers: Vec<StepwiseArchiver>,
}

/// The process cannot start or continue, because calls failed.
struct Failed;

impl Machine for LakeMachine {
    fn disk(&self) -> &Disk {
        &self.disk
    }

    fn accepted(&self) -> u64 {
        self.clients.accepted()
    }

    fn run(&mut self, crashes: u64) {
        while self.crashes < crashes {
            let (faults, store_faults) = (Faults::any(&mut self.dice), self.dice.one(&[0, 0, 20, 150, 400]));
            let (calls, puts) = match self.dice.of(0..3) {
                0 => (None, None),
                1 => (Some(self.dice.up_to_one(&[60, 200, 600])), None),
                _ => (None, Some(self.dice.of(0..12))),
            };
            self.disk
                .note(format!("process, {faults:?}, {store_faults}, crash after {calls:?} calls or {puts:?} puts"));
            let disk = self.disk.start_process(faults, calls);
            let store = self.store.start_process(store_faults, puts);
            self.live(disk, store);
        }
        self.disk.note("last process".to_owned());
        let (disk, store) = (self.disk.start_process(Faults::NONE, None), self.store.start_process(0, None));
        let archived = match self.open(&disk, store) {
            Ok(mut process) => {
                self.finish(&mut process);
                self.archived()
            }
            Err(error) => panic!("a log without faults does not open: {error}"),
        };
        let heads: Vec<u64> = self.clients.partitions.iter().map(|model| model.head()).collect();
        assert_eq!(archived, heads, "the archive has every event");
    }
}

impl LakeMachine {
    /// A machine with an empty disk and an empty store.
    pub fn new(seed: u64) -> LakeMachine {
        let stream = stream(STREAM);
        let clock = ManualClock::at(Micros(1_000_000 * SECOND));
        let disk = Disk::new(seed, Path::new("/data"));
        LakeMachine {
            dice: Dice::new(seed, 0),
            store: Store::new(seed, &disk),
            disk,
            clients: Clients::new(seed, &stream, &clock),
            clock,
            stream,
            contents: LakeContents::default(),
            crashes: 0,
        }
    }

    /// One process, from its start to its end, and what the machine does then.
    fn live(&mut self, disk: Arc<dyn LogDisk>, store: Arc<dyn ObjectStore>) {
        let lived = catch_unwind(AssertUnwindSafe(|| self.process(&disk, store)));
        let has_crashed = match &lived {
            Ok(Ok(())) => false,
            Ok(Err(Failed)) => true,
            Err(panic) if panic.is::<Crash>() => true,
            Err(_) => resume_unwind(lived.err().expect("a panic")),
        };
        self.disk.end_process();
        self.store.end_process();
        let cuts_power = self.dice.percent(60);
        if cuts_power {
            self.disk.cut_power();
        }
        self.crashes += u64::from(has_crashed || cuts_power);
        self.clients.read_replies(&self.disk);
    }

    fn process(&mut self, disk: &Arc<dyn LogDisk>, store: Arc<dyn ObjectStore>) -> Result<(), Failed> {
        let mut process = match self.open(disk, store) {
            Ok(process) => process,
            Err(error) => {
                assert!(matches!(error, LogError::Io { .. }) && self.disk.failed() > 0, "cannot start: {error}");
                return Err(Failed);
            }
        };
        let archives = self.dice.percent(75);
        for _ in 0..self.dice.of(1..120) {
            let partition = self.dice.of(0..u64::from(self.stream.partitions)) as usize;
            match self.dice.of(0..100) {
                0..35 => self.clients.submit(&process.logs.claims, &process.logs.partitions[partition], partition),
                35..65 => {
                    let stepped = self.clients.step(&self.disk, &process.logs.partitions[partition], partition);
                    stepped.map_err(|_| Failed)?;
                }
                65..83 if archives => _ = self.archive(&mut process, partition, StepwiseArchiver::step),
                83..90 if archives => {
                    _ = self.archive(&mut process, partition, |archiver| archiver.flush().map(|()| true))
                }
                90..94 => RUNTIME.block_on(self.store.deliver()),
                _ => self.clients.turn_clock(),
            }
        }
        Ok(())
    }

    /// Opens all partitions, compares log and archive with the model, and creates the archivers.
    fn open(&mut self, disk: &Arc<dyn LogDisk>, store: Arc<dyn ObjectStore>) -> Result<Process, LogError> {
        RUNTIME.block_on(self.store.deliver());
        for (archived, model) in self.archived().into_iter().zip(&mut self.clients.partitions) {
            model.released = archived;
        }
        let logs = Arc::new(Logs::open(&mut self.clients, &self.stream, &self.clock, disk)?);
        let settings = ArchiverSettings {
            file_rows: self.dice.one(&[10, 1_000]),
            queue_bytes_max: self.dice.one(&[1, 1_000_000]),
            retry_first: Duration::ZERO,
            retry_max: Duration::ZERO,
            ..ArchiverSettings::default()
        };
        let context = ArchiverContext {
            lake: Lake::over(store),
            log: Arc::clone(&logs) as _,
            retention: Arc::clone(&logs) as Arc<dyn LogRetention>,
            runtime: RUNTIME.handle().clone(),
            vitals: Vitals::default(),
        };
        let mut archivers = Vec::new();
        for (model, log) in self.clients.partitions.iter().zip(&logs.partitions) {
            log.register_live_reader(READER, u64::MAX);
            let archiver = StepwiseArchiver::new(&self.stream, model.partition, context.clone(), settings);
            log.attach(archiver.sink());
            log.start_stepwise();
            archivers.push(archiver);
        }
        let stoppers: Vec<_> = archivers.iter().map(StepwiseArchiver::stopper).collect();
        self.store.on_crash(move || stoppers.iter().for_each(|stop| stop()));
        Ok(Process { logs, archivers })
    }

    /// Lets the archiver of a partition work. Returns whether there was something to do.
    fn archive(
        &self,
        process: &mut Process,
        partition: usize,
        work: impl FnOnce(&mut StepwiseArchiver) -> Result<bool, String>,
    ) -> bool {
        let archiver = &mut process.archivers[partition];
        let worked = work(archiver);
        self.disk.note(format!("archiver of {partition}: {worked:?}, archived {:?}", archiver.archived()));
        if self.store.has_crashed() {
            resume_unwind(Box::new(Crash));
        }
        worked.unwrap_or_else(|error| panic!("the archiver of {partition} ended: {error}"))
    }

    /// Writes and archives everything that waits.
    fn finish(&mut self, process: &mut Process) {
        for partition in 0..process.archivers.len() {
            while self.clients.step(&self.disk, &process.logs.partitions[partition], partition).expect("writes") {}
            while self.archive(process, partition, StepwiseArchiver::step) {}
            self.archive(process, partition, |archiver| archiver.flush().map(|()| true));
        }
    }

    /// Compares the archive with what clients know. Returns the number of its events by partition.
    fn archived(&mut self) -> Vec<u64> {
        RUNTIME.block_on(self.contents.check(&self.store.objects(), &self.stream, &self.clients.partitions))
    }
}
