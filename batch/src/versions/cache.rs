//! Caches decoded batch files in memory: the files used last, within a budget of bytes. Concurrent callers load a file once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use shared::ids::ViewName;
use shared::partial::block::Part;
use tokio::sync::OnceCell;

/// A file of a view's table. Paths are never used twice, so cached files never go stale.
pub type FileKey = (ViewName, String);

type Slot = Arc<OnceCell<Arc<Part>>>;

/// Decoded files; the least recently used are evicted.
#[derive(Debug)]
pub struct PartCache {
    budget_bytes: usize,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    entries: HashMap<FileKey, Entry>,
    /// Keys in order of their last use.
    by_use: BTreeMap<u64, FileKey>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    slot: Slot,
    /// 0 while it is being loaded.
    bytes: usize,
    used: u64,
}

impl PartCache {
    /// Returns an empty cache that keeps at most `budget_bytes`.
    pub fn new(budget_bytes: usize) -> PartCache {
        PartCache { budget_bytes, state: Mutex::default() }
    }

    /// Returns the part of a file; calls `load` if it is neither cached nor being loaded.
    pub async fn get<E, F>(&self, key: &FileKey, load: impl FnOnce() -> F) -> Result<Arc<Part>, E>
    where
        F: Future<Output = Result<Part, E>>,
    {
        let slot = self.slot(key);
        let mut loaded = false;
        let part = slot
            .get_or_try_init(|| async {
                loaded = true;
                load().await.map(Arc::new)
            })
            .await;
        match part {
            Ok(part) => {
                if loaded {
                    self.settle(key, &slot, part.bytes());
                }
                Ok(Arc::clone(part))
            }
            Err(error) => {
                self.forget(key, &slot);
                Err(error)
            }
        }
    }

    /// Caches a part that is in memory already, if it fits.
    pub fn insert(&self, key: &FileKey, part: Arc<Part>) {
        let bytes = part.bytes();
        let slot = self.slot(key);
        if slot.set(part).is_ok() {
            self.settle(key, &slot, bytes);
        }
    }

    /// Returns whether the part of a file is in memory.
    pub fn holds(&self, key: &FileKey) -> bool {
        self.state.lock().entries.get(key).is_some_and(|entry| entry.slot.initialized())
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    fn slot(&self, key: &FileKey) -> Slot {
        let mut state = self.state.lock();
        state.uses += 1;
        let now = state.uses;
        if let Some(entry) = state.entries.get_mut(key) {
            let before = std::mem::replace(&mut entry.used, now);
            let slot = Arc::clone(&entry.slot);
            state.by_use.remove(&before);
            state.by_use.insert(now, key.clone());
            return slot;
        }
        let slot = Slot::default();
        state.entries.insert(key.clone(), Entry { slot: Arc::clone(&slot), bytes: 0, used: now });
        state.by_use.insert(now, key.clone());
        slot
    }

    /// Counts a loaded part and evicts others to make room.
    fn settle(&self, key: &FileKey, slot: &Slot, bytes: usize) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(key).filter(|entry| Arc::ptr_eq(&entry.slot, slot)) else { return };
        let before = std::mem::replace(&mut entry.bytes, bytes);
        state.bytes = state.bytes + bytes - before;
        while state.bytes > self.budget_bytes {
            let Some((_, oldest)) = state.by_use.pop_first() else { break };
            if let Some(entry) = state.entries.remove(&oldest) {
                state.bytes -= entry.bytes;
            }
        }
    }

    /// Drops a slot that was never filled, unless other callers still wait for it.
    fn forget(&self, key: &FileKey, slot: &Slot) {
        let mut state = self.state.lock();
        let is_mine = |entry: &Entry| Arc::ptr_eq(&entry.slot, slot) && !entry.slot.initialized();
        if let Some(used) = state.entries.get(key).filter(|entry| is_mine(entry)).map(|entry| entry.used) {
            state.entries.remove(key);
            state.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use shared::partial::block::Block;
    use shared::partial::keys::{KeyLayout, Keys};
    use shared::window::WindowId;

    use super::*;

    fn part(rows: usize) -> Part {
        let block = Block {
            windows: vec![WindowId(0); rows],
            lasts: Vec::new(),
            keys: vec![0; rows],
            states: Vec::new(),
            window_range: (WindowId(0), WindowId(0)),
            sorted: true,
        };
        let layout = Arc::new(KeyLayout::new(Vec::new()).expect("a layout"));
        Part { layout, panes: false, keys: Keys::default(), blocks: vec![Arc::new(block)] }
    }

    fn key(name: &str) -> FileKey {
        ("v".parse().expect("a name"), name.to_owned())
    }

    async fn rows(cache: &PartCache, name: &str, load: usize) -> usize {
        let part = cache.get(&key(name), || async move { Ok::<_, Infallible>(part(load)) }).await;
        part.expect("loads").rows()
    }

    #[tokio::test]
    async fn the_least_recently_used_file_is_evicted() {
        let cache = PartCache::new(part(10).bytes() * 2);
        assert_eq!(rows(&cache, "a", 10).await, 10);
        assert_eq!(rows(&cache, "b", 10).await, 10);
        assert_eq!(rows(&cache, "a", 9).await, 10, "a is still here");
        cache.insert(&key("c"), Arc::new(part(10)));
        assert_eq!(cache.bytes(), part(10).bytes() * 2);
        assert_eq!(rows(&cache, "a", 9).await, 10, "a was used after b");
        assert_eq!(rows(&cache, "b", 9).await, 9, "b is loaded again");
        assert_eq!(rows(&cache, "large", 1_000).await, 1_000, "too large to cache, but it is returned");
        assert!(cache.bytes() <= part(10).bytes() * 2);
    }

    #[tokio::test]
    async fn concurrent_callers_load_once_and_a_failure_is_not_cached() {
        let cache = PartCache::new(1 << 20);
        let failed = cache.get(&key("a"), || async { Err::<Part, &str>("gone") }).await;
        assert_eq!(failed.err(), Some("gone"));
        let loads = std::sync::atomic::AtomicUsize::new(0);
        let ask = || async {
            let load = || async {
                loads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(part(3))
            };
            cache.get(&key("a"), load).await.expect("loads").rows()
        };
        let all = futures::future::join_all((0..10).map(|_| ask())).await;
        assert_eq!(all, vec![3; 10]);
        assert_eq!(loads.into_inner(), 1);
    }
}
