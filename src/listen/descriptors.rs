//! Raises the limit of open files, and computes how many connections fit below it.

use shared::limits::{CONNECTIONS_MAX, DESCRIPTORS_RESERVED};
use tracing::{info, warn};

/// The limit to assume if the system does not say it: the usual one.
const DESCRIPTORS_USUAL: u64 = 1_024;

/// Raises the limit of open files as far as the system permits. Call this before files or connections are opened.
pub fn raise() {
    let before = rlimit::Resource::NOFILE.get_soft().unwrap_or_default();
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit > before => info!(before, limit, "raised the limit of open files"),
        Ok(_) => {}
        Err(error) => warn!(%error, "cannot raise the limit of open files"),
    }
    let connections = connections_max();
    if connections < CONNECTIONS_MAX {
        info!(connections, "the limit of open files leaves room for fewer connections than usual");
    }
}

/// Returns the most connections that may be open: the log, the lake and the pages need descriptors too.
pub fn connections_max() -> usize {
    below(rlimit::Resource::NOFILE.get_soft().unwrap_or(DESCRIPTORS_USUAL))
}

fn below(descriptors: u64) -> usize {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    (descriptors - DESCRIPTORS_RESERVED.min(descriptors / 2)).clamp(1, CONNECTIONS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_files() {
        for (descriptors, connections) in
            [(0, 1), (256, 128), (1_024, 512), (4_096, 3_072), (1 << 20, CONNECTIONS_MAX), (u64::MAX, CONNECTIONS_MAX)]
        {
            assert_eq!(below(descriptors), connections, "{descriptors}");
        }
    }
}
