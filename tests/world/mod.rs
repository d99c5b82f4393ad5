//! Runs a real `trueup` process on loopback that tests can query, stop, kill and restart.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Longest wait for a start or a run; a hang becomes a failure, not a stuck CI.
const PATIENCE: Duration = Duration::from_secs(60);

/// A place for the data that is not a folder.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Its URL.
    pub data: String,
    /// Variables that every start gets.
    pub variables: Vec<(String, String)>,
    /// Further options that every start gets.
    pub options: Vec<String>,
    /// Limits as a settings file has them.
    pub limits: String,
}

/// A server over a data folder that survives it.
pub struct World {
    pub data: tempfile::TempDir,
    definitions: PathBuf,
    environment: Vec<(String, String)>,
    elsewhere: Option<Elsewhere>,
    /// Where the next start listens.
    listen: String,
    process: Option<Process>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

struct Process {
    child: Child,
    url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
    pub cache_control: Option<String>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text))
    }
}

impl World {
    /// A fresh data folder, with a server over it for `definitions`.
    pub fn new(definitions: &str) -> World {
        World::with_environment(definitions, &[])
    }

    /// The same, with environment variables for the server.
    pub fn with_environment(definitions: &str, environment: &[(&str, &str)]) -> World {
        World::made(definitions, environment, None)
    }

    /// The same, with the data elsewhere; what must be on this machine is in a fresh folder.
    pub fn elsewhere(definitions: &str, elsewhere: Elsewhere) -> World {
        World::made(definitions, &[], Some(elsewhere))
    }

    fn made(definitions: &str, environment: &[(&str, &str)], elsewhere: Option<Elsewhere>) -> World {
        let data = tempfile::tempdir().expect("a temporary folder");
        let file = data.path().join("definitions.sql");
        std::fs::write(&file, definitions).expect("the definitions can be written");
        let limits = elsewhere.as_ref().map_or_else(String::new, |e| format!("[limits]\n{}", e.limits));
        std::fs::write(data.path().join("trueup.toml"), limits).expect("the settings can be written");
        let mut world = World {
            data,
            definitions: file,
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            elsewhere,
            listen: "127.0.0.1:0".to_owned(),
            process: None,
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        };
        world.start();
        world
    }

    /// Replaces the definitions the next start reads.
    pub fn redefine(&self, definitions: &str) {
        std::fs::write(&self.definitions, definitions).expect("the definitions can be written");
    }

    /// Environment of the next start.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// Starts the server and waits until it is ready.
    pub fn start(&mut self) {
        assert!(self.launch(), "the server did not start:\n{}", self.log());
        self.wait_for("ready", |world| world.try_get("/readyz").is_some_and(|a| a.status == 200));
    }

    /// Starts the server where a former one listened.
    pub fn start_at(&mut self, listen: &str) {
        self.listen = listen.to_owned();
        self.start();
    }

    /// Starts a server that may end before it is ready.
    pub fn start_whatever_comes(&mut self) {
        self.launch();
    }

    /// Starts a server that must end by itself at once; gives its exit code and what it wrote to stderr.
    pub fn start_refused(&mut self) -> (Option<i32>, String) {
        assert!(!self.launch(), "the server did start:\n{}", self.log());
        let mut process = self.process.take().expect("a process");
        let code = process.child.wait().expect("the server ends").code();
        let text = process.log.lock().expect("a log").join("\n");
        (code, text)
    }

