//! Runs servers of other systems, which end with the test, however that ends: also when it is killed, alone or with all processes
//! of its group.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Starts the server in a process group of its own, with its output in the file `out`. Ends that group and removes the folder
/// when its input ends. The file `keep` keeps the folder.
const GUARD: &str = r#"set -m; folder=$1; shift; "$@" </dev/null >>"$folder/out" 2>&1 & server=$!
    read _; kill -9 -- -$server; wait $server 2>/dev/null; [ -e "$folder/keep" ] || rm -rf "$folder""#;

/// A running server.
pub struct Guarded {
    guard: Child,
    input: Option<ChildStdin>,
}

impl Guarded {
    /// Starts a command in `folder`.
    pub fn start(server: &Command, folder: &Path) -> Guarded {
        let mut command = Command::new("bash");
        command.args(["-c", GUARD, "guard"]).arg(folder).arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // A signal to the group of the test must not end the guard before it has ended the server.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let quiet = command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut guard = quiet.spawn().expect("bash runs");
        let input = guard.stdin.take();
        Guarded { guard, input }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.guard.wait();
    }
}

/// The process group of a process; `None`: there is no such process.
fn group(id: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(") ").next()?.split(' ').collect();
    // A process that has ended and was not waited for.
    (fields[0] != "Z").then(|| fields[2].to_owned())
}

#[test]
fn a_server_with_its_children_ends_with_the_guard_which_is_in_a_group_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut command, child) = (Command::new("bash"), folder.path().join("child"));
    command.args(["-c", "sleep 1000 & echo $! > started; mv started child; wait"]);
    let server = Guarded::start(&command, folder.path());
    while !child.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let child = std::fs::read_to_string(child).expect("a number").trim().to_owned();
    let (own, guard) = (group(&std::process::id().to_string()), server.guard.id().to_string());
    assert_eq!(group(&guard).as_ref(), Some(&guard), "a signal to the group of the test does not reach the guard");
    let servers = group(&child).expect("it runs");
    assert!(servers != guard && Some(&servers) != own.as_ref(), "{servers}");
    drop(server);
    while group(&child).is_some() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!folder.path().exists());
}
