//! `trueup ingest --historical`: ingests files of historical events straight into the archive.
//!
//! file > piece > chunk: a thread reads the files in pieces ([`reader`]), tasks decode the pieces in parallel ([`mod@decode`]),
//! and decoded pieces are collected into chunks ([`chunk_builder`]), each of which is one commit. While one chunk is being
//! written, the next one is collected. [`report`] counts the outcome.

mod chunk_builder;
mod decode;
mod reader;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use intake::history::{HistorySettings, HistoryWriter};
use shared::clock::SystemClock;
use shared::stream::Stream;
use shared::time::Day;
use tokio::sync::mpsc;

use crate::arguments::Ingest;
use crate::data_dir::{DataDir, open_lake};
use crate::definitions;
use crate::exit::{Failure, NO, USAGE};
use crate::settings::Settings;

use chunk_builder::{Chunk, ChunkBuilder};
use decode::decode;
use reader::{FilesReader, Piece};
use report::{ImportReport, RejectsFile};

/// Number of chunks that must fit in the allowed memory: one is collected, one waits, one is being written, and writing
/// copies it.
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
        let error = Failure::new(USAGE, format!("the files do not declare a stream \"{name}\""));
        return Err(error.next_step(format!("declared streams: {}", names.join(", "))));
    };
    if stream.table.is_some() {
        let error =
            format!("\"{name}\" is a table, and historical changes would have no place among the changes of its rows");
        let next = "send them to a running server: trueup ingest without --historical";
        return Err(Failure::new(USAGE, error).next_step(next));
    }
    if stream.entity.is_some() {
        let error = format!(
            "the stream \"{name}\" has an entity, and historical events would have no place in the sequences of entities"
        );
        return Err(
            Failure::new(USAGE, error).next_step("send them to a running server: trueup ingest without --historical")
        );
    }
    let stream = Arc::new(stream.clone());
    let files = expand_folders(&files)?;
    let data = historical.data.clone().or(settings.data.clone()).unwrap_or_else(|| "data".to_owned());
    let data_dir = DataDir::new(&data, settings.local.as_deref());
    let lake = open_lake(&data_dir).map_err(|error| Failure::new(NO, format!("{error:#}")))?;
    let history = HistorySettings {
        file_rows: usize::try_from(settings.limits.archive_file_rows).unwrap_or(usize::MAX),
        ..HistorySettings::default()
    };
    let writer = HistoryWriter::open(&lake, Arc::clone(&stream), history, Arc::new(SystemClock)).await;
    let writer = Arc::new(writer.map_err(|error| Failure::new(NO, error))?);
    let retained_from = writer.retained_from().await.map_err(|error| Failure::new(NO, error))?;
    let bytes = files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let import = Import {
        stream,
        writer,
        retained_from,
        chunk_bytes: usize::try_from(historical.memory / CHUNKS_IN_MEMORY).unwrap_or(usize::MAX),
        bar: progress_bar(bytes),
        started: shared::clock::monotonic_now(),
    };
    let default = || data_dir.rejected_lines(&name);
    let rejects = RejectsFile::new(historical.rejects.clone().unwrap_or_else(default));
    import.run(files, historical.again, rejects).await
}

/// The import of files: a reader thread, tasks that decode its pieces, and a task that commits chunks of rows.
struct Import {
    stream: Arc<Stream>,
    writer: Arc<HistoryWriter>,
    /// First date that the archive keeps; earlier events are rejected.
    retained_from: Option<Day>,
    chunk_bytes: usize,
    bar: ProgressBar,
    started: Instant,
}

impl Import {
    /// Imports `files` and prints the report.
    #[expect(clippy::disallowed_methods, reason = "the command awaits the task")]
    async fn run(self, files: Vec<PathBuf>, again: bool, rejects: RejectsFile) -> Result<(), Failure> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let (piece_sender, pieces) = mpsc::channel(cores);
        let reader = self.reader(files, again);
        let reader = tokio::task::spawn_blocking(move || reader.read(&piece_sender));

