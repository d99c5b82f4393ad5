//! Makes sure that one log at a time assigns offsets to the events of a lake: the owner.
//!
//! A new log can take over the lake only on request (`--take-over`); it then starts where the archive ends. The owner
//! writes a heartbeat to the lake and stops when another log has taken over.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use intake::log::Totals;
use lake::{ArchiveTags, Heartbeat, Lake, OwnerClaim, Table, TablePath, TableSnapshot};
use shared::clock::Clock;
use shared::ids::{Offset, Partition, StreamName};
use shared::ledger::Ledger;
use shared::limits;
use shared::stream::{Stream, system_columns};
use shared::time::Micros;

/// Name of the file in the log's folder that holds the id of the log.
const ID_FILE: &str = "id";

/// Ownership of a lake by the log of this process.
pub struct Ownership {
    /// The lake, opened so that former owners can no longer commit to its tables.
    pub lake: Lake,
    pub claim: OwnerClaim,
    since: Micros,
}

/// Where the partitions of a new log start.
pub type LogStarts = BTreeMap<(StreamName, Partition), Totals>;

impl Ownership {
    /// Makes sure that the log in `local` owns the lake. Takes the lake over from another log if `take_over` is set.
    pub async fn obtain(lake: Lake, local: &Path, take_over: bool, clock: &dyn Clock) -> anyhow::Result<Ownership> {
        let log = log_id(local)?;
        let now = clock.now();
        let present = lake.latest_claim().await.context("cannot read the owner of the lake")?;
        if let Some(claim) = present.as_ref().filter(|claim| claim.log == log) {
            return Ok(Ownership { lake: lake.owned_in(claim.epoch), claim: claim.clone(), since: now });
        }
        let is_empty = !holds_events(local)?;
        let epoch = match &present {
            // No log has claimed the lake. This one may if it holds events, or if the lake holds none.
            None if !is_empty || !has_archive(&lake).await? => 1,
            None if !take_over => bail!(
                "the lake holds events, but the log in {} is empty: if the log is in another folder, set --local; if it \
                 is lost, start once with --take-over to start a new log where the archive ends",
                local.display()
            ),
            None => 2,
            Some(claim) if !take_over => bail!("{}", refusal(&lake, claim, now).await),
            Some(_) if !is_empty => bail!(
                "cannot take over the lake with the log in {}: its offsets overlap with those of the lake's owner. Set \
                 --local to another folder, or move {} away (its events that are not in the archive have to be sent \
                 again)",
                local.display(),
                local.join("log").display()
            ),
            Some(claim) => claim.epoch + 1,
        };
        let claim = OwnerClaim { epoch, log, claimed_at: now };
        lake.claim(&claim).await.context("cannot claim the lake")?;
        if take_over {
            tracing::warn!(
                epoch,
                "took over the lake; it does not hold events that the former owner accepted but did not archive"
            );
        }
        Ok(Ownership { lake: lake.owned_in(epoch), claim, since: now })
    }

    /// Keeps former owners from committing to the archives, and returns where partitions without a log start.
    pub async fn log_starts(&self, streams: &[Arc<Stream>], local: &Path) -> anyhow::Result<LogStarts> {
        let mut starts = LogStarts::new();
        for stream in streams {
            let path = TablePath::events(&stream.name);
            let schema = stream.archive_schema();
            let archive = self.lake.table(&path, schema, system_columns::EVENT_DATE).await;
            let archive = archive.with_context(|| format!("cannot open the archive of {}", stream.name))?;
            archive.keep_former_owners_out().await.context("cannot keep former owners out of the archive")?;
            for partition in (0..stream.partitions).map(Partition) {
                let folder = local.join("log").join(stream.name.as_str()).join(partition.to_string());
                if self.claim.epoch > 1 && !has_segments(&folder)? {
                    starts.insert((stream.name.clone(), partition), archived(&archive, stream, partition).await?);
                }
            }
        }
        Ok(starts)
    }

    /// Returns whether the lake was taken over from another log. If so, intake does not know all earlier event ids.
    pub fn is_succession(&self) -> bool {
        self.claim.epoch > 1
    }

