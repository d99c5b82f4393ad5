//! A server on disks whose power is cut while clients use it, again and again.

use std::fmt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

use crate::clients::{Answer, Importer, Operator, Reader, Signals, Writer};
use crate::disk::{Disk, Switch};
use crate::expected::{self, DEFINITIONS, Part, Request, VIEWS, check, check_kept, figures};

/// Mount options. Without barriers the image file need not be synced, which is faster and the same for this purpose. With
/// `writeback` and `nodelalloc`, files have their new length before their new content.
const MOUNTS: [&str; 4] =
    ["data=ordered,nobarrier", "data=ordered,barrier", "data=writeback,nodelalloc,nobarrier", "data=journal,nobarrier"];
/// Longest wait for the answer after which the power is cut.
const ANSWER_WAIT: Duration = Duration::from_millis(800);
/// Rounds after which all views are recomputed.
const ROUNDS_TO_RECOMPUTE: u64 = 5;

/// What happened, over all sites.
#[derive(Debug, Default)]
pub struct Counts {
    pub cuts: u64,
    pub cuts_of_starts: u64,
    pub requests: u64,
    pub repeated: u64,
    pub runs: u64,
    pub compactions: u64,
    pub imports: u64,
    pub sites: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.cuts += other.cuts;
        self.cuts_of_starts += other.cuts_of_starts;
        self.requests += other.requests;
        self.repeated += other.repeated;
        self.runs += other.runs;
        self.compactions += other.compactions;
        self.imports += other.imports;
        self.sites += other.sites;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { cuts, cuts_of_starts, requests, repeated, runs, compactions, imports, sites } = self;
        write!(
            f,
            "{cuts} power cuts ({cuts_of_starts} during a start) on {sites} sites: {requests} requests acknowledged, \
             {repeated} repeated, {runs} runs, {compactions} compactions, {imports} files imported; none lost or doubled"
        )
    }
}

/// The moment of a cut.
#[derive(Debug, Clone, Copy)]
enum Moment {
    After(Duration),
    /// A moment after so many answers of a kind.
    Answered(Answer, u32, Duration),
}

impl Moment {
    fn random(random: &mut StdRng) -> Moment {
        let soon = Duration::from_micros(*[0, 0, 100, 1_000, 5_000].choose(random).expect("delays"));
        match random.random_range(0..10) {
            0..3 => Moment::After(Duration::from_micros(random.random_range(0..400_000))),
            3..5 => Moment::Answered(Answer::Acknowledged, random.random_range(1..20), soon),
            5..7 => Moment::Answered(Answer::Published, random.random_range(1..3), soon),
            7..9 => Moment::Answered(Answer::Imported, 1, soon),
            _ => Moment::Answered(Answer::Compacted, random.random_range(1..3), soon),
        }
    }

    fn wait(self, answers: &Receiver<Answer>) {
        let (kind, mut missing, soon) = match self {
            Moment::After(duration) => return std::thread::sleep(duration),
            Moment::Answered(kind, number, soon) => (kind, number, soon),
        };
        let until = Instant::now() + ANSWER_WAIT;
        while missing > 0 {
            match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(answer) => missing -= u32::from(answer == kind),
                Err(_) => break,
            }
        }
        std::thread::sleep(soon);
    }
}

/// Stops processes (0 is none) and waits until no thread of theirs runs; those inside a system call of the disk return to
/// their program no more. Otherwise a server would trust a sync that the cut interrupts: the kernel reports its success.
fn stop(processes: &[u32]) {
    for process in processes.iter().filter(|process| **process != 0) {
        // A process that has ended need not be stopped.
        let stopped = Command::new("kill").args(["-STOP", &process.to_string()]).stderr(Stdio::null()).status();
        if stopped.is_ok_and(|status| status.success()) {
            while threads(*process).iter().any(|state| !matches!(state, 'T' | 't' | 'D' | 'Z' | 'X')) {
                std::thread::yield_now();
            }
        }
    }
}

/// Returns the states of a process's threads: `T` is stopped, `D` waits for the disk.
fn threads(process: u32) -> Vec<char> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let state = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        // The name before it may hold any character.
        stat.rsplit_once(") ")?.1.chars().next()
    };
    tasks.filter_map(state).collect()
}

/// A server on one or two disks, and its clients.
pub struct Site {
    context: String,
    random: StdRng,
    world: World,
    disks: Vec<Disk>,
    writers: Vec<Writer>,
    operator: Operator,
    reader: Reader,
    importer: Importer,
    rounds: u64,
    seen: Counts,
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.world.is_alive() {
            self.world.kill();
        }
        // The last disk may be mounted on the first one; the folder below them is removed after this.
        while self.disks.pop().is_some() {}
    }
}

