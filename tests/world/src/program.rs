//! Runs the `trueup` binary under test, always in a temporary folder: a command that writes to its working folder must
//! not change the source tree.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Returns the path of the binary. Cargo builds it before the integration tests, in the folder above theirs.
///
/// # Panics
/// If it is not there: the test was built without it.
pub fn path() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let beside = test.ancestors().nth(2).expect("the test is in a folder of the build").join("trueup");
    let path = std::env::var_os("CARGO_BIN_EXE_trueup").map_or(beside, PathBuf::from);
    assert!(path.is_file(), "{} does not exist: run the test with `cargo test --test NAME`", path.display());
    path
}

/// Returns a command of the program that runs in `folder`, without input.
pub fn trueup_in(folder: &Path) -> Command {
    let mut command = Command::new(path());
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs the program with `arguments` in an empty folder; returns its exit code, and its output with its errors.
pub fn trueup(arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = trueup_in(folder.path()).args(arguments).output().expect("trueup runs");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("the folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{arguments:?} wrote into the working folder: {left:?}");
    (output.status.code(), text(&output))
}

/// Returns the Python interpreter with the packages of `tests/python/requirements.txt`; `None`, with a message, if
/// `TRUEUP_PYTHON` does not name it.
///
/// # Panics
/// In CI, where `.ci/run` names it.
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os("TRUEUP_PYTHON").map(PathBuf::from);
    assert!(python.is_some() || std::env::var_os("CI").is_none(), "TRUEUP_PYTHON is not set to an interpreter");
    if python.is_none() {
        eprintln!(
            "SKIPPED: TRUEUP_PYTHON is not set to an interpreter with the packages of tests/python/requirements.txt"
        );
    }
    python
}

/// Returns what a command printed, errors last.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
