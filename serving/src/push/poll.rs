//! Polls the view of one feed and publishes what changed.
//!
//! A poll computes only if the state of the view has moved. The task ends when the feed has had no subscriber for a while,
//! when the view no longer accepts the query, or when the server stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shared::time::Micros;
use tokio::time::Instant;

use super::feed::{Feed, FeedFailure, FeedUpdate, Published};
use super::live_query::LiveQuery;
use super::memory::MemoryShare;
use super::row_changes::RowHashes;
use crate::admission::{AdmissionError, QueryContext};
use crate::entity_tag::EntityTag;
use crate::execute::{ExecuteError, execute};
use crate::formats::json::{self, ResponseContext};
use crate::pin::{Arrival, PinnedQuery, ReadError, ViewPin, pin};
use crate::query::Shape;
use crate::query::bound::BoundQuery;
use crate::state::ServingState;

/// Longest time until a task notices that the server is stopping.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// What the task remembers of its last poll.
#[derive(Default)]
struct LastPoll {
    tag: Option<EntityTag>,
    rows: RowHashes,
    /// Definition and columns of the rows; rows of another layout cannot be compared with them.
    layout: String,
    /// The memory of `rows`.
    share: Option<MemoryShare>,
}

/// The reason why a poll failed.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Refused(#[from] AdmissionError),
    #[error(transparent)]
    QueryResult(#[from] ExecuteError),
}

/// Polls until the feed is idle, the view no longer accepts the query, or the server stops.
pub(super) async fn run_feed(state: &ServingState, query: &LiveQuery, feed: &Feed) {
    let mut last = LastPoll::default();
    let mut due = Instant::now();
    let mut is_failing = false;
    loop {
        if Instant::now() >= due {
            due = Instant::now() + query.every;
            match poll(state, query, &mut last).await {
                Ok(update) => {
                    if let Some(update) = update
                        && !publish(feed, query, update, &mut last)
                    {
                        break;
                    }
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(view = query.view, "live query is refreshed again");
                    }
                }
                // The view was removed; a new subscription gets the error.
                Err(PollError::Read(ReadError::UnknownView(_))) => break,
                // It was redefined, or its state no longer admits the query.
                Err(PollError::Read(ReadError::Query(error))) => {
                    feed.state.lock().failure = Some(FeedFailure::Refused(error));
                    break;
                }
                Err(PollError::QueryResult(error)) => {
                    tracing::warn!(view = query.view, %error, "live query failed");
                    feed.state.lock().failure = Some(FeedFailure::Query(Arc::new(error)));
                    break;
                }
                // The next poll may succeed. One line for all polls that fail in a row.
                Err(error) if !std::mem::replace(&mut is_failing, true) => {
                    tracing::warn!(view = query.view, %error, "cannot refresh live query; will retry");
                }
                Err(error) => tracing::debug!(view = query.view, %error, "cannot refresh live query"),
            }
            feed.polled.send_replace(true);
        }
        if feed.is_idle() || !state.ready.load(Ordering::SeqCst) {
            break;
        }
        let pause = due.saturating_duration_since(Instant::now()).min(STOP_CHECK);
        tokio::time::sleep(pause).await;
    }
    feed.end();
}

/// Publishes an update within the memory of the feed; returns false if it will never fit. An update that does not fit at the
/// moment is computed again by the next poll, as a complete result.
fn publish(feed: &Feed, query: &LiveQuery, update: FeedUpdate, last: &mut LastPoll) -> bool {
    last.share = None;
    let rows_bytes = last.rows.bytes();
    if feed.memory.is_beyond(update.snapshot.len() + rows_bytes) {
        tracing::warn!(view = query.view, "the result of a live query is too large");
        feed.state.lock().failure = Some(FeedFailure::TooLarge);
        return false;
    }
    let published = feed.publish(update);
    last.share = feed.memory.reserve(rows_bytes);
    if published == Published::Postponed || last.share.is_none() {
        metrics::counter!("trueup_live_postponed_total").increment(1);
        *last = LastPoll::default();
    }
    true
}

/// Polls once. `None` if nothing changed.
async fn poll(state: &ServingState, live: &LiveQuery, last: &mut LastPoll) -> Result<Option<FeedUpdate>, PollError> {
    let arrival = Arrival { admission: &state.admission, since: shared::clock::monotonic_now(), is_live: true };
    let readers = state.readers();
    let pin = pin(&readers, &live.view, &live.parameters, live.permitted.as_deref(), state.clock.now(), arrival);
    let PinnedQuery { query, pinned, admitted } = pin.await?;
    let tag = EntityTag::of(&query, &pinned, "live");
    if last.tag.as_ref() == Some(&tag) {
        return Ok(None);
    }
    let as_of = query.instant.unwrap_or_else(|| state.clock.now());
    let before = std::mem::take(last);
    let work = move |context: &QueryContext| compute(&query, &pinned, context, as_of, tag, before);
    let admitted = match admitted {
        Some(admitted) => admitted,
        None => arrival.admit().await?,
    };
    let (after, update) = admitted.run(work).await??;
    *last = after;
    Ok(Some(update))
}

/// Computes the result and its changes from the last one. Blocks.
fn compute(
    query: &BoundQuery,
    pinned: &ViewPin,
    context: &QueryContext,
    as_of: Micros,
    tag: EntityTag,
    before: LastPoll,
) -> Result<(LastPoll, FeedUpdate), ExecuteError> {
    metrics::counter!("trueup_live_computations_total").increment(1);
    let result = execute(query, pinned, context)?;
    let about = ResponseContext { pinned, layer: query.layer, as_of };
    let names = result.columns.iter().map(|column| format!("{} {:?}", column.name, column.data_type));
    let layout = names.collect::<Vec<_>>().join(",") + &pinned.published.definition_hash;
    let (rows, changes) = before.rows.next(&result);
    let is_first = before.layout != layout;
    let change = (!is_first).then(|| json::write_change(&changes.changed, &changes.gone, &result, &about));
    let snapshot = json::write(&result, &about, Shape::Document, &context.allowance)?;
    Ok((LastPoll { tag: Some(tag), rows, layout, share: before.share }, FeedUpdate { snapshot, change }))
}
