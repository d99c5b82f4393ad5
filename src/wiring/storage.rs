//! Opens what the layers of a server share: the data folder, the lake, and the streams as they are stored.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use intake::sources::topic_partitions::with_topic_partitions;
use lake::Lake;
use shared::clock::Clock;
use shared::live_state::LiveStates;
use shared::sql::Definitions;
use shared::stream::Stream;
use shared::vital::Vitals;

use crate::adopt_definitions;
use crate::ownership::{LogStarts, Ownership};

use super::WiringSettings;

/// What every layer needs to start.
pub struct Base {
    /// The folder for the log, the quarantine and the spool.
    pub local: PathBuf,
    pub lake: Lake,
    /// The declared streams, with the columns that only stored events still have.
    pub streams: Vec<Arc<Stream>>,
    pub clock: Arc<dyn Clock>,
    /// The threads and tasks without which the server has to stop.
    pub vitals: Vitals,
    /// The bound of the live state of all views.
    pub live_states: LiveStates,
}

/// The opened storage of a server.
pub struct Storage {
    pub base: Base,
    pub ownership: Ownership,
    /// Where partitions without a log start.
    pub log_starts: LogStarts,
    /// Locks the data folder as long as it is held.
    pub lock: File,
}

impl Storage {
    /// Locks the data folder, obtains ownership of the lake, and adopts the declared streams.
    pub async fn open(
        settings: &WiringSettings,
        definitions: &Definitions,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Storage> {
        let local = settings.data_dir.create_local()?;
        let lock = lock(&local)?;
        let lake = settings.data_dir.open_lake(&local, &settings.limits).await?;
        let ownership = Ownership::obtain(lake, &local, settings.take_over, clock.as_ref()).await?;
        let lake = ownership.lake.clone();
        let streams = adopt_definitions::adopt(&lake, &local, definitions).await?;
        let streams = with_topic_partitions(streams, &local, &settings.topics).await.context("cannot read the log")?;
        let log_starts = ownership.log_starts(&streams, &local).await?;
        adopt_definitions::note_dedup_horizons(&lake, &streams, settings.limits.dedup_horizon_events).await?;
        let live_states = LiveStates::new(settings.limits.live_state_bytes_max);
        let base = Base { local, lake, streams, clock, vitals: Vitals::default(), live_states };
        Ok(Storage { base, ownership, log_starts, lock })
    }
}

/// Locks the data folder. Two processes that write one log would assign the same offsets twice.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!("the data folder {} is in use by another trueup process", data.display()),
    }
}
