//! Reads the rows of one entity by its key, instead of all rows of its view: wraps the readers of both layers, so that a query
//! of the entity is any other query over fewer rows.

use std::sync::Arc;

use arrow::error::ArrowError;
use futures::FutureExt;
use futures::future::BoxFuture;
use shared::entity::EntityId;
use shared::handoff::HandoffError;
use shared::partial::accumulate::Accumulator;
use shared::partial::block::Part;
use shared::partial::index_cache::PartIndexes;
use shared::partial::keys::KeyLayout;
use shared::partial::query_budget::QueryBudget;
use shared::partial::wanted::WantedRows;
use shared::published::PublishedView;
use shared::readers::{BatchReadError, BatchReader, Reach, SpeedError, SpeedPin, SpeedReader};
use shared::seam::Cut;
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::view::View;
use shared::window::{Window, WindowId};

use crate::pin::LayerReaders;

/// Keys whose index is built on the request's own thread: less than a millisecond of work.
const KEYS_INLINE_MAX: usize = 10_000;

/// Returns readers that return only the rows of `id` of `view`, whose one dimension is the entity.
pub fn readers_of(
    layers: LayerReaders,
    view: &View,
    id: &EntityId,
    indexes: &Arc<PartIndexes>,
) -> Result<LayerReaders, ArrowError> {
    let data_type = view.dimensions[0].expression.data_type;
    let keys = KeyLayout::new(vec![data_type])?.encode(&[id.column(data_type)])?;
    let all_time = WindowId::ALL_TIME..WindowId(WindowId::ALL_TIME.0 + 1);
    let wanted = Arc::new(WantedRows::new(Window::All, [(Box::from(keys.row(0).as_ref()), vec![all_time])]));
    let speed = Arc::new(SpeedRows { speed: Arc::clone(&layers.speed), wanted: Arc::clone(&wanted) });
    let batch = Arc::new(BatchRows { batch: Arc::clone(&layers.batch), indexes: Arc::clone(indexes), wanted });
    Ok(LayerReaders { speed, batch, ..layers })
}

/// The wanted rows of the speed layer.
struct SpeedRows {
    speed: Arc<dyn SpeedReader>,
    wanted: Arc<WantedRows>,
}

impl SpeedReader for SpeedRows {
    fn pin<'a>(&'a self, published: &'a PublishedView, seam: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        self.speed.pin_rows(published, seam, &self.wanted, Reach::Acknowledged)
    }

    fn retire(&self, published: &PublishedView, seam: &Cut) {
        self.speed.retire(published, seam);
    }

    fn forget(&self, published: &PublishedView) {
        self.speed.forget(published);
    }
}

/// The wanted rows of batch versions.
struct BatchRows {
    batch: Arc<dyn BatchReader>,
    indexes: Arc<PartIndexes>,
    wanted: Arc<WantedRows>,
}

impl BatchReader for BatchRows {
    fn bytes_to_load(&self, published: &PublishedView, version: &BatchVersion, range: TimeRange) -> u64 {
        self.batch.bytes_to_load(published, version, range)
    }

    fn parts<'a>(
        &'a self,
        published: &'a PublishedView,
        version: &'a BatchVersion,
        range: TimeRange,
        budget: &'a QueryBudget,
    ) -> BoxFuture<'a, Result<Vec<Arc<Part>>, BatchReadError>> {
        async move {
            let parts = self.batch.parts(published, version, range, budget).await?;
            let mut found = Vec::with_capacity(parts.len());
            for part in parts {
                let index = match self.indexes.known(&part) {
                    Some(index) => index,
                    None if part.keys.len() <= KEYS_INLINE_MAX => self.indexes.of(&part),
                    None => {
                        let (indexes, part) = (Arc::clone(&self.indexes), Arc::clone(&part));
                        let built = tokio::task::spawn_blocking(move || indexes.of(&part)).await;
                        built.map_err(|error| HandoffError(format!("cannot index the rows: {error}")))?
                    }
                };
                found.push(Arc::new(Accumulator::wanted_of(&published.view, &part, &index, &self.wanted)));
            }
            Ok(found)
        }
        .boxed()
    }
}
