//! Simulates an object store: whole objects, durable once they are there. A put may fail without effect, succeed without an
//! answer, or arrive long after its sender has given up or died; a read may fail.
//!
//! Puts come one after the other, so the seed decides about each in its order. Reads may overtake each other, so the seed
//! decides about them by their name.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::dice::Dice;
use crate::disk::Disk;

/// Reads of one process, far above what any needs.
const PATIENCE: u64 = 20_000;

/// The store of a machine. Clones share it.
#[derive(Clone)]
pub struct Store {
    objects: Arc<InMemory>,
    state: Arc<Mutex<StoreState>>,
    /// Has the trace.
    disk: Disk,
}

struct StoreState {
    dice: Dice,
    seed: u64,
    /// The process whose requests have an effect.
    process: u64,
    /// Puts until the process crashes.
    puts_left: Option<u64>,
    has_crashed: bool,
    /// Called when the process crashes in a put.
    on_crash: Option<Box<dyn Fn() + Send>>,
    /// Puts of 1,000 that fail. Of reads, a tenth of that.
    faults: u32,
    /// Reads of each object by this process.
    reads: BTreeMap<String, u64>,
    /// Requests until a process that repeats one for ever is stopped.
    patience: u64,
    /// Puts on their way: their senders got no answer.
    late: Vec<LatePut>,
}

struct LatePut {
    location: Path,
    payload: PutPayload,
    mode: PutMode,
}

/// What becomes of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PutFate {
    Answered,
    /// It has no effect.
    Refused,
    /// It has its effect, and no answer.
    Unanswered,
    /// It has no answer, and its effect later.
    Late,
    /// The store says that the name is taken, although it may not be: two attempts met, and neither won.
    Conflict,
}

impl Store {
    /// An empty store, which records its puts in the trace of `disk`.
    pub fn new(seed: u64, disk: &Disk) -> Store {
        let state = StoreState {
            dice: Dice::new(seed, 2),
            seed,
            process: 0,
            puts_left: None,
            has_crashed: false,
            on_crash: None,
            faults: 0,
            reads: BTreeMap::new(),
            patience: PATIENCE,
            late: Vec::new(),
        };
        Store { objects: Arc::default(), state: Arc::new(Mutex::new(state)), disk: disk.clone() }
    }

    /// Starts the next process, which ends the one before it: `faults` of 1,000 puts fail, and it crashes at the put
    /// after `puts_left`, if given.
    pub fn start_process(&self, faults: u32, puts_left: Option<u64>) -> Arc<dyn ObjectStore> {
        let mut state = self.state();
        state.process += 1;
        (state.faults, state.puts_left, state.on_crash) = (faults, puts_left, None);
        state.has_crashed = false;
        state.reads.clear();
        state.patience = PATIENCE;
        Arc::new(ProcessStore { store: self.clone(), process: state.process })
    }

    /// Calls `stop` when the process crashes in a put: the threads that wait for the store must end.
    pub fn on_crash(&self, stop: impl Fn() + Send + 'static) {
        self.state().on_crash = Some(Box::new(stop));
    }

    /// Ends the process: none of its requests has an effect any more.
    pub fn end_process(&self) {
        self.state().process += 1;
    }

    /// The process has crashed in a put.
    pub fn has_crashed(&self) -> bool {
        self.state().has_crashed
    }

    /// All objects, without faults and without a trace.
    pub fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects) as Arc<dyn ObjectStore>
    }

    /// Lets some of the puts arrive that are on their way.
    pub async fn deliver(&self) {
        let late = {
            let mut state = self.state();
            let StoreState { dice, late, .. } = &mut *state;
            late.drain(..dice.of(0..late.len() as u64 + 1) as usize).collect::<Vec<_>>()
        };
        for LatePut { location, payload, mode } in late {
            let put = self.objects.put_opts(&location, payload, mode.into()).await;
            self.disk.note(format!("late put {}: {}", name_of(&location), put.is_ok()));
        }
    }

    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl StoreState {
    /// Fails a read of `name` if the seed says so.
    fn check_read(&mut self, process: u64, call: &str, name: String) -> Result<()> {
        self.check_process(process)?;
        self.patience -= 1;
        if self.patience == 0 {
            self.process += 1;
            self.on_crash.take().into_iter().for_each(|stop| stop());
        }
        let count = self.reads.entry(format!("{call} {name}")).or_default();
        *count += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.process, call, name, *count).hash(&mut hasher);
        if hasher.finish() % 10_000 < u64::from(self.faults) {
            return Err(failure("no answer to a read"));
        }
        Ok(())
    }

    fn check_process(&self, process: u64) -> Result<()> {
        if self.process == process { Ok(()) } else { Err(failure("the process is dead")) }
    }

    /// Decides about a put; `None`: the process crashes in it, before its effect or after it.
    fn fate(&mut self, process: u64, mode: &PutMode) -> Result<Option<PutFate>> {
        self.check_process(process)?;
        if self.puts_left == Some(0) {
            self.process += 1;
            self.has_crashed = true;
            return Ok(None);
        }
        self.puts_left = self.puts_left.map(|left| left - 1);
        let faults = self.faults;
        if !self.dice.per_mille(faults) {
            return Ok(Some(PutFate::Answered));
        }
        let fates = [PutFate::Refused, PutFate::Unanswered, PutFate::Late, PutFate::Conflict];
        Ok(Some(self.dice.one(if *mode == PutMode::Create { &fates } else { &fates[..3] })))
    }
}

