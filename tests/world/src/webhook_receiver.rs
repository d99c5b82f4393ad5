//! Receives the requests of webhooks in order, and refuses those that a test wants to be refused.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A receiver on a free port.
pub struct WebhookReceiver {
    pub port: u16,
    received: Arc<Mutex<Vec<Received>>>,
}

impl WebhookReceiver {
    /// Starts a receiver that refuses its first requests.
    pub fn start(refusals: usize) -> WebhookReceiver {
        WebhookReceiver::refusing(move |number| number < refusals)
    }

    /// Starts a receiver that refuses the requests of these numbers, the first of which is 0.
    pub fn refusing(is_refused: impl Fn(usize) -> bool + Send + 'static) -> WebhookReceiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&received);
        std::thread::spawn(move || {
            let mut number = 0;
            for socket in listener.incoming().map_while(Result::ok) {
                if let Some(request) = read(&socket) {
                    let status = if is_refused(number) { "503 Service Unavailable" } else { "204 No Content" };
                    if !is_refused(number) {
                        seen.lock().expect("no panic").push(request);
                    }
                    number += 1;
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = (&socket).write_all(answer.as_bytes());
                }
            }
        });
        WebhookReceiver { port, received }
    }

    /// Every accepted request so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }
}

fn read(socket: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(socket);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(Received { headers, body: String::from_utf8(body).ok()? })
}
