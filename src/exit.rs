//! How does a command fail? With a message, perhaps what to do next, and one of the contract's exit codes.

use std::fmt;
use std::io;

/// The answer is no: a check failed, lines were rejected, a run failed.
pub const NO: u8 = 1;
/// Wrong usage: the command line, a file or a name is not right.
pub const USAGE: u8 = 2;
/// The server could not be reached, or it refused.
pub const REFUSED: u8 = 3;

/// Why a command ended without success.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// Empty: everything has been said already.
    message: String,
    next_step: Option<String>,
}

impl Failure {
    pub fn new(code: u8, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string(), next_step: None }
    }

    /// For a command that has already printed what is wrong.
    pub fn told(code: u8) -> Failure {
        Failure::new(code, "")
    }

    /// Has everything been said already?
    pub fn is_told(&self) -> bool {
        self.message.is_empty()
    }

    /// Adds what to try next.
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
    /// Whoever reads our output may stop reading (`trueup query .. | head`): that is no failure.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::told(0),
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