/// The store as one process sees it.
struct ProcessStore {
    store: Store,
    process: u64,
}

impl ProcessStore {
    fn check_read(&self, call: &str, location: &Path) -> Result<()> {
        self.store.state().check_read(self.process, call, name_of(location))
    }

    /// Decides about a put, and crashes the process if it is time.
    async fn fate(&self, location: &Path, payload: &PutPayload, mode: &PutMode) -> Result<PutFate> {
        if self.store.state().dice.percent(50) {
            self.store.deliver().await;
        }
        let (fate, is_done, late) = {
            let mut state = self.store.state();
            let fate = state.fate(self.process, mode)?;
            let (is_done, late) = (state.dice.percent(35), state.dice.percent(50));
            (fate, is_done, late)
        };
        let name = name_of(location);
        let Some(fate) = fate else {
            self.store.disk.note(format!("put {name}: crash, done {is_done}, late {late}"));
            if is_done {
                let _ = self.store.objects.put_opts(location, payload.clone(), mode.clone().into()).await;
            } else if late {
                self.put_late(location, payload, mode);
            }
            if let Some(stop) = self.store.state().on_crash.take() {
                stop();
            }
            return Err(failure("the process crashes"));
        };
        self.store.disk.note(format!("put {name}: {fate:?}"));
        Ok(fate)
    }

    fn put_late(&self, location: &Path, payload: &PutPayload, mode: &PutMode) {
        let put = LatePut { location: location.clone(), payload: payload.clone(), mode: mode.clone() };
        self.store.state().late.push(put);
    }
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "simulated", source: what.into() }
}

/// The name of an object without what differs between two runs of a scenario: an id in it.
fn name_of(location: &Path) -> String {
    let is_id = |text: &str| text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
    let without = |part: &str| {
        let start = part.len().saturating_sub(".parquet".len() + 36);
        match part.get(start..start + 36) {
            Some(id) if is_id(id) => part.replace(id, "id"),
            _ => part.to_owned(),
        }
    };
    location.parts().map(|part| without(part.as_ref())).collect::<Vec<_>>().join("/")
}

impl fmt::Debug for ProcessStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessStore({})", self.process)
    }
}

impl fmt::Display for ProcessStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

#[async_trait]
impl ObjectStore for ProcessStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fate = self.fate(location, &payload, &options.mode).await?;
        match fate {
            PutFate::Answered => self.store.objects.put_opts(location, payload, options).await,
            PutFate::Refused => Err(failure("the put is refused")),
            PutFate::Unanswered => {
                self.store.objects.put_opts(location, payload, options).await?;
                Err(failure("no answer to the put"))
            }
            PutFate::Late => {
                self.put_late(location, &payload, &options.mode);
                Err(failure("no answer to the put"))
            }
            PutFate::Conflict => Err(Error::AlreadyExists { path: location.to_string(), source: "conflict".into() }),
        }
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(failure("objects of a simulation are small"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check_read("get", location)?;
        self.store.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, process) = (self.store.clone(), self.process);
        let delete = move |location: Path| {
            let store = store.clone();
            async move {
                let name = name_of(&location);
                store.state().check_read(process, "delete", name)?;
                store.objects.delete(&location).await?;
                Ok(location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check_read("list", prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.store.objects.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check_read("list", offset) {
            Ok(()) => self.store.objects.list_with_offset(prefix, offset),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check_read("list", prefix.unwrap_or(&Path::default()))?;
        self.store.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(failure("the lake copies nothing"))
    }

    async fn rename_opts(&self, _: &Path, _: &Path, _: RenameOptions) -> Result<()> {
        Err(failure("the lake renames nothing"))
    }
}
