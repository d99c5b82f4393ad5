//! Which runs were there before this process? One line of JSON for every change of a run's state, in a file beside the log.
//! The last line of a run counts; lines that are no runs (a torn end, another program's) are passed over.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use shared::control::{Run, RunState};

/// What a run says that was under way when its process ended.
const ENDED: &str = "the process ended while it was under way";

/// The file of past runs. A diary without a file remembers nothing.
#[derive(Debug, Default)]
pub struct Diary {
    file: Option<Mutex<Lines>>,
}

#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    /// Lines in the file, and how many make it worth to be written anew.
    count: usize,
    most: usize,
    kept: usize,
}

impl Diary {
    /// Opens the diary at `path` and returns the runs in it, oldest first, at most `kept` of each view. A diary that cannot
    /// be read or written is reported; it is no reason not to start.
    pub fn open(path: &Path, kept: usize) -> (Diary, Vec<Run>) {
        let runs = match read(path) {
            Ok(runs) => latest(runs, kept),
            Err(error) => {
                // Not written anew either: it may be readable the next time.
                tracing::warn!(path = %path.display(), %error, "past runs cannot be read; runs will not be remembered");
                return (Diary::default(), Vec::new());
            }
        };
        match rewrite(path, &runs) {
            Ok(file) => {
                let lines =
                    Lines { path: path.to_owned(), file, count: runs.len(), most: most(runs.len(), kept), kept };
                (Diary { file: Some(Mutex::new(lines)) }, runs)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "runs will not be remembered");
                (Diary::default(), runs)
            }
        }
    }

    /// Notes how a run stands now: `run` is asked in its turn, so that of two who note the same run at the same time the later
    /// line is never the older state. Blocking, but a line of some hundred bytes that is not synced: what a power loss takes is
    /// the memory of a run, not what it did.
    pub fn note(&self, run: impl FnOnce() -> Run) {
        let Some(lines) = &self.file else { return };
        let mut lines = lines.lock();
        if let Err(error) = lines.append(&run()) {
            tracing::warn!(path = %lines.path.display(), %error, "a run will not be remembered");
        }
    }
}

impl Lines {
    fn append(&mut self, run: &Run) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(run)?;
        line.push(b'\n');
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

/// So that rewriting costs each line no more than a few times.
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
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in BufReader::new(file).split(b'\n') {
        let Ok(run) = serde_json::from_slice::<Run>(&line?) else { continue };
        match places.get(&run.id) {
            Some(at) => runs[*at] = run,
            None => {
                places.insert(run.id.clone(), runs.len());
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// The newest `kept` runs of each view; those that never ended have failed.
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

    fn told(runs: &[Run]) -> Vec<(String, RunState)> {
        runs.iter().map(|run| (run.id.clone(), run.state)).collect()
    }

    #[test]
    fn the_last_line_of_a_run_counts_and_what_never_ended_has_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runs.ndjson");
        let (diary, none) = Diary::open(&path, 10);
        assert!(none.is_empty());
        for (number, state) in [(1, "queued"), (1, "running"), (1, "published"), (2, "queued"), (2, "running")] {
            diary.note(|| run("a", number, state));
        }
        drop(diary);
        // A torn line, and somebody else's.
        let mut file = OpenOptions::new().append(true).open(&path).expect("the file");
        file.write_all(b"{\"id\": \"a-3\"}\n{\"id\": \"a-4\", \"vi").expect("writes");
        let (diary, runs) = Diary::open(&path, 10);
        let expected = [("a-1".to_owned(), RunState::Published), ("a-2".to_owned(), RunState::Failed)];
        assert_eq!(told(&runs), expected);
        assert_eq!(runs[1].error.as_deref(), Some(ENDED));
        diary.note(|| run("a", 5, "published"));
        drop(diary);
        let (_, again) = Diary::open(&path, 10);
        assert_eq!(told(&again)[..2], expected);
        assert_eq!(again.len(), 3, "what came after a torn line is read");
    }

    #[test]
    fn the_file_stays_small_and_every_view_keeps_its_share() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runs.ndjson");
        let (diary, _) = Diary::open(&path, 3);
        diary.note(|| run("rare", 1, "published"));
        for number in 0..500 {
            diary.note(|| run("often", number, "running"));
            diary.note(|| run("often", number, "published"));
            let lines = std::fs::read_to_string(&path).expect("the file").lines().count();
            assert!(lines <= 24, "{lines} lines");
        }
        let (_, runs) = Diary::open(&path, 3);
        let ids: Vec<String> = runs.into_iter().map(|run| run.id).collect();
        assert_eq!(ids, ["rare-1", "often-497", "often-498", "often-499"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_stops_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let (diary, runs) = Diary::open(&folder.path().join("missing/runs.ndjson"), 3);
        assert!(runs.is_empty());
        diary.note(|| run("a", 1, "published"));
    }
}
