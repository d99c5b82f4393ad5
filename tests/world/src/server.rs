//! Runs a real `trueup` process on loopback that tests can query, stop, kill and restart.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program;

/// Longest wait for a start or a run, also on a busy machine; a hang becomes a failure, not a stuck CI.
const PATIENCE: Duration = Duration::from_secs(180);

/// A location of the data that is not a temporary folder.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// Its URL.
    pub data: String,
    /// Environment variables of every start.
    pub variables: Vec<(String, String)>,
    /// Further options of every start.
    pub options: Vec<String>,
    /// Limits, as written in a settings file.
    pub limits: String,
}

/// A server over a temporary data folder, which outlives the process.
pub struct World {
    pub data: tempfile::TempDir,
    definitions: PathBuf,
    environment: Vec<(String, String)>,
    /// Further options of the next start.
    arguments: Vec<String>,
    elsewhere: Option<Elsewhere>,
    /// Address at which the next start listens.
    listen: String,
    process: Option<Process>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

struct Process {
    child: Child,
    url: String,
    log: Arc<Mutex<Vec<String>>>,
    /// Reads the log until the process has ended.
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Process {
    /// All that a process that has ended wrote to stderr.
    fn last_words(mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log is read to its end");
        }
        self.log.lock().expect("a log").join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An HTTP response.
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

    /// The same, with the data at another location; local files are in a fresh folder.
    pub fn elsewhere(definitions: &str, elsewhere: Elsewhere) -> World {
        World::made(definitions, &[], Some(elsewhere))
    }

    fn made(definitions: &str, environment: &[(&str, &str)], elsewhere: Option<Elsewhere>) -> World {
        let mut world = World::prepared(definitions, environment, elsewhere);
        world.start();
        world
    }

    /// A fresh data folder for `definitions`, without a server yet.
    pub fn stopped(definitions: &str) -> World {
        World::prepared(definitions, &[], None)
    }

    fn prepared(definitions: &str, environment: &[(&str, &str)], elsewhere: Option<Elsewhere>) -> World {
        let data = tempfile::tempdir().expect("a temporary folder");
        let file = data.path().join("definitions.sql");
        std::fs::write(&file, definitions).expect("the definitions can be written");
        let limits = elsewhere.as_ref().map_or_else(String::new, |e| format!("[limits]\n{}", e.limits));
        std::fs::write(data.path().join("trueup.toml"), limits).expect("the settings can be written");
        World {
            data,
            definitions: file,
            environment: environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            arguments: Vec::new(),
            elsewhere,
            listen: "127.0.0.1:0".to_owned(),
            process: None,
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    /// Replaces the definitions of the next start.
    pub fn redefine(&self, definitions: &str) {
        std::fs::write(&self.definitions, definitions).expect("the definitions can be written");
    }

    /// Environment of the next start.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// Further options of the next start.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Starts the server and waits until it is ready.
    pub fn start(&mut self) {
        assert!(self.launch(), "the server did not start:\n{}", self.log());
        self.wait_for("ready", |world| world.try_get("/readyz").is_some_and(|a| a.status == 200));
    }

    /// Starts the server at the address of a former one.
    pub fn start_at(&mut self, listen: &str) {
        self.listen = listen.to_owned();
        self.start();
    }

    /// Starts a server that may end before it is ready.
    pub fn start_whatever_comes(&mut self) {
        self.launch();
    }

    /// Starts a server that must end by itself at once; returns its exit code and its messages.
    pub fn start_refused(&mut self) -> (Option<i32>, String) {
        assert!(!self.launch(), "the server did start:\n{}", self.log());
        let mut process = self.process.take().expect("a process");
        let code = process.child.wait().expect("the server ends").code();
        (code, process.last_words())
    }

    /// Starts the process. Returns `false` if it ends or does not print its address.
    fn launch(&mut self) -> bool {
        assert!(self.process.is_none(), "already running");
        let store = self.store().display().to_string();
        let data = self.elsewhere.as_ref().map_or(&store, |elsewhere| &elsewhere.data);
        let variables = self.elsewhere.iter().flat_map(|elsewhere| &elsewhere.variables);
        let mut child = program::trueup_in(self.data.path())
            .arg("serve")
            .arg(&self.definitions)
            .args(["--data", data, "--local", &store, "--listen", &self.listen])
            .args(["--config", &self.settings().display().to_string()])
            .args(&self.arguments)
            .args(self.elsewhere.iter().flat_map(|elsewhere| &elsewhere.options))
            .envs(variables.map(|(k, v)| (k, v)))
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("trueup starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (found, address) = std::sync::mpsc::channel();
        let lines = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("  page  ") {
                    let url: String = url.chars().take_while(|c| !c.is_whitespace()).collect();
                    let _ = found.send(url.trim_end_matches('/').to_owned());
                }
                lines.lock().expect("no panic while logging").push(line);
            }
        });
        let found = address.recv_timeout(PATIENCE);
        // No process listens at port 1.
        let url = found.as_deref().unwrap_or("http://127.0.0.1:1");
        let root = url.split('/').take(3).collect::<Vec<_>>().join("/");
        self.process = Some(Process { child, url: root, log, reader: Some(reader) });
        found.is_ok()
    }

    fn settings(&self) -> PathBuf {
        self.data.path().join("trueup.toml")
    }

    /// Sets the limits of the next start, as written in a settings file.
    pub fn set_limits(&self, limits: &str) {
        std::fs::write(self.settings(), format!("[limits]\n{limits}")).expect("the settings can be written");
    }

    /// Sets the settings file of the next start.
    pub fn set_settings(&self, text: &str) {
        std::fs::write(self.settings(), text).expect("the settings can be written");
    }

    /// The definitions of the next start.
    pub fn definitions(&self) -> &Path {
        &self.definitions
    }

    /// The server's data folder, or its local folder if the data are at another location.
    pub fn store(&self) -> PathBuf {
        self.data.path().join("store")
    }

    /// Returns a command of the program that runs in the folder of this world.
    pub fn trueup(&self) -> Command {
        program::trueup_in(self.data.path())
    }

    /// Sends the events of `file` to `stream` with `trueup ingest`.
    ///
    /// # Panics
    /// If the command fails or an event is rejected.
    pub fn ingest(&self, stream: &str, file: &Path) {
        let sent = self.trueup().args(["ingest", stream]).arg(file).args(["--url", self.url()]).output();
        let sent = sent.expect("trueup runs");
        assert!(sent.status.success(), "{}", program::text(&sent));
    }

    /// Makes all data files of the lake look two hours old: vacuum keeps younger ones that no commit names.
    pub fn age_files(&self) {
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(7_200);
        let mut folders = vec![self.store().join("lake")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "parquet") {
                    let file = std::fs::File::options().write(true).open(&path).expect("a file of the lake");
                    file.set_modified(long_ago).expect("its time can be set");
                }
            }
        }
    }

    /// Kills the server.
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

    /// Waits for a server that ends by itself; gives its exit code and what it wrote to stderr.
    pub fn end_by_itself(&mut self) -> (Option<i32>, String) {
        let process = self.process.as_mut().expect("a running server");
        let begin = Instant::now();
        let status = loop {
            match process.child.try_wait().expect("a status") {
                Some(status) => break status,
                None => assert!(begin.elapsed() < PATIENCE, "the server did not end\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = self.process.take().expect("a server").last_words();
        (status.code(), text)
    }

    /// Stops the server cleanly and waits for it; returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("a running server");
        let id = process.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill runs");
        assert!(sent.success());
        process.child.wait().expect("the server ends").code()
    }

    /// Returns whether a server was started and neither stopped nor killed.
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

    /// The messages of the server (stderr).
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

    /// Returns the response with all rows of a view.
    pub fn rows(&self, view: &str, parameters: &str) -> Value {
        let answer = self.get(&format!("/v1/views/{view}/rows.json?limit=1000000{parameters}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// Starts a batch run and waits until it is over; returns the run. With the data at another location a run may fail, and is
    /// requested again a few times, as a schedule would.
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

    /// Waits until a run is over; returns the run.
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

/// `text` as a value of a query string.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
