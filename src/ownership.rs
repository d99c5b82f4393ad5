//! May this process number events for the lake? A lake has one owner at a time, the log of one machine; who wants to go
//! on with the lake of another has to say so, and begins where the archive ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use intake::log::Totals;
use lake::{ArchiveTags, Claim, Lake, Seen, Table, TablePath};
use shared::clock::Clock;
use shared::ids::{Offset, Partition, StreamName};
use shared::limits;
use shared::stream::{Stream, system_columns};
use shared::time::Micros;

/// The file in the log's folder that holds the log's id.
const ID_FILE: &str = "id";

/// A lake that this process's log owns.
pub struct Ownership {
    /// The lake, with tables that former owners no longer write to.
    pub lake: Lake,
    pub claim: Claim,
    since: Micros,
}

/// Where the partitions of a new log begin.
pub type Begins = BTreeMap<(StreamName, Partition), Totals>;

impl Ownership {
    /// Makes sure that the log in `local` owns the lake, or takes it over if told to.
    pub async fn obtain(lake: Lake, local: &Path, take_over: bool, clock: &dyn Clock) -> anyhow::Result<Ownership> {
        let log = log_id(local)?;
        let now = clock.now();
        let present = lake.latest_claim().await.context("the lake's owner cannot be read")?;
        if let Some(claim) = present.as_ref().filter(|claim| claim.log == log) {
            return Ok(Ownership { lake: lake.owned_in(claim.epoch), claim: claim.clone(), since: now });
        }
        let is_empty = !holds_events(local)?;
        let epoch = match &present {
            // Nobody numbered events before, or nobody that left a claim: then the first log is taken for the right one
            // if it holds events, or if there are none in the lake.
            None if !is_empty || !has_archive(&lake).await? => 1,
            None if !take_over => bail!(
                "the lake holds events, but the log in {} is new. If the log is elsewhere, name its folder with --local; \
                 if it is lost, start once with --take-over: the log then begins where the archive ends",
                local.display()
            ),
            None => 2,
            Some(claim) if !take_over => bail!("{}", refusal(&lake, claim, now).await),
            Some(_) if !is_empty => bail!(
                "the lake cannot be taken over with the log in {}: its events are numbered like those of the lake's \
                 owner. Name another folder with --local, or move {} away (events of it that are not in the archive \
                 have to be sent again)",
                local.display(),
                local.join("log").display()
            ),
            Some(claim) => claim.epoch + 1,
        };
        let claim = Claim { epoch, log, claimed_at: now };
        lake.claim(&claim).await.context("the lake cannot be claimed")?;
        if take_over {
            tracing::warn!(
                epoch,
                "took the lake over: events its former owner accepted but had not archived are not in it"
            );
        }
        Ok(Ownership { lake: lake.owned_in(epoch), claim, since: now })
    }

    /// Keeps former owners out of the archives and says where partitions without a log begin.
    pub async fn begin(&self, streams: &[Arc<Stream>], local: &Path) -> anyhow::Result<Begins> {
        let mut begins = Begins::new();
        for stream in streams {
            let path = TablePath::events(&stream.name);
            let schema = stream.archive_schema();
            let archive = self.lake.table(&path, schema, system_columns::EVENT_DATE).await;
            let archive = archive.with_context(|| format!("the archive of {} cannot be opened", stream.name))?;
            archive.keep_former_owners_out().await.context("former owners cannot be kept out of the archive")?;
            for partition in (0..stream.partitions).map(Partition) {
                let folder = local.join("log").join(stream.name.as_str()).join(partition.to_string());
                if self.claim.epoch > 1 && !has_segments(&folder)? {
                    begins.insert((stream.name.clone(), partition), archived(&archive, stream, partition).await?);
                }
            }
        }
        Ok(begins)
    }

    /// Was the lake taken over from another log? Then intake no longer knows all ids that came before.
    pub fn is_succession(&self) -> bool {
        self.claim.epoch > 1
    }

