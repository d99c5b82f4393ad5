//! Runs blocking work of a run on a thread of its own, and turns its panics into failures.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::failure::RunFailure;

/// Runs `work` on a blocking thread. A panic in it (Polars has some) becomes [`RunFailure::Panicked`].
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunFailure> + Send + 'static,
) -> Result<T, RunFailure> {
    tokio::task::spawn_blocking(move || {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(RunFailure::of_panic(panic.as_ref())))
    })
    .await?
}
