//! Erases entities in all layers, one step after the other, and continues after a restart:
//!
//! 1. a tombstone in the log: from then on nothing of the entity is read or accepted;
//! 2. rejected lines, listed events and raised alerts;
//! 3. the archive, in one commit, once it has all events before the tombstone;
//! 4. the segments of the log;
//! 5. a run of every view of the stream, which excludes the events, and the rows of earlier comparisons; the books of sinks,
//!    once they have deleted the rows from their topics;
//! 6. vacuum deletes the files that have the events. When none is left, the tombstone forgets the id.
//!
//! Every step finds nothing to do if it was done before, so all are repeated until the last one has succeeded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::alerts::book::Book;
use batch::Batch;
use futures::FutureExt;
use futures::future::BoxFuture;
use intake::archive::Archives;
use intake::erasure::{self, EraseError, PendingErasure};
use intake::log::{EntityHash, Tombstone};
use intake::partition::SubmitError;
use intake::quarantine::Quarantine;
use intake::streams::{Intake, StreamLog};
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::{AlertRecord, ErasureError, ErasureRecord, ErasureState, Erasures, RunScope, RunState, Runs};
use shared::entity::EntityId;
use shared::handoff::{Archive, HandoffError};
use shared::ids::{Partition, StreamName};
use shared::ledger::Ledger;
use shared::limits::ERASURES_AT_ONCE_MAX;
use shared::published::{PublishedView, Views};
use shared::seam::{Cut, CutPoint};
use shared::time::Micros;
use shared::vital::Vitals;
use sinks::erasure::ErasableBook;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::layers::Layers;

/// Pause before a step that failed is tried again; it doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at a run.
const RUN_PAUSE: Duration = Duration::from_millis(50);

/// When vacuum deletes files that were replaced.
#[derive(Debug, Clone, Copy)]
pub struct Deletion {
    /// Their age.
    pub age: Duration,
    /// Pause between two looks for them.
    pub every: Duration,
}

/// Erases entities. Cheap to clone.
#[derive(Clone)]
pub struct Eraser(Arc<Parts>);

struct Parts {
    intake: Arc<Intake>,
    archives: Arc<Archives>,
    quarantine: Arc<Quarantine>,
    batch: Arc<Batch>,
    /// `None` without alerts.
    book: Option<Arc<Book>>,
    sink_books: Vec<ErasableBook>,
    views: Arc<Views>,
    clock: Arc<dyn Clock>,
    deletion: Deletion,
    /// Since when files hold nothing of an entity but those that were replaced before.
    replaced: Mutex<BTreeMap<EntityHash, Micros>>,
    /// Notified when an entity was erased.
    asked: watch::Sender<()>,
    /// What the erasures of each stream wait for.
    waits: Mutex<BTreeMap<StreamName, String>>,
}

impl Eraser {
    /// Joins the layers.
    pub fn new(
        layers: &Layers,
        (book, sink_books, views): (Option<Arc<Book>>, Vec<ErasableBook>, &Arc<Views>),
        clock: &Arc<dyn Clock>,
        deletion: Deletion,
    ) -> Eraser {
        Eraser(Arc::new(Parts {
            intake: Arc::clone(&layers.intake),
            archives: Arc::clone(&layers.archives),
            quarantine: Arc::clone(&layers.quarantine),
            batch: Arc::clone(&layers.batch),
            book,
            sink_books,
            views: Arc::clone(views),
            clock: Arc::clone(clock),
            deletion,
            replaced: Mutex::default(),
            asked: watch::Sender::new(()),
            waits: Mutex::default(),
        }))
    }

    /// Starts the task of each stream with entities, which completes its erasures.
    pub fn start(&self, vitals: &Vitals) -> Vec<JoinHandle<()>> {
        let streams = self.0.intake.streams().filter(|log| log.stream().entity.is_some());
        let start = |log: &Arc<StreamLog>| {
            let (parts, log) = (Arc::clone(&self.0), Arc::clone(log));
            vitals
                .spawn_task(format!("erasures of {}", log.stream().name), async move { parts.complete_all(&log).await })
        };
        streams.map(start).collect()
    }
}

