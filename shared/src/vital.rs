//! Ends the process when a thread or task that it cannot do without ends by itself.
//!
//! All layers start their long-lived threads and tasks through one [`Vitals`]. An error that such a thread returns and a
//! panic are reported the same way: the first failure is logged and kept, `/readyz` shows it, and the server stops with it.
//! Nothing is restarted within the process: recovery is the start of the next one.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use futures::FutureExt;
use tokio::sync::watch;

/// Why the process has to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VitalFailure {
    /// Name of the thread or task.
    pub part: String,
    /// Its error, or the message of its panic.
    pub reason: String,
}

impl fmt::Display for VitalFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)
    }
}

/// The vital threads and tasks of one process. Clones share the first failure.
#[derive(Debug, Clone)]
pub struct Vitals {
    failure: watch::Sender<Option<VitalFailure>>,
}

impl Default for Vitals {
    fn default() -> Vitals {
        Vitals { failure: watch::Sender::new(None) }
    }
}

impl Vitals {
    /// Reports that `part` cannot continue. The first report counts; later ones mostly follow from it.
    pub fn fail(&self, part: &str, reason: impl Into<String>) {
        let failure = VitalFailure { part: part.to_owned(), reason: reason.into() };
        tracing::error!(part, reason = %failure.reason, "a layer failed; the process stops");
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }

    /// Returns the first failure.
    pub fn failure(&self) -> Option<VitalFailure> {
        self.failure.borrow().clone()
    }

    /// Waits for the first failure. Cancel safe.
    pub async fn failed(&self) -> VitalFailure {
        let mut failure = self.failure.subscribe();
        // The sender lives as long as `self`, so the wait ends with a failure only.
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Starts a thread. It may end with `Ok` when the process stops; an error or a panic stops the process.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn spawn_thread<F>(&self, name: String, work: F) -> io::Result<JoinHandle<()>>
    where
        F: FnOnce() -> Result<(), String> + Send + 'static,
    {
        let (vitals, part) = (self.clone(), name.clone());
        std::thread::Builder::new().name(name).spawn(move || match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => vitals.fail(&part, reason),
            Err(panic) => vitals.fail(&part, panic_message(panic.as_ref())),
        })
    }

    /// Starts a task on the current Tokio runtime. A panic stops the process. An aborted task reports nothing.
    #[expect(clippy::disallowed_methods, reason = "the caller awaits or aborts the task")]
    pub fn spawn_task<F>(&self, part: impl Into<String>, work: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (vitals, part) = (self.clone(), part.into());
        let watched = async move {
            if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
                vitals.fail(&part, panic_message(panic.as_ref()));
            }
        };
        tokio::spawn(watched)
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", text.unwrap_or("without a message"))
}

/// Panics if a test injects a panic into `part`. Does nothing unless built with the feature `fail-points`.
pub fn reach(part: &str) {
    #[cfg(feature = "fail-points")]
    fail_point::reach(part);
    #[cfg(not(feature = "fail-points"))]
    let _ = part;
}

#[cfg(feature = "fail-points")]
mod fail_point {
    use std::sync::LazyLock;

    /// Names the thread or task that panics at its next unit of work, for tests with a real server.
    const PANIC_IN_VARIABLE: &str = "TRUEUP_PANIC_IN";

    static PANIC_IN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(PANIC_IN_VARIABLE).ok());

    pub(super) fn reach(part: &str) {
        assert!(PANIC_IN.as_deref() != Some(part), "{PANIC_IN_VARIABLE} names {part}");
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    fn failure(part: &str, reason: &str) -> VitalFailure {
        VitalFailure { part: part.to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn an_error_and_a_panic_of_a_thread_are_failures_and_a_normal_end_is_not() {
        for (work, expected) in [
            (Box::new(|| Ok(())) as Box<dyn FnOnce() -> Result<(), String> + Send>, None),
            (Box::new(|| Err("disk gone".to_owned())), Some(failure("t", "disk gone"))),
            (Box::new(|| panic!("row {}", 7)), Some(failure("t", "panicked: row 7"))),
        ] {
            let vitals = Vitals::default();
            vitals.spawn_thread("t".to_owned(), work).expect("a thread").join().expect("the panic is caught");
            assert_eq!(vitals.failure(), expected);
        }
    }

    #[test]
    fn the_first_failure_counts_and_reaches_a_waiter_that_comes_later() {
        let vitals = Vitals::default();
        vitals.fail("first", "a");
        vitals.clone().fail("second", "b");
        assert_eq!(block_on(vitals.failed()), failure("first", "a"));
        assert_eq!(vitals.failure().expect("a failure").to_string(), "first: a");
    }

    #[test]
    fn a_panic_of_a_task_is_a_failure_and_its_end_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        for (panics, expected) in [(false, None), (true, Some(failure("task", "panicked: at once")))] {
            let vitals = Vitals::default();
            let work = async move { assert!(!panics, "at once") };
            runtime.block_on(async { vitals.spawn_task("task", work).await }).expect("the panic is caught");
            assert_eq!(vitals.failure(), expected);
        }
    }
}
