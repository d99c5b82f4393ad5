//! Refuses a log that is older than its lake: new events would get offsets that the archive already has for other events,
//! and would never reach any version.

use anyhow::{Context, bail};
use intake::streams::Intake;
use lake::{ArchiveTags, TablePath};
use shared::handoff::LogReplay;
use shared::ids::Partition;

use super::storage::Base;

/// Compares the end of every partition's log with the progress of its archive.
pub async fn refuse_log_older_than_lake(base: &Base, intake: &Intake) -> anyhow::Result<()> {
    for stream in &base.streams {
        let unreadable = || format!("cannot read the archive of {}", stream.name);
        let log = intake.stream(&stream.name).context("every stream has a log")?;
        let archive = base.lake.open_table(&TablePath::events(&stream.name)).await.with_context(unreadable)?;
        let Some(archive) = archive else { continue };
        for partition in (0..stream.partitions).map(Partition) {
            let app_id = ArchiveTags::app_id(&stream.name, partition);
            let archived = archive.txn_version(&app_id).await.with_context(unreadable)?;
            let archived = archived.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0);
            let (_, head) = log.range(partition);
            if archived > head.0 {
                bail!(
                    "the log of stream {}, partition {partition}, is older than its lake: it ends at offset {head}, but the \
                     archive holds the events before offset {archived}. Start with the newer log. If it is lost, move {} away \
                     and start once with --take-over: a new log then starts where the archive ends, and events of the lost \
                     log that were not archived have to be sent again",
                    stream.name,
                    base.local.join("log").display()
                );
            }
        }
    }
    Ok(())
}