impl Parts {
    async fn complete_all(&self, log: &Arc<StreamLog>) {
        let mut asked = self.asked.subscribe();
        let mut retry = RETRY_FIRST;
        loop {
            asked.borrow_and_update();
            let name = &log.stream().name;
            let pending = erasure::pending(log);
            let pause = match self.complete(log, pending).await {
                Ok(is_done) => {
                    retry = RETRY_FIRST;
                    (!is_done).then_some(self.deletion.every)
                }
                Err(error) => {
                    tracing::warn!(stream = %name, %error, "an erasure is not complete; will retry");
                    self.waits.lock().insert(name.clone(), error.to_string());
                    let pause = retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    Some(pause)
                }
            };
            let paused = async {
                match pause {
                    None => std::future::pending().await,
                    Some(pause) => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                () = paused => {}
                changed = asked.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does all steps for `pending`; returns whether nothing is left.
    async fn complete(&self, log: &Arc<StreamLog>, pending: Vec<PendingErasure>) -> Result<bool, HandoffError> {
        if pending.is_empty() {
            return Ok(true);
        }
        let is_new = |erasure: &&PendingErasure| !self.replaced.lock().contains_key(&erasure.tombstone.entity);
        let new: Vec<PendingErasure> = pending.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            self.replace(log, &new).await?;
        }
        self.delete(log, pending).await
    }

    /// Takes the entities out of everything that is read.
    async fn replace(&self, log: &Arc<StreamLog>, pending: &[PendingErasure]) -> Result<(), HandoffError> {
        let stream = &log.stream().name;
        self.forget_copies(log, pending).await?;
        self.archives.archived(stream, &cut_of(pending)).await?;
        let entities: Vec<(Partition, EntityId)> = pending.iter().map(|p| (p.partition, p.id.clone())).collect();
        let erased = self.batch.erase(stream, &entities).await?;
        tracing::info!(%stream, events = erased.events, files = erased.files, "erased events from the archive");
        let (of_log, for_log) = (Arc::clone(log), pending.to_vec());
        blocking(move || erasure::scrub(&of_log, &for_log)).await?;
        for view in self.views_of(stream) {
            self.recompute(view.view.name.as_str()).await?;
            self.batch.forget_compared(&view.view.name).await?;
        }
        // Rows of the entities may have been evaluated until now.
        self.forget_copies(log, pending).await?;
        self.forget_written(stream, pending).await?;
        erasure::mark_gone(log, pending);
        let now = self.clock.now();
        self.replaced.lock().extend(pending.iter().map(|erasure| (erasure.tombstone.entity, now)));
        Ok(())
    }

    /// Deletes replaced files that are old enough, and completes the erasures of which no file is left.
    async fn delete(&self, log: &Arc<StreamLog>, pending: Vec<PendingErasure>) -> Result<bool, HandoffError> {
        let stream = &log.stream().name;
        self.batch.vacuum_archive(stream, self.deletion.age).await?;
        for view in self.views_of(stream) {
            self.batch.vacuum(view.view.name.as_str(), Some(self.deletion.age)).await?;
        }
        let oldest = self.batch.oldest_leftover(stream).await?;
        let replaced = self.replaced.lock().clone();
        let is_gone = |erasure: &PendingErasure| {
            let since = replaced.get(&erasure.tombstone.entity);
            since.is_some_and(|since| oldest.is_none_or(|oldest| oldest > *since))
        };
        let (gone, left): (Vec<PendingErasure>, Vec<PendingErasure>) = pending.into_iter().partition(is_gone);
        if !gone.is_empty() {
            let (log, now, completed) = (Arc::clone(log), self.clock.now(), gone.clone());
            blocking(move || erasure::complete(&log, &completed, now)).await?;
            self.replaced.lock().retain(|entity, _| gone.iter().all(|erasure| erasure.tombstone.entity != *entity));
            let labels = [("stream", stream.to_string())];
            metrics::counter!("trueup_erasures_completed_total", &labels).increment(gone.len() as u64);
            tracing::info!(%stream, entities = gone.len(), "erasures are complete");
        }
        let hours = self.deletion.age.as_secs_f64() / 3_600.0;
        match left.is_empty() {
            true => _ = self.waits.lock().remove(stream),
            false => {
                let waits = format!("vacuum: it deletes replaced files once they have been unused for {hours:.1} h");
                self.waits.lock().insert(stream.clone(), waits);
            }
        }
        Ok(left.is_empty())
    }

    fn views_of(&self, stream: &StreamName) -> Vec<Arc<PublishedView>> {
        self.views.all().into_iter().filter(|view| view.stream.name == *stream).collect()
    }

    /// Forgets rejected lines, and alerts of rows of the entities.
    async fn forget_copies(&self, log: &Arc<StreamLog>, pending: &[PendingErasure]) -> Result<(), HandoffError> {
        let ids: Vec<EntityId> = pending.iter().map(|erasure| erasure.id.clone()).collect();
        let (quarantine, stream) = (Arc::clone(&self.quarantine), log.stream().name.clone());
        let of_lines = ids.clone();
        blocking(move || quarantine.forget(&stream, &of_lines)).await?;
        let Some(book) = self.book.clone() else { return Ok(()) };
        // By the names of the dimensions that are the entity.
        let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for published in self.views.all().iter().filter(|view| view.stream.name == log.stream().name) {
            let of_entity = published.view.dimensions.iter().filter(|dimension| {
                let column = dimension.expression.as_column();
                column.is_some() && column == published.stream.entity
            });
            columns
                .insert(published.view.name.to_string(), of_entity.map(|dimension| dimension.name.clone()).collect());
        }
        let texts: Vec<String> = ids.iter().map(EntityId::to_string).collect();
        let is_erased = move |record: &AlertRecord| {
            let names = columns.get(record.view.as_str()).into_iter().flatten();
            let values = names.flat_map(|name| [record.row.get(name), record.key.get(name)]).flatten();
            values.into_iter().any(|value| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                texts.contains(&text)
            })
        };
        blocking(move || book.erase(&is_erased)).await.map(|_| ())
    }

    /// Forgets the rows of the entities that sinks have written, once they are deleted from the topics.
    async fn forget_written(&self, stream: &StreamName, pending: &[PendingErasure]) -> Result<(), HandoffError> {
        let ids: Vec<EntityId> = pending.iter().map(|erasure| erasure.id.clone()).collect();
        for published in self.views_of(stream) {
            for book in self.sink_books.iter().filter(|book| book.view == published.view.name) {
                let (book, published, ids) = (book.clone(), Arc::clone(&published), ids.clone());
                blocking(move || book.erase(&published, &ids)).await?;
            }
        }
        Ok(())
    }

    /// Runs a view and waits until the run has published.
    async fn recompute(&self, view: &str) -> Result<(), HandoffError> {
        let failed = |reason: String| HandoffError(format!("the figures of {view} are not recomputed: {reason}"));
        let run = self.batch.request(view, RunScope::CHANGED).map_err(|error| failed(error.to_string()))?;
        loop {
            match Runs::get(self.batch.as_ref(), &run.id) {
                Some(run) if !run.state.is_over() => tokio::time::sleep(RUN_PAUSE).await,
                Some(run) if run.state == RunState::Published => return Ok(()),
                Some(run) => return Err(failed(run.error.unwrap_or_else(|| "the run was cancelled".to_owned()))),
                None => return Err(failed("the run is not known any more".to_owned())),
            }
        }
    }

    fn record(&self, stream: &StreamName, tombstone: &Tombstone) -> ErasureRecord {
        let is_complete = tombstone.completed_at.is_some();
        let waits = || self.waits.lock().get(stream).cloned();
        ErasureRecord {
            stream: stream.clone(),
            entity: tombstone.entity.to_string(),
            state: if is_complete { ErasureState::Complete } else { ErasureState::Pending },
            erased_at: tombstone.erased_at,
            by: tombstone.by.clone(),
            reference: tombstone.reference.clone(),
            events: tombstone.events,
            completed_at: tombstone.completed_at,
            waits_for: if is_complete { None } else { Some(waits().unwrap_or_else(|| "its turn".to_owned())) },
        }
    }
}

/// The positions before which the entities have all of their events.
fn cut_of(pending: &[PendingErasure]) -> Cut {
    let mut cut = Cut::default();
    for PendingErasure { partition, tombstone, .. } in pending {
        let point = cut.0.entry(*partition).or_insert(CutPoint { offset: tombstone.head, accepted: Ledger::EMPTY });
        point.offset = point.offset.max(tombstone.head);
    }
    cut
}

async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, HandoffError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| HandoffError(error.to_string()))?;
    done.map_err(|error| HandoffError(error.to_string()))
}