    /// Writes heartbeats until another log takes over the lake, then returns the reason to stop.
    pub async fn watch(self, clock: Arc<dyn Clock>) -> String {
        loop {
            let (since, seen_at) = (self.since, clock.now());
            let heartbeat = Heartbeat { host: host(), process: std::process::id(), since, seen_at };
            let latest = match self.lake.record_heartbeat(self.claim.epoch, &heartbeat).await {
                Ok(()) => self.lake.latest_claim().await,
                Err(error) => Err(error),
            };
            match latest {
                Ok(Some(claim)) if claim.epoch > self.claim.epoch => {
                    return format!(
                        "another process took over the lake at {} (epoch {}; this process has epoch {}): this process \
                         accepts no more events; events that it did not archive are only in its log",
                        claim.claimed_at, claim.epoch, self.claim.epoch
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot write the heartbeat to the lake; will retry"),
            }
            tokio::time::sleep(Duration::from_millis(limits::OWNER_HEARTBEAT_MS)).await;
        }
    }
}

/// Returns why this log cannot use the lake of `claim`, and what to do.
async fn refusal(lake: &Lake, claim: &OwnerClaim, now: Micros) -> String {
    let mut text = "the lake belongs to another trueup process".to_owned();
    match lake.heartbeat(claim.epoch).await {
        Ok(Some(last)) => {
            let ago = now.0.saturating_sub(last.seen_at.0).max(0) / 1_000_000;
            let _ = write!(
                text,
                ": process {} on {}, running since {}, last seen {} ({ago} s ago)",
                last.process, last.host, last.since, last.seen_at
            );
        }
        _ => {
            let _ = write!(text, ", which claimed it at {}", claim.claimed_at);
        }
    }
    text + ". One log at a time assigns offsets to the events of a lake. To use that log, set --local to its folder. If \
            its machine is lost, start with --take-over and an empty --local folder: events that it accepted but did \
            not archive are lost"
}

/// Returns the id of the log in `local`. Creates it on first use.
fn log_id(local: &Path) -> anyhow::Result<String> {
    let folder = local.join("log");
    let path = folder.join(ID_FILE);
    let cannot = || format!("cannot store the id of the log in {}", path.display());
    std::fs::create_dir_all(&folder).with_context(cannot)?;
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(cannot),
    }
    let id = uuid::Uuid::new_v4().to_string();
    let unfinished = path.with_extension("new");
    let made = (|| {
        let mut file = File::create(&unfinished)?;
        file.write_all(id.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        File::open(&folder)?.sync_all()
    })();
    made.with_context(cannot).map(|()| id)
}

/// Returns whether any partition has a log in `local`.
fn holds_events(local: &Path) -> anyhow::Result<bool> {
    for stream in folders(&local.join("log"))? {
        for partition in folders(&stream)? {
            if has_segments(&partition)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Returns the folders in `folder`.
fn folders(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let unreadable = || format!("cannot read {}", folder.display());
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

fn has_segments(folder: &Path) -> anyhow::Result<bool> {
    if !folder.exists() {
        return Ok(false);
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "log")))
}

/// Returns whether the lake holds archived events.
async fn has_archive(lake: &Lake) -> anyhow::Result<bool> {
    use futures::StreamExt;
    let store = lake.store();
    let mut files = store.list(Some(&"events".into()));
    while let Some(file) = files.next().await {
        if file.context("cannot list the lake")?.location.as_ref().ends_with(".parquet") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the totals of a partition after all its archived events.
async fn archived(archive: &Table, stream: &Stream, partition: Partition) -> anyhow::Result<Totals> {
    let unreadable = || format!("cannot read the archive of {}", stream.name);
    let app_id = ArchiveTags::app_id(&stream.name, partition);
    let offset = archive.txn_version(&app_id).await.with_context(unreadable)?.unwrap_or(0);
    let offset = Offset(u64::try_from(offset).unwrap_or(0));
    let snapshot = archive.snapshot().await.with_context(unreadable)?;
    let tags = snapshot.files.iter().filter_map(|file| ArchiveTags::from_tags(&file.tags).ok());
    let tags: Vec<ArchiveTags> = tags.filter(|tags| tags.partition == partition).collect();
    let watermark = tags.iter().map(|tags| tags.latest_watermark).max().unwrap_or(Micros::MIN);
    let noted = noted_events(&snapshot, &tags, partition);
    let accepted = match noted.events == offset.0 {
        true => noted,
        // Something is missing, which the next run reports. Hashing 10^10 positions takes a minute.
        false => tokio::task::spawn_blocking(move || Ledger::before(partition, offset)).await?,
    };
    Ok(Totals::after_archived(accepted, watermark))
}

/// Returns the events of a partition that the archive accounts for: those of its files, and those it no longer has.
fn noted_events(snapshot: &TableSnapshot, tags: &[ArchiveTags], partition: Partition) -> Ledger {
    let dropped = snapshot.dropped.as_ref().and_then(|dropped| dropped.partitions.get(&partition));
    let lost = snapshot.lost.as_ref().and_then(|lost| lost.partitions.get(&partition));
    let gone = dropped.map(|part| part.ledger).into_iter().chain(lost.map(|part| part.ledger));
    tags.iter().map(|tags| tags.ledger).chain(gone).sum()
}

fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    kernel
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or("unknown".to_owned())
}
