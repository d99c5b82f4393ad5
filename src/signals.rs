//! Who asked the process to stop? SIGTERM or Ctrl-C, heard from before recovery on; a second one ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers, installed.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers. Call it before anything that takes long, so that no signal finds the default handler.
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

    /// From now on a signal ends the process at once: correctness never depends on a clean stop.
    pub fn exit_on_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            eprintln!("stopped at once, without waiting");
            std::process::exit(i32::from(crate::exit::NO));
        });
    }
}