    /// `false`: the server ended, or did not say where it listens.
    fn launch(&mut self) -> bool {
        assert!(self.process.is_none(), "already running");
        let store = self.store().display().to_string();
        let data = self.elsewhere.as_ref().map_or(&store, |elsewhere| &elsewhere.data);
        let variables = self.elsewhere.iter().flat_map(|elsewhere| &elsewhere.variables);
        let mut child = Command::new(env!("CARGO_BIN_EXE_trueup"))
            .arg("serve")
            .arg(&self.definitions)
            .args(["--data", data, "--local", &store, "--listen", &self.listen])
            .args(["--config", &self.settings().display().to_string()])
            .args(self.elsewhere.iter().flat_map(|elsewhere| &elsewhere.options))
            .envs(variables.map(|(k, v)| (k, v)))
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("trueup starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = std::sync::mpsc::channel();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("  page  ") {
                    let url: String = url.chars().take_while(|c| !c.is_whitespace()).collect();
                    let _ = found.send(url.trim_end_matches('/').to_owned());
                }
                lines.lock().expect("no panic while logging").push(line);
            }
        });
        let found = address.recv_timeout(PATIENCE);
        // Nobody listens at port 1.
        let url = found.as_deref().unwrap_or("http://127.0.0.1:1");
        let root = url.split('/').take(3).collect::<Vec<_>>().join("/");
        self.process = Some(Process { child, url: root, log });
        found.is_ok()
    }

    fn settings(&self) -> PathBuf {
        self.data.path().join("trueup.toml")
    }

    /// Limits of the next start, as a settings file has them.
    pub fn set_limits(&self, limits: &str) {
        std::fs::write(self.settings(), format!("[limits]\n{limits}")).expect("the settings can be written");
    }

    /// The definitions of the next start.
    pub fn definitions(&self) -> &Path {
        &self.definitions
    }

    /// Where the server keeps its data, or of data that is elsewhere what must be on this machine.
    pub fn store(&self) -> PathBuf {
        self.data.path().join("store")
    }

    /// Ends the server at once, as a power cut would (for the process).
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a running server");
        process.child.kill().expect("the server can be killed");
        process.child.wait().expect("the server ends");
    }

    /// Waits for a server that ends by itself.
    pub fn wait_for_exit(&mut self) {
        let mut process = self.process.take().expect("a running server");
        let begin = Instant::now();
        while process.child.try_wait().expect("a status").is_none() {
            assert!(begin.elapsed() < PATIENCE, "the server did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the server to stop and waits for it; gives its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("a running server");
        let id = process.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success());
        process.child.wait().expect("the server ends").code()
    }

    /// Has a server been started and neither stopped nor killed?
    pub fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| p.child.try_wait().expect("a status").is_none())
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("a running server").child.id()
    }

    pub fn url(&self) -> &str {
        &self.process.as_ref().expect("a running server").url
    }

    /// What the server has written to stderr.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, |p| p.log.lock().expect("a log").join("\n"))
    }

    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_send(self.client.get(format!("{}{path}", self.url())))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|| panic!("GET {path}: no answer\n{}", self.log()))
    }

    pub fn get_bytes(&self, path: &str) -> Vec<u8> {
        let request = self.client.get(format!("{}{path}", self.url()));
        let bytes = self.runtime.block_on(async { request.send().await?.error_for_status()?.bytes().await });
        bytes.unwrap_or_else(|e| panic!("GET {path}: {e}")).to_vec()
    }

    pub fn try_post(&self, path: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Option<Answer> {
        let mut request = self.client.post(format!("{}{path}", self.url())).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.try_send(request)
    }

    pub fn post(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.try_post(path, body.into(), &[]).unwrap_or_else(|| panic!("POST {path}: no answer\n{}", self.log()))
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.try_send(self.client.delete(format!("{}{path}", self.url()))).expect("an answer")
    }

    fn try_send(&self, request: reqwest::RequestBuilder) -> Option<Answer> {
        self.runtime.block_on(async {
            let response = request.timeout(PATIENCE).send().await.ok()?;
            let status = response.status().as_u16();
            let cache_control = response.headers().get("cache-control").and_then(|value| value.to_str().ok());
            let cache_control = cache_control.map(str::to_owned);
            Some(Answer { status, text: response.text().await.ok()?, cache_control })
        })
    }

    /// All rows of a view, as the JSON answer gives them.
    pub fn rows(&self, view: &str, parameters: &str) -> Value {
        let answer = self.get(&format!("/v1/views/{view}/rows.json?limit=1000000{parameters}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Starts a batch run and waits until it is over; gives the run. With the data elsewhere a run may fail, and is asked
    /// for again a few times, as a schedule would.
    pub fn run(&self, view: &str, full: bool) -> Value {
        let mut run = self.run_once(view, full);
        for _ in 0..if self.elsewhere.is_some() { 4 } else { 0 } {
            if run["state"] != json!("failed") {
                break;
            }
            run = self.run_once(view, full);
        }
        run
    }

    /// The same, only once.
    pub fn run_once(&self, view: &str, full: bool) -> Value {
        let answer = self.post(&format!("/v1/views/{view}/runs"), json!({ "full": full }).to_string());
        assert_eq!(answer.status, 202, "{}", answer.text);
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        self.finished(&id)
    }

    /// Waits until a run is over; gives the run.
    pub fn finished(&self, id: &str) -> Value {
        let mut run = Value::Null;
        self.wait_for("the run", |world| {
            run = world.get(&format!("/v1/runs/{id}")).json();
            ["published", "failed", "cancelled"].contains(&run["state"].as_str().unwrap_or(""))
        });
        run
    }

    /// Waits until something holds.
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let begin = Instant::now();
        while !holds(self) {
            assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The flights that come with the project.
pub fn flights_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flights/flights.parquet")
}

/// `text` as a value of a query string.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
