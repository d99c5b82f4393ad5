//! The clients of a site, each on a thread of its own until the power is cut.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::expected::{Figures, Request, VIEWS, figures};

/// Most events of a request, and of a historical file.
const REQUEST_EVENTS_MAX: u64 = 60;
const FILE_EVENTS_MAX: u64 = 400;
/// Pause between two requests of a writer: more requests would only take longer to check.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer that promises something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Acknowledged,
    Published,
    Imported,
    Compacted,
}

/// What clients and the site say to each other.
pub struct Signals {
    pub over: AtomicBool,
    pub answers: Sender<Answer>,
    /// The process of a historical ingest; 0: there is none.
    pub ingest: AtomicU32,
}

impl Signals {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn report(&self, answer: Answer) {
        // The site may have stopped listening.
        let _ = self.answers.send(answer);
    }
}

/// Sends requests to any server, one at a time.
pub struct Http {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Http {
    pub fn new() -> Http {
        Http {
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    /// Returns the status and the body; `None` if there is no response.
    fn send(&self, request: reqwest::RequestBuilder) -> Option<(u16, String)> {
        self.runtime.block_on(async {
            let response = request.timeout(PATIENCE).send().await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.text().await.ok()?))
        })
    }

    fn json(&self, request: reqwest::RequestBuilder) -> Option<Value> {
        let (status, text) = self.send(request)?;
        (status < 300).then(|| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    fn get(&self, url: &str, path: &str) -> Option<Value> {
        self.json(self.client.get(format!("{url}{path}")))
    }

    fn post(&self, url: &str, path: &str, body: &Value) -> Option<Value> {
        self.json(self.client.post(format!("{url}{path}")).body(body.to_string()))
    }
}

/// Sends events to a stream, and repeats a request until it is acknowledged.
pub struct Writer {
    stream: &'static str,
    name: String,
    random: StdRng,
    http: Http,
    sent: u64,
    next_event: u64,
    pub acknowledged: Vec<Request>,
    pub pending: Option<Request>,
}

impl Writer {
    pub fn new(stream: &'static str, name: String, seed: u64) -> Writer {
        let random = StdRng::seed_from_u64(seed);
        Writer { stream, name, random, http: Http::new(), sent: 0, next_event: 0, acknowledged: vec![], pending: None }
    }

    pub fn stream(&self) -> &'static str {
        self.stream
    }

    fn next(&mut self) -> Request {
        let events = self.next_event..self.next_event + self.random.random_range(1..=REQUEST_EVENTS_MAX);
        self.next_event = events.end;
        self.sent += 1;
        Request { name: format!("{}-{}", self.name, self.sent), events }
    }

    /// Sends the pending request or a new one; returns whether it was acknowledged.
    ///
    /// # Panics
    /// If the request is refused for good.
    fn send(&mut self, url: &str) -> bool {
        let request = self.pending.take().unwrap_or_else(|| self.next());
        let post = self.http.client.post(format!("{url}/v1/events/{}", self.stream)).body(request.body());
        // Events without ids would count twice without a key.
        let post = if self.stream == "plain" { post.header("Idempotency-Key", &request.name) } else { post };
        let response = self.http.send(post);
        let status = response.as_ref().map_or(0, |(status, _)| *status);
        assert!(!(400..500).contains(&status) || status == 429, "refused: {response:?}");
        if status == 200 {
            self.acknowledged.push(request);
        } else {
            self.pending = Some(request);
        }
        status == 200
    }

    pub fn run(&mut self, url: &str, signals: &Signals) {
        while !signals.is_over() && self.send(url) {
            signals.report(Answer::Acknowledged);
            std::thread::sleep(PAUSE);
        }
    }

    /// Sends the pending request again, if there is one.
    ///
    /// # Panics
    /// If it is not acknowledged.
    pub fn repeat(&mut self, url: &str) {
        assert!(self.pending.is_none() || self.send(url), "{}: a repeated request is not acknowledged", self.name);
    }
}

/// Requests runs and compactions.
pub struct Operator {
    random: StdRng,
    http: Http,
    /// The newest version of each view that a run was said to have published.
    pub versions: BTreeMap<&'static str, i64>,
    pub runs: u64,
    pub compactions: u64,
}

impl Operator {
    pub fn new(seed: u64) -> Operator {
        let (random, http) = (StdRng::seed_from_u64(seed), Http::new());
        Operator { random, http, versions: BTreeMap::new(), runs: 0, compactions: 0 }
    }

