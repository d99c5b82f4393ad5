//! Tests through the real binary that errors of the log's disk refuse events or end the process, and that neither loses an
//! acknowledged event nor brings back a refused one.

use std::path::PathBuf;

use serde_json::json;
use world::World;

const EIO: &str = "5";
const EMFILE: &str = "24";
const ENOSPC: &str = "28";
const EDQUOT: &str = "122";

const DEFINITIONS: &str = "
    CREATE STREAM sales (at TIMESTAMP, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1 day');
    CREATE VIEW totals AS SELECT COUNT(*) AS n FROM sales;";

/// A server whose log gets an error while a file names it.
struct Faulty {
    world: World,
    fault: String,
    faults: PathBuf,
}

impl Faulty {
    fn new(fault: &str, limits: &str) -> Faulty {
        let faults = tempfile::tempdir().expect("a folder").keep().join("faults");
        let path = faults.display().to_string();
        let mut world = World::with_environment(DEFINITIONS, &[("TRUEUP_FAULTS", path.as_str())]);
        if !limits.is_empty() {
            world.stop();
            world.set_limits(limits);
            world.start();
        }
        Faulty { world, fault: fault.to_owned(), faults }
    }

    fn breaks(&self) {
        std::fs::write(&self.faults, &self.fault).expect("writes");
    }

    fn heals(&self) {
        std::fs::remove_file(&self.faults).expect("removes");
    }

    /// Sends ten events; returns the status, or 0 without a response.
    fn send(&self) -> u16 {
        let body = "{\"at\":\"2001-01-01T10:00:00Z\",\"amount\":1}\n".repeat(10);
        self.world.try_post("/v1/events/sales", body.into_bytes(), &[]).map_or(0, |answer| answer.status)
    }

    fn counted(&self) -> u64 {
        let rows = self.world.rows("totals", "");
        assert_eq!(rows["complete"], json!(true), "{}", rows["ledger"]);
        rows["rows"][0]["n"].as_u64().expect("a number")
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.faults.parent().expect("a folder"));
    }
}

#[test]
fn a_full_disk_or_quota_at_a_write_or_a_sync_is_507_and_refused_events_never_count() {
    for fault in
        ["log-write", "log-sync"].iter().flat_map(|step| [ENOSPC, EDQUOT].map(|errno| format!("{step}:{errno}")))
    {
        let mut faulty = Faulty::new(&fault, "");
        assert_eq!(faulty.send(), 200);
        faulty.breaks();
        assert_eq!([faulty.send(), faulty.send()], [507, 507], "{fault}");
        assert_eq!(faulty.counted(), 10, "{fault}");
        faulty.world.kill();
        faulty.heals();
        faulty.world.start();
        assert_eq!(faulty.counted(), 10, "{fault}, after a restart");
        faulty.breaks();
        assert_eq!(faulty.send(), 507, "{fault}");
        faulty.heals();
        assert_eq!((faulty.send(), faulty.counted()), (200, 20), "{fault}");
    }
}

#[test]
fn too_many_open_files_refuse_events_once_the_spare_segment_is_used_and_do_not_end_the_process() {
    let faulty = Faulty::new(&format!("log-create:{EMFILE}"), "log_segment_bytes = 1000\n");
    assert_eq!(faulty.send(), 200);
    faulty.breaks();
    let mut accepted = 10;
    let refused = loop {
        match faulty.send() {
            200 => accepted += 10,
            status => break status,
        }
        assert!(accepted < 10_000, "no segment was needed");
    };
    assert_eq!((refused, faulty.counted()), (507, accepted));
    faulty.heals();
    assert_eq!((faulty.send(), faulty.counted()), (200, accepted + 10));
}

#[test]
fn after_a_failed_sync_the_next_start_writes_the_events_in_doubt_again_or_does_not_start() {
    let mut faulty = Faulty::new(&format!("log-sync:{EIO}"), "");
    assert_eq!(faulty.send(), 200);
    faulty.breaks();
    assert_ne!(faulty.send(), 200);
    let (code, log) = faulty.world.end_by_itself();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.lines().last().is_some_and(|line| line.contains("sync of the log failed")), "{log}");

    // The page cache has the events, the disk may not: without a write that succeeds they must not count.
    faulty.fault = format!("log-write:{EIO}");
    faulty.breaks();
    let (code, log) = faulty.world.start_refused();
    assert_eq!(code, Some(1), "{log}");
    faulty.heals();
    faulty.world.start();
    let counted = faulty.counted();
    assert!(counted == 20 || counted == 10, "the events in doubt are there or not, but not in part: {counted}");
    faulty.world.kill();
    faulty.world.start();
    assert_eq!(faulty.counted(), counted);
}