        let (chunk_sender, chunks) = mpsc::channel::<Chunk>(1);
        let committer = tokio::spawn(commit(Arc::clone(&self.writer), chunks, rejects));

        let mut builder = ChunkBuilder::new(self.chunk_bytes);
        let decoded = self.build_chunks(pieces, cores, &mut builder, chunk_sender).await;
        let (report, committed) = committer.await.map_err(|panic| Failure::new(NO, panic))?;
        let read = decoded.and(reader.await.map_err(anyhow::Error::from).and_then(|read| read));
        self.bar.finish_and_clear();

        eprint!("{}", report.rejections());
        writeln!(std::io::stdout(), "{}", report.summary(&builder, self.started.elapsed()))?;
        if let Err(error) = committed.and(read) {
            let failure = Failure::new(NO, format!("{error:#}"));
            return Err(match report.events > 0 {
                true => failure.next_step("ingested events are kept; run the same command again to resume"),
                false => failure,
            });
        }
        if report.events > 0 {
            eprintln!("The next batch run of each view includes the events: trueup batch run VIEW --wait");
        }
        if report.rejected > 0 { Err(Failure::silent(NO)) } else { Ok(()) }
    }

    fn reader(&self, files: Vec<PathBuf>, again: bool) -> FilesReader {
        FilesReader {
            stream: Arc::clone(&self.stream),
            files,
            writer: Arc::clone(&self.writer),
            again,
            chunk_bytes: self.chunk_bytes,
            bar: self.bar.clone(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Decodes `pieces`, in parallel but in order, and sends full chunks. Returns the error of the first piece that cannot
    /// be decoded. Returning drops the receiver, which stops the reader, and the sender, which stops the committer.
    async fn build_chunks(
        &self,
        mut pieces: mpsc::Receiver<Piece>,
        cores: usize,
        builder: &mut ChunkBuilder,
        chunks: mpsc::Sender<Chunk>,
    ) -> anyhow::Result<()> {
        let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
        let decode = |piece| decode(Arc::clone(&self.stream), self.retained_from, piece);
        let mut decoded = pieces.map(decode).buffered(cores);
        while let Some(piece) = decoded.next().await {
            let rows = builder.add(piece?);
            let rows_per_s = rows as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            self.bar.set_message(report::pace(rows, rows_per_s));
            if let Some(full) = builder.take_full()
                && chunks.send(full).await.is_err()
            {
                // The committer reports why it stopped.
                return Ok(());
            }
        }
        if let Some(rest) = builder.take_rest() {
            // If the committer has stopped, it reports why.
            let _ = chunks.send(rest).await;
        }
        Ok(())
    }
}

/// Commits the chunks one after another.
async fn commit(
    writer: Arc<HistoryWriter>,
    mut chunks: mpsc::Receiver<Chunk>,
    rejects: RejectsFile,
) -> (ImportReport, anyhow::Result<()>) {
    let mut report = ImportReport::new(rejects);
    while let Some(Chunk { history, rejected }) = chunks.recv().await {
        // Before the commit, because a kill after it would lose them. So the file may list a rejected line twice.
        if let Err(error) = report.reject(rejected) {
            return (report, Err(error));
        }
        match writer.append(history).await {
            Ok(committed) => report.add(committed),
            Err(error) => return (report, Err(error.into())),
        }
    }
    (report, Ok(()))
}

/// Replaces folders in `paths` by the files in them, sorted by name.
fn expand_folders(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let error = Failure::new(USAGE, "cannot ingest historical events from standard input");
            return Err(error.next_step("write them to a file first, so that an interrupted import can resume"));
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

fn progress_bar(bytes: u64) -> ProgressBar {
    let template = "{wide_bar} {bytes}/{total_bytes} {msg} {eta} left";
    ProgressBar::new(bytes).with_style(ProgressStyle::with_template(template).expect("a constant template"))
}
