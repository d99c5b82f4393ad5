//! Keeps the indexes by key of immutable parts while the parts are in memory, within a number of bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::partial::block::Part;
use crate::partial::wanted::PartIndex;

/// Indexes of parts. Shared by their readers.
#[derive(Debug)]
pub struct PartIndexes(Mutex<IndexCache>);

impl PartIndexes {
    /// Returns an empty cache of at most `bytes_max` bytes; beyond it the oldest index is built again when it is needed.
    pub fn new(bytes_max: usize) -> PartIndexes {
        PartIndexes(Mutex::new(IndexCache::new(bytes_max)))
    }

    /// Returns the index of a part, if it is there.
    pub fn known(&self, part: &Arc<Part>) -> Option<Arc<PartIndex>> {
        self.0.lock().indexes.get(&address(part)).map(|(_, index)| Arc::clone(index))
    }

    /// Returns the index of a part. Reads all of its keys if it is not there.
    pub fn of(&self, part: &Arc<Part>) -> Arc<PartIndex> {
        if let Some(index) = self.known(part) {
            return index;
        }
        let index = Arc::new(PartIndex::new(part));
        self.0.lock().keep(address(part), Arc::downgrade(part), Arc::clone(&index));
        index
    }
}

fn address(part: &Arc<Part>) -> usize {
    Arc::as_ptr(part) as usize
}

/// Indexes by the address of their part.
#[derive(Debug)]
struct IndexCache {
    /// The weak reference keeps an address from being used again.
    indexes: HashMap<usize, (Weak<Part>, Arc<PartIndex>)>,
    /// Oldest first.
    order: VecDeque<usize>,
    bytes: usize,
    bytes_max: usize,
}

impl IndexCache {
    fn new(bytes_max: usize) -> IndexCache {
        IndexCache { indexes: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    fn keep(&mut self, address: usize, part: Weak<Part>, index: Arc<PartIndex>) {
        let dead: Vec<usize> =
            self.indexes.iter().filter(|(_, (part, _))| part.strong_count() == 0).map(|(at, _)| *at).collect();
        dead.into_iter().for_each(|address| self.remove(address));
        // Another reader may have built the same index meanwhile.
        self.remove(address);
        self.bytes += index.bytes();
        self.indexes.insert(address, (part, index));
        self.order.push_back(address);
        while self.bytes > self.bytes_max && self.order.len() > 1 {
            let oldest = self.order[0];
            self.remove(oldest);
        }
    }

    fn remove(&mut self, address: usize) {
        if let Some((_, index)) = self.indexes.remove(&address) {
            self.bytes -= index.bytes();
        }
        self.order.retain(|at| *at != address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partial::keys::{KeyLayout, Keys};

    fn empty() -> Arc<Part> {
        let layout = Arc::new(KeyLayout::new(Vec::new()).expect("a layout"));
        Arc::new(Part { layout, panes: false, keys: Keys::default(), blocks: Vec::new() })
    }

    #[test]
    fn beyond_the_bound_the_oldest_index_is_built_again() {
        let parts: Vec<Arc<Part>> = (0..4).map(|_| empty()).collect();
        let index = Arc::new(PartIndex::new(&parts[0]));
        let mut cache = IndexCache::new(2 * index.bytes());
        let keep = |cache: &mut IndexCache, part: &Arc<Part>| {
            cache.keep(address(part), Arc::downgrade(part), Arc::clone(&index));
        };
        parts[..3].iter().for_each(|part| keep(&mut cache, part));
        let kept: Vec<bool> = parts.iter().map(|part| cache.indexes.contains_key(&address(part))).collect();
        assert_eq!(kept, [false, true, true, false]);
        assert_eq!(cache.bytes, 2 * index.bytes());
        keep(&mut cache, &parts[2]);
        assert_eq!((cache.bytes, cache.order.len()), (2 * index.bytes(), 2), "the same part twice");
        // The index of a part that is no longer in memory makes room first.
        let mut parts = parts;
        let gone = address(&parts[1]);
        drop(parts.remove(1));
        keep(&mut cache, &parts[2]);
        assert!(!cache.indexes.contains_key(&gone) && cache.indexes.contains_key(&address(&parts[1])));
    }
}
