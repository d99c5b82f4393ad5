//! Tests with power cuts that no acknowledged event is lost or counted twice, and that nothing that was served goes back.
//!
//! The server runs on small ext4 file systems in image files ([`disk`]), while [`clients`] send events, request runs and
//! compactions and import historical events. At a random moment, often right after a client got an answer, the file systems
//! are shut down without writing their journals (`EXT4_IOC_SHUTDOWN`): whatever was not synced is lost. Then the server is
//! killed and started again over what is left, and [`site`] compares it with [`expected`] figures.
//!
//! By default there are 20 cuts; `.ci/run` makes 200. For a long search:
//!
//! `TRUEUP_POWER_CUTS=2000 TRUEUP_POWER_CUT_SECONDS=1500 TRUEUP_SEED=7 cargo test --release --test power_cut -- --nocapture`
//!
//! The test needs root, and runs in namespaces of its own ([`namespace`]). Where that is not possible, it is skipped.

mod clients;
mod disk;
mod expected;
mod namespace;
mod site;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use disk::{Disk, Switch};
use site::Site;

/// Cuts if `TRUEUP_POWER_CUTS` is not set, and their longest time in seconds if `TRUEUP_POWER_CUT_SECONDS` is not.
const CUTS: u64 = 20;
const SECONDS_MAX: u64 = 180;
/// Sites at the same time.
const SITES: u64 = 2;
/// Cuts of one site, after which it is replaced by an empty one.
const CUTS_PER_SITE: u64 = 20;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn no_acknowledged_event_is_lost_by_a_power_cut() {
    let name = "no_acknowledged_event_is_lost_by_a_power_cut";
    if !namespace::is_inside(name) || !namespace::has_disks(name) {
        return;
    }
    let seed = number("TRUEUP_SEED").unwrap_or_else(rand::random);
    println!("TRUEUP_SEED={seed}");
    let wanted = number("TRUEUP_POWER_CUTS").unwrap_or(CUTS);
    let seconds = number("TRUEUP_POWER_CUT_SECONDS").unwrap_or(SECONDS_MAX);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (begin, cuts, sites) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0));
    let is_over = || cuts.load(Ordering::Relaxed) >= wanted || Instant::now() >= until;
    let mut seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SITES)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = site::Counts::default();
                    while !is_over() {
                        let site_seed = seed.wrapping_add(sites.fetch_add(1, Ordering::Relaxed));
                        let mut site = Site::new(site_seed);
                        for _ in 0..CUTS_PER_SITE {
                            if is_over() {
                                break;
                            }
                            cuts.fetch_add(site.cut_and_check(), Ordering::Relaxed);
                        }
                        seen.add(&site.finish());
                        println!("{} cuts, {} s", cuts.load(Ordering::Relaxed), begin.elapsed().as_secs());
                    }
                    seen
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).fold(
            site::Counts::default(),
            |mut all, seen| {
                all.add(&seen);
                all
            },
        )
    });
    seen.cuts = cuts.into_inner();
    println!("{seen} in {} s, {wanted} cuts wanted, seed {seed}", begin.elapsed().as_secs());
    assert!(seen.cuts > 0, "no cut");
}

/// A cut does what a power failure does: synced files are there afterwards, others are lost.
#[test]
fn a_cut_keeps_what_was_synced_and_loses_the_rest() {
    let name = "a_cut_keeps_what_was_synced_and_loses_the_rest";
    if !namespace::is_inside(name) || !namespace::has_disks(name) {
        return;
    }
    // The kernel writes the journal every few seconds by itself, which may be just now.
    let lost = (0..3).any(|_| loses_unsynced_names("data=ordered") && loses_unsynced_names("data=writeback,nobarrier"));
    assert!(lost, "files that were not synced are there after a cut");
}

fn loses_unsynced_names(options: &'static str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut disks = [Disk::new(folder.path().join("image"), folder.path().join("disk"), options).expect("a disk")];
    let path = disks[0].path().to_owned();
    let write = |name: &str| {
        let mut file = File::create(path.join(name)).expect("creates");
        file.write_all(b"content").expect("writes");
        file
    };
    write("kept").sync_all().expect("syncs");
    write("renamed.new").sync_all().expect("syncs");
    sync(&path);
    let mut switch = Switch::of(&disks).expect("a switch");
    fs::rename(path.join("renamed.new"), path.join("renamed")).expect("renames");
    drop(write("lost"));
    switch.cut().expect("cuts");
    drop(switch);
    disks[0].unmount().expect("unmounts");
    disks[0].mount().expect("mounts");
    assert_eq!(fs::read(path.join("kept")).expect("a synced file"), b"content");
    !path.join("lost").exists() && !path.join("renamed").exists() && path.join("renamed.new").exists()
}

fn sync(folder: &Path) {
    File::open(folder).expect("a folder").sync_all().expect("syncs");
}
