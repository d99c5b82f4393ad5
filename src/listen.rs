//! Serves HTTP/1.1 and HTTP/2 connections: bounded in number, with time limits for headers and for clients that do not read,
//! and with a shutdown that lets requests finish.
//!
//! [`descriptors`] decides how many connections may be open, [`preface`] distinguishes the protocols, [`paced_stream`] ends
//! connections that make no progress, [`parse_problems`] gives a body to the refusals of hyper over HTTP/1.1, [`http2`] holds
//! HTTP/2 to the same bounds, [`tls`] encrypts.

pub mod descriptors;
mod http2;
mod paced_body;
mod paced_stream;
mod parse_problems;
mod preface;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::PeerAddress;
use axum::Router;
use axum::http::{Request, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, gauge};
use problem::{Code, Problem};
use shared::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tower::ServiceExt;
use tracing::{debug, warn};

use self::http2::Http2;
use self::paced_stream::PacedStream;
use self::parse_problems::ParseProblems;
use self::preface::{Protocol, detect};
use self::tls::Tls;

/// How a listener accepts connections.
#[derive(Debug, Clone)]
pub struct ListenSettings {
    /// Connections open at the same time.
    pub connections: usize,
    /// Longest wait for requests in progress at the end.
    pub shutdown_wait: Duration,
    /// Longest wait for the headers of a request.
    pub header_wait: Duration,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

impl ListenSettings {
    /// Returns the settings of a server: as many connections as the process may open files, but some.
    pub fn new(shutdown_wait: Duration, tls: Option<Arc<Tls>>) -> ListenSettings {
        let header_wait = Duration::from_millis(limits::HEADER_READ_TIMEOUT_MS);
        ListenSettings { connections: descriptors::connections_max(), shutdown_wait, header_wait, tls }
    }
}

/// Accepts connections for one router.
struct Listener {
    http1: hyper::server::conn::http1::Builder,
    http2: Http2,
    routes: Router,
    stop: watch::Receiver<bool>,
    connections: Arc<Semaphore>,
    connections_max: usize,
    refusals: Arc<Semaphore>,
    header_wait: Duration,
    tls: Option<Arc<Tls>>,
}

/// Serves `routes` until `stop` becomes true, then waits for requests in progress.
pub async fn serve(listener: TcpListener, routes: Router, mut stop: watch::Receiver<bool>, settings: ListenSettings) {
    let mut http1 = hyper::server::conn::http1::Builder::new();
    // A little longer than the wait after which a late first request gets its answer.
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_wait + settings.header_wait / 20)
        .max_buf_size(limits::CONNECTION_BUFFER_BYTES_MAX);
    let server = Arc::new(Listener {
        http1,
        http2: Http2::new(settings.header_wait),
        routes,
        stop: stop.clone(),
        connections: Arc::new(Semaphore::new(settings.connections)),
        connections_max: settings.connections,
        refusals: Arc::new(Semaphore::new(limits::REFUSALS_AT_ONCE)),
        header_wait: settings.header_wait,
        tls: settings.tls,
    });
    let open = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, peer)) => server.accept(stream, peer, open.watcher()),
            Err(problem) => {
                // Usually out of file descriptors: give other connections time to end.
                warn!(%problem, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(settings.shutdown_wait, open.shutdown()).await.is_err() {
        warn!("stopped with requests still in progress");
    }
}

impl Listener {
    /// Serves the connection in a task of its own, or refuses it.
    #[expect(clippy::disallowed_methods, reason = "the tasks end with their connections")]
    fn accept(self: &Arc<Listener>, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        let server = Arc::clone(self);
        // Responses are written in one go, so waiting to fill packets would only delay them.
        let _ = stream.set_nodelay(true);
        match Arc::clone(&self.connections).try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(async move { server.serve_connection(stream, peer, watcher, permit).await });
            }
            Err(_) => {
                counter!("trueup_connections_refused_total").increment(1);
                // Without a permit for the refusal it is closed without one.
                if self.tls.is_none()
                    && let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned()
                {
                    tokio::spawn(async move { server.refuse(stream, permit).await });
                }
            }
        }
    }

    async fn serve_connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        watcher: Watcher,
        _permit: OwnedSemaphorePermit,
    ) {
        gauge!("trueup_connections").increment(1);
        let stream = PacedStream::new(stream, self.stop.clone());
        match &self.tls {
            None => self.serve_http(stream, peer, watcher).await,
            Some(tls) => {
                let wait = Duration::from_millis(limits::TLS_HANDSHAKE_TIMEOUT_MS);
                match tokio::time::timeout(wait, tls.acceptor().accept(stream)).await {
                    Ok(Ok(stream)) => self.serve_http(stream, peer, watcher).await,
                    Ok(Err(problem)) => debug!(%problem, "no TLS connection"),
                    Err(_) => debug!("the TLS handshake took too long"),
                }
            }
        }
        gauge!("trueup_connections").decrement(1);
    }

    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        peer: SocketAddr,
        watcher: Watcher,
    ) {
        let service = self.routes.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(peer));
            request
        });
        let is_encrypted = self.tls.is_some();
        let service = service.map_response(move |mut response| {
            if is_encrypted {
                response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, tls::STRICT_TRANSPORT);
            }
            response
        });
        let due = Instant::now() + self.header_wait;
        let mut stop = self.stop.clone();
        let detected = tokio::select! {
            detected = detect(stream, due) => detected,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match detected {
            Ok(Some((Protocol::Http1, stream))) => {
                let stream = TokioIo::new(ParseProblems::new(stream, due));
                let connection = self.http1.serve_connection(stream, TowerToHyperService::new(service));
                if let Err(problem) = watcher.watch(connection).await {
                    debug!(%problem, "connection closed early");
                }
            }
            Ok(Some((Protocol::Http2, stream))) => {
                match Arc::clone(&self.connections).try_acquire_many_owned(limits::HTTP2_CONNECTION_PLACES - 1) {
                    Ok(_places) => self.http2.serve(stream, service, watcher).await,
                    Err(_) => counter!("trueup_connections_refused_total").increment(1),
                }
            }
            Ok(None) => {}
            Err(problem) => debug!(%problem, "connection closed before a request"),
        }
    }

    /// Answers with 503 before the request is read.
    async fn refuse(&self, stream: TcpStream, _permit: OwnedSemaphorePermit) {
        let detail = format!("the limit of {} connections is reached; close idle ones, or retry", self.connections_max);
        let response = parse_problems::response(&Problem::new(Code::TooManyConnections, detail));
        let mut stream = PacedStream::new(stream, self.stop.clone());
        let sent = async {
            stream.write_all(&response).await?;
            stream.shutdown().await
        };
        if let Err(problem) = sent.await {
            debug!(%problem, "connection refused without an answer");
        }
    }
}

#[cfg(test)]
mod tests;
