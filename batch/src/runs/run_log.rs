//! Records runs across restarts: one line of JSON for every change of a run's state, in a file next to the log. The last
//! line of a run counts; lines that do not hold a run (a torn end, another program's) are skipped.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use shared::control::{Run, RunState};

use crate::step::UpkeepStep;

/// The error of a run that was not finished when its process ended.
const ENDED: &str = "the process ended during the run";

/// The file that records runs. Without a file, runs are not recorded.
#[derive(Debug, Default)]
pub struct RunLog {
    file: Option<Mutex<LogFile>>,
}

/// An open run log, and the runs of earlier processes in it.
#[derive(Debug, Default)]
pub struct LoggedRuns {
    pub log: RunLog,
    /// Oldest first.
    pub runs: Vec<Run>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    /// Lines in the file.
    count: usize,
    /// Number of lines above which the file is rewritten.
    most: usize,
    /// Runs kept per view.
    kept: usize,
}

impl RunLog {
    /// Opens the run log at `path` and reads its runs, at most `kept` of each view. A log that cannot be read or written is
    /// reported and does not prevent the start.
    pub fn open(path: &Path, kept: usize) -> LoggedRuns {
        let runs = match read(path) {
            Ok(runs) => latest(runs, kept),
            Err(error) => {
                // Do not rewrite it: it may be readable the next time.
                tracing::warn!(path = %path.display(), %error, "cannot read the run log; runs are not recorded");
                return LoggedRuns::default();
            }
        };
        match rewrite(path, &runs) {
            Ok(file) => {
                let lines =
                    LogFile { path: path.to_owned(), file, count: runs.len(), most: most(runs.len(), kept), kept };
                LoggedRuns { log: RunLog { file: Some(Mutex::new(lines)) }, runs }
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot write the run log; runs are not recorded");
                LoggedRuns { log: RunLog::default(), runs }
            }
        }
    }

    /// Appends the present state of a run. `run` is called under the lock, so that of two concurrent calls for one run the
    /// later line never holds the older state. Blocking, but only a line of some hundred bytes, which is not synced: a power
    /// loss takes the record of a run, not its result.
    pub fn append(&self, run: impl FnOnce() -> Run) {
        let Some(lines) = &self.file else { return };
        let mut lines = lines.lock();
        if let Err(error) = lines.append(&run()) {
            tracing::warn!(path = %lines.path.display(), %error, "cannot append to the run log");
        }
    }
}

impl LogFile {
    fn append(&mut self, run: &Run) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(run)?;
        line.push(b'\n');
        UpkeepStep::RunLog.check()?;
        self.file.write_all(&line)?;
        self.count += 1;
        if self.count > self.most {
            let runs = latest(read(&self.path)?, self.kept);
            self.file = rewrite(&self.path, &runs)?;
            (self.count, self.most) = (runs.len(), most(runs.len(), self.kept));
        }
        Ok(())
    }
}

/// Returns a number of lines at which each line is rewritten only a few times.
fn most(runs: usize, kept: usize) -> usize {
    2 * runs + 4 * kept
}

fn read(path: &Path) -> std::io::Result<Vec<Run>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut runs: Vec<Run> = Vec::new();
    let mut positions: HashMap<String, usize> = HashMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let Ok(run) = serde_json::from_slice::<Run>(&line?) else { continue };
        match positions.get(&run.id) {
            Some(at) => runs[*at] = run,
            None => {
                positions.insert(run.id.clone(), runs.len());
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// Returns the newest `kept` runs of each view; those that never ended have failed.
fn latest(runs: Vec<Run>, kept: usize) -> Vec<Run> {
    let mut counts: HashMap<_, usize> = HashMap::new();
    let mut newest = VecDeque::new();
    for mut run in runs.into_iter().rev() {
        let count = counts.entry(run.view.clone()).or_default();
        *count += 1;
        if *count > kept {
            continue;
        }
        if !run.state.is_over() {
            run.state = RunState::Failed;
            run.error = Some(ENDED.to_owned());
        }
        newest.push_front(run);
    }
    newest.into()
}

fn rewrite(path: &Path, runs: &[Run]) -> std::io::Result<File> {
    let unfinished = path.with_extension("new");
    let mut text = Vec::new();
    for run in runs {
        serde_json::to_writer(&mut text, run)?;
        text.push(b'\n');
    }
    std::fs::write(&unfinished, text)?;
    std::fs::rename(&unfinished, path)?;
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(view: &str, number: usize, state: &str) -> Run {
        serde_json::from_value(json!({
            "id": format!("{view}-{number}"), "view": view, "state": state, "full": false, "trigger": "schedule",
            "cut": null, "version": null, "queued_at": "2024-01-01T00:00:00Z", "started_at": null, "finished_at": null,
            "progress": {"dates": 0, "dates_done": 0, "rows": 0, "bytes": 0}, "error": null
        }))
        .expect("a run")
    }

    fn states(runs: &[Run]) -> Vec<(String, RunState)> {
        runs.iter().map(|run| (run.id.clone(), run.state)).collect()
    }

    #[test]
    fn the_last_line_of_a_run_counts_and_an_unfinished_run_has_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runs.ndjson");
        let LoggedRuns { log, runs: none } = RunLog::open(&path, 10);
        assert!(none.is_empty());
        for (number, state) in [(1, "queued"), (1, "running"), (1, "published"), (2, "queued"), (2, "running")] {
            log.append(|| run("a", number, state));
        }
        drop(log);
        // A torn line, and a line of another program.
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(b"{\"id\": \"a-3\"}\n{\"id\": \"a-4\", \"vi").expect("writes");
        let LoggedRuns { log, runs } = RunLog::open(&path, 10);
        let expected = [("a-1".to_owned(), RunState::Published), ("a-2".to_owned(), RunState::Failed)];
        assert_eq!(states(&runs), expected);
        assert_eq!(runs[1].error.as_deref(), Some(ENDED));
        log.append(|| run("a", 5, "published"));
        drop(log);
        let again = RunLog::open(&path, 10).runs;
        assert_eq!(states(&again)[..2], expected);
        assert_eq!(again.len(), 3, "what came after a torn line is read");
    }

    #[test]
    fn the_file_stays_small_and_every_view_keeps_its_share() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runs.ndjson");
        let log = RunLog::open(&path, 3).log;
        log.append(|| run("rare", 1, "published"));
        for number in 0..500 {
            log.append(|| run("often", number, "running"));
            log.append(|| run("often", number, "published"));
            let lines = std::fs::read_to_string(&path).expect("the file").lines().count();
            assert!(lines <= 24, "{lines} lines");
        }
        let runs = RunLog::open(&path, 3).runs;
        let ids: Vec<String> = runs.into_iter().map(|run| run.id).collect();
        assert_eq!(ids, ["rare-1", "often-497", "often-498", "often-499"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_tolerated() {
        let folder = tempfile::tempdir().expect("a folder");
        let LoggedRuns { log, runs } = RunLog::open(&folder.path().join("missing/runs.ndjson"), 3);
        assert!(runs.is_empty());
        log.append(|| run("a", 1, "published"));
    }
}
