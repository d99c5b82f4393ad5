//! Runs a test again in namespaces of its own: its mounts are invisible to the rest of the machine, and they, their loop
//! devices and all processes are gone when it ends, however it ends.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::disk::{Disk, Switch};

/// Set in the process that runs in the namespaces.
const INSIDE: &str = "TRUEUP_POWER_CUT_INSIDE";

fn unshared() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.stdin(Stdio::null());
    command
}

/// Returns whether the test `name` has to be run here: in namespaces, on a machine that permits them and the disks.
/// Otherwise the test has passed there, or a message says why it was skipped.
///
/// # Panics
/// If the test fails in the namespaces.
pub fn is_inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let permitted = unshared().arg("true").output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        skipped(name, "it needs root, for namespaces and loop devices");
        return false;
    }
    let test = std::env::current_exe().expect("the path of the test");
    let mut child = unshared()
        .arg(test)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare starts");
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    for line in output.lines().map_while(Result::ok) {
        println!("{line}");
    }
    assert!(child.wait().expect("it ends").success(), "{name} failed");
    false
}

/// Returns whether file systems can be mounted and shut down here. Otherwise a message says why the test is skipped.
pub fn has_disks(name: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let attempt = || {
        let disk = Disk::new(folder.path().join("image"), folder.path().join("disk"), "data=ordered")?;
        let disks = [disk];
        Switch::of(&disks)?.cut()
    };
    attempt().inspect_err(|why| skipped(name, why)).is_ok()
}

fn skipped(name: &str, why: &str) {
    eprintln!("SKIPPED: {name}: {why}");
    println!("SKIPPED: {name}: {why}");
}
