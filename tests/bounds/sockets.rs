//! Holds the connections of attackers: they send what and when they like, and read only if asked to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use world::World;

/// Longest wait for an answer; a hang becomes a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Receive buffer of clients that do not read, in bytes: the rest of a response stays in the server.
const SMALL_BUFFER: u32 = 4 * 1024;
/// Bytes of a body that are read: enough for a problem.
const BODY_BYTES: usize = 4 * 1024;

/// The sockets of one test.
pub struct Attackers {
    runtime: tokio::runtime::Runtime,
    address: std::net::SocketAddr,
}

/// The head of a response, and the start of its body.
#[derive(Debug, Default)]
pub struct Reply(pub String);

impl Reply {
    /// Returns the status; 0 if the connection was closed without a response.
    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

impl Attackers {
    pub fn of(world: &World) -> Attackers {
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let address = world.url().trim_start_matches("http://").parse().expect("an address");
        Attackers { runtime: runtime.expect("a runtime"), address }
    }

    pub fn at(address: &str) -> Attackers {
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Attackers { runtime: runtime.expect("a runtime"), address: address.parse().expect("an address") }
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs `attack` in the background.
    pub fn spawn<T: Send + 'static>(
        &self,
        attack: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(attack)
    }

    /// Opens a connection, sends `request` and leaves the response unread.
    pub async fn unread(&self, request: impl AsRef<[u8]>) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(SMALL_BUFFER).expect("a small buffer");
        let mut stream = socket.connect(self.address).await.expect("the server listens");
        stream.write_all(request.as_ref()).await.expect("the request fits into the buffers");
        stream
    }

    /// Opens a connection.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Opens a connection, sends `request` as far as the server takes it, and reads the start of the response.
    pub async fn ask(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        // A refused request may not be taken to its end.
        let _ = stream.write_all(request).await;
        reply(&mut stream).await
    }
}

/// Reads the head of a response and the start of its body; without a head, the server has closed the connection.
pub async fn reply(stream: &mut TcpStream) -> Reply {
    let read = async {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !is_complete(&text) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
        Reply(text)
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the server answers")
}

/// Whether a response is there with the first `BODY_BYTES` of its body.
fn is_complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).and_then(|n| n.parse().ok());
    body.len() >= length.unwrap_or(0).min(BODY_BYTES)
}

/// A request for `path`, with further headers, each ending with CR LF.
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes()
}

/// The head of a request with a body of `bytes`.
pub fn post_head(path: &str, bytes: usize) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\n").into_bytes()
}

/// A complete request.
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n{headers}\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(body);
    request
}
