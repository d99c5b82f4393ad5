//! Runs the archivers of a stream, step by step, and lets runs wait for them.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use intake::archive::{ArchiverContext, ArchiverSettings, READER, StepwiseArchiver};
use lake::Lake;
use parking_lot::Mutex;
use shared::handoff::{Archive, HandoffError};
use shared::ids::{Partition, StreamName};
use shared::seam::Cut;
use shared::stream::Stream;
use shared::vital::Vitals;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::dice::Dice;
use crate::disk::{Crash, Disk};
use crate::logs::Logs;
use crate::store::Store;

/// The archivers of all partitions.
pub struct Archivers {
    all: Mutex<Vec<StepwiseArchiver>>,
    /// Has the trace.
    disk: Disk,
    store: Store,
}

impl Archivers {
    /// Attaches an archiver to each of `logs`, which must not have been started.
    pub fn attach(
        logs: &Arc<Logs>,
        stream: &Arc<Stream>,
        lake: &Lake,
        runtime: &Handle,
        dice: &mut Dice,
        (disk, store): (&Disk, &Store),
    ) -> Archivers {
        let settings = ArchiverSettings {
            file_rows: dice.one(&[10, 1_000]),
            queue_bytes_max: dice.one(&[1, 1_000_000]),
            retry_first: Duration::ZERO,
            retry_max: Duration::ZERO,
            ..ArchiverSettings::default()
        };
        let context = ArchiverContext {
            lake: lake.clone(),
            log: Arc::clone(logs) as _,
            retention: Arc::clone(logs) as _,
            runtime: runtime.clone(),
            vitals: Vitals::default(),
        };
        let mut all = Vec::new();
        for (partition, log) in (0..).map(Partition).zip(&logs.partitions) {
            log.register_live_reader(READER, u64::MAX);
            let archiver = StepwiseArchiver::new(stream, partition, context.clone(), settings);
            log.attach(archiver.sink());
            all.push(archiver);
        }
        let stoppers: Vec<_> = all.iter().map(StepwiseArchiver::stopper).collect();
        store.on_crash(move || stoppers.iter().for_each(|stop| stop()));
        Archivers { all: Mutex::new(all), disk: disk.clone(), store: store.clone() }
    }

    /// Lets the archiver of a partition process its next item. Returns whether there was one.
    pub fn step(&self, partition: usize) -> bool {
        self.work(partition, StepwiseArchiver::step)
    }

    /// Lets the archiver of a partition commit what it has.
    pub fn flush(&self, partition: usize) {
        self.work(partition, |archiver| archiver.flush().map(|()| true));
    }

    fn work(&self, partition: usize, work: impl FnOnce(&mut StepwiseArchiver) -> Result<bool, String>) -> bool {
        let archiver = &mut self.all.lock()[partition];
        let worked = work(archiver);
        self.disk.note(format!("archiver of {partition}: {worked:?}, archived {:?}", archiver.archived()));
        if self.store.has_crashed() {
            resume_unwind(Box::new(Crash));
        }
        worked.unwrap_or_else(|error| panic!("the archiver of {partition} ended: {error}"))
    }

    fn reaches(&self, cut: &Cut) -> bool {
        let all = self.all.lock();
        let archived = |partition: u32| all[partition as usize].archived();
        cut.0.iter().all(|(partition, point)| archived(partition.0).is_some_and(|archived| archived >= point.offset))
    }
}

impl Archive for Archivers {
    /// Works until the archive has every event before `cut`, on the thread of the caller.
    fn archived(&self, _: &StreamName, cut: &Cut) -> BoxFuture<'_, Result<(), HandoffError>> {
        let cut = cut.clone();
        let work = move || {
            let partitions = self.all.lock().len();
            while !self.reaches(&cut) {
                let worked = (0..partitions).filter(|partition| self.step(*partition)).count();
                assert!(worked > 0 || self.reaches(&cut), "the archivers have nothing to do before {cut:?}");
            }
            Ok(())
        };
        async move { block_in_place(work) }.boxed()
    }
}
