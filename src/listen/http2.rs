//! Serves HTTP/2 connections within the bounds of HTTP/1.1: on memory per connection, and on the time for which a
//! client may send or read nothing.
//!
//! An HTTP/2 connection carries many concurrent requests and buffers more, so it takes the places of
//! [`shared::limits::HTTP2_CONNECTION_PLACES`] connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Request, Uri, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use shared::limits::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_HEADERS_BYTES_MAX, HTTP2_PIECE_BYTES, HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_STREAMS_MAX, WRITE_STALL_MS,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Service, ServiceExt};
use tracing::debug;

use super::paced_body::InFlight;

/// Longest time between two looks at a connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves connections whose clients speak HTTP/2.
pub struct Http2 {
    builder: http2::Builder<TokioExecutor>,
    /// A connection without a request is closed after this.
    idle_max: Duration,
    stall_max: Duration,
}

impl Http2 {
    pub fn new(idle_max: Duration) -> Http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(HTTP2_STREAMS_MAX)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HTTP2_HEADERS_BYTES_MAX)
            .max_send_buf_size(HTTP2_PIECE_BYTES);
        Http2 { builder, idle_max, stall_max: Duration::from_millis(WRITE_STALL_MS) }
    }

    /// Serves a connection until it ends, its client makes no progress, or the server stops.
    pub async fn serve<S, R>(&self, stream: S, routes: R, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        R: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
        R::Future: Send,
    {
        let in_flight = InFlight::new();
        let entering = Arc::clone(&in_flight);
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let entered = entering.enter();
            let response = routes.clone().oneshot(with_host(request));
            async move { Ok::<_, Infallible>(response.await?.map(|body| entered.body(body))) }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::select! {
            served = watcher.watch(connection) => if let Err(problem) = served {
                debug!(%problem, "connection closed early");
            },
            reason = self.watch(&in_flight) => debug!(reason, "connection closed"),
        }
    }

    /// Completes when the client makes no progress, with the reason.
    async fn watch(&self, in_flight: &InFlight) -> &'static str {
        let mut looks = tokio::time::interval((self.idle_max.min(self.stall_max) / 8).min(LOOK_EVERY));
        loop {
            looks.tick().await;
            if in_flight.idle() >= self.idle_max {
                return "the client sends no request";
            }
            if in_flight.is_stalled(self.stall_max) {
                return "the client does not read the response";
            }
        }
    }
}

/// Gives a request the form of HTTP/1.1, on which hosts and origins are checked: the authority in `Host`, the path alone in
/// the target.
fn with_host(mut request: Request<Incoming>) -> Request<Incoming> {
    let Some(authority) = request.uri().authority() else { return request };
    // The authority is the one that counts, also beside a `Host` that says something else (RFC 9113 §8.3.1).
    let host = HeaderValue::from_str(authority.as_str());
    if let Ok(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(target);
    request
}
