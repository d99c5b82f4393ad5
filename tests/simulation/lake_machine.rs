//! Simulates a machine with the log of one stream, its archivers, which commit to a lake in a simulated store, and a view:
//! live events, runs and versions.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use intake::log::{LogDisk, LogError};
use lake::{Lake, Spool};
use object_store::ObjectStore;
use shared::clock::ManualClock;
use shared::stream::Stream;
use shared::time::Micros;
use shared::view::View;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::archivers::Archivers;
use crate::clients::{Clients, SECOND};
use crate::dice::Dice;
use crate::disk::{Crash, Disk, Faults};
use crate::lake_contents::LakeContents;
use crate::logs::{Logs, declared_sinks, stream, stream_and_view};
use crate::scenarios::Machine;
use crate::served_view::{self, ServedView};
use crate::sinks::{RunningSink, SinkTopic};
use crate::store::Store;

const STREAM: &str = "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, value BIGINT) WITH (event_time = 'at',
    watermark_delay = '5 seconds', allowed_lateness = '10 seconds', max_ahead = '1 minute', partitions = 2);";
const VIEW: &str =
    "CREATE VIEW totals AS SELECT window_start, window_end, COUNT(*) AS events, SUM(value) AS total FROM events
    GROUP BY TUMBLE(at, INTERVAL '10' SECOND);";
/// Events are some seconds apart: sessions grow, begin earlier and become one. None is late: which ones are would depend on
/// how much of the log before the seam is left after a restart.
const STREAM_OF_SESSIONS: &str = "CREATE STREAM events (id STRING PRIMARY KEY, at TIMESTAMP, value BIGINT) WITH (
    event_time = 'at', watermark_delay = '5 seconds', allowed_lateness = '1 hour', max_ahead = '1 minute', partitions = 2);";
const VIEW_OF_SESSIONS: &str = "CREATE VIEW totals AS SELECT window_start, window_end, COUNT(*) AS events,
    SUM(value) AS total FROM events GROUP BY SESSION(at, INTERVAL '2' SECOND);";
const SINKS: &str = "CREATE SINK changes FROM totals WITH (connection = 'c', topic = 't');
    CREATE SINK finals FROM totals WITH (connection = 'c', topic = 'u', emit = 'final');";

/// The same without batch runs: its versions are checkpoints.
const VIEW_OF_SPEED: &str = "CREATE VIEW totals WITH (layers = 'speed') AS SELECT window_start, COUNT(*) AS events,
    SUM(value) AS total FROM events GROUP BY TUMBLE(at, INTERVAL '10' SECOND);";

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
    view: Option<Arc<View>>,
    topics: Vec<SinkTopic>,
    /// The version that the last successful run published; -1: none.
    published: i64,
    contents: LakeContents,
    spool: Spool,
    /// Has the spool.
    _folder: TempDir,
    crashes: u64,
}

/// What runs on the machine.
struct Process {
    logs: Arc<Logs>,
    archivers: Arc<Archivers>,
    served: Option<ServedView>,
    /// One per topic.
    sinks: Vec<RunningSink>,
}

/// The process cannot start or continue, because calls or requests failed.
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
        let Ok(mut process) = self.open(&disk, store) else { panic!("without faults the process does not start") };
        self.finish(&process);
        self.finish_sinks(&mut process);
        let heads: Vec<u64> = self.clients.partitions.iter().map(|model| model.head()).collect();
        assert_eq!(self.archived(), heads, "the archive has every event");
    }
}

impl LakeMachine {
    /// A machine with an empty disk and an empty store.
    pub fn new(seed: u64) -> LakeMachine {
        LakeMachine::over(seed, stream(STREAM), None)
    }

    /// A machine that also serves a view.
    pub fn with_view(seed: u64) -> LakeMachine {
        let (stream, view) = stream_and_view(STREAM, VIEW);
        LakeMachine::over(seed, stream, Some(view))
    }

