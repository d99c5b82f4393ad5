//! Starts the declared sinks, lists them, and pauses and resumes them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use alerts::book_file::BookError;
use kafka::{SchemaRegistry, TopicCluster};
use shared::changed_rows::ChangedRows;
use shared::clock::Clock;
use shared::control::{EmitFrom, SinkError, SinkState, SinkStatus, Sinks};
use shared::event_pages::EventPages;
use shared::event_sink::EventSink;
use shared::handoff::LogReplay;
use shared::ids::{Name, Partition, SinkName, StreamName, ViewName};
use shared::limits::SINK_QUEUE_BYTES_MAX;
use shared::lookup::join::LookupError;
use shared::lookup::table::Lookups;
use shared::sink::{Emit, Sink, SinkTarget};
use shared::stream::Stream;
use shared::time::Micros;
use shared::view::View;
use shared::window::{Window, WindowId};

use crate::avro::AvroEncoder;
use crate::book::SinkBook;
use crate::erasure::ErasableBook;
use crate::event_changes::EventChanges;
use crate::publisher::Publisher;
use crate::sizes::{EpochSizes, EventSizes};
use crate::stored::SinkDeclaration;
use crate::task::{SinkChanges, SinkTask, SinkWatch};
use crate::view_changes::{SinkLayers, ViewChanges};

/// A declared sink of a view, before the layers have started.
pub struct DeclaredSink {
    sink: Arc<Sink>,
    view: View,
    book: Arc<SinkBook>,
    queue: Arc<ChangedRows>,
}

/// A declared sink of a stream, before the layers have started.
pub struct DeclaredEventSink {
    sink: Arc<EventSink>,
    stream: Arc<Stream>,
    book: Arc<SinkBook>,
}

/// A sink of the list.
struct ListedSink {
    name: SinkName,
    /// Of a sink of a view.
    view: Option<ViewName>,
    /// Of a sink of a stream.
    stream: Option<StreamName>,
    target: SinkTarget,
    emit: Option<Emit>,
    key: Vec<String>,
    /// The windows of the view; `None`: the sink is of a stream.
    window: Option<Window>,
    book: Arc<SinkBook>,
    watch: Arc<SinkWatch>,
    log: Arc<dyn LogReplay>,
    partitions: u32,
}

/// The sinks of a server.
pub struct SinkSet(BTreeMap<SinkName, ListedSink>);

/// What a sink writes to.
pub struct SinkOutlet {
    pub cluster: Arc<dyn TopicCluster>,
    /// Of a sink that writes Avro.
    pub registry: Option<SchemaRegistry>,
    pub clock: Arc<dyn Clock>,
}

/// What a sink of a view needs of the other layers.
pub struct SinkContext {
    pub layers: SinkLayers,
    /// The log of the view's stream, and its partitions.
    pub log: Arc<dyn LogReplay>,
    pub partitions: u32,
    pub outlet: SinkOutlet,
}

/// What a sink of a stream needs of the other layers.
pub struct EventSinkContext {
    pub log: Arc<dyn LogReplay>,
    pub pages: Arc<dyn EventPages>,
    /// The tables that sinks are joined with.
    pub lookups: Lookups,
    pub outlet: SinkOutlet,
}

/// Opens the book of a sink in `folder`, and notes its options.
fn open(folder: &Path, name: &SinkName, keys: &str, declared: &SinkDeclaration) -> Result<Arc<SinkBook>, BookError> {
    let book = SinkBook::open(folder, name, keys)?;
    let failed = |error| BookError::Io { path: folder.join(format!("{name}.log")), error };
    book.declare(declared).map_err(failed)?;
    Ok(Arc::new(book))
}

impl DeclaredSink {
    /// Opens the book of a sink in `folder`.
    ///
    /// # Errors
    /// The book cannot be read, or is damaged.
    pub fn open(folder: &Path, sink: &Sink, view: &View) -> Result<DeclaredSink, BookError> {
        let book = open(folder, &sink.name, &sink.key_hash(view), &SinkDeclaration::of(sink, view))?;
        let queue = Arc::new(ChangedRows::new(SINK_QUEUE_BYTES_MAX));
        Ok(DeclaredSink { sink: Arc::new(sink.clone()), view: view.clone(), book, queue })
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

    fn start(self, context: SinkContext) -> (ListedSink, SinkTask) {
        let DeclaredSink { sink, view, book, queue } = self;
        let SinkContext { layers, log, partitions, outlet } = context;
        let watch = Arc::new(SinkWatch::default());
        let (publisher, clock) = outlet.publisher((&sink.name, &sink.target), &sink.view, &book);
        let task = SinkTask {
            name: sink.name.clone(),
            every: sink.every,
            publisher,
            clock,
            book: Arc::clone(&book),
            changes: SinkChanges::View(Box::new(ViewChanges::new(
                Arc::clone(&sink),
                layers,
                queue,
                EpochSizes::default(),
            ))),
            watch: Arc::clone(&watch),
        };
        let listed = ListedSink {
            name: sink.name.clone(),
            view: Some(sink.view.clone()),
            stream: None,
            target: sink.target.clone(),
            emit: Some(sink.emit),
            key: sink.key.iter().map(|column| column.name(&view).to_owned()).collect(),
            window: Some(view.window),
            book,
            watch,
            log,
            partitions,
        };
        (listed, task)
    }
}

impl DeclaredEventSink {
    /// Opens the book of a sink in `folder`.
    ///
    /// # Errors
    /// The book cannot be read, or is damaged.
    pub fn open(folder: &Path, sink: &EventSink, stream: &Arc<Stream>) -> Result<DeclaredEventSink, BookError> {
        let book = open(folder, &sink.name, &sink.key_hash(), &SinkDeclaration::of_events(sink, stream))?;
        Ok(DeclaredEventSink { sink: Arc::new(sink.clone()), stream: Arc::clone(stream), book })
    }

