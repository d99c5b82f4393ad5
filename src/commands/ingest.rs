//! `trueup ingest`: sends the events of files to a stream.
//!
//! A reader thread cuts a file into batches, a few concurrent requests send them, and a tally counts the receipts. With
//! `--historical`, events go straight into the archive instead: see [`historical`].

mod historical;
mod tally;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::arguments::Ingest;
use crate::client::{Client, ClientError};
use crate::events_file::EventsFile;
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::grouped;
use crate::line_batch::LineBatch;
use crate::sender::{Receipt, RetryLimits, Sender};

use tally::Tally;

/// Size of a request in bytes: large enough to make its fixed cost negligible, small enough for a smooth progress bar.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Number of batches read ahead of the requests.
const READ_AHEAD: usize = 2;

pub async fn run(arguments: Ingest) -> Result<(), Failure> {
    if arguments.historical.historical {
        return historical::run(arguments).await;
    }
    let mut outcome = Ok(());
    for file in &arguments.files {
        let sent = send(&arguments, file).await;
        // Rejected lines in one file do not prevent sending the next file.
        match sent {
            Err(failure) if failure.code == NO && failure.is_silent() => outcome = Err(failure),
            sent => sent?,
        }
    }
    outcome
}

async fn send(arguments: &Ingest, file: &Path) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let name = file.display().to_string();
    let file = EventsFile::open(file).map_err(|cause| Failure::new(USAGE, format!("{name}: {cause}")))?;
    let sender = Sender::new(client, &arguments.stream, RetryLimits::default());
    let begin = shared::clock::monotonic_now();
    let mut tally = Tally::default();
    let outcome = send_file(file, sender, arguments.in_flight.into(), BATCH_BYTES, &mut tally).await;
    eprint!("{}", tally.rejections(&name));
    // Without a summary if the first batch failed.
    if tally.lines > 0 || outcome.is_ok() {
        writeln!(std::io::stdout(), "{}", tally.summary(begin.elapsed()))?;
    }
    match outcome {
        Ok(()) if tally.rejected > 0 => Err(Failure::silent(NO)),
        Ok(()) => Ok(()),
        Err(SendFailure::File(cause)) => Err(Failure::new(NO, format!("{name}: {cause:#}"))),
        Err(SendFailure::Server(error)) => Err(error.into()),
    }
}

/// Why a file was not sent completely.
#[derive(Debug, thiserror::Error)]
enum SendFailure {
    #[error("{0:#}")]
    File(anyhow::Error),
    #[error(transparent)]
    Server(#[from] ClientError),
}

async fn send_file(
    file: EventsFile,
    sender: Sender,
    in_flight: usize,
    batch_bytes: usize,
    tally: &mut Tally,
) -> Result<(), SendFailure> {
    let bar = progress_bar(file.size());
    let (batches, received) = mpsc::channel::<LineBatch>(READ_AHEAD);
    let reader_bar = bar.clone();
    let reader = tokio::task::spawn_blocking(move || {
        file.read(batch_bytes, &reader_bar, &mut |batch| batches.blocking_send(batch).is_ok())
    });
    let sent = send_batches(received, sender, in_flight, &bar, tally).await;
    bar.finish_and_clear();
    sent?;
    reader.await.map_err(|panic| SendFailure::File(panic.into()))?.map_err(SendFailure::File)
}

async fn send_batches(
    mut received: mpsc::Receiver<LineBatch>,
    sender: Sender,
    in_flight: usize,
    bar: &ProgressBar,
    tally: &mut Tally,
) -> Result<(), ClientError> {
    let sender = Arc::new(sender);
    let batches = stream::poll_fn(move |context| received.poll_recv(context));
    let requests = batches.map(|batch| {
        let sender = Arc::clone(&sender);
        async move {
            let waiting = |error: &ClientError| bar.set_prefix(format!("waiting: {error}; "));
            let receipt = sender.send(batch.number, batch.format, batch.body.clone(), waiting).await?;
            Ok::<(LineBatch, Receipt), ClientError>((batch, receipt))
        }
    });
    let mut receipts = requests.buffered(in_flight);
    let begin = shared::clock::monotonic_now();
    while let Some(outcome) = receipts.next().await {
        let (batch, receipt) = outcome?;
        tally.add(&batch, receipt);
        let rows_per_s = tally.lines as f64 / begin.elapsed().as_secs_f64().max(0.001);
        bar.set_prefix("");
        bar.set_message(format!("{} rows, {} rows/s", grouped(tally.lines), grouped(rows_per_s as u64)));
    }
    Ok(())
}

/// Makes the progress bar, which is hidden if stderr is not a terminal.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {prefix}{msg} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {prefix}{msg} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a constant template"))
}

#[cfg(test)]
mod tests;
