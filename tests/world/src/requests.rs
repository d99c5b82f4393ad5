//! Sends requests byte by byte as written, with any headers, and creates keys: for tests of who may do what.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::{World, program};

/// A response, and what it was read up to.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Reply { status, head: head.to_owned(), body: body.to_owned() }
    }

    /// Returns the body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.body))
    }

    /// Returns the code of a problem; empty for another body.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns all values of a header.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }
}

fn sent(world: &World, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let address = world.url().trim_start_matches("http://");
    let mut request = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str("host: localhost\r\n");
    }
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    socket.write_all(format!("{request}\r\n{body}").as_bytes()).expect("sent");
    socket
}

/// Sends a request on a connection of its own and reads the whole response.
pub fn ask(world: &World, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut socket = sent(world, method, target, headers, body);
    let mut bytes = Vec::new();
    // An open event stream ends with the time limit.
    let _ = socket.read_to_end(&mut bytes);
    Reply::parse(&bytes)
}

/// The same, up to `until`, or to the end: for responses that have none.
pub fn ask_until(world: &World, method: &str, target: &str, headers: &[(&str, &str)], until: &str) -> Reply {
    let mut socket = sent(world, method, target, headers, "");
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while !String::from_utf8_lossy(&bytes).contains(until) {
        match socket.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
    Reply::parse(&bytes)
}

/// Sends a request with a key or a token.
pub fn with_key(world: &World, key: &str, method: &str, target: &str, body: &str) -> Reply {
    ask(world, method, target, &[("authorization", &format!("Bearer {key}"))], body)
}

/// Runs a command of the program.
pub fn trueup(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program::trueup_in(folder.path());
    command.args(arguments).env_remove("TRUEUP_KEY").env_remove("TRUEUP_KEY_FILE");
    command.envs(variables.iter().copied()).output().expect("the program runs")
}

/// Creates a key in the world's data folder.
pub fn key(world: &World, arguments: &[&str]) -> String {
    let store = world.store().display().to_string();
    let output = trueup(&[&["key", "create", "--data", &store][..], arguments].concat(), &[]);
    assert!(output.status.success(), "{}", program::text(&output));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Returns the public id in a key.
pub fn id(key: &str) -> &str {
    key.split('_').nth(1).expect("an id")
}
