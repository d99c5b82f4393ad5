//! Finds the windows that speed still adds to. Rows from batch alone do not show it, and are not final until speed is done.

use std::collections::{HashMap, HashSet};

use shared::partial::merge::{Layers, MergeError, Merged, merge_onto};
use shared::partial::query_budget::QueryBudget;
use shared::window::{Window, WindowId};

use crate::pin::ViewPin;
use crate::query::LayerChoice;
use crate::query::bound::BoundQuery;

/// The windows and sessions that speed holds, for a result that excludes speed.
pub enum LiveWindows {
    Windows(HashSet<WindowId>),
    /// By key, the sessions that speed contributes to: first and last event, ascending.
    Sessions(HashMap<Box<[u8]>, Vec<(i64, i64)>>),
}

impl LiveWindows {
    /// Finds the windows of `query` within its allowance; `None` if speed holds nothing, or its part is in the result.
    pub fn of(
        query: &BoundQuery,
        pinned: &ViewPin,
        allowance: &QueryBudget,
    ) -> Result<Option<LiveWindows>, MergeError> {
        if query.layer != LayerChoice::Batch || pinned.speed.generations.is_empty() {
            return Ok(None);
        }
        let view = pinned.published.view.as_ref();
        if let Window::TableSession { .. } = view.window {
            // No row over a table is ever final.
            return Ok(None);
        }
        let Window::Session { .. } = view.window else {
            let merged = merge_onto(&query.merge_spec(view, &[]), None, &pinned.parts(LayerChoice::Speed), allowance)?;
            return Ok(Some(LiveWindows::Windows(merged.windows.into_iter().collect())));
        };
        // Both layers together: a live session may extend a session of batch without sharing an event.
        let mut whole = query.merge_spec(view, &query.request.dimensions);
        whole.windows = WindowId::EVERY;
        let merged = merge_onto(&whole, None, &pinned.parts(LayerChoice::Merged), allowance)?;
        let mut sessions: HashMap<Box<[u8]>, Vec<(i64, i64)>> = HashMap::new();
        for row in (0..merged.len()).filter(|row| merged.layers[*row].0 & Layers::SPEED.0 != 0) {
            let key = merged.keys.get(merged.groups[row]);
            sessions.entry(Box::from(key)).or_default().push((merged.windows[row].0, merged.lasts[row]));
        }
        sessions.values_mut().for_each(|of_key| of_key.sort_unstable());
        Ok(Some(LiveWindows::Sessions(sessions)))
    }

    /// Returns true if speed adds to this row of batch.
    pub fn touch(&self, merged: &Merged, row: usize) -> bool {
        match self {
            LiveWindows::Windows(windows) => windows.contains(&merged.windows[row]),
            LiveWindows::Sessions(sessions) => {
                let Some(of_key) = sessions.get(merged.keys.get(merged.groups[row])) else { return false };
                let started = of_key.partition_point(|(first, _)| *first <= merged.windows[row].0);
                started > 0 && of_key[started - 1].1 >= merged.lasts[row]
            }
        }
    }
}
