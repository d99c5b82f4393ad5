//! Stands in for intake where no stream has entities.

use std::sync::Arc;

use futures::future::BoxFuture;
use shared::entity::EntityId;
use shared::entity_reader::{EntityEvents, EntityReader, EventSelection};
use shared::handoff::HandoffError;
use shared::ids::StreamName;
use shared::stream::Stream;

/// Knows no entity.
pub struct NoEntities;

impl EntityReader for NoEntities {
    fn stream(&self, _: &str) -> Option<Arc<Stream>> {
        None
    }

    fn last_sequence(&self, _: &StreamName, _: &EntityId) -> u64 {
        0
    }

    fn beyond<'a>(&'a self, _: &'a StreamName, _: &'a EntityId, _: u64) -> BoxFuture<'a, Option<u64>> {
        Box::pin(async { None })
    }

    fn events<'a>(
        &'a self,
        _: &'a StreamName,
        _: &'a EntityId,
        _: EventSelection,
    ) -> BoxFuture<'a, Result<EntityEvents, HandoffError>> {
        Box::pin(async { Err(HandoffError("no entities".to_owned())) })
    }
}
