//! How do the layers become one server? PLACEHOLDER: the lead joins intake, speed, batch and serving here; until then
//! nothing can be started, and `start` says so.

use std::net::SocketAddr;
use std::path::PathBuf;

use shared::ids::ViewName;
use shared::stream::Stream;

use crate::settings::Limits;

/// What a server is started with.
#[derive(Debug)]
pub struct WiringSettings {
    /// Definition files, as name and text, in order. They have been parsed once without errors.
    pub definitions: Vec<(PathBuf, String)>,
    /// Folder or URL of the log, the archive and the views.
    pub data: String,
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    pub limits: Limits,
}

/// A server that answers.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub local_addr: SocketAddr,
    pub streams: Vec<Stream>,
    pub views: Vec<ViewName>,
}

/// Starts all layers; returns once requests are answered.
pub async fn start(settings: WiringSettings) -> anyhow::Result<Running> {
    anyhow::bail!("not wired yet: {} on {}", settings.data, settings.listen)
}

impl Running {
    /// Waits until the server stops by itself, which it does only when a layer failed: then the error says why.
    /// May be dropped and called again.
    pub async fn stopped(&mut self) -> anyhow::Result<()> {
        std::future::pending().await
    }

    /// Stops accepting, finishes requests under way, syncs the log.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        Ok(())
    }
}
