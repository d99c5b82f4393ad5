//! Defines the trait through which serving reads the events of one entity, and the range of events that it asks for.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;

use crate::entity::EntityId;
use crate::handoff::HandoffError;
use crate::ids::StreamName;
use crate::stream::Stream;
use crate::time::Micros;

/// Which events of an entity are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSelection {
    /// First sequence.
    pub from_sequence: u64,
    /// Last sequence, included.
    pub to_sequence: u64,
    /// Events accepted at or after this time.
    pub accepted_from: Micros,
    /// Events accepted before this time.
    pub accepted_before: Micros,
    /// The first ones, at most so many.
    pub limit: usize,
}

impl EventSelection {
    /// Returns the selection of all events, at most `limit` of them.
    pub fn all(limit: usize) -> EventSelection {
        EventSelection {
            from_sequence: 1,
            to_sequence: u64::MAX,
            accepted_from: Micros::MIN,
            accepted_before: Micros(i64::MAX),
            limit,
        }
    }
}

/// Events of one entity, in the order of their sequences.
#[derive(Debug, Clone)]
pub struct EntityEvents {
    /// Columns of [`Stream::archive_schema`].
    pub rows: RecordBatch,
    /// Whether the limit cut off further ones.
    pub has_more: bool,
}

/// The events of entities: those in the archive and those that only the log has, each once.
pub trait EntityReader: Send + Sync {
    /// Returns the declaration of a stream.
    fn stream(&self, name: &str) -> Option<Arc<Stream>>;

    /// Returns the entity's last sequence, over the durable events; 0 if it has none, or if the stream has no entity.
    fn last_sequence(&self, stream: &StreamName, id: &EntityId) -> u64;

    /// Returns the entity's last sequence as soon as it is beyond `after`; `None` if the log stops, or the entity is erased.
    fn beyond<'a>(&'a self, stream: &'a StreamName, id: &'a EntityId, after: u64) -> BoxFuture<'a, Option<u64>>;

    /// Returns when the entity was erased; `None`: it was not.
    fn erased_at(&self, _stream: &StreamName, _id: &EntityId) -> Option<Micros> {
        None
    }

    /// Returns the erased entities of which figures may still have rows.
    fn erased_ids(&self, _stream: &StreamName) -> Vec<EntityId> {
        Vec::new()
    }

    /// Reads events of an entity: all durable ones of the selection when the call starts, and none twice.
    fn events<'a>(
        &'a self,
        stream: &'a StreamName,
        id: &'a EntityId,
        selection: EventSelection,
    ) -> BoxFuture<'a, Result<EntityEvents, HandoffError>>;
}
