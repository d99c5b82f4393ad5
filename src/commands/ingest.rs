//! `trueup ingest`: how do the events of files reach a stream? A reader on a thread of its own cuts batches, a few requests
//! send them, and a tally is kept of what the server said. Old events take another way: [`historical`].

mod historical;
mod tally;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::arguments::Ingest;
use crate::client::{Client, ClientError};
use crate::events_file::{EventsFile, LineBatch};
use crate::exit::{Failure, NO, USAGE};
use crate::human_units::grouped;
use crate::sending::{Patience, Receipt, Sender};

use tally::Tally;

/// Bytes of a request: large enough that its fixed costs vanish, small enough for a smooth progress bar.
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Batches read ahead of the requests.
const READ_AHEAD: usize = 2;

pub async fn run(arguments: Ingest) -> Result<(), Failure> {
    if arguments.historical.historical {
        return historical::run(arguments).await;
    }
    let mut outcome = Ok(());
    for file in &arguments.files {
        let sent = send(&arguments, file).await;
        // A file with rejected lines does not keep the others from being sent.
        match sent {
            Err(failure) if failure.code == NO && failure.is_told() => outcome = Err(failure),
            sent => sent?,
        }
    }
    outcome
}

async fn send(arguments: &Ingest, file: &Path) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let name = file.display().to_string();
    let file = EventsFile::open(file).map_err(|cause| Failure::new(USAGE, format!("{name}: {cause}")))?;
    let sender = Sender::new(client, &arguments.stream, Patience::default());
    let begin = Instant::now();
    let mut tally = Tally::default();
    let outcome = send_file(file, sender, arguments.in_flight.into(), BATCH_BYTES, &mut tally).await;
    eprint!("{}", tally.rejections(&name));
    // Nothing to sum up if the first batch already failed.
    if tally.lines > 0 || outcome.is_ok() {
        writeln!(std::io::stdout(), "{}", tally.summary(begin.elapsed()))?;
    }
    match outcome {
        Ok(()) if tally.rejected > 0 => Err(Failure::told(NO)),
        Ok(()) => Ok(()),
        Err(Stop::File(cause)) => Err(Failure::new(NO, format!("{name}: {cause:#}"))),
        Err(Stop::Server(error)) => Err(error.into()),
    }
}

/// Why a file was not sent to its end.
#[derive(Debug, thiserror::Error)]
enum Stop {
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
) -> Result<(), Stop> {
    let bar = progress_bar(file.size());
    let (batches, received) = mpsc::channel::<LineBatch>(READ_AHEAD);
    let reader_bar = bar.clone();
    let reader = tokio::task::spawn_blocking(move || {
        file.read(batch_bytes, &reader_bar, &mut |batch| batches.blocking_send(batch).is_ok())
    });
    let sent = send_batches(received, sender, in_flight, &bar, tally).await;
    bar.finish_and_clear();
    sent?;
    reader.await.map_err(|panic| Stop::File(panic.into()))?.map_err(Stop::File)
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
            let receipt = sender.send(batch.number, batch.body.clone(), waiting).await?;
            Ok::<(LineBatch, Receipt), ClientError>((batch, receipt))
        }
    });
    let mut receipts = requests.buffered(in_flight);
    let begin = Instant::now();
    while let Some(outcome) = receipts.next().await {
        let (batch, receipt) = outcome?;
        tally.add(&batch, receipt);
        let rows_per_s = tally.lines as f64 / begin.elapsed().as_secs_f64().max(0.001);
        bar.set_prefix("");
        bar.set_message(format!("{} rows, {} rows/s", grouped(tally.lines), grouped(rows_per_s as u64)));
    }
    Ok(())
}

/// Hidden by itself where stderr is no terminal.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {prefix}{msg} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {prefix}{msg} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("a constant template"))
}

#[cfg(test)]
mod tests;
