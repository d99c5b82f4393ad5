//! Lists the points at which tests inject faults into a local lake: see [`shared::fail_points`](mod@shared::fail_points).

use object_store::Error;

shared::fail_points! {
    /// A call of the system for a local lake, or a step of a vacuum. All are reached before what they name.
    pub enum LakePoint {
        /// A hidden file is created.
        Stage = "lake-stage",
        /// The bytes of a file are written.
        Write = "lake-write",
        /// They become durable.
        Sync = "lake-sync",
        /// A durable file gets its name.
        Rename = "lake-rename",
        /// The names in a folder become durable.
        SyncFolder = "lake-sync-folder",
        /// A file is read.
        Read = "lake-read",
        /// A folder is listed.
        List = "lake-list",
        /// A file is deleted.
        Delete = "lake-delete",
        /// A vacuum deletes files that are not needed.
        VacuumFiles = "vacuum-files",
        /// A vacuum deletes the remains of interrupted writes.
        VacuumUnfinished = "vacuum-unfinished",
        /// A vacuum deletes old entries of a table's log.
        VacuumLog = "vacuum-log",
    }
}

impl LakePoint {
    /// Does the same as [`LakePoint::check`], with the error of a store.
    pub(crate) fn check_store(self) -> object_store::Result<()> {
        self.check().map_err(|error| Error::Generic { store: "DurableStore", source: Box::new(error) })
    }
}
