//! Serves HTTP/1.1 connections, with a time limit for request headers and a shutdown that lets requests finish.

mod parse_problems;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use shared::limits;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{debug, warn};

use self::parse_problems::ParseProblems;

/// Serves `routes` until `stop` becomes true, then waits at most `wait` for requests in progress.
#[expect(clippy::disallowed_methods, reason = "the task ends with its connection")]
pub async fn serve(listener: TcpListener, routes: Router, mut stop: watch::Receiver<bool>, wait: Duration) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS));
    let http = Arc::new(http);
    let open = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(problem) => {
                // Usually out of file descriptors: give other connections time to end.
                warn!(%problem, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Responses are written in one go, so waiting to fill packets would only delay them.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(ParseProblems::new(stream)), service));
        tokio::spawn(async move {
            if let Err(problem) = connection.await {
                debug!(%problem, "connection closed early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(wait, open.shutdown()).await.is_err() {
        warn!("stopped with requests still in progress");
    }
}