impl Erasures for Eraser {
    fn erase<'a>(
        &'a self,
        stream: &'a StreamName,
        id: &'a EntityId,
        by: String,
        reference: Option<String>,
    ) -> BoxFuture<'a, Result<ErasureRecord, ErasureError>> {
        async move {
            let parts = &self.0;
            let shown = parts.intake.stream(stream).map_or(0, |log| erasure::shown(log).len());
            // I9: lists leave out each of them.
            if shown >= ERASURES_AT_ONCE_MAX {
                return Err(ErasureError::TooMany { count: shown, max: ERASURES_AT_ONCE_MAX });
            }
            let erased = erasure::erase(&parts.intake, stream, id, by, reference).await;
            let tombstone = erased.map_err(|error| match error {
                EraseError::NoEntity(_) | EraseError::Unknown => {
                    ErasureError::Unknown { stream: stream.clone(), id: id.to_string() }
                }
                EraseError::Log(SubmitError::Exhausted(exhausted)) => ErasureError::Full(exhausted.to_string()),
                EraseError::Log(error) => ErasureError::Unavailable(error.to_string()),
            })?;
            parts.asked.send_replace(());
            Ok(parts.record(stream, &tombstone))
        }
        .boxed()
    }

    fn list(&self) -> Vec<ErasureRecord> {
        let of_stream = |log: &Arc<StreamLog>| {
            let tombstones = log.partitions().iter().flat_map(|partition| partition.tombstones().all());
            tombstones.map(|tombstone| self.0.record(&log.stream().name, &tombstone)).collect::<Vec<_>>()
        };
        let mut records: Vec<ErasureRecord> = self.0.intake.streams().flat_map(of_stream).collect();
        let age = |record: &ErasureRecord| std::cmp::Reverse((record.erased_at, record.entity.clone()));
        records.sort_by_key(age);
        records
    }
}
