//! Defines what a server is started with, and derives the settings of each layer from it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alerts::webhook::Webhook;
use anyhow::bail;
use batch::{BatchSettings, CompactionSettings, Engines, RetrySettings};
use intake::archive::ArchiverSettings;
use intake::lateness::LatenessSettings;
use intake::log::{LogSettings, local_disk};
use intake::partition::{KeyRetention, PartitionSettings};
use intake::quarantine::QuarantineSettings;
use intake::sources::Connections;
use serving::http::Perimeter;
use shared::sql::Definitions;
use shared::view::ViewLayers;

use crate::data_dir::DataDir;
use crate::listen::tls::Tls;
use crate::ownership::LogStarts;
use crate::settings::Limits;

/// What a server is started with.
#[derive(Debug)]
pub struct WiringSettings {
    /// Definition files, as path and text, in order. They have been parsed once without errors.
    pub definitions: Vec<(PathBuf, String)>,
    /// Where the log, the archive and the views are.
    pub data_dir: DataDir,
    /// Address to listen on; port 0 means any free port.
    pub listen: SocketAddr,
    pub limits: Limits,
    /// The webhooks of the settings, by target.
    pub webhooks: BTreeMap<String, Webhook>,
    /// The clusters and databases of the settings, whose topics and outboxes are read and written.
    pub topics: Connections,
    /// Whether to take over a lake that belongs to another log.
    pub take_over: bool,
    /// The views whose batch runs Spark computes.
    pub engines: Engines,
    /// Memory limit of a batch run, in bytes.
    pub batch_memory_bytes: u64,
    /// Whether views have their declared schedules and layers, and streams and sinks their topics. Otherwise clients
    /// send all events, every view has batch runs, which start only on request, and no sink writes.
    pub as_declared: bool,
    /// Decides which requests are admitted.
    pub perimeter: Perimeter,
    /// The certificate; `None` for plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

impl WiringSettings {
    /// Parses the definitions, and adapts them unless they apply [as declared](WiringSettings::as_declared).
    pub fn parse_definitions(&self) -> anyhow::Result<Definitions> {
        let texts: Vec<(String, String)> =
            self.definitions.iter().map(|(file, text)| (file.display().to_string(), text.clone())).collect();
        let mut definitions = match shared::sql::parse_definitions(&texts) {
            Ok(definitions) => definitions,
            Err(errors) => bail!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        };
        if !self.as_declared {
            definitions.sinks.clear();
            definitions.event_sinks.clear();
            for stream in &mut definitions.streams {
                stream.detach();
            }
            for view in &mut definitions.views {
                (view.schedule, view.checkpoint_schedule, view.layers) = (None, None, ViewLayers::Both);
            }
        }
        Ok(definitions)
    }

    /// Returns the settings of every partition of the log. `starts` says where new partitions start.
    pub fn partition(&self, starts: LogStarts) -> PartitionSettings {
        let limits = &self.limits;
        PartitionSettings {
            begins: Arc::new(starts),
            log: LogSettings {
                segment_bytes: limits.log_segment_bytes,
                keep_events: limits.dedup_horizon_events,
                disk: local_disk(),
                ..LogSettings::default()
            },
            lateness: LatenessSettings {
                listed_events: usize::try_from(limits.listed_events_kept).unwrap_or(usize::MAX),
                ..LatenessSettings::default()
            },
            dedup_horizon_events: limits.dedup_horizon_events,
            entities_max: usize::try_from(limits.entities_max).unwrap_or(usize::MAX),
            table_bytes_max: usize::try_from(limits.table_bytes_max).unwrap_or(usize::MAX),
            idempotency: KeyRetention {
                keep: Duration::from_millis(limits.idempotency_keep_ms),
                bytes_max: usize::try_from(limits.idempotency_bytes_max).unwrap_or(usize::MAX),
                ..KeyRetention::default()
            },
            ..PartitionSettings::default()
        }
    }

    /// Returns the settings of the quarantine.
    pub fn quarantine(&self) -> QuarantineSettings {
        QuarantineSettings {
            lines_max: usize::try_from(self.limits.quarantine_lines_max).unwrap_or(usize::MAX),
            bytes_max: usize::try_from(self.limits.quarantine_bytes_max).unwrap_or(usize::MAX),
        }
    }

    /// Returns the settings of every archiver.
    pub fn archiver(&self) -> ArchiverSettings {
        ArchiverSettings {
            file_rows: usize::try_from(self.limits.archive_file_rows).unwrap_or(usize::MAX),
            wait: Duration::from_millis(self.limits.archive_wait_ms),
            backlog_bytes_max: self.limits.archive_backlog_bytes_max,
            ..ArchiverSettings::default()
        }
    }

    /// Returns the settings of the batch layer. `local` is the folder for its run log. `is_succession` says whether the
    /// lake was taken over from another log.
    pub fn batch(&self, local: &Path, is_succession: bool) -> BatchSettings {
        let limits = &self.limits;
        BatchSettings {
            memory_limit_bytes: self.batch_memory_bytes,
            lookup_bytes_max: usize::try_from(limits.lookup_bytes_max).unwrap_or(usize::MAX),
            // The ids that a former owner knew are lost with its log: any event of the archive may have a duplicate.
            dedup_horizon_events: if is_succession { 0 } else { limits.dedup_horizon_events },
            cache_bytes: usize::try_from(limits.batch_cache_bytes).unwrap_or(usize::MAX),
            vacuum_age: Duration::from_millis(limits.vacuum_age_ms),
            vacuum_every: Duration::from_millis(limits.vacuum_every_ms),
            compaction: CompactionSettings {
                file_rows: limits.compaction_file_rows,
                file_bytes: limits.compaction_file_bytes,
                every: Duration::from_millis(limits.compaction_every_ms),
                vacuum_age: Duration::from_millis(limits.vacuum_age_ms),
                vacuum_every: Duration::from_millis(limits.vacuum_every_ms),
                ..CompactionSettings::default()
            },
            engines: self.engines.clone(),
            runs_file: Some(local.join("runs.ndjson")),
            clock_note: Some(local.join("clock")),
            retry: RetrySettings {
                first: Duration::from_millis(limits.run_retry_first_ms),
                longest: Duration::from_millis(limits.run_retry_max_ms),
                attempts: limits.run_attempts_max,
            },
            ..BatchSettings::default()
        }
    }
}
