//! Where does a server keep what? The lake where `--data` says, what must be on this machine in a folder.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lake::{Lake, Spool, StorePatience, is_remote};

use crate::settings::Limits;

/// The folder for what must be on this machine, if the data is elsewhere and nobody names one.
const DEFAULT_LOCAL: &str = "trueup-local";

/// Where the data of a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A folder or a URL.
    data: String,
    local: PathBuf,
}

impl Place {
    /// `data` is a folder or a URL; `local` a folder, by default the one of the data.
    pub fn new(data: &str, local: Option<&Path>) -> Place {
        let default = if is_remote(data) { DEFAULT_LOCAL } else { data };
        Place { data: data.to_owned(), local: local.map_or_else(|| PathBuf::from(default), Path::to_owned) }
    }

    /// What [`Lake::open`] takes.
    pub fn lake_location(&self) -> String {
        if is_remote(&self.data) { self.data.clone() } else { Path::new(&self.data).join("lake").display().to_string() }
    }

    /// The folder of what must be on this machine, which need not be there yet.
    pub fn local_folder(&self) -> &Path {
        &self.local
    }

    /// Creates the folder of what must be on this machine (log, quarantine, spool), and gives it without symbolic links.
    pub fn local(&self) -> anyhow::Result<PathBuf> {
        let folder = self.local.display();
        std::fs::create_dir_all(&self.local).with_context(|| format!("the data folder {folder} cannot be created"))?;
        self.local.canonicalize().with_context(|| format!("the data folder {folder} cannot be used"))
    }

    /// Opens the lake and tries it out; `local` is what [`Place::local`] gave, and this process alone uses it.
    pub async fn lake(&self, local: &Path, limits: &Limits) -> anyhow::Result<Lake> {
        if !is_remote(&self.data) {
            return Lake::open(&self.lake_location()).context("the lake cannot be opened");
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
        let spool = spool.with_context(|| format!("the spool {} cannot be made", folder.display()))?;
        Ok(lake.with_spool(spool))
    }

    fn data_is_local(&self) -> bool {
        Path::new(&self.data) == self.local
    }

    /// The places, as a newcomer is told of them: each with a word before it.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
        if self.data_is_local() {
            return vec![("data", whole(&self.local))];
        }
        let data = if is_remote(&self.data) { self.data.clone() } else { whole(Path::new(&self.data)) };
        vec![("data", data), ("local", format!("{} (the log: keep it)", whole(&self.local)))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_here_is_beside_the_data_or_where_it_is_told_to_be() {
        let local = |data: &str, local: Option<&str>| Place::new(data, local.map(Path::new)).local;
        assert_eq!(local("data", None), Path::new("data"));
        assert_eq!(local("s3://bucket/x", None), Path::new("trueup-local"));
        assert_eq!(local("s3://bucket/x", Some("/var/lib/trueup")), Path::new("/var/lib/trueup"));
        let lines = Place::new("s3://bucket/x", Some(Path::new("no-such"))).lines();
        assert_eq!(lines[0], ("data", "s3://bucket/x".to_owned()));
        assert_eq!(lines[1], ("local", "no-such (the log: keep it)".to_owned()));
    }
}
