//! `trueup ingest --historical`: how do the files of years reach the archive? One thread reads them, tasks decode what it
//! read side by side and in order, and while one chunk of rows is written the next one gathers.
//!
//! [`reading`] is the thread, [`decoding`] what becomes of a piece, [`gathering`] how pieces become chunks, [`report`]
//! what is told of it.

mod decoding;
mod gathering;
mod reading;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use intake::history::{HistorySettings, HistoryWriter};
use lake::Lake;
use shared::clock::SystemClock;
use shared::stream::Stream;
use shared::time::Day;
use tokio::sync::mpsc;

use crate::arguments::{Historical, Ingest};
use crate::definitions;
use crate::exit::{Failure, NO, USAGE};
use crate::settings::Settings;

use decoding::decoded;
use gathering::{Gathered, Gathering};
use reading::Reading;
use report::{Rejects, Report};

/// Of the memory allowed, a chunk takes a quarter: one gathers, one waits, one is copied together and written.
const CHUNKS_IN_MEMORY: u64 = 4;

pub async fn run(arguments: Ingest) -> Result<(), Failure> {
    super::super::serve::log_to_stderr("warn");
    let Ingest { stream: name, files, historical, .. } = arguments;
    let settings = match &historical.config {
        Some(path) => Settings::read(path).map_err(|error| Failure::new(USAGE, error))?,
        None => Settings::default(),
    };
    let sources = definitions::read(&historical.definitions)?;
    let definitions = definitions::parse(&sources)?;
    let Some(stream) = definitions.streams.iter().find(|stream| stream.name == name) else {
        let names: Vec<&str> = definitions.streams.iter().map(|stream| stream.name.as_str()).collect();
        let error = Failure::new(USAGE, format!("the files declare no stream \"{name}\""));
        return Err(error.next_step(format!("they declare {}", names.join(", "))));
    };
    let stream = Arc::new(stream.clone());
    let files = expanded(&files)?;
    let data = historical.data.clone().or(settings.data.clone()).unwrap_or_else(|| "data".to_owned());
    let lake = lake(&data).map_err(|error| Failure::new(NO, format!("{error:#}")))?;
    let history = HistorySettings {
        file_rows: usize::try_from(settings.limits.archive_file_rows).unwrap_or(usize::MAX),
        ..HistorySettings::default()
    };
    let writer = HistoryWriter::open(&lake, Arc::clone(&stream), history, Arc::new(SystemClock)).await;
    let writer = Arc::new(writer.map_err(|error| Failure::new(NO, error))?);
    let retained_from = writer.retained_from().await.map_err(|error| Failure::new(NO, error))?;
    take_in(stream, writer, retained_from, files, &historical).await
}

