//! Does harm to the server, as the seed says: kills it at random moments and at named points, stops it for a moment, makes
//! the calls of its disk fail, takes its lake away, and declares one more view.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use world::World;
use world::s3::S3;

use crate::definitions::{LIMITS, definitions};
use crate::history::{Operation, Recorder};

/// Points at which the server is killed: after the events are durable and before they are acknowledged, and so on.
const POINTS: [&str; 14] = [
    "acknowledge",
    "hand-over",
    "log-sync",
    "log-rename",
    "archive-commit",
    "archive-release",
    "cut",
    "recompute",
    "commit",
    "publish",
    "retire",
    "compaction-commit",
    "lake-rename",
    "vacuum-files",
];
/// Errors of the log's disk: refused events, and an end of the process.
const LOG_ERRORS: [&str; 5] = ["log-sync:28", "log-write:122", "log-create:24", "log-sync:5", "log-write:5"];
/// Errors of the lake's disk: it is away, full, or cannot be read.
const LAKE_ERRORS: [&str; 4] = ["lake-*:5", "lake-write:28", "lake-read:5", "lake-sync-folder:122"];

/// A server under attack.
pub struct Nemesis<'a> {
    pub world: World,
    recorder: &'a Recorder,
    random: StdRng,
    faults: PathBuf,
    listen: String,
    has_added: bool,
    /// The store of the lake, unless that is a folder.
    store: Option<Arc<S3>>,
}

impl<'a> Nemesis<'a> {
    /// Starts the server, over a local lake or over `store`.
    pub fn new(recorder: &'a Recorder, random: StdRng, store: Option<Arc<S3>>) -> Nemesis<'a> {
        let place = store.as_ref().map(|store| store.place());
        let limits = LIMITS.to_owned() + place.as_ref().map_or("", |place| place.limits.as_str());
        let mut world = match place {
            Some(place) => World::elsewhere(&definitions(false), place),
            None => World::new(&definitions(false)),
        };
        let faults = world.data.path().join("faults");
        let listen = world.url().trim_start_matches("http://").to_owned();
        assert_eq!(world.stop(), Some(0));
        world.set_environment(&[("TRUEUP_FAULTS", &faults.display().to_string())]);
        world.set_limits(&limits);
        world.start_at(&listen);
        Nemesis { world, recorder, random, faults, listen, has_added: false, store }
    }

    fn note(&self, what: impl Into<String>) {
        self.recorder.note("nemesis", Operation::Fault { what: what.into() });
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.random.random_range(0..of.len())]
    }

    fn sleep(&mut self, from_ms: u64, to_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(from_ms..to_ms)));
    }

    /// Does one kind of harm, and ends it.
    pub fn strike(&mut self) {
        self.sleep(30, 350);
        match self.random.random_range(0..12) {
            0..3 => self.kill(),
            3..6 => self.kill_at_a_point(),
            6 => self.freeze(),
            7 | 8 => self.refuse(&LOG_ERRORS),
            9 | 10 => self.take_the_lake_away(),
            _ => self.restart_with_another_view(),
        }
        self.recover();
    }

    fn kill(&mut self) {
        self.note("kill -9");
        self.world.kill();
    }

    fn kill_at_a_point(&mut self) {
        let point = self.pick(&POINTS);
        self.note(format!("kill at {point}"));
        self.inject(&format!("{point}:abort"));
        self.wait_for_end(600);
    }

    fn freeze(&mut self) {
        let process = self.world.id().to_string();
        let signal =
            |name: &str| assert!(Command::new("kill").args([name, &process]).status().expect("kill runs").success());
        self.note("SIGSTOP");
        signal("-STOP");
        self.sleep(100, 500);
        signal("-CONT");
        self.note("SIGCONT");
    }

    fn refuse(&mut self, faults: &[&'static str]) {
        let fault = self.pick(faults);
        self.note(fault);
        self.inject(fault);
        let patience = self.random.random_range(50..500);
        self.wait_for_end(patience);
    }

    fn take_the_lake_away(&mut self) {
        let Some(store) = self.store.clone() else { return self.refuse(&LAKE_ERRORS) };
        let is_away = self.random.random_bool(0.5);
        self.note(if is_away { "store away" } else { "store faulty" });
        store.proxy.set_away(is_away);
        store.proxy.set_faulty(true);
        self.sleep(100, 800);
    }

    fn restart_with_another_view(&mut self) {
        self.note(if self.has_added { "clean restart" } else { "clean restart with one more view" });
        assert_eq!(self.world.stop(), Some(0));
        self.has_added = true;
        self.world.redefine(&definitions(true));
    }

    fn inject(&self, fault: &str) {
        let unfinished = self.faults.with_extension("new");
        std::fs::write(&unfinished, fault).expect("the fault can be written");
        std::fs::rename(&unfinished, &self.faults).expect("the fault gets its name");
    }

    /// Waits until the server has ended by itself, at most for a while.
    fn wait_for_end(&mut self, patience_ms: u64) {
        for _ in 0..patience_ms / 5 {
            if !self.world.is_running() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends all faults and starts the server again if it has ended.
    pub fn recover(&mut self) {
        let _ = std::fs::remove_file(&self.faults);
        if let Some(store) = &self.store {
            store.proxy.set_away(false);
            store.proxy.set_faulty(false);
        }
        // After an error that leaves the log in doubt, the process ends, but not at once.
        if self.world.log().contains("the log failed; no further writes") {
            self.wait_for_end(10_000);
        }
        if self.world.is_running() {
            return self.note("healed");
        }
        if self.world.is_alive() {
            let (code, log) = self.world.end_by_itself();
            // An abort at a point, or a layer that failed; anything else is a defect.
            let is_abort = code.is_none() && log.contains("aborting at an injected fault");
            assert!(is_abort || code == Some(4), "the server ended with {code:?}:\n{log}");
        }
        let listen = self.listen.clone();
        self.world.start_at(&listen);
        self.note("started");
    }

    /// Declares the other view, if it is not declared yet: the end of a history checks every view.
    pub fn add_view(&mut self) {
        if !self.has_added {
            self.restart_with_another_view();
            self.recover();
        }
    }
}
