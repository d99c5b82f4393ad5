//! Tests the listener over real sockets.

use axum::http::StatusCode;
use axum::routing::{get, post};
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
            .route("/busy", post(async || (StatusCode::TOO_MANY_REQUESTS, "later")));
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
