//! Locates the data of a server: the lake at `--data`, and a folder on this machine for the log, the quarantine and the
//! spool.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lake::{Lake, Spool, StorePatience, is_remote};
use shared::ids::StreamName;

use crate::settings::Limits;

/// The default local folder if the data is at a URL.
const DEFAULT_LOCAL: &str = "trueup-local";

/// The locations of a server's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    /// A folder or a URL.
    data: String,
    /// The folder for the log, the quarantine and the spool.
    local: PathBuf,
}

impl DataDir {
    /// Locates `data`, a folder or a URL, and `local`, a folder: by default the folder of the data.
    pub fn new(data: &str, local: Option<&Path>) -> DataDir {
        let default = if is_remote(data) { DEFAULT_LOCAL } else { data };
        DataDir { data: data.to_owned(), local: local.map_or_else(|| PathBuf::from(default), Path::to_owned) }
    }

    /// Returns the location of the lake for [`Lake::open`].
    pub fn lake_location(&self) -> String {
        if is_remote(&self.data) { self.data.clone() } else { Path::new(&self.data).join("lake").display().to_string() }
    }

    /// Returns the local folder, which may not exist yet.
    pub fn local_folder(&self) -> &Path {
        &self.local
    }

    /// Returns the file for rejected lines of historical events of `stream`; its folder may not exist yet.
    pub fn rejected_lines(&self, stream: &StreamName) -> PathBuf {
        self.local.join("rejected").join(format!("{stream}.ndjson"))
    }

    /// Creates the local folder and returns its path without symbolic links.
    pub fn create_local(&self) -> anyhow::Result<PathBuf> {
        let folder = self.local.display();
        std::fs::create_dir_all(&self.local).with_context(|| format!("cannot create the data folder {folder}"))?;
        self.local.canonicalize().with_context(|| format!("cannot use the data folder {folder}"))
    }

    /// Opens the lake and checks that it can be used. `local` comes from [`DataDir::create_local`]; no other process uses
    /// it.
    pub async fn open_lake(&self, local: &Path, limits: &Limits) -> anyhow::Result<Lake> {
        if !is_remote(&self.data) {
            return Lake::open(&self.lake_location()).context("cannot open the lake");
        }
        let milliseconds = std::time::Duration::from_millis;
        let patience = StorePatience {
            request: milliseconds(limits.store_request_timeout_ms),
            retry: milliseconds(limits.store_retry_ms),
        };
        let lake = Lake::open_patiently(&self.data, patience)?;
        lake.check().await?;
        let folder = local.join("spool");
        let spool = Spool::open(&folder, limits.spool_bytes);
        let spool = spool.with_context(|| format!("cannot create the spool {}", folder.display()))?;
        Ok(lake.with_spool(spool))
    }

    fn data_is_local(&self) -> bool {
        Path::new(&self.data) == self.local
    }

    /// Returns the locations for the startup message, each with a label.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
        if self.data_is_local() {
            return vec![("data", whole(&self.local))];
        }
        let data = if is_remote(&self.data) { self.data.clone() } else { whole(Path::new(&self.data)) };
        vec![("data", data), ("local", format!("{} (the log: keep it)", whole(&self.local)))]
    }
}

/// Opens the lake that `trueup serve --data` uses, for commands that work beside a server.
pub fn open_lake(data_dir: &DataDir) -> anyhow::Result<Lake> {
    let location = data_dir.lake_location();
    if !is_remote(&location) {
        std::fs::create_dir_all(&location).with_context(|| format!("cannot create the folder {location}"))?;
    }
    Lake::open(&location).context("cannot open the lake")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_folder_defaults_to_the_data_folder() {
        let local = |data: &str, local: Option<&str>| DataDir::new(data, local.map(Path::new)).local;
        assert_eq!(local("data", None), Path::new("data"));
        assert_eq!(local("s3://bucket/x", None), Path::new("trueup-local"));
        assert_eq!(local("s3://bucket/x", Some("/var/lib/trueup")), Path::new("/var/lib/trueup"));
        let lines = DataDir::new("s3://bucket/x", Some(Path::new("no-such"))).lines();
        assert_eq!(lines[0], ("data", "s3://bucket/x".to_owned()));
        assert_eq!(lines[1], ("local", "no-such (the log: keep it)".to_owned()));
    }
}
