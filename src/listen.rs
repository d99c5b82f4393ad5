//! How are connections served? HTTP/1.1 with a limit on how long a client may take to say what it wants, and an end
//! that lets requests under way finish.

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

/// Serves until `stop` says so, then waits at most `wait` for requests under way.
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
                // Out of file descriptors, mostly: give others time to end.
                warn!(%problem, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are written whole; waiting to fill packets would only delay them.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = open.watch(http.serve_connection(TokioIo::new(ParseProblems::new(stream)), service));
        tokio::spawn(async move {
            if let Err(problem) = connection.await {
                debug!(%problem, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(wait, open.shutdown()).await.is_err() {
        warn!("requests were still under way when the server stopped");
    }
}
