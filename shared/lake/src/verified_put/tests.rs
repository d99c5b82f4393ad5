use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Nothing was done, and that is said.
    ErrorBefore,
    /// It was done, and an error is said.
    ErrorAfter,
    /// Nothing was done, and a lost race is said.
    Conflict,
    /// It was done twice, and the second answer is said.
    Repeated,
}

/// A store on a bad day: each request meets the next fault.
#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    faults: Vec<Fault>,
    next: AtomicUsize,
}

impl Faulty {
    fn fault(&self) -> Fault {
        self.faults.get(self.next.fetch_add(1, Ordering::SeqCst)).copied().unwrap_or(Fault::None)
    }
}

fn failed() -> Error {
    Error::Generic { store: "Faulty", source: "injected".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.fault();
        match fault {
            Fault::ErrorBefore => return Err(failed()),
            Fault::Conflict => {
                return Err(Error::AlreadyExists { path: location.to_string(), source: "409".into() });
            }
            _ => {}
        }
        let mut done = self.inner.put_opts(location, payload.clone(), options.clone()).await;
        // Others get their turn in between.
        tokio::task::yield_now().await;
        if fault == Fault::Repeated {
            done = self.inner.put_opts(location, payload, options).await;
        }
        if fault == Fault::ErrorAfter { Err(failed()) } else { done }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if matches!(self.fault(), Fault::ErrorBefore | Fault::ErrorAfter) {
            return Err(failed());
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn store(faults: Vec<Fault>, retry: Duration) -> Arc<VerifiedStore> {
    let faulty = Faulty { inner: InMemory::new(), faults, next: AtomicUsize::new(0) };
    Arc::new(VerifiedStore { pause: Duration::ZERO, ..VerifiedStore::new(Arc::new(faulty), retry) })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #[test]
    fn exactly_one_of_many_creators_succeeds_and_knows_it(
        faults in prop::collection::vec(prop::sample::select(vec![
            Fault::None, Fault::ErrorBefore, Fault::ErrorAfter, Fault::Conflict, Fault::Repeated,
        ]), 0..40),
        racers in 1usize..6,
    ) {
        runtime().block_on(async {
            let store = store(faults, Duration::from_secs(3600));
            let race = (0..racers).map(|i| {
                let store = Arc::clone(&store);
                async move {
                    let payload = PutPayload::from(format!("racer {i}"));
                    (i, store.put_opts(&Path::from("log/7"), payload, PutMode::Create.into()).await)
                }
            });
            let results = futures::future::join_all(race).await;
            let mut winners = Vec::new();
            for (i, result) in results {
                match result {
                    Ok(_) => winners.push(i),
                    Err(Error::AlreadyExists { .. }) => {}
                    Err(error) => panic!("racer {i} does not know: {error}"),
                }
            }
            assert_eq!(winners.len(), 1, "{winners:?}");
            let there = loop {
                if let Ok(found) = store.get(&Path::from("log/7")).await {
                    break found.bytes().await.unwrap();
                }
            };
            assert_eq!(there, format!("racer {}", winners[0]));
        });
    }
}

#[test]
fn an_unknown_outcome_is_not_a_lost_race() {
    runtime().block_on(async {
        for fault in [Fault::Conflict, Fault::ErrorBefore] {
            let store = store(vec![fault; 100_000], Duration::from_millis(20));
            let put = store.put_opts(&Path::from("log/7"), "x".into(), PutMode::Create.into()).await;
            assert!(matches!(put, Err(Error::Generic { .. })), "{fault:?}: {put:?}");
        }
    });
}

#[test]
fn large_objects_go_in_parts_and_arrive_whole() {
    runtime().block_on(async {
        let store = store(Vec::new(), Duration::ZERO);
        let bytes: Vec<u8> = (0..2 * STORE_PART_BYTES + 12_345).map(|i| (i * 31 % 251) as u8).collect();
        let chunks = [&bytes[..7], &bytes[7..20_000_000], &bytes[20_000_000..]];
        let payload: PutPayload = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk)).collect();
        assert_eq!(parts(payload.clone()).len(), 3);
        store.put(&Path::from("large"), payload).await.unwrap();
        assert_eq!(store.get(&Path::from("large")).await.unwrap().bytes().await.unwrap(), bytes);
    });
}