    /// Returns the sink.
    pub fn sink(&self) -> &Arc<EventSink> {
        &self.sink
    }

    fn start(self, context: EventSinkContext) -> Result<(ListedSink, SinkTask), LookupError> {
        let DeclaredEventSink { sink, stream, book } = self;
        let EventSinkContext { log, pages, lookups, outlet } = context;
        if book.limit_position(|partition| log.range(partition).1) {
            tracing::warn!(
                sink = %sink.name,
                "the log has fewer events than the sink has read, so it is another one: the sink continues at its end"
            );
        }
        let watch = Arc::new(SinkWatch::default());
        let (publisher, clock) = outlet.publisher((&sink.name, &sink.target), &sink.name, &book);
        let events = EventChanges::new(Arc::clone(&sink), Arc::clone(&stream), pages, &lookups, EventSizes::default())?;
        let task = SinkTask {
            name: sink.name.clone(),
            every: sink.every,
            publisher,
            clock,
            book: Arc::clone(&book),
            changes: SinkChanges::Events(events),
            watch: Arc::clone(&watch),
        };
        let listed = ListedSink {
            name: sink.name.clone(),
            view: None,
            stream: Some(sink.stream.clone()),
            target: sink.target.clone(),
            emit: None,
            key: sink.key_names().map(str::to_owned).collect(),
            window: None,
            book,
            watch,
            log,
            partitions: stream.partitions,
        };
        Ok((listed, task))
    }
}

impl SinkOutlet {
    /// Returns the publisher of a sink, whose records are called `records` in Avro, and the clock.
    fn publisher(
        self,
        (name, target): (&SinkName, &SinkTarget),
        records: &Name,
        book: &Arc<SinkBook>,
    ) -> (Publisher, Arc<dyn Clock>) {
        let SinkOutlet { cluster, registry, clock } = self;
        let topic = target.topic().map(|topic| topic.topic.clone());
        let avro = registry.zip(topic).map(|(registry, topic)| AvroEncoder::new(records, topic, registry));
        (Publisher::new((name, target), Arc::clone(book), cluster).with_avro(avro), clock)
    }
}

impl SinkSet {
    /// Returns the sinks of views and those of streams, and the task of each, which has to be run.
    ///
    /// # Errors
    /// A sink is joined with a table that its context lacks.
    pub fn start(
        of_views: Vec<(DeclaredSink, SinkContext)>,
        of_streams: Vec<(DeclaredEventSink, EventSinkContext)>,
    ) -> Result<(SinkSet, Vec<SinkTask>), LookupError> {
        let of_views = of_views.into_iter().map(|(declared, context)| Ok(declared.start(context)));
        let of_streams = of_streams.into_iter().map(|(declared, context)| declared.start(context));
        let started = of_views.chain(of_streams).collect::<Result<Vec<_>, LookupError>>()?;
        let (listed, tasks): (Vec<ListedSink>, Vec<SinkTask>) = started.into_iter().unzip();
        Ok((SinkSet(listed.into_iter().map(|sink| (sink.name.clone(), sink)).collect()), tasks))
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
        let lag = (0..self.partitions).map(Partition).map(|partition| {
            let (_, head) = self.log.range(partition);
            head.0.saturating_sub(cut.position.get(&partition).map_or(0, |offset| offset.0))
        });
        SinkStatus {
            name: self.name.clone(),
            view: self.view.clone(),
            stream: self.stream.clone(),
            connection: self.target.connection().clone(),
            topic: self.target.topic().map(|topic| topic.topic.clone()),
            emit: self.emit,
            key: self.key.clone(),
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

    /// Has rows or events written again.
    fn write_again(&self, from: EmitFrom) -> Result<(), SinkError> {
        let failed = |error: io::Error| SinkError::Write(error.to_string());
        match (self.window, from) {
            (None, EmitFrom::Start) => self.book.write_events_again(None).map_err(failed),
            (None, EmitFrom::Time(from)) => self.book.write_events_again(Some(from)).map_err(failed),
            (Some(_), EmitFrom::Start) => self.book.write_again(None).map_err(failed),
            (Some(window), EmitFrom::Time(from)) => {
                self.book.write_again(Some(ids_from(window, from)?)).map_err(failed)
            }
        }
    }
}

/// Returns the ids of windows that start at or after `from`.
fn ids_from(window: Window, from: Micros) -> Result<Range<WindowId>, SinkError> {
    match window {
        Window::All => Err(SinkError::NoWindows),
        window => Ok(window.ids_starting_in(from, Micros(i64::MAX)).start..WindowId::MAX),
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
        if let Some(from) = from {
            found.write_again(from)?;
        }
        if found.book.is_paused() {
            found.book.set_paused(false).map_err(|error| SinkError::Write(error.to_string()))?;
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
