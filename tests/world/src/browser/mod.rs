//! Drives a headless Chromium through `chromedriver` (W3C WebDriver over plain HTTP).
//!
//! Independent of Trueup's pages. Stops the processes it started by their ids, even if the test panics.

pub mod axe;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Longest wait for one response: a hang becomes a failure instead of a stuck CI.
const PATIENCE: Duration = Duration::from_secs(60);

/// A JSON client for tests that are not async.
pub struct Http {
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }
}

impl Http {
    pub fn get(&self, url: &str) -> Result<Value, reqwest::Error> {
        self.send(self.client.get(url))
    }

    pub fn post(&self, url: &str, body: &Value) -> Result<Value, reqwest::Error> {
        self.send(self.client.post(url).json(body))
    }

    pub fn delete(&self, url: &str) -> Result<Value, reqwest::Error> {
        self.send(self.client.delete(url))
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, reqwest::Error> {
        self.runtime.block_on(async { request.timeout(PATIENCE).send().await?.json().await })
    }
}

/// `chromedriver`, which leads the process group of all it starts.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// A browser with one page. Fields drop in order: the driver stops before its profile folder is removed.
pub struct Browser {
    http: Http,
    session: String,
    _driver: Driver,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.http.delete(&self.session);
    }
}

impl Browser {
    pub fn start() -> Browser {
        let chromium = program("chromium", "chromium");
        let profile = tempfile::tempdir().expect("a temporary folder");
        let (driver, url) = start_driver();
        let http = Http::default();
        let profile_argument = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile_argument,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let answer = http.post(&format!("{url}/session"), &wanted).expect("chromedriver responds");
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("Chromium did not start: {answer}"));
        Browser { session: format!("{url}/session/{id}"), http, _driver: driver, _profile: profile }
    }

    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Runs JavaScript in the page and returns its result.
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({"script": script, "args": []}))
    }

    /// Runs JavaScript that passes its result to a callback, its last argument, and waits for that.
    pub fn run_async(&self, script: &str) -> Value {
        self.command("execute/async", &json!({"script": script, "args": []}))
    }

    /// Presses a key: a character, or one of WebDriver's code points for keys.
    pub fn press(&self, key: &str) {
        let actions = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        self.command("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Presses the browser's back button.
    pub fn back(&self) {
        self.command("back", &json!({}));
    }

    /// Returns the log entries since the last call: `browser` for the console, `performance` for DevTools events.
    pub fn log(&self, kind: &str) -> Vec<Value> {
        let Value::Array(entries) = self.command("se/log", &json!({ "type": kind })) else {
            panic!("the log {kind} is not a list")
        };
        entries
    }

    /// Sets the size of the page in CSS pixels, whatever the size of the window.
    pub fn resize(&self, width: u64, height: u64) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Hides scroll bars, as a phone does.
    pub fn hide_scroll_bars(&self) {
        self.devtools("Emulation.setScrollbarsHidden", &json!({"hidden": true}));
    }

    /// Sets the preferred colour scheme of the system: `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Takes a screenshot of the viewport, as PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.devtools("Page.captureScreenshot", &json!({"format": "png", "optimizeForSpeed": false}));
        from_base64(shot["data"].as_str().expect("a picture"))
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn command(&self, name: &str, body: &Value) -> Value {
        let mut answer = self
            .http
            .post(&format!("{}/{name}", self.session), body)
            .unwrap_or_else(|e| panic!("chromedriver does not respond to {name}: {e}"));
        assert!(answer["value"]["error"].is_null(), "{name} {body}: {}", answer["value"]);
        answer["value"].take()
    }
}

/// Starts the driver; returns it and its URL. It chooses a free port and prints it.
fn start_driver() -> (Driver, String) {
    let child = Command::new(program("chromedriver", "chromium-driver"))
        .arg("--port=0")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver starts");
    let mut driver = Driver(child);
    let stdout = driver.0.stdout.take().expect("stdout is piped");
    let (found, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let _ = found.send(port.trim_end_matches('.').to_owned());
            }
        }
    });
    let port = port.recv_timeout(PATIENCE).expect("chromedriver prints its port");
    (driver, format!("http://127.0.0.1:{port}"))
}

fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("`{name}` is not on the PATH, and this test needs it: apt-get install {package}"))
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let digits: Vec<usize> = digits.collect();
    let group = |four: &[usize]| {
        let bits = four.iter().enumerate().fold(0, |bits, (i, digit)| bits | (digit << (18 - 6 * i)));
        [16, 8, 0].into_iter().take(four.len() - 1).map(move |shift| (bits >> shift) as u8).collect::<Vec<u8>>()
    };
    digits.chunks(4).flat_map(group).collect()
}
