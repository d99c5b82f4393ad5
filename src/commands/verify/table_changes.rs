//! Sends the changes of the tables that views are joined with: half of them before the events, the others between them, so that some come
//! after the events that they concern.

use std::collections::VecDeque;
use std::path::PathBuf;

use indicatif::ProgressBar;
use shared::ids::StreamName;
use shared::sql::Definitions;

use crate::client::Client;
use crate::events_file::EventsFile;
use crate::exit::{Failure, NO, USAGE};
use crate::line_batch::LineBatch;
use crate::sender::{RetryLimits, Sender};

/// Size of a request in bytes; small, so that some are sent between the events.
const BATCH_BYTES: usize = 32 * 1024;

/// The changes that are not sent yet.
pub struct TableChanges {
    tables: Vec<(StreamName, VecDeque<LineBatch>)>,
    senders: Vec<Sender>,
}

impl TableChanges {
    /// Reads the files of changes.
    pub fn read(
        definitions: &Definitions,
        files: &[(StreamName, PathBuf)],
        client: &Client,
    ) -> Result<TableChanges, Failure> {
        let mut changes = TableChanges { tables: Vec::new(), senders: Vec::new() };
        for (name, path) in files {
            if !definitions.streams.iter().any(|stream| stream.name == *name && stream.table.is_some()) {
                return Err(Failure::new(USAGE, format!("\"{name}\" is not a table of the files")));
            }
            let failed = |cause: &dyn std::fmt::Display| Failure::new(USAGE, format!("{}: {cause}", path.display()));
            let file = EventsFile::open(path).map_err(|cause| failed(&cause))?;
            let mut batches = VecDeque::new();
            let read = file.read(BATCH_BYTES, &ProgressBar::hidden(), &mut |batch| {
                batches.push_back(batch);
                true
            });
            read.map_err(|cause| failed(&cause))?;
            changes.tables.push((name.clone(), batches));
            changes.senders.push(Sender::new(client.clone(), name, RetryLimits::default()));
        }
        Ok(changes)
    }

    /// Sends the first half of each file.
    pub async fn send_half(&mut self) -> Result<(), Failure> {
        for number in 0..self.tables.len() {
            for _ in 0..self.tables[number].1.len().div_ceil(2) {
                self.send_next(number).await?;
            }
        }
        Ok(())
    }

    /// Sends the next changes of each file.
    pub async fn send_some(&mut self) -> Result<(), Failure> {
        for number in 0..self.tables.len() {
            self.send_next(number).await?;
        }
        Ok(())
    }

    /// Sends the rest.
    pub async fn send_rest(&mut self) -> Result<(), Failure> {
        for number in 0..self.tables.len() {
            while !self.tables[number].1.is_empty() {
                self.send_next(number).await?;
            }
        }
        Ok(())
    }

    async fn send_next(&mut self, number: usize) -> Result<(), Failure> {
        let (name, batches) = &mut self.tables[number];
        let Some(LineBatch { number: batch, first_line, format, body, .. }) = batches.pop_front() else {
            return Ok(());
        };
        let receipt = self.senders[number].send(batch, format, body, |_| {}).await?;
        match receipt.rejections.first() {
            None => Ok(()),
            Some(rejection) => {
                let line = first_line + rejection.line - 1;
                Err(Failure::new(NO, format!("table {name}, line {line}: {}", rejection.reason)))
            }
        }
    }
}
