//! Finds the events that belong to sessions that started on dates that the archive has dropped. Such a session is frozen,
//! and the events that it still has on later dates must not become a session of their own (I12).
//!
//! An event within a gap of a frozen session is excluded, and ties nothing to it: what follows it stays a session as it was.

use std::collections::HashMap;
use std::sync::Arc;

use lake::DataFile;
use shared::horizon::Horizon;
use shared::view::View;
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::sessions::latest_end;
use crate::versions::reader::VersionReader;

/// The ends of the frozen sessions that reach into dates that the archive still has, by group.
#[derive(Debug, Default)]
pub struct FrozenSessions {
    ends: HashMap<Box<[u8]>, i64>,
    last_end: i64,
}

impl FrozenSessions {
    /// Reads them from `files`, which hold all frozen sessions. `None`: there are none.
    pub async fn of(
        reader: &VersionReader,
        view: &Arc<View>,
        files: &[DataFile],
        horizon: Horizon,
    ) -> Result<Option<Arc<FrozenSessions>>, RunFailure> {
        let (Window::Session { gap }, Some(start)) = (view.window, horizon.speed_starts()) else { return Ok(None) };
        let mut frozen = FrozenSessions { ends: HashMap::new(), last_end: start.0 };
        let is_frozen = |file: &&DataFile| horizon.is_frozen_date(file.partition);
        // A file without statistics is read.
        let reaches = |file: &&DataFile| latest_end(file).is_none_or(|end| end > start);
        for file in files.iter().filter(is_frozen).filter(reaches) {
            let part = reader.file(view, &file.path).await.map_err(RunFailure::Served)?;
            for block in &part.blocks {
                for (last, key) in block.lasts.iter().zip(&block.keys) {
                    let end = last.saturating_add(gap);
                    if end > start.0 {
                        frozen.add(part.keys.get(*key), end);
                    }
                }
            }
        }
        Ok((!frozen.ends.is_empty()).then(|| Arc::new(frozen)))
    }

    fn add(&mut self, key: &[u8], end: i64) {
        let known = self.ends.get(key).copied().unwrap_or(i64::MIN);
        if end > known {
            self.ends.insert(Box::from(key), end);
            self.last_end = self.last_end.max(end);
        }
    }

    /// Returns whether an event of the group at `time` (microseconds) belongs to a frozen session.
    pub fn holds(&self, key: &[u8], time: i64) -> bool {
        time < self.last_end && self.ends.get(key).is_some_and(|end| time < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_within_a_gap_of_a_frozen_session_belong_to_it_and_those_of_other_groups_do_not() {
        let mut frozen = FrozenSessions { ends: HashMap::new(), last_end: 100 };
        frozen.add(b"a", 150);
        frozen.add(b"a", 120);
        frozen.add(b"b", 110);
        assert!(frozen.holds(b"a", 149) && !frozen.holds(b"a", 150));
        assert!(frozen.holds(b"b", 109) && !frozen.holds(b"b", 110));
        assert!(!frozen.holds(b"c", 101));
    }
}
