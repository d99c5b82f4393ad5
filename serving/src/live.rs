//! To which windows has speed something to add? Rows from batch alone cannot tell, and are not final as long as it has.

use std::collections::{HashMap, HashSet};

use shared::partial::merge::{Layers, MergeError, Merged, merge};
use shared::window::Window;

use crate::answer::spec;
use crate::pin::Pinned;
use crate::query::{LayerChoice, Query};

/// What speed holds, beside an answer from batch.
pub enum LiveWindows {
    Windows(HashSet<i64>),
    /// By key, the sessions that speed has a part in: first and last event, ascending.
    Sessions(HashMap<Box<[u8]>, Vec<(i64, i64)>>),
}

impl LiveWindows {
    /// What speed has beside the answer of `query`; `None` if that is nothing, or in the answer itself.
    pub fn of(query: &Query, pinned: &Pinned) -> Result<Option<LiveWindows>, MergeError> {
        if query.layer != LayerChoice::Batch || pinned.speed.generations.is_empty() {
            return Ok(None);
        }
        let view = pinned.published.view.as_ref();
        let Window::Session { .. } = view.window else {
            let merged = merge(&spec(view, query, &[]), &pinned.parts(LayerChoice::Speed))?;
            return Ok(Some(LiveWindows::Windows(merged.windows.into_iter().collect())));
        };
        // Together, since a live session may reach a session of batch whose events it has none of.
        let mut whole = spec(view, query, &query.dimensions);
        (whole.from, whole.to) = (i64::MIN, i64::MAX);
        let merged = merge(&whole, &pinned.parts(LayerChoice::Merged))?;
        let mut sessions: HashMap<Box<[u8]>, Vec<(i64, i64)>> = HashMap::new();
        for row in (0..merged.len()).filter(|row| merged.layers[*row].0 & Layers::SPEED.0 != 0) {
            let key = merged.keys.get(merged.groups[row]);
            sessions.entry(Box::from(key)).or_default().push((merged.windows[row], merged.lasts[row]));
        }
        sessions.values_mut().for_each(|of_key| of_key.sort_unstable());
        Ok(Some(LiveWindows::Sessions(sessions)))
    }

    /// Does speed add to this row of batch's?
    pub fn touch(&self, merged: &Merged, row: usize) -> bool {
        match self {
            LiveWindows::Windows(windows) => windows.contains(&merged.windows[row]),
            LiveWindows::Sessions(sessions) => {
                let Some(of_key) = sessions.get(merged.keys.get(merged.groups[row])) else { return false };
                let begun = of_key.partition_point(|(first, _)| *first <= merged.windows[row]);
                begun > 0 && of_key[begun - 1].1 >= merged.lasts[row]
            }
        }
    }
}
