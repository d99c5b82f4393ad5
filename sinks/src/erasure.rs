//! Takes erased entities out of the books of sinks, once their rows are deleted from the topics.

use std::io;
use std::sync::Arc;

use arrow::array::Array;
use arrow::error::ArrowError;
use serde_json::Value;
use shared::entity::EntityId;
use shared::ids::{SinkName, ViewName};
use shared::json_cell::json_cell;
use shared::partial::keys::KeyLayout;
use shared::published::PublishedView;

use crate::book::SinkBook;

/// Keys that are decoded at once.
const KEYS_AT_ONCE: usize = 8_192;

/// The reason why a book still has an erased entity.
#[derive(Debug, thiserror::Error)]
pub enum SinkErasureError {
    #[error(
        "sink {sink} has rows of the entity in \"{target}\", and deletes them in its next epoch. If it is paused or \
         stopped: trueup sinks resume {sink}"
    )]
    InTopic { sink: SinkName, target: String },
    #[error("cannot read the keys of sink {sink}: {error}")]
    Keys { sink: SinkName, error: ArrowError },
    #[error("cannot write the state of sink {sink}: {error}")]
    Write { sink: SinkName, error: io::Error },
}

/// The book of a sink, for erasures.
#[derive(Debug, Clone)]
pub struct ErasableBook {
    pub sink: SinkName,
    pub view: ViewName,
    /// The topic, or `webhook:NAME`.
    pub target: String,
    pub book: Arc<SinkBook>,
}

impl ErasableBook {
    /// Removes every trace of the entities from the book of a sink of `published`. Blocking.
    ///
    /// # Errors
    /// The topic has rows of them, or the book cannot be written.
    pub fn erase(&self, published: &PublishedView, ids: &[EntityId]) -> Result<(), SinkErasureError> {
        let of_entity = |index: &usize| {
            let column = published.view.dimensions[*index].expression.as_column();
            column.is_some() && column == published.stream.entity
        };
        let dimensions: Vec<usize> = (0..published.view.dimensions.len()).filter(of_entity).collect();
        if dimensions.is_empty() {
            return Ok(());
        }
        let failed = |error| SinkErasureError::Keys { sink: self.sink.clone(), error };
        let types = published.view.dimensions.iter().map(|dimension| dimension.expression.data_type).collect();
        let layout = KeyLayout::new(types).map_err(failed)?;
        let ids: Vec<String> = ids.iter().map(EntityId::to_string).collect();
        let is_in_topic = self.book.sent(|sent| -> Result<bool, ArrowError> {
            let keys: Vec<&[u8]> = sent.keys().collect();
            for some in keys.chunks(KEYS_AT_ONCE) {
                let columns = layout.decode(some.iter().copied())?;
                let is_erased = |column: &usize| {
                    let column = &columns[*column];
                    (0..column.len()).any(|row| match json_cell(column, row) {
                        Value::String(text) => ids.contains(&text),
                        value => ids.contains(&value.to_string()),
                    })
                };
                if dimensions.iter().any(is_erased) {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        let in_topic = || SinkErasureError::InTopic { sink: self.sink.clone(), target: self.target.clone() };
        if is_in_topic.map_err(failed)? {
            return Err(in_topic());
        }
        // Earlier lines of the file have the keys. An epoch in doubt may have them as well.
        let failed = |error| SinkErasureError::Write { sink: self.sink.clone(), error };
        if self.book.compact().map_err(failed)? { Ok(()) } else { Err(in_topic()) }
    }
}
