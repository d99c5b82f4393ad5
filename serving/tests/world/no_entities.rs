//! Stands in for intake: without entities, or with one that has no events yet.

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

/// A stream with one entity, whose first event has not come.
#[allow(dead_code)]
pub struct OneEntity(Arc<Stream>);

#[allow(dead_code)]
impl OneEntity {
    pub fn new() -> OneEntity {
        let sql = "CREATE STREAM orders (id STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'id');";
        let parsed = shared::sql::parse_definitions(&[("orders.sql".to_owned(), sql.to_owned())]);
        OneEntity(Arc::new(parsed.unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0)))
    }
}

impl EntityReader for OneEntity {
    fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        (name == "orders").then(|| Arc::clone(&self.0))
    }

    fn last_sequence(&self, _: &StreamName, _: &EntityId) -> u64 {
        0
    }

    fn beyond<'a>(&'a self, _: &'a StreamName, _: &'a EntityId, _: u64) -> BoxFuture<'a, Option<u64>> {
        Box::pin(std::future::pending())
    }

    fn events<'a>(
        &'a self,
        _: &'a StreamName,
        _: &'a EntityId,
        _: EventSelection,
    ) -> BoxFuture<'a, Result<EntityEvents, HandoffError>> {
        Box::pin(async { Err(HandoffError("no events".to_owned())) })
    }
}
