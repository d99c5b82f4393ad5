//! Lists the reasons why an outbox cannot be read, in the words that an operator reads.

use tokio_postgres::error::SqlState;

use crate::pgoutput::Undecodable;

/// Why an outbox cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// The server does not answer, or ended the connection. A retry may help.
    #[error("cannot reach the database: {0}; will retry")]
    Unreachable(String),
    #[error("the database refused the login: {0}; check url and tls of the connection")]
    Login(String),
    #[error("not authorized: {reason}; {help}")]
    NotAuthorized { reason: String, help: String },
    /// Something that an operator has to create or to change.
    #[error("{problem}; {help}")]
    Setup { problem: String, help: String },
    #[error("invalid connection: {0}")]
    Settings(String),
    #[error("{0}; will retry")]
    Other(String),
}

impl OutboxError {
    /// Whether waiting alone may help: nothing has to be changed by an operator.
    pub fn is_transient(&self) -> bool {
        matches!(self, OutboxError::Unreachable(_) | OutboxError::Other(_))
    }

    pub(crate) fn setup(problem: impl Into<String>, help: impl Into<String>) -> OutboxError {
        OutboxError::Setup { problem: problem.into(), help: help.into() }
    }

    /// The error, with what to do if privileges are missing.
    pub(crate) fn of(error: &tokio_postgres::Error, help: &str) -> OutboxError {
        let Some(refusal) = error.as_db_error() else {
            return OutboxError::Unreachable(with_causes(error));
        };
        let reason = match refusal.hint().or(refusal.detail()) {
            Some(more) => format!("{} ({more})", refusal.message()),
            None => refusal.message().to_owned(),
        };
        let code = refusal.code();
        if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            return OutboxError::NotAuthorized { reason, help: help.to_owned() };
        }
        // Classes of errors: 28 logins, 3D a database that does not exist; 08, 53 and 57 connections, resources, operators.
        match &code.code()[..2] {
            "28" | "3D" => OutboxError::Login(reason),
            "08" | "53" | "57" => OutboxError::Unreachable(reason),
            _ => OutboxError::Other(format!("the database answered with an error: {reason}")),
        }
    }
}

impl From<Undecodable> for OutboxError {
    fn from(error: Undecodable) -> OutboxError {
        OutboxError::Other(error.to_string())
    }
}

/// The error with its causes: the library's own texts name only the step.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
