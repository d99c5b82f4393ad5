//! Tests a server that may open few files: idle readers use up connections, and never the files that the log needs.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use world::program;

const DEFINITIONS: &str = "
CREATE STREAM clicks (at TIMESTAMP, page STRING) WITH (event_time = 'at');
CREATE VIEW per_hour AS SELECT window_start, COUNT(*) AS clicks FROM clicks GROUP BY TUMBLE(at, INTERVAL '1' HOUR);
";
/// Descriptors of the server.
const DESCRIPTORS: usize = 256;

struct Server {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server after the shell command `limit`, with small segments of the log.
    fn start(limit: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("v.sql"), DEFINITIONS).expect("written");
        std::fs::write(path("trueup.toml"), "[limits]\nlog_segment_bytes = 4096\n").expect("written");
        let program = program::path().display().to_string();
        let script = format!("{limit} && exec \"$@\"");
        let mut child = Command::new("sh")
            .current_dir(folder.path())
            .args(["-c", &script, "sh", &program, "serve", &path("v.sql"), "--data", &path("data")])
            .args(["--config", &path("trueup.toml"), "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.strip_prefix("  page  ").map(str::to_owned)).expect("the server listens");
        // The rest of the log has to be read, or the server would wait.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Server { child, address, _folder: folder }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(&self.address).expect("the server listens");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        socket
    }
}

/// Sends a request on an open connection, and returns the head of the response and what came with it.
fn ask(socket: &mut TcpStream, request: &str) -> String {
    // A refused connection may be closed before the request is written.
    let _ = socket.write_all(request.as_bytes());
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains("\r\n\r\n") {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    text
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let server = Server::start("ulimit -Sn 200 && ulimit -Hn 300");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).expect("limits");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    let numbers: Vec<&str> = open_files.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).collect();
    assert_eq!(numbers, ["300", "300"], "{open_files}");
}

#[test]
fn idle_readers_leave_the_files_that_the_log_needs() {
    let server = Server::start(&format!("ulimit -n {DESCRIPTORS}"));
    let mut sender = server.connect();
    let live = "GET /v1/views/per_hour/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut readers: Vec<TcpStream> = Vec::new();
    let mut refused = 0;
    for _ in 0..DESCRIPTORS {
        let mut reader = server.connect();
        let answer = ask(&mut reader, live);
        match answer.starts_with("HTTP/1.1 200 ") {
            true => readers.push(reader),
            false => {
                assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too_many_connections"), "{answer}");
                refused += 1;
            }
        }
    }
    assert!(
        readers.len() >= DESCRIPTORS / 4 && refused >= DESCRIPTORS / 4,
        "{} open, {refused} refused",
        readers.len()
    );
    // Every request fills a segment of the log and more.
    let event = r#"{"at":"2024-01-01T10:00:00Z","page":"a-rather-long-name-of-a-page"}"#;
    let body = [event; 200].join("\n");
    for _ in 0..20 {
        let head =
            format!("POST /v1/events/clicks HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = ask(&mut sender, &(head + &body));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    drop(readers);
    let probe = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    while !ask(&mut server.connect(), probe).starts_with("HTTP/1.1 200 ") {
        std::thread::sleep(Duration::from_millis(5));
    }
}
