//! Names the reasons why Spark did not execute a plan, and says which may pass.

use shared::limits::SPARK_RECONNECT_MS;

/// Why a plan was not executed, or its outcome is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SparkError {
    #[error("the connection is wrong: {0}")]
    Settings(String),
    #[error("cannot reach {origin} for {} s: {reason}; check the connection's url and that the server runs", SPARK_RECONNECT_MS / 1_000)]
    Unreachable { origin: String, reason: String },
    #[error("Spark refused the access ({code}): {message}; check the connection's token")]
    Access { code: &'static str, message: String },
    /// The server does not know the session or the operation any more.
    #[error("Spark lost the session, as after a restart: {0}")]
    Lost(String),
    /// A plan that Spark will never execute.
    #[error("Spark refused the plan: {0}")]
    Refused(String),
    #[error("Spark failed: {0}")]
    Failed(String),
    #[error("Spark sent a message that cannot be read: {0}")]
    Protocol(String),
}

impl SparkError {
    /// Returns whether the same plan may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            SparkError::Unreachable { .. } | SparkError::Lost(_) | SparkError::Failed(_) => true,
            SparkError::Settings(_) | SparkError::Access { .. } | SparkError::Refused(_) | SparkError::Protocol(_) => {
                false
            }
        }
    }
}

/// The codes of gRPC that are looked at.
pub mod code {
    pub const OK: u32 = 0;
    pub const INVALID_ARGUMENT: u32 = 3;
    pub const PERMISSION_DENIED: u32 = 7;
    pub const UNIMPLEMENTED: u32 = 12;
    pub const UNAVAILABLE: u32 = 14;
    pub const UNAUTHENTICATED: u32 = 16;
}

/// Conditions of Spark that say that a plan is wrong, by the start of their names.
const WRONG_PLANS: [&str; 10] = [
    "PARSE_SYNTAX_ERROR",
    "UNRESOLVED_",
    "DATATYPE_MISMATCH",
    "TABLE_OR_VIEW_NOT_FOUND",
    "UNSUPPORTED_",
    "WRONG_NUM_ARGS",
    "INVALID_SQL_SYNTAX",
    "PATH_NOT_FOUND",
    "MISSING_",
    "CANNOT_MODIFY_",
];

/// A call that gRPC ended with an error, or that did not arrive.
#[derive(Debug, Clone)]
pub enum CallError {
    /// The connection failed: the call may have arrived.
    Connection(String),
    Status {
        code: u32,
        message: String,
    },
    /// An answer that does not follow the protocol.
    Unreadable(String),
}

impl CallError {
    /// Returns whether the call can be sent again soon.
    pub fn is_transient(&self) -> bool {
        match self {
            CallError::Connection(_) => true,
            CallError::Status { code, message } => {
                *code == code::UNAVAILABLE
                    || message.contains("INVALID_CURSOR.DISCONNECTED")
                    || message.contains("INVALID_CURSOR.NOT_REATTACHABLE")
            }
            CallError::Unreadable(_) => false,
        }
    }

    /// Returns whether the server knows the session and does not know the operation.
    pub fn is_unknown_operation(&self) -> bool {
        matches!(self, CallError::Status { message, .. } if message.contains("INVALID_HANDLE.OPERATION_NOT_FOUND"))
    }

    /// Returns what it means for the plan.
    pub fn into_error(self, origin: &str) -> SparkError {
        match self {
            CallError::Connection(reason) => SparkError::Unreachable { origin: origin.to_owned(), reason },
            CallError::Unreadable(reason) => SparkError::Protocol(reason),
            CallError::Status { code, message } => match code {
                code::UNAVAILABLE => SparkError::Unreachable { origin: origin.to_owned(), reason: message },
                code::UNAUTHENTICATED => SparkError::Access { code: "UNAUTHENTICATED", message },
                code::PERMISSION_DENIED => SparkError::Access { code: "PERMISSION_DENIED", message },
                _ if message.contains("INVALID_HANDLE.") => SparkError::Lost(message),
                code::INVALID_ARGUMENT | code::UNIMPLEMENTED => SparkError::Refused(message),
                _ if WRONG_PLANS.iter().any(|name| message.contains(&format!("[{name}"))) => {
                    SparkError::Refused(message)
                }
                _ => SparkError::Failed(message),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_that_time_can_fix_are_transient() {
        let status = |code, message: &str| CallError::Status { code, message: message.to_owned() };
        for (error, passes, text) in [
            (CallError::Connection("refused".to_owned()), true, "cannot reach http://a for"),
            (status(code::UNAVAILABLE, "gone"), true, "cannot reach"),
            (status(code::UNAUTHENTICATED, "no"), false, "token"),
            (status(13, "[INVALID_HANDLE.SESSION_CHANGED] The handle"), true, "lost the session"),
            (status(13, "[UNRESOLVED_COLUMN.WITH_SUGGESTION] A column"), false, "refused the plan"),
            (status(13, "[PATH_NOT_FOUND] Path does not exist"), false, "refused the plan"),
            (status(13, "Job aborted due to stage failure: executor lost"), true, "Spark failed"),
            (status(code::UNIMPLEMENTED, "Method not found"), false, "refused the plan"),
            (CallError::Unreadable("3 bytes".to_owned()), false, "cannot be read"),
        ] {
            let error = error.into_error("http://a");
            assert_eq!(error.may_pass(), passes, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
