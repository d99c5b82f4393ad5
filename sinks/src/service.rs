//! Starts the declared sinks, lists them, and pauses and resumes them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use alerts::book_file::BookError;
use kafka::{SchemaRegistry, TopicCluster};
use shared::changed_rows::ChangedRows;
use shared::clock::Clock;
use shared::control::{EmitFrom, SinkError, SinkState, SinkStatus, Sinks};
use shared::handoff::LogReplay;
use shared::ids::{SinkName, ViewName};
use shared::limits::SINK_QUEUE_BYTES_MAX;
use shared::sink::Sink;
use shared::time::Micros;
use shared::view::View;
use shared::window::{Window, WindowId};

use crate::avro::AvroEncoder;
use crate::book::SinkBook;
use crate::erasure::ErasableBook;
use crate::publisher::Publisher;
use crate::sizes::EpochSizes;
use crate::stored::SinkDeclaration;
use crate::task::{SinkTask, SinkWatch};
use crate::view_changes::{SinkLayers, ViewChanges};

/// A declared sink, before the layers have started.
pub struct DeclaredSink {
    sink: Arc<Sink>,
    view: View,
    book: Arc<SinkBook>,
    queue: Arc<ChangedRows>,
}

/// A sink of the list.
struct ListedSink {
    sink: Arc<Sink>,
    view: View,
    book: Arc<SinkBook>,
    watch: Arc<SinkWatch>,
    log: Arc<dyn LogReplay>,
    partitions: u32,
}

/// The sinks of a server.
pub struct SinkSet(BTreeMap<SinkName, ListedSink>);

/// What a sink needs of the other layers.
pub struct SinkContext {
    pub layers: SinkLayers,
    /// The log of the view's stream, and its partitions.
    pub log: Arc<dyn LogReplay>,
    pub partitions: u32,
    pub cluster: Arc<dyn TopicCluster>,
    /// Of a sink that writes Avro.
    pub registry: Option<SchemaRegistry>,
    pub clock: Arc<dyn Clock>,
}

impl DeclaredSink {
    /// Opens the book of a sink in `folder`.
    ///
    /// # Errors
    /// The book cannot be read, or is damaged.
    pub fn open(folder: &Path, sink: &Sink, view: &View) -> Result<DeclaredSink, BookError> {
        let book = SinkBook::open(folder, &sink.name, &sink.key_hash(view))?;
        let failed = |error| BookError::Io { path: folder.join(format!("{}.log", sink.name)), error };
        book.declare(&SinkDeclaration::of(sink, view)).map_err(failed)?;
        Ok(DeclaredSink {
            sink: Arc::new(sink.clone()),
            view: view.clone(),
            book: Arc::new(book),
            queue: Arc::new(ChangedRows::new(SINK_QUEUE_BYTES_MAX)),
        })
    }

    /// Returns the queue for the changed rows of a view; `None`: the sink is of another one.
    pub fn queue_of(&self, view: &ViewName) -> Option<Arc<ChangedRows>> {
        (self.sink.view == *view).then(|| Arc::clone(&self.queue))
    }

    /// Returns the book, for erasures.
    pub fn erasable(&self) -> ErasableBook {
        let Sink { name, view, target, .. } = &*self.sink;
        let book = Arc::clone(&self.book);
        ErasableBook { sink: name.clone(), view: view.clone(), target: target.to_string(), book }
    }

    /// Returns the sink.
    pub fn sink(&self) -> &Arc<Sink> {
        &self.sink
    }
}

impl SinkSet {
    /// Returns the sinks and the task of each, which has to be run.
    pub fn start(declared: Vec<(DeclaredSink, SinkContext)>) -> (SinkSet, Vec<SinkTask>) {
        let (mut listed, mut tasks) = (BTreeMap::new(), Vec::new());
        for (DeclaredSink { sink, view, book, queue }, context) in declared {
            let SinkContext { layers, log, partitions, cluster, registry, clock } = context;
            let topic = sink.target.topic().map(|topic| topic.topic.clone());
            let avro = registry.zip(topic).map(|(registry, topic)| AvroEncoder::new(&sink.view, topic, registry));
            let watch = Arc::new(SinkWatch::default());
            tasks.push(SinkTask {
                sink: Arc::clone(&sink),
                book: Arc::clone(&book),
                publisher: Publisher::new(Arc::clone(&sink), Arc::clone(&book), cluster).with_avro(avro),
                changes: ViewChanges::new(Arc::clone(&sink), layers, queue, EpochSizes::default()),
                watch: Arc::clone(&watch),
                clock,
            });
            listed.insert(sink.name.clone(), ListedSink { sink, view, book, watch, log, partitions });
        }
        (SinkSet(listed), tasks)
    }

    fn find(&self, name: &str) -> Result<&ListedSink, SinkError> {
        let found = self.0.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, sink)| sink).ok_or_else(|| SinkError::Unknown(name.to_owned()))
    }
}

impl ListedSink {
    fn status(&self) -> SinkStatus {
        let progress = self.watch.progress.lock().clone();
        let (epoch, cut) = self.book.committed();
        let lag = (0..self.partitions).map(shared::ids::Partition).map(|partition| {
            let (_, head) = self.log.range(partition);
            head.0.saturating_sub(cut.position.get(&partition).map_or(0, |offset| offset.0))
        });
        SinkStatus {
            name: self.sink.name.clone(),
            view: self.sink.view.clone(),
            connection: self.sink.target.connection().clone(),
            topic: self.sink.target.topic().map(|topic| topic.topic.clone()),
            emit: self.sink.emit,
            key: self.sink.key.iter().map(|column| column.name(&self.view).to_owned()).collect(),
            state: if self.book.is_paused() { SinkState::Paused } else { progress.state },
            error: progress.error,
            epoch,
            committed_at: progress.committed_at,
            lag: lag.sum(),
            position: cut.position,
            version: cut.version,
            watermark: cut.watermark,
            rows: self.book.sent(|sent| sent.len() as u64),
            records: progress.records,
        }
    }

    /// Returns the ids of windows that start at or after `from`.
    fn ids_from(&self, from: Micros) -> Result<Range<WindowId>, SinkError> {
        match self.view.window {
            Window::All => Err(SinkError::NoWindows),
            window => Ok(window.ids_starting_in(from, Micros(i64::MAX)).start..WindowId::MAX),
        }
    }
}

impl Sinks for SinkSet {
    fn list(&self) -> Vec<SinkStatus> {
        self.0.values().map(ListedSink::status).collect()
    }

    fn pause(&self, sink: &str) -> Result<SinkStatus, SinkError> {
        let found = self.find(sink)?;
        found.book.set_paused(true).map_err(|error| SinkError::Write(error.to_string()))?;
        found.watch.changed.notify_one();
        Ok(found.status())
    }

    fn resume(&self, sink: &str, from: Option<EmitFrom>) -> Result<SinkStatus, SinkError> {
        let found = self.find(sink)?;
        let failed = |error: std::io::Error| SinkError::Write(error.to_string());
        if let Some(from) = from {
            let ids = match from {
                EmitFrom::Start => None,
                EmitFrom::Time(time) => Some(found.ids_from(time)?),
            };
            found.book.write_again(ids).map_err(failed)?;
        }
        if found.book.is_paused() {
            found.book.set_paused(false).map_err(failed)?;
        }
        {
            let mut progress = found.watch.progress.lock();
            progress.is_resumed = true;
            progress.state = SinkState::Starting;
            progress.visits_all |= from.is_some();
        }
        found.watch.changed.notify_one();
        Ok(found.status())
    }
}
