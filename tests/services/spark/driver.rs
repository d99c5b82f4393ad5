//! Starts a real Spark and sends it queries. `driver.py` runs it and ends with this process, whose end closes its input.
//!
//! Python with `pyspark` 4 is `TRUEUP_SPARK_PYTHON`, or in `$HOME/.cache/trueup-spark`. Without it the tests are skipped; with `CI`
//! set, it is required.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::{Value, json};
use shared::stream::Stream;
use shared::time::Day;
use shared::view::View;
use world::root;

/// A Spark session.
pub struct Driver {
    // Closed first, which ends the process.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    child: Child,
    _folder: tempfile::TempDir,
}

/// The session that tests share. `None`, with a message, if there is no Spark on this machine.
pub fn shared() -> Option<MutexGuard<'static, Driver>> {
    static SHARED: OnceLock<Option<Mutex<Driver>>> = OnceLock::new();
    let driver = SHARED.get_or_init(|| Some(Mutex::new(Driver::start()?))).as_ref()?;
    Some(driver.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// The interpreter that has `pyspark`.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("TRUEUP_SPARK_PYTHON").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/trueup-spark/bin/python"));
    let found = named.or(home).filter(|python| python.exists());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "Spark is required: set TRUEUP_SPARK_PYTHON");
        eprintln!("skipped: no Python with pyspark; set TRUEUP_SPARK_PYTHON or fill $HOME/.cache/trueup-spark");
    }
    found
}

impl Driver {
    fn start() -> Option<Driver> {
        let python = python()?;
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = Command::new(python)
            .arg(root().join("tests/services/spark/driver.py"))
            .arg(folder.path())
            .current_dir(folder.path())
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert!(line.contains("version"), "Spark did not start: {line}");
        Some(Driver { input, output, child, _folder: folder })
    }

    /// Returns the rows of a view over files, in the form of responses.
    pub fn rows(&mut self, view: &View, stream: &Stream, files: &[PathBuf], days: &[Day]) -> Result<Value, String> {
        let statement = spark::statement(view, stream).map_err(|refusal| refusal.to_string())?;
        let calendar = statement.calendar.map(|tables| tables.statements(days.iter().copied())).unwrap_or_default();
        let settings: serde_json::Map<String, Value> =
            spark::SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let plan = json!({
            "settings": settings, "schema": spark::schema(stream), "files": files, "table": spark::EVENTS,
            "statements": calendar, "query": statement.query,
        });
        self.execute(&plan)
    }

    /// Executes a plan as `trueup plan --engine spark` prints it, and returns its rows in the form of responses.
    pub fn execute(&mut self, plan: &Value) -> Result<Value, String> {
        let input = self.input.as_mut().expect("open until the end");
        writeln!(input, "{plan}").and_then(|()| input.flush()).expect("Spark reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("Spark answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
        match answer["error"].as_str() {
            Some(error) => Err(format!("{error}\n{}", plan["query"].as_str().unwrap_or_default())),
            None => Ok(answer),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
