//! Limits the number of threads for batch runs, and starts the process again.
//!
//! Polars reads the number from the environment once, when it is first used. To set it, the process re-executes itself
//! (same PID) before anything else has started.

use std::io;
use std::num::NonZeroUsize;
use std::process::Command;

use crate::exit::{FAILED, Failure};

/// The environment variable that Polars reads. If the user has set it, it wins.
const THREADS_VARIABLE: &str = "POLARS_MAX_THREADS";

/// Returns the default number of threads for batch runs: all cores but one, which is left to the speed layer.
pub fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.saturating_sub(1)).unwrap_or(NonZeroUsize::MIN)
}

/// Makes batch runs use `threads` threads. Returns if they already do, or if the process cannot re-execute itself.
pub fn limit_batch_threads(threads: NonZeroUsize) {
    if std::env::var_os(THREADS_VARIABLE).is_some() {
        return;
    }
    let error = execute(|command| {
        command.env(THREADS_VARIABLE, threads.to_string());
    });
    tracing::warn!(%error, "cannot limit the threads of batch runs: they use all cores");
}

/// Executes the program again, with the same process id, arguments and environment. Returns only if that fails.
pub fn start_again() -> Failure {
    let error = execute(|_| ());
    Failure::new(FAILED, format!("cannot start again: {error}; start trueup to read the new partitions"))
}

/// Executes the program again, as `change` changes the command. Returns only if that fails.
fn execute(change: impl FnOnce(&mut Command)) -> io::Error {
    let arguments: Vec<_> = std::env::args_os().collect();
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    if let Some((_, rest)) = arguments.split_first() {
        command.args(rest);
    }
    change(&mut command);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        if let Some(name) = arguments.first() {
            command.arg0(name);
        }
        command.exec()
    }
    #[cfg(not(unix))]
    io::Error::from(io::ErrorKind::Unsupported)
}
