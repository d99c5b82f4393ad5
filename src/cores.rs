//! How many threads does batch compute with? Polars reads it from the environment when it first computes, and it cannot be
//! changed then: so the process starts itself anew, under the same number, before anything else has begun.

use std::num::NonZeroUsize;

/// The variable that Polars reads. Who has set it has decided.
const THREADS_VARIABLE: &str = "POLARS_MAX_THREADS";

/// Threads of batch when nothing is said: all cores but one, which is left to the speed layer.
pub fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.saturating_sub(1)).unwrap_or(NonZeroUsize::MIN)
}

/// Makes batch compute with `threads`. Returns if it does already, or if the process cannot be started anew.
pub fn bound(threads: NonZeroUsize) {
    if std::env::var_os(THREADS_VARIABLE).is_some() {
        return;
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let arguments: Vec<_> = std::env::args_os().collect();
        if let Ok(program) = std::env::current_exe() {
            let mut anew = std::process::Command::new(program);
            if let Some((name, rest)) = arguments.split_first() {
                anew.arg0(name).args(rest);
            }
            // Returns only if it failed.
            let error = anew.env(THREADS_VARIABLE, threads.to_string()).exec();
            tracing::warn!(%error, "batch computes on all cores: the process could not be started anew");
        }
    }
}