    /// Says again and again that the owner is alive; returns, with the reason, once there is a later one.
    pub async fn watch(self, clock: Arc<dyn Clock>) -> String {
        loop {
            let seen = Seen { host: host(), process: std::process::id(), since: self.since, seen_at: clock.now() };
            let latest = match self.lake.note_seen(self.claim.epoch, &seen).await {
                Ok(()) => self.lake.latest_claim().await,
                Err(error) => Err(error),
            };
            match latest {
                Ok(Some(claim)) if claim.epoch > self.claim.epoch => {
                    return format!(
                        "the lake was taken over by another process at {} (epoch {}; this one had {}); this one takes no \
                         more events. What it accepted and had not archived is in its log only",
                        claim.claimed_at, claim.epoch, self.claim.epoch
                    );
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the lake cannot be told that its owner is alive; tried again"),
            }
            tokio::time::sleep(Duration::from_millis(limits::OWNER_SEEN_EVERY_MS)).await;
        }
    }
}

/// Why the lake of `claim` is not ours, and what to do.
async fn refusal(lake: &Lake, claim: &Claim, now: Micros) -> String {
    let mut text = "the lake belongs to another trueup".to_owned();
    match lake.seen(claim.epoch).await {
        Ok(Some(seen)) => {
            let ago = now.0.saturating_sub(seen.seen_at.0).max(0) / 1_000_000;
            let _ = write!(
                text,
                ": process {} on {}, running since {}, last seen {} ({ago} s ago)",
                seen.process, seen.host, seen.since, seen.seen_at
            );
        }
        _ => {
            let _ = write!(text, ", which claimed it at {}", claim.claimed_at);
        }
    }
    text + ". Events of a lake are numbered by one log. To go on with that log, start with its --local folder. If the \
            machine is gone for good, start with --take-over and an empty --local folder: events that it accepted but \
            had not archived are lost"
}

/// The id of the log in `local`, made on first use.
fn log_id(local: &Path) -> anyhow::Result<String> {
    let folder = local.join("log");
    let path = folder.join(ID_FILE);
    let cannot = || format!("the log's id {} cannot be kept", path.display());
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

/// Has any partition a log in `local`?
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

fn folders(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let unreadable = || format!("{} cannot be read", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

fn has_segments(folder: &Path) -> anyhow::Result<bool> {
    if !folder.exists() {
        return Ok(false);
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    Ok(entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "log")))
}

/// Does the lake hold an archive?
async fn has_archive(lake: &Lake) -> anyhow::Result<bool> {
    use futures::StreamExt;
    let store = lake.store();
    let mut files = store.list(Some(&"events".into()));
    while let Some(file) = files.next().await {
        if file.context("the lake cannot be listed")?.location.as_ref().ends_with(".parquet") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where a partition stands after the events that are in the archive.
async fn archived(archive: &Table, stream: &Stream, partition: Partition) -> anyhow::Result<Totals> {
    let unreadable = || format!("the archive of {} cannot be read", stream.name);
    let app_id = ArchiveTags::app_id(&stream.name, partition);
    let offset = archive.txn_version(&app_id).await.with_context(unreadable)?.unwrap_or(0);
    let offset = Offset(u64::try_from(offset).unwrap_or(0));
    let snapshot = archive.snapshot().await.with_context(unreadable)?;
    let tags = snapshot.files.iter().filter_map(|file| ArchiveTags::from_tags(&file.tags).ok());
    let watermark = tags.filter(|tags| tags.partition == partition).map(|tags| tags.latest_watermark).max();
    let watermark = watermark.unwrap_or(Micros::MIN);
    // Every position is hashed once: files of dropped dates can no longer tell.
    Ok(tokio::task::spawn_blocking(move || Totals::after_archived(partition, offset, watermark)).await?)
}

fn host() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    kernel
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or("unknown".to_owned())
}
