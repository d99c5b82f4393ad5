//! Writes notices to a Kafka topic, those that are waiting at the same time in one transaction.
//!
//! The key of a Kafka record is the id of the alert's record, so that a compacted topic has the current state of each.
//! If the process ends after a commit and before it is noted, the next process writes the notices again, under the same
//! ids.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka::{OutgoingRecord, TopicCluster, TopicWriter, WriteError, commit_certainly};
use uuid::Uuid;

use crate::book_file::replace_file;
use crate::delivery::{DueNotice, notice_id, notice_json};

/// Pause between two attempts of a commit whose outcome is unknown.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);
/// The file with the id under which a book's notices are written, in the folder of the book.
const WRITER_ID_FILE: &str = "kafka-writer";

/// A topic that receives notices.
#[derive(Clone)]
pub struct NoticeTopic {
    pub cluster: Arc<dyn TopicCluster>,
    pub topic: String,
    /// Names the writer to the brokers, so that the next process aborts the transaction of a killed one.
    pub transactional_id: String,
}

impl fmt::Debug for NoticeTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoticeTopic").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// Returns the id under which the notices of the book in `folder` are written. The first call creates it in the folder.
///
/// # Errors
/// The file cannot be read or written.
pub fn writer_id(folder: &Path) -> io::Result<String> {
    let path = folder.join(WRITER_ID_FILE);
    match std::fs::read_to_string(&path) {
        // A crash of an earlier program, which did not sync the file, can have left it without its content.
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = Uuid::new_v4().simple().to_string();
    std::fs::create_dir_all(folder)?;
    replace_file(&path, id.as_bytes())?;
    Ok(id)
}

impl NoticeTopic {
    /// Writes notices in one transaction, with `writer` if it is open; leaves it open after success.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse. They have all of the notices or none; which of the two may be unknown.
    pub(crate) async fn send(
        &self,
        writer: &mut Option<Box<dyn TopicWriter>>,
        notices: &[DueNotice],
    ) -> Result<(), WriteError> {
        let open = match writer.take() {
            Some(open) => open,
            None => {
                // A writer would wait for a topic that does not exist.
                let _ = self.cluster.partitions(&self.topic).await?;
                self.cluster.writer(&self.transactional_id).await?
            }
        };
        let records = notices.iter().map(|notice| self.record(notice)).collect();
        let written = match open.write(records).await {
            Ok(()) => commit_certainly(open.as_ref(), COMMIT_PAUSE).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(()) => *writer = Some(open),
            Err(_) => open.close().await,
        }
        written
    }

    fn record(&self, notice: &DueNotice) -> OutgoingRecord {
        let record = &notice.record;
        OutgoingRecord {
            topic: self.topic.clone(),
            key: Some(Bytes::from(record.id.clone())),
            value: Some(Bytes::from(notice_json(record, notice.suppressed))),
            headers: vec![
                ("notice_id", Bytes::from(notice_id(record))),
                ("alert", Bytes::from(record.alert.to_string())),
                ("state", Bytes::from_static(record.state.name().as_bytes())),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_the_writer_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alerts");
        let id = writer_id(&path).expect("writes");
        assert_eq!((id.len(), writer_id(&path).expect("reads")), (32, id.clone()));
        std::fs::write(path.join(WRITER_ID_FILE), "").expect("writes");
        let next = writer_id(&path).expect("writes");
        assert!(next.len() == 32 && next != id, "an empty file is no id: {next}");
        assert_eq!(writer_id(&path).expect("reads"), next);
    }
}