impl Site {
    pub fn new(seed: u64) -> Site {
        let mut random = StdRng::seed_from_u64(seed);
        let options = *MOUNTS.choose(&mut random).expect("options");
        let mut world = World::stopped(DEFINITIONS);
        let store = world.store();
        let mut disks = vec![Disk::new(world.data.path().join("image"), store.clone(), options).expect("a disk")];
        // With a disk of its own, a sync of the log does not write the journal of the lake.
        let two = random.random_bool(0.6);
        if two {
            let image = world.data.path().join("lake.image");
            disks.push(Disk::new(image, store.join("lake"), options).expect("a disk"));
        }
        let limits = format!(
            "log_segment_bytes = {}\narchive_wait_ms = {}\ncompaction_every_ms = {}\nvacuum_every_ms = 100\nvacuum_age_ms = 0\n\
             dedup_horizon_events = {}\nrun_retry_first_ms = 20\n",
            [4_096, 65_536].choose(&mut random).expect("sizes"),
            [1, 20, 200].choose(&mut random).expect("waits"),
            [0, 50].choose(&mut random).expect("intervals"),
            [500, 1 << 22].choose(&mut random).expect("horizons"),
        );
        let context = format!("TRUEUP_SEED={seed}, {options}, {} disks", disks.len());
        world.set_limits(&limits);
        world.start();
        let writers = [("keyed", "a"), ("keyed", "b"), ("plain", "c"), ("plain", "d")];
        let writer = |(stream, name): (&'static str, &str)| Writer::new(stream, name.to_owned(), random.random());
        let writers = writers.map(writer).into();
        let (operator, importer) = (Operator::new(random.random()), Importer::new(random.random()));
        let (reader, seen) = (Reader::new(), Counts { sites: 1, ..Counts::default() });
        Site { context, random, world, disks, writers, operator, reader, importer, rounds: 0, seen }
    }

    /// Lets the clients work, cuts the power, starts the server again and checks it. Returns the number of cuts.
    ///
    /// # Panics
    /// If something was lost, doubled or went back.
    pub fn cut_and_check(&mut self) -> u64 {
        self.rounds += 1;
        let moment = Moment::random(&mut self.random);
        self.work_until(moment);
        self.remount();
        let is_start_cut = self.random.random_bool(0.15);
        if is_start_cut {
            self.cut_start();
            self.seen.cuts_of_starts += 1;
        }
        self.world.start();
        self.check().unwrap_or_else(|error| {
            panic!("{}, round {}, cut {moment:?}: {error}\n{}", self.context, self.rounds, self.world.log())
        });
        1 + u64::from(is_start_cut)
    }

    /// Recomputes everything and returns what happened.
    pub fn finish(mut self) -> Counts {
        self.recompute().unwrap_or_else(|error| panic!("{}, at the end: {error}", self.context));
        self.seen.requests = self.writers.iter().map(|writer| writer.acknowledged.len() as u64).sum();
        self.seen.runs = self.operator.runs;
        self.seen.compactions = self.operator.compactions;
        self.seen.imports = self.importer.imported.len() as u64;
        std::mem::take(&mut self.seen)
    }

    /// Starts the clients, and cuts the power at `moment`.
    fn work_until(&mut self, moment: Moment) {
        let mut switch = Switch::of(&self.disks).expect("a switch");
        let ingest = matches!(moment, Moment::Answered(Answer::Imported, ..)) || self.random.random_bool(0.2);
        let ingest = ingest.then(|| self.ingest());
        let Site { world, writers, operator, reader, importer, .. } = self;
        let url = world.url().to_owned();
        let (answers, received) = channel();
        let signals = Signals { over: AtomicBool::new(false), answers, ingest: AtomicU32::new(0) };
        let cut = std::thread::scope(|scope| {
            for writer in writers {
                scope.spawn(|| writer.run(&url, &signals));
            }
            scope.spawn(|| operator.run(&url, &signals));
            scope.spawn(|| reader.run(&url, &signals));
            if let Some(ingest) = ingest {
                scope.spawn(|| importer.run(ingest, &signals));
            }
            moment.wait(&received);
            stop(&[world.id(), signals.ingest.load(Ordering::SeqCst)]);
            let cut = switch.cut();
            world.kill();
            signals.over.store(true, Ordering::Relaxed);
            cut
        });
        cut.expect("the power is cut");
    }

    /// Cuts the power while the server starts.
    fn cut_start(&mut self) {
        let mut switch = Switch::of(&self.disks).expect("a switch");
        let wait = Duration::from_micros(self.random.random_range(0..120_000));
        let world = &mut self.world;
        let cut = std::thread::scope(|scope| {
            let cut = scope.spawn(move || {
                std::thread::sleep(wait);
                let cut = switch.cut();
                drop(switch);
                cut
            });
            world.start_whatever_comes();
            cut.join().expect("no panic")
        });
        cut.expect("the power is cut");
        self.world.kill();
        self.remount();
    }

    fn remount(&mut self) {
        for disk in self.disks.iter_mut().rev() {
            disk.unmount().expect("unmounts");
        }
        for disk in &mut self.disks {
            disk.mount().expect("mounts");
        }
    }

    /// Returns a command that imports the pending file, or a new one.
    fn ingest(&mut self) -> Command {
        let request = self.importer.next();
        let file = self.world.data.path().join(format!("{}.ndjson", request.name));
        std::fs::write(&file, request.body()).expect("writes");
        let mut command = self.world.trueup();
        command.args(["ingest", "keyed", "--historical", "--definitions"]).arg(self.world.definitions());
        command.arg("--data").arg(self.world.store()).arg(file);
        command
    }

    fn check(&mut self) -> Result<(), String> {
        for (_, view) in VIEWS {
            let now = self.world.get(&format!("/v1/views/{view}")).json()["seam"]["version"].as_i64().unwrap_or(0);
            for versions in [&self.operator.versions, &self.reader.versions] {
                let before = versions.get(view).copied().unwrap_or(0);
                if now < before {
                    return Err(format!("{view}: version {now} is served, and version {before} was"));
                }
            }
            let now = self.complete(view);
            if let Some(before) = self.reader.figures.get(view) {
                check_kept(before, &now).map_err(|error| format!("{view}: {error}"))?;
            }
        }
        self.check_figures(Part::AllOrNothing).map_err(|error| format!("after the start: {error}"))?;
        self.seen.repeated += self.writers.iter().filter(|writer| writer.pending.is_some()).count() as u64;
        let url = self.world.url().to_owned();
        self.writers.iter_mut().for_each(|writer| writer.repeat(&url));
        let is_import_pending = self.importer.pending.is_some();
        if is_import_pending {
            let ingest = self.ingest();
            self.importer.repeat(ingest);
        }
        self.check_figures(Part::AllOrNothing).map_err(|error| format!("after the repeated requests: {error}"))?;
        if is_import_pending || self.rounds.is_multiple_of(ROUNDS_TO_RECOMPUTE) { self.recompute() } else { Ok(()) }
    }

    /// Runs all views, after which historical events are in them, too.
    fn recompute(&mut self) -> Result<(), String> {
        for (_, view) in VIEWS {
            let run = self.world.run(view, self.random.random_bool(0.5));
            if run["state"] != json!("published") {
                return Err(format!("the run of {view}: {run}"));
            }
        }
        self.check_figures(Part::All).map_err(|error| format!("after the runs: {error}"))
    }

    /// Checks both views. `imported` is how much of the historical events they must have.
    fn check_figures(&self, imported: Part) -> Result<(), String> {
        for (stream, view) in VIEWS {
            let writers = || self.writers.iter().filter(|writer| writer.stream() == stream);
            let acknowledged =
                writers().flat_map(|writer| writer.acknowledged.iter().map(|request| (request, Part::All)));
            // The request of a stream with one partition is one write.
            let part = if stream == "plain" { Part::AllOrNothing } else { Part::Any };
            let pending = writers().flat_map(|writer| writer.pending.iter().map(move |request| (request, part)));
            let files: &[Request] = if stream == "keyed" { &self.importer.imported } else { &[] };
            let files = files.iter().map(|file| (file, imported));
            let file =
                self.importer.pending.iter().filter(|_| stream == "keyed").map(|file| (file, Part::AllOrNothing));
            check(self.complete(view), acknowledged.chain(pending).chain(files).chain(file))
                .map_err(|error| format!("{view}: {error}"))?;
        }
        Ok(())
    }

    /// Returns the figures of a view once they are complete: a view over historical events starts a first run by itself.
    fn complete(&self, view: &str) -> expected::Figures {
        let mut rows = Value::Null;
        self.world.wait_for("complete figures", |world| {
            rows = world.rows(view, "");
            rows["complete"] == json!(true)
        });
        figures(&rows)
    }
}
