//! Defines the position of a stream in the topic that it reads. A frame stores it beside the events that were read before it,
//! so one sync makes both durable: after a crash, reading continues exactly there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The position in one partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    pub topic: Arc<str>,
    /// The id that the topic got when it was created; `None` if the brokers did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<Arc<str>>,
    /// The offset of the next record.
    pub next: i64,
    /// Partitions that the topic had when the stream started to read it. Those that came later are read from their beginning.
    pub started_with: u32,
}
