//! Lists the reasons why a topic cannot be read, in the words that an operator reads.

/// Why a topic cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No broker answers, or not in time. A retry may help.
    #[error("cannot reach the brokers {brokers}: {reason}; will retry")]
    Unreachable { brokers: String, reason: String },
    #[error("the brokers {brokers} refused the login: {reason}; check tls and sasl of the connection")]
    Login { brokers: String, reason: String },
    #[error("the brokers have no topic \"{0}\"; create it, or correct the name")]
    UnknownTopic(String),
    #[error("not authorized to read the topic \"{topic}\": {reason}; grant READ and DESCRIBE on it")]
    NotAuthorized { topic: String, reason: String },
    /// A position that the broker does not have.
    #[error("the brokers do not have the position of partitions {0:?}")]
    OutOfRange(Vec<u32>),
    #[error("invalid connection: {0}")]
    Settings(String),
    #[error("the brokers answered with an error: {0}; will retry")]
    Other(String),
}

impl TopicError {
    /// Whether waiting alone may help: nothing has to be changed by an operator.
    pub fn is_transient(&self) -> bool {
        matches!(self, TopicError::Unreachable { .. } | TopicError::Other(_) | TopicError::OutOfRange(_))
    }
}