async fn take_in(
    stream: Arc<Stream>,
    writer: Arc<HistoryWriter>,
    retained_from: Option<Day>,
    files: Vec<PathBuf>,
    historical: &Historical,
) -> Result<(), Failure> {
    let bytes = files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let bar = progress_bar(bytes);
    let chunk_bytes = usize::try_from(historical.memory / CHUNKS_IN_MEMORY).unwrap_or(usize::MAX);
    let cores = std::thread::available_parallelism().map_or(2, usize::from);

    let (pieces, mut received) = mpsc::channel(cores);
    let reading = Reading {
        stream: Arc::clone(&stream),
        files,
        writer: Arc::clone(&writer),
        again: historical.again,
        chunk_bytes,
        bar: bar.clone(),
        runtime: tokio::runtime::Handle::current(),
    };
    let reader = tokio::task::spawn_blocking(move || reading.read(&pieces));

    let (chunks, gathered) = mpsc::channel::<Gathered>(1);
    let default = || PathBuf::from(format!("{}-rejected.ndjson", stream.name));
    let rejects = Rejects::new(historical.rejects.clone().unwrap_or_else(default));
    let begin = Instant::now();
    let committer = tokio::spawn(commit(Arc::clone(&writer), gathered, rejects));

    let pieces = stream::poll_fn(move |context| received.poll_recv(context));
    let mut decoded = pieces.map(|piece| decoded(Arc::clone(&stream), retained_from, piece)).buffered(cores);
    let mut gathering = Gathering::new(chunk_bytes);
    let mut read = Ok(());
    while let Some(piece) = decoded.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                read = Err(error);
                break;
            }
        };
        let rows = gathering.add(piece);
        let rows_per_s = rows as f64 / begin.elapsed().as_secs_f64().max(0.001);
        bar.set_message(report::pace(rows, rows_per_s));
        if let Some(full) = gathering.full()
            && chunks.send(full).await.is_err()
        {
            break;
        }
    }
    // Dropped, so that the reader stops where it is.
    drop(decoded);
    if read.is_ok()
        && let Some(rest) = gathering.rest()
    {
        // If nobody takes it, the committer says why.
        let _ = chunks.send(rest).await;
    }
    drop(chunks);
    let (report, committed) = committer.await.map_err(|panic| Failure::new(NO, panic))?;
    let read = read.and(reader.await.map_err(anyhow::Error::from).and_then(|read| read));
    bar.finish_and_clear();

    eprint!("{}", report.rejections());
    writeln!(std::io::stdout(), "{}", report.summary(&gathering, begin.elapsed()))?;
    if let Err(error) = committed.and(read) {
        let failure = Failure::new(NO, format!("{error:#}"));
        return Err(match report.events > 0 {
            true => failure.next_step("what was taken in stays; the same command goes on from there"),
            false => failure,
        });
    }
    if report.events > 0 {
        eprintln!("The next batch run of each view takes them in: trueup batch run VIEW --wait");
    }
    if report.rejected > 0 { Err(Failure::told(NO)) } else { Ok(()) }
}

/// Commits chunk after chunk.
async fn commit(
    writer: Arc<HistoryWriter>,
    mut chunks: mpsc::Receiver<Gathered>,
    rejects: Rejects,
) -> (Report, anyhow::Result<()>) {
    let mut report = Report::new(rejects);
    while let Some(Gathered { chunk, rejected }) = chunks.recv().await {
        // Before the commit: after it a kill would lose them. So an entry may stand there twice, with file and line.
        if let Err(error) = report.reject(rejected) {
            return (report, Err(error));
        }
        match writer.take_in(chunk).await {
            Ok(taken) => report.add(taken),
            Err(error) => return (report, Err(error.into())),
        }
    }
    (report, Ok(()))
}

/// The files themselves, and those in folders, by name.
fn expanded(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let error = Failure::new(USAGE, "standard input cannot be taken in as historical events");
            return Err(error.next_step("only files can be gone on with after a kill: write it to one first"));
        }
        let wrong = |cause: std::io::Error| Failure::new(USAGE, format!("{}: {cause}", path.display()));
        if !path.metadata().map_err(wrong)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries: std::io::Result<Vec<_>> = path.read_dir().map_err(wrong)?.collect();
        let mut inside: Vec<PathBuf> = entries.map_err(wrong)?.into_iter().map(|entry| entry.path()).collect();
        inside.retain(|file| file.is_file());
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// The lake that `trueup serve --data` has.
fn lake(data: &str) -> anyhow::Result<Lake> {
    let location = match data.contains("://") {
        true => data.to_owned(),
        false => {
            std::fs::create_dir_all(data).with_context(|| format!("the data folder {data} cannot be created"))?;
            Path::new(data).join("lake").display().to_string()
        }
    };
    Lake::open(&location).context("the lake cannot be opened")
}

fn progress_bar(bytes: u64) -> ProgressBar {
    let template = "{wide_bar} {bytes}/{total_bytes} {msg} {eta} left";
    ProgressBar::new(bytes).with_style(ProgressStyle::with_template(template).expect("a constant template"))
}