    /// A machine that also serves a view of the speed layer alone.
    pub fn with_checkpoints(seed: u64) -> LakeMachine {
        let (stream, view) = stream_and_view(STREAM, VIEW_OF_SPEED);
        LakeMachine::over(seed, stream, Some(view))
    }

    /// A machine that also writes the view to topics.
    pub fn with_sinks(seed: u64) -> LakeMachine {
        LakeMachine::with_sinks_of(seed, STREAM, VIEW)
    }

    /// The same with a view of sessions.
    pub fn with_sinks_of_sessions(seed: u64) -> LakeMachine {
        LakeMachine::with_sinks_of(seed, STREAM_OF_SESSIONS, VIEW_OF_SESSIONS)
    }

    fn with_sinks_of(seed: u64, events: &str, of: &str) -> LakeMachine {
        let (stream, view) = stream_and_view(events, of);
        let topics = declared_sinks(events, &format!("{of}{SINKS}"));
        let topics = topics.iter().map(|sink| SinkTopic::new(seed, sink, &view)).collect();
        LakeMachine { topics, ..LakeMachine::over(seed, stream, Some(view)) }
    }

    fn over(seed: u64, stream: Arc<Stream>, view: Option<Arc<View>>) -> LakeMachine {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(&folder.path().join("spool"), u64::MAX).expect("a spool");
        let clock = ManualClock::at(Micros(1_000_000 * SECOND));
        let disk = Disk::new(seed, Path::new("/data"));
        LakeMachine {
            dice: Dice::new(seed, 0),
            store: Store::new(seed, &disk),
            disk,
            clients: Clients::new(seed, &stream, &clock),
            clock,
            stream,
            view,
            topics: Vec::new(),
            published: -1,
            contents: LakeContents::default(),
            spool,
            _folder: folder,
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
        let mut process = self.open(disk, store)?;
        let archives = self.dice.percent(75);
        for _ in 0..self.dice.of(1..120) {
            let partition = self.dice.of(0..u64::from(self.stream.partitions)) as usize;
            let Process { logs, archivers, .. } = &process;
            match self.dice.of(0..100) {
                0..35 => self.clients.submit(&logs.claims, &logs.partitions[partition], partition),
                35..65 => {
                    let stepped = self.clients.step(&self.disk, &logs.partitions[partition], partition);
                    stepped.map_err(|_| Failed)?;
                }
                65..81 if archives => _ = archivers.step(partition),
                81..87 if archives => archivers.flush(partition),
                87..90 => self.run_view(&process),
                90..92 => self.check_view(&process),
                92..95 => RUNTIME.block_on(self.store.deliver()),
                95..98 if !self.topics.is_empty() => self.step_sinks(&mut process),
                _ => self.clients.turn_clock(),
            }
        }
        Ok(())
    }

    /// Opens all partitions, compares log, archive and view with what clients know, and starts archivers and speed.
    fn open(&mut self, disk: &Arc<dyn LogDisk>, store: Arc<dyn ObjectStore>) -> Result<Process, Failed> {
        self.find_published();
        let logs = match Logs::open(&mut self.clients, &self.stream, &self.clock, (&self.disk, disk)) {
            Ok(logs) => Arc::new(logs),
            Err(error) => {
                assert!(matches!(error, LogError::Io { .. }) && self.disk.failed() > 0, "cannot start: {error}");
                return Err(Failed);
            }
        };
        let lake = Lake::over(store).with_spool(self.spool.clone());
        let loaded = match &self.view {
            // The store does not answer.
            Some(view) => {
                Some(RUNTIME.block_on(served_view::load(&lake, &self.stream, view, &logs)).map_err(|_| Failed)?)
            }
            None => None,
        };
        let handle = RUNTIME.handle();
        let parts = (&self.disk, &self.store);
        let archivers = Arc::new(Archivers::attach(&logs, &self.stream, &lake, handle, &mut self.dice, parts));
        let queues = self.topics.iter_mut().map(SinkTopic::new_queue).collect();
        let served = loaded
            .map(|loaded| RUNTIME.block_on(ServedView::start(loaded, &lake, &logs, &archivers, &self.clock, queues)));
        logs.partitions.iter().for_each(|log| log.start_stepwise());
        let layers = served.as_ref().map(ServedView::sink_layers);
        let start = |topic: &SinkTopic| layers.clone().map(|layers| topic.start(layers));
        let sinks = self.topics.iter().filter_map(start).collect();
        let process = Process { logs, archivers, served, sinks };
        self.check_view(&process);
        Ok(process)
    }

    /// Lets late puts arrive, and finds out what the lake has.
    fn find_published(&mut self) {
        RUNTIME.block_on(self.store.deliver());
        let archived = self.archived();
        let lake = Lake::over(self.store.objects());
        let published =
            self.view.as_ref().map(|view| RUNTIME.block_on(served_view::published(&lake, &self.stream, view)));
        let seam = published.as_ref().map(|(version, seam)| {
            assert!(*version >= self.published, "version {version} is older than {}", self.published);
            seam
        });
        for (archived, model) in archived.into_iter().zip(&mut self.clients.partitions) {
            model.released = seam.map_or(archived, |seam| archived.min(seam.offset(model.partition).0));
        }
    }

    /// Recomputes the view, or makes a checkpoint of it, if the machine has one.
    fn run_view(&mut self, process: &Process) {
        let Some(served) = &process.served else { return };
        let full = self.dice.percent(20);
        let ended = RUNTIME.block_on(served.run(full));
        // A text may hold an id.
        self.disk.note(format!("run, full {full}: {:?}", ended.as_ref().ok()));
        if self.store.has_crashed() {
            resume_unwind(Box::new(Crash));
        }
        self.clients.read_replies(&self.disk);
        if let Ok(version) = ended {
            assert!(version >= self.published, "version {version} was published after {}", self.published);
            self.published = version;
        }
        self.check_view(process);
    }

    /// Lets each sink write an epoch.
    fn step_sinks(&mut self, process: &mut Process) {
        let Process { served: Some(served), sinks, .. } = process else { return };
        let layers = served.sink_layers();
        for (topic, running) in self.topics.iter_mut().zip(sinks) {
            RUNTIME.block_on(topic.step(running, &layers, &self.clients.partitions));
        }
        if self.store.has_crashed() {
            resume_unwind(Box::new(Crash));
        }
    }

    /// Compares the topics with the view.
    fn finish_sinks(&mut self, process: &mut Process) {
        let Process { served: Some(served), sinks, .. } = process else { return };
        for (topic, running) in self.topics.iter_mut().zip(sinks) {
            RUNTIME.block_on(topic.finish(running, served, &self.clients.partitions));
        }
    }

    /// Records and corrections of all topics.
    pub fn written(&self) -> (u64, u64) {
        self.topics.iter().map(SinkTopic::counts).fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1))
    }

    /// Compares the view with what clients know.
    fn check_view(&self, process: &Process) {
        if let Some(served) = &process.served {
            RUNTIME.block_on(served.check(&self.clients.partitions));
        }
    }

    /// Writes, archives and publishes everything that waits.
    fn finish(&mut self, process: &Process) {
        let Process { logs, archivers, .. } = process;
        for (partition, log) in logs.partitions.iter().enumerate() {
            while self.clients.step(&self.disk, log, partition).expect("writes") {}
            while archivers.step(partition) {}
            archivers.flush(partition);
        }
        self.run_view(process);
        self.find_published();
    }

    /// Compares the archive with what clients know. Returns the number of its events by partition.
    fn archived(&mut self) -> Vec<u64> {
        RUNTIME.block_on(self.contents.check(&self.store.objects(), &self.stream, &self.clients.partitions))
    }
}
