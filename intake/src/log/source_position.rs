//! Defines the position of a stream in the topic or the outbox that it reads. A frame stores it beside the events that were read before it,
//! so one sync makes both durable: after a crash, reading continues exactly there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The position in one partition of a topic. An outbox is a topic of one partition, whose rows are numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    pub topic: Arc<str>,
    /// The id that the topic got when it was created, or the database of the outbox; `None` if the brokers did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<Arc<str>>,
    /// The offset of the next record.
    pub next: i64,
    /// The place after the last row in the database of an outbox; `None`: no row was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Arc<str>>,
    /// Partitions that the topic had when the stream started to read it. Those that came later are read from their beginning.
    pub started_with: u32,
}
