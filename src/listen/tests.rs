//! Tests the listener over real sockets.

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncReadExt;

use super::*;

struct RunningListener {
    address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl RunningListener {
    async fn start(connections: usize) -> RunningListener {
        RunningListener::with_header_wait(connections, Duration::from_secs(60)).await
    }

    async fn with_header_wait(connections: usize, header_wait: Duration) -> RunningListener {
        let routes = Router::new()
            .route("/", get(async || "here"))
            .route("/busy", post(async || (StatusCode::TOO_MANY_REQUESTS, "later")))
            .route("/large", get(async || "x".repeat(LARGE)))
            .route("/echo", post(async |body: String| body))
            .route("/deaf", post(async |_: Request<Body>| std::future::pending::<()>().await))
            .route("/host", get(async |request: Request<Body>| format!("{:?}", request.headers()[header::HOST])));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = watch::channel(false);
        let limits = ListenSettings { connections, shutdown_wait: Duration::from_secs(10), header_wait, tls: None };
        let task = tokio::spawn(serve(listener, routes, stopped, limits));
        RunningListener { address, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// Opens a connection with HTTP/2; its end arrives at the receiver.
    async fn connect_http2(&self) -> (SendRequest<Body>, tokio::sync::oneshot::Receiver<()>) {
        let stream = TokioIo::new(self.connect().await);
        let (sender, connection) = handshake(TokioExecutor::new(), stream).await.expect("a handshake");
        let (ended, end) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let _ = connection.await;
            let _ = ended.send(());
        });
        (sender, end)
    }

    /// Sends `request` and returns everything until the server closes.
    async fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        let mut answer = Vec::new();
        // A refused connection may be closed before the request is written.
        let _ = stream.write_all(request).await;
        stream.read_to_end(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.expect("the listener ends");
    }
}

/// Many pieces of a response.
const LARGE: usize = 3 * 1024 * 1024 + 1;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_others_continue() {
    let server = RunningListener::start(2).await;
    let mut first = server.connect().await;
    let second = server.connect().await;
    // Connections are accepted in order, so both count before the third.
    let refused = server.ask(GET).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too_many_connections"), "{refused}");
    first.write_all(GET).await.expect("sent");
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"), "{answer}");
    drop((first, second));
    while !server.ask(GET).await.starts_with("HTTP/1.1 200 ") {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_still_sending_gets_the_refusal() {
    let server = RunningListener::start(10).await;
    let bytes = 40 << 20;
    let mut request = format!("POST /busy HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
    request.resize(request.len() + bytes, b' ');
    let mut stream = server.connect().await;
    // Like clients that read only after they have written everything.
    stream.write_all(&request).await.expect("the server reads on");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.ends_with("later"), "{answer}");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn headers_that_do_not_arrive_get_a_problem_and_an_idle_connection_is_closed() {
    let server = RunningListener::with_header_wait(9, Duration::from_millis(200)).await;
    for part in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: localhost\r\n"] {
        let late = server.ask(part.as_bytes()).await;
        assert!(late.starts_with("HTTP/1.1 408 ") && late.contains("\"code\":\"stalled\""), "{part:?}: {late}");
        assert_eq!(late.matches("HTTP/1.1").count(), 1, "{late}");
    }
    assert_eq!(server.ask(b"").await, "");
    // A connection that has had a response is closed without another one.
    let kept = server.ask(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(kept.starts_with("HTTP/1.1 200 ") && kept.matches("HTTP/1.1").count() == 1, "{kept}");
    let second = server.ask(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HT").await;
    assert_eq!(second.matches("HTTP/1.1").count(), 1, "{second}");
    server.stop().await;
}

/// Asks over HTTP/2; returns the status and the body.
async fn ask(
    client: &mut SendRequest<Body>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String), hyper::Error> {
    let request = Request::builder().method(method).uri(format!("http://figures.example{path}"));
    let response = client.send_request(request.body(body.to_owned().into()).expect("a request")).await?;
    let status = response.status().as_u16();
    let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.expect("a body");
    Ok((status, String::from_utf8(body.to_vec()).expect("text")))
}

#[tokio::test]
async fn requests_share_an_http2_connection_and_large_bodies_arrive_whole() {
    let server = RunningListener::start(100).await;
    let (mut client, _end) = server.connect_http2().await;
    // A client knows how many requests it may send at the same time once it has heard from the server.
    assert_eq!(ask(&mut client, "GET", "/", "").await.expect("an answer").0, 200);
    let large = "y".repeat(LARGE);
    let asking = (0..100).map(|n| {
        let (mut client, large) = (client.clone(), &large);
        async move {
            match n % 4 {
                0 => assert_eq!(ask(&mut client, "GET", "/", "").await.expect("an answer"), (200, "here".to_owned())),
                1 => assert_eq!(
                    ask(&mut client, "GET", "/large", "").await.expect("an answer"),
                    (200, "x".repeat(LARGE))
                ),
                2 => assert_eq!(ask(&mut client, "POST", "/busy", large).await.expect("an answer").0, 429),
                _ => assert_eq!(ask(&mut client, "POST", "/echo", "text").await.expect("an answer").1, "text"),
            }
        }
    });
    futures::future::join_all(asking).await;
    let (status, host) = ask(&mut client.clone(), "GET", "/host", "").await.expect("an answer");
    assert_eq!((status, host.as_str()), (200, "\"figures.example\""));
    server.stop().await;
}

#[tokio::test]
async fn an_http2_connection_takes_the_places_of_many_and_is_closed_without_them() {
    let places = limits::HTTP2_CONNECTION_PLACES as usize;
    let server = RunningListener::start(places + 2).await;
    let (mut first, first_end) = server.connect_http2().await;
    assert_eq!(ask(&mut first, "GET", "/", "").await.expect("an answer").0, 200);
    let (mut second, second_end) = server.connect_http2().await;
    assert!(ask(&mut second, "GET", "/", "").await.is_err());
    second_end.await.expect("closed");
    assert!(server.ask(GET).await.starts_with("HTTP/1.1 200 "), "a connection of HTTP/1.1 takes one place");
    drop(first);
    first_end.await.expect("closed");
    loop {
        let (mut again, _end) = server.connect_http2().await;
        if ask(&mut again, "GET", "/", "").await.is_ok_and(|answer| answer.0 == 200) {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_and_the_server_stops_beside_one() {
    let server = RunningListener::with_header_wait(100, Duration::from_millis(200)).await;
    let (mut client, end) = server.connect_http2().await;
    assert_eq!(ask(&mut client, "GET", "/", "").await.expect("an answer").0, 200);
    end.await.expect("closed");
    // The preface alone opens no request.
    assert_ne!(server.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
    let (_client, end) = server.connect_http2().await;
    let _silent = server.connect().await;
    server.stop().await;
    end.await.expect("closed");
}

#[tokio::test]
async fn a_request_that_is_not_read_leaves_room_for_others() {
    let server = RunningListener::start(100).await;
    let (client, _end) = server.connect_http2().await;
    let body = "z".repeat(4 * limits::HTTP2_CONNECTION_WINDOW_BYTES as usize);
    let (mut deaf, mut other) = (client.clone(), client);
    tokio::select! {
        answer = ask(&mut deaf, "POST", "/deaf", &body) => panic!("{answer:?}"),
        answer = ask(&mut other, "POST", "/busy", &body) => assert_eq!(answer.expect("an answer").0, 429),
    }
    server.stop().await;
}

#[tokio::test]
async fn headers_over_http2_that_are_too_long_get_431() {
    let server = RunningListener::start(100).await;
    let (mut client, _end) = server.connect_http2().await;
    let path = format!("/?{}", "q".repeat(2 * limits::HTTP2_HEADERS_BYTES_MAX as usize));
    let refused = ask(&mut client, "GET", &path, "").await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.0 == 431));
    assert_eq!(ask(&mut client, "GET", "/", "").await.expect("an answer").0, 200);
    server.stop().await;
}