    pub fn run(&mut self, url: &str, signals: &Signals) {
        while !signals.is_over() {
            // A refusal, such as that of a second run of one view, passes.
            if self.act(url, signals).is_none() {
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn act(&mut self, url: &str, signals: &Signals) -> Option<()> {
        let (stream, view) = VIEWS[self.random.random_range(0..VIEWS.len())];
        if self.random.random_bool(0.3) {
            let path = format!("/v1/streams/{stream}/compact");
            self.http.post(url, &path, &json!({"vacuum_older_than_ms": 0}))?;
            self.compactions += 1;
            signals.report(Answer::Compacted);
            return Some(());
        }
        let request = json!({"full": self.random.random_bool(0.3)});
        let mut run = self.http.post(url, &format!("/v1/views/{view}/runs"), &request)?;
        let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
        while !["published", "failed", "cancelled"].contains(&run["state"].as_str().unwrap_or_default()) {
            std::thread::sleep(Duration::from_millis(2));
            run = self.http.get(url, &path)?;
        }
        if let Some(version) = run["version"].as_i64() {
            self.runs += 1;
            self.versions.insert(view, version.max(self.versions.get(view).copied().unwrap_or(0)));
            signals.report(Answer::Published);
        }
        Some(())
    }
}

/// Reads both views again and again.
pub struct Reader {
    http: Http,
    /// The newest figures of each view that were served.
    pub figures: BTreeMap<&'static str, Figures>,
    pub versions: BTreeMap<&'static str, i64>,
}

impl Reader {
    pub fn new() -> Reader {
        Reader { http: Http::new(), figures: BTreeMap::new(), versions: BTreeMap::new() }
    }

    pub fn run(&mut self, url: &str, signals: &Signals) {
        while !signals.is_over() && self.read(url).is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// # Panics
    /// If figures go back.
    fn read(&mut self, url: &str) -> Option<()> {
        for (_, view) in VIEWS {
            let rows = self.http.get(url, &format!("/v1/views/{view}/rows.json?limit=1000000"))?;
            let now = figures(&rows);
            if let Some(before) = self.figures.get(view) {
                crate::expected::check_kept(before, &now).unwrap_or_else(|error| panic!("{view}: {error}"));
            }
            self.figures.insert(view, now);
            let version = self.http.get(url, &format!("/v1/views/{view}"))?["seam"]["version"].as_i64().unwrap_or(0);
            let before = self.versions.insert(view, version).unwrap_or(0);
            assert!(version >= before, "{view}: version {version} after {before}");
        }
        Some(())
    }
}

/// Imports files of historical events into `keyed`.
pub struct Importer {
    random: StdRng,
    sent: u64,
    next_event: u64,
    pub imported: Vec<Request>,
    pub pending: Option<Request>,
}

impl Importer {
    pub fn new(seed: u64) -> Importer {
        let random = StdRng::seed_from_u64(seed);
        Importer { random, sent: 0, next_event: 0, imported: Vec::new(), pending: None }
    }

    /// Returns the pending file, or a new one, which is then pending.
    pub fn next(&mut self) -> &Request {
        if self.pending.is_none() {
            let events = self.next_event..self.next_event + self.random.random_range(1..=FILE_EVENTS_MAX);
            self.next_event = events.end;
            self.sent += 1;
            self.pending = Some(Request { name: format!("file-{}", self.sent), events });
        }
        self.pending.as_ref().expect("it was just made")
    }

    /// Runs `ingest`, which imports the pending file, until it ends or the power is cut.
    pub fn run(&mut self, mut ingest: Command, signals: &Signals) {
        let mut child = ingest.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("trueup starts");
        signals.ingest.store(child.id(), Ordering::SeqCst);
        loop {
            if let Some(status) = child.try_wait().expect("a status") {
                signals.ingest.store(0, Ordering::SeqCst);
                if status.success() {
                    self.imported.extend(self.pending.take());
                    signals.report(Answer::Imported);
                }
                return;
            }
            if signals.is_over() {
                child.kill().expect("it can be killed");
                child.wait().expect("it ends");
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Runs `ingest`, which imports the pending file again.
    ///
    /// # Panics
    /// If it fails.
    pub fn repeat(&mut self, mut ingest: Command) {
        let output = ingest.output().expect("trueup starts");
        assert!(output.status.success(), "{}", world::program::text(&output));
        self.imported.extend(self.pending.take());
    }
}
