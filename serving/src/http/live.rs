//! Sends changes of a query as server-sent events: first the complete result, then what changed ([`crate::push`]).

use std::sync::Arc;
use std::time::Duration;

use auth::Access;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use futures::stream;
use problem::Problem;
use shared::limits::LIVE_HEARTBEAT_MS;

use super::parameters;
use crate::http::event_response::{LAST_EVENT_ID, event_response};
use crate::push::{Feeds, Frame, LiveQuery, Subscription};
use crate::state::ServingState;

/// Clients reconnect 1,000 ms after a broken connection.
const OPENING: &[u8] = b"retry: 1000\n\n";
const HEARTBEAT: &[u8] = b": still here\n\n";

/// `GET /v1/views/{view}/live`: the parameters of rows, and `every`.
pub async fn live(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    access: Access,
    Extension(feeds): Extension<Arc<Feeds>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let published = state.view(&view)?;
    let query = LiveQuery::parse(&published.view, parameters::all(&uri)?, access.row_filter().cloned())?;
    let last_id = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    let subscription = feeds.subscribe(&state, query, last_id)?;
    subscription.ready().await.map_err(|failure| Problem::from(&failure))?;
    Ok(event_response(event_stream(subscription)))
}

/// A subscription and the events still to be sent.
struct EventStream {
    subscription: Subscription,
    pending: std::vec::IntoIter<Bytes>,
}

fn event_stream(
    mut subscription: Subscription,
) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let first = std::mem::take(&mut subscription.first);
    let opening = std::iter::once(Bytes::from_static(OPENING));
    let pending = opening.chain(first.into_iter().map(|frame| frame.bytes)).collect::<Vec<_>>().into_iter();
    stream::unfold(EventStream { subscription, pending }, |mut events| async move {
        if let Some(frame) = events.pending.next() {
            return Some((Ok(frame), events));
        }
        let silence = Duration::from_millis(LIVE_HEARTBEAT_MS);
        match tokio::time::timeout(silence, events.subscription.next()).await {
            Ok(Some(Frame { bytes, .. })) => Some((Ok(bytes), events)),
            Ok(None) => None,
            Err(_) => Some((Ok(Bytes::from_static(HEARTBEAT)), events)),
        }
    })
}
