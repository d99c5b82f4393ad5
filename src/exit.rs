//! Defines how a command fails: with a message, an optional next step and an exit code.

use std::fmt;
use std::io;

/// Exit code: a check or a run failed, or lines were rejected.
pub const NO: u8 = 1;
/// Exit code: wrong usage, such as an invalid option, file or name.
pub const USAGE: u8 = 2;
/// Exit code: the server is unreachable or refused the request.
pub const REFUSED: u8 = 3;
/// Exit code: a layer of the running server failed; the next start recovers.
pub const FAILED: u8 = 4;

/// The failure of a command.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// Empty if the command has already printed what is wrong.
    message: String,
    next_step: Option<String>,
}

impl Failure {
    /// Creates a failure that [`Failure::print`] reports.
    pub fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string(), next_step: None }
    }

    /// Returns what went wrong.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Creates a failure of a command that has already printed what is wrong.
    pub fn silent(code: u8) -> Failure {
        Failure::new(code, "")
    }

    /// Returns whether [`Failure::print`] prints no message.
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// Adds what the user can try next.
    pub fn next_step(mut self, step: impl fmt::Display) -> Failure {
        self.next_step = Some(step.to_string());
        self
    }

    /// Prints the message on stderr.
    pub fn print(&self) {
        if !self.message.is_empty() {
            eprintln!("error: {}", self.message);
        }
        if let Some(step) = &self.next_step {
            eprintln!("  help: {step}");
        }
    }
}

impl From<io::Error> for Failure {
    /// A reader that stops reading our output (`trueup query .. | head`) is not a failure.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(0),
            _ => Failure::new(NO, error),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        match error.downcast::<io::Error>() {
            Ok(error) => Failure::from(error),
            Err(error) => Failure::new(NO, format!("{error:#}")),
        }
    }
}
