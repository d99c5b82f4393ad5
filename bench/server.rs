//! Runs the measured process: the real binary on loopback, with its CPU time and its peak memory.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub struct Server {
    child: Child,
    pub url: String,
    lines: Receiver<String>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the server over `folder`, which keeps the data; returns when it is ready.
    pub fn start(folder: &Path, definitions: &str) -> Server {
        Server::with_limits(folder, definitions, "")
    }

    /// The same, with limits as a settings file has them.
    pub fn with_limits(folder: &Path, definitions: &str, limits: &str) -> Server {
        let settings = folder.join("trueup.toml");
        std::fs::write(&settings, format!("[limits]\n{limits}")).expect("the settings can be written");
        let file = folder.join("definitions.sql");
        std::fs::write(&file, definitions).expect("the definitions can be written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_trueup"))
            .arg("serve")
            .arg(&file)
            .args(["--config", &settings.display().to_string()])
            .args(["--listen", "127.0.0.1:0", "--data", &folder.join("store").display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("trueup starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let url = loop {
            let line = lines.recv_timeout(Duration::from_secs(300)).expect("the server says where it listens");
            if let Some(at) = line.find("http://127.0.0.1:") {
                break line[at..].split('/').take(3).collect::<Vec<_>>().join("/").trim_end().to_owned();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let server = Server { child, url, lines, client, runtime };
        while server.status("/readyz") != 200 {
            std::thread::sleep(Duration::from_millis(2));
        }
        server
    }

    /// Ends the server at once.
    pub fn kill(mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server ends");
    }

    /// The first line the server has written that contains `text`.
    pub fn line_with(&self, text: &str) -> Option<String> {
        self.lines.try_iter().find(|line| line.contains(text))
    }

    /// CPU seconds of the server so far (user and system).
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Peak memory of the server, in MiB.
    pub fn peak_mib(&self) -> f64 {
        self.mib("VmHWM:")
    }

    fn mib(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    }

    pub fn status(&self, path: &str) -> u16 {
        let request = self.client.get(format!("{}{path}", self.url));
        self.runtime.block_on(async { request.send().await.map_or(0, |r| r.status().as_u16()) })
    }

    pub fn get(&self, path: &str) -> Value {
        serde_json::from_slice(&self.get_bytes(path)).expect("JSON")
    }

    pub fn get_bytes(&self, path: &str) -> Vec<u8> {
        let request = self.client.get(format!("{}{path}", self.url));
        let answer = self.runtime.block_on(async { request.send().await?.error_for_status()?.bytes().await });
        answer.expect("an answer").to_vec()
    }

    pub fn post(&self, path: &str, body: Vec<u8>) -> Value {
        let request = self.client.post(format!("{}{path}", self.url)).body(body);
        let answer = self.runtime.block_on(async { request.send().await?.error_for_status()?.bytes().await });
        serde_json::from_slice(&answer.expect("an answer")).expect("JSON")
    }

    /// Runs a batch run to its end; gives its seconds from start to end.
    pub fn run(&self, view: &str, full: bool) -> f64 {
        self.publish(view, "runs", full)
    }

    /// The same for `runs` or `checkpoints`.
    pub fn publish(&self, view: &str, kind: &str, full: bool) -> f64 {
        let begin = Instant::now();
        let run = self.post(&format!("/v1/views/{view}/{kind}"), json!({ "full": full }).to_string().into_bytes());
        let id = run["id"].as_str().expect("an id").to_owned();
        loop {
            let run = self.get(&format!("/v1/runs/{id}"));
            match run["state"].as_str() {
                Some("published") => return begin.elapsed().as_secs_f64(),
                Some("failed" | "cancelled") => panic!("the run failed: {run}"),
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Sends bodies over `connections` at once, each waiting for its answer; 429 is honoured. Seconds from first to last.
    pub fn send(&self, path: &str, bodies: Vec<Vec<u8>>, connections: usize) -> f64 {
        let url = format!("{}{path}", self.url);
        let begin = Instant::now();
        self.runtime.block_on(async {
            let bodies = std::sync::Mutex::new(bodies.into_iter().rev().map(bytes::Bytes::from).collect::<Vec<_>>());
            let sender = || async {
                loop {
                    let next = bodies.lock().expect("no panic").pop();
                    let Some(body) = next else { break };
                    loop {
                        let answer = self.client.post(&url).body(body.clone()).send().await.expect("an answer");
                        match answer.status().as_u16() {
                            200 => {
                                answer.bytes().await.expect("an answer");
                                break;
                            }
                            429 => tokio::time::sleep(Duration::from_millis(20)).await,
                            status => panic!("refused with {status}: {}", answer.text().await.unwrap_or_default()),
                        }
                    }
                }
            };
            futures::future::join_all((0..connections).map(|_| sender())).await;
        });
        begin.elapsed().as_secs_f64()
    }
}

/// CPU seconds of a process so far; `self` for this one.
pub fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: f64 = after_name.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// The value at a share (0 to 1) of sorted values.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
