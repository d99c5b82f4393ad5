//! Handles the signals that stop the process: SIGTERM and Ctrl-C stop it cleanly, a second signal stops it immediately.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Installed handlers of both signals.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers. Call this before any slow step, so that no signal meets the default handler.
    pub fn install() -> io::Result<StopSignals> {
        Ok(StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Ends the process immediately on the next signal, which is safe: correctness never depends on a clean stop.
    #[expect(clippy::disallowed_methods, reason = "the task waits for signals until the process ends")]
    pub fn exit_on_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            eprintln!("stopped immediately");
            std::process::exit(i32::from(crate::exit::NO));
        });
    }
}
