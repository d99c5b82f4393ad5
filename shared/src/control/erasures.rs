//! Describes erased entities, and the trait through which they are erased.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::entity::EntityId;
use crate::ids::StreamName;
use crate::time::Micros;

/// The state of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErasureState {
    /// Nothing of the entity can be read. Files may still have its events.
    Pending,
    /// No file has them.
    Complete,
}

/// The record of an erasure. It does not name the entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Erasure)]
pub struct ErasureRecord {
    pub stream: StreamName,
    /// A hash of the entity's id: 32 hexadecimal digits.
    pub entity: String,
    pub state: ErasureState,
    pub erased_at: Micros,
    /// The caller that asked for it: a key, a token, or everyone.
    pub by: String,
    /// What the client called the request.
    pub reference: Option<String>,
    /// Events that were erased.
    pub events: u64,
    /// When no file had them any more.
    pub completed_at: Option<Micros>,
    /// What a pending erasure waits for.
    pub waits_for: Option<String>,
}

/// Why an entity was not erased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    #[error("the entity \"{id}\" of stream {stream} has no events")]
    Unknown { stream: StreamName, id: String },
    #[error("{count} erasures of the stream wait for their figures, at most {max} may; try again")]
    TooMany { count: usize, max: usize },
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Unavailable(String),
}

/// Erases entities.
pub trait Erasures: Send + Sync {
    /// Erases an entity on behalf of `by`. When it returns, nothing of the entity can be read; files follow. An entity that is
    /// erased already stays so.
    fn erase<'a>(
        &'a self,
        stream: &'a StreamName,
        id: &'a EntityId,
        by: String,
        reference: Option<String>,
    ) -> BoxFuture<'a, Result<ErasureRecord, ErasureError>>;

    /// Returns all erasures, the newest first.
    fn list(&self) -> Vec<ErasureRecord>;
}

/// The erasures of a server without entities.
#[derive(Debug, Default)]
pub struct NoErasures;

impl Erasures for NoErasures {
    fn erase<'a>(
        &'a self,
        stream: &'a StreamName,
        id: &'a EntityId,
        _: String,
        _: Option<String>,
    ) -> BoxFuture<'a, Result<ErasureRecord, ErasureError>> {
        let unknown = ErasureError::Unknown { stream: stream.clone(), id: id.to_string() };
        Box::pin(std::future::ready(Err(unknown)))
    }

    fn list(&self) -> Vec<ErasureRecord> {
        Vec::new()
    }
}
