//! Lists the points at which tests inject faults into the path of an event: see
//! [`shared::fail_points`](mod@shared::fail_points).

use crate::log::IoStep;

shared::fail_points! {
    /// A point on the path of an event to the log and to the archive. All are reached before what they name, unless they say
    /// otherwise.
    pub enum IntakePoint {
        /// A file of the log is created.
        LogCreate = "log-create",
        /// Bytes are written to the log.
        LogWrite = "log-write",
        /// Written frames become durable.
        LogSync = "log-sync",
        /// A group without room is cut off.
        LogTruncate = "log-truncate",
        /// A segment gets its name.
        LogRename = "log-rename",
        /// The name of a segment becomes durable.
        LogSyncFolder = "log-sync-folder",
        /// The draft of a file of idempotency keys is written.
        KeysWrite = "keys-write",
        /// It becomes durable.
        KeysSync = "keys-sync",
        /// It gets its name.
        KeysRename = "keys-rename",
        /// Its name becomes durable.
        KeysSyncFolder = "keys-sync-folder",
        /// A file is deleted whose keys are in another one, or forgotten.
        KeysDelete = "keys-delete",
        /// The tombstone of an entity is written.
        TombstoneWrite = "erase-tombstone",
        /// It becomes durable.
        TombstoneSync = "erase-sync",
        /// A segment without erased events takes the place of the one with them.
        LogScrub = "erase-segment",
        /// The tombstones of complete erasures forget the ids.
        TombstoneComplete = "erase-complete",
        /// A durable group is acknowledged.
        Acknowledge = "acknowledge",
        /// An acknowledged group reaches the readers of the log.
        HandOver = "hand-over",
        /// A segment that no reader needs is deleted.
        LogTrim = "log-trim",
        /// The files of an archive commit are written.
        ArchiveWrite = "archive-write",
        /// Written files become part of the archive.
        ArchiveCommit = "archive-commit",
        /// Committed events are released from the log.
        ArchiveRelease = "archive-release",
        /// The files of a chunk of historical events are written.
        HistoryWrite = "history-write",
        /// They have been written, and are committed.
        HistoryWritten = "history-written",
        /// They have been committed, and are looked up again.
        HistoryCommitted = "history-committed",
    }
}

shared::fail_points! {
    /// A point on the path of a record of a topic to the log. All are reached before what they name.
    pub enum SourcePoint {
        /// The position at which reading starts becomes durable.
        Start = "source-start",
        /// A batch of records is submitted to the log.
        Submit = "source-submit",
        /// Rejected records are kept, and their batch is submitted next.
        Rejected = "source-rejected",
        /// A batch that is durable is counted.
        Settled = "source-settled",
        /// Durable positions are reported to the group.
        Report = "source-report",
    }
}

impl IntakePoint {
    /// Returns the point of a call of the log's writer.
    pub fn of_call(step: IoStep) -> IntakePoint {
        match step {
            IoStep::Create => IntakePoint::LogCreate,
            IoStep::Write => IntakePoint::LogWrite,
            IoStep::Sync => IntakePoint::LogSync,
            IoStep::Truncate => IntakePoint::LogTruncate,
            IoStep::Rename => IntakePoint::LogRename,
            IoStep::SyncFolder => IntakePoint::LogSyncFolder,
        }
    }
}
