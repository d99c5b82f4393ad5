//! Runs the real demo on loopback, for tests of its pages.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::browser::Http;
use crate::program::trueup_in;

/// Longest wait for the demo to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running demo; stops with the test.
pub struct Demo {
    child: Child,
    pub url: String,
    http: Http,
    _data: tempfile::TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    /// Starts a demo that stops by itself after three minutes; `arguments` extend those of `trueup demo`.
    pub fn start(arguments: &[&str]) -> Demo {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut child = trueup_in(data.path())
            .args(["demo", "--listen", "127.0.0.1:0", "--for", "3m", "--data"])
            .arg(data.path().join("demo"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("trueup starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let mut demo = Demo { child, url: String::new(), http: Http::default(), _data: data };
        let (found, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(at) = line.find("http://127.0.0.1:") {
                    let root: Vec<&str> = line[at..].split('/').take(3).collect();
                    let _ = found.send(root.join("/"));
                }
            }
        });
        demo.url = address.recv_timeout(PATIENCE).expect("the demo prints its address");
        demo
    }

    /// Returns the JSON response of a path, including error responses.
    pub fn get(&self, path: &str) -> Value {
        self.http.get(&format!("{}{path}", self.url)).unwrap_or_else(|e| panic!("GET {path}: {e}"))
    }
}
