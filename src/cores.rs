//! Limits the number of threads for batch runs.
//!
//! Polars reads the number from the environment once, when it is first used. To set it, the process re-executes itself
//! (same PID) before anything else has started.

use std::num::NonZeroUsize;

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
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let arguments: Vec<_> = std::env::args_os().collect();
        if let Ok(program) = std::env::current_exe() {
            let mut command = std::process::Command::new(program);
            if let Some((name, rest)) = arguments.split_first() {
                command.arg0(name).args(rest);
            }
            // Returns only if it failed.
            let error = command.env(THREADS_VARIABLE, threads.to_string()).exec();
            tracing::warn!(%error, "cannot limit the threads of batch runs: they use all cores");
        }
    }
}
