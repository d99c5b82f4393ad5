//! Writes the audit log: into the stream `trueup_audit`, if the definitions declare it.
//!
//! So the audit log has everything that a stream has: it is durable, archived, kept as long as its retention says, and views
//! count it. Entries wait in a bounded queue; those that do not fit are counted and reported.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auth::trail::{AuditEntry, AuditSink};
use intake::decode::{Options, decode};
use intake::http::{StreamDirectory, StreamWriter};
use intake::partition::SubmitError;
use parking_lot::Mutex;
use serde::Serialize;
use shared::clock::{Clock, SystemClock};
use shared::ids::StreamName;
use shared::limits::{AUDIT_BATCH_ENTRIES_MAX, AUDIT_QUEUE_ENTRIES_MAX};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

/// The name of the stream.
pub const STREAM: &str = concat!("trueup", "_audit");
/// Pause before entries are written again that the log had no room for.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Takes entries for the stream.
pub struct AuditLog {
    /// `None` once the server stops.
    queue: Mutex<Option<mpsc::Sender<AuditEntry>>>,
    has_dropped: AtomicBool,
}

/// An entry as an event: the id lets a retry count once.
#[derive(Serialize)]
struct AuditEvent {
    id: String,
    #[serde(flatten)]
    entry: AuditEntry,
}

/// The directory of streams that clients may send to: all but the audit log.
pub struct ClientStreams(pub Arc<dyn StreamDirectory>);

impl StreamDirectory for ClientStreams {
    fn stream(&self, name: &str) -> Option<Arc<dyn StreamWriter>> {
        if name == STREAM { None } else { self.0.stream(name) }
    }

    fn stream_names(&self) -> Vec<StreamName> {
        let mut names = self.0.stream_names();
        names.retain(|name| name.as_str() != STREAM);
        names
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditLog")
    }
}

impl AuditSink for AuditLog {
    fn record(&self, entry: AuditEntry) {
        let queue = self.queue.lock();
        let Some(queue) = &*queue else { return };
        match queue.try_send(entry) {
            Ok(()) => self.has_dropped.store(false, Ordering::Relaxed),
            Err(_) => {
                metrics::counter!("trueup_audit_dropped_total").increment(1);
                if !self.has_dropped.swap(true, Ordering::Relaxed) {
                    warn!("the queue of the audit log is full; entries are dropped and counted");
                }
            }
        }
    }
}

impl AuditLog {
    /// Starts the log, if its stream is declared. The task ends after [`AuditLog::stop`], with everything written.
    #[expect(clippy::disallowed_methods, reason = "the caller awaits the task")]
    pub fn start(streams: &dyn StreamDirectory) -> Option<(Arc<AuditLog>, JoinHandle<()>)> {
        let writer = streams.stream(STREAM)?;
        let (sender, receiver) = mpsc::channel(AUDIT_QUEUE_ENTRIES_MAX);
        let log = AuditLog { queue: Mutex::new(Some(sender)), has_dropped: AtomicBool::new(false) };
        Some((Arc::new(log), tokio::spawn(write_all(receiver, writer))))
    }

    /// Accepts no more entries.
    pub fn stop(&self) {
        self.queue.lock().take();
    }
}

async fn write_all(mut queue: mpsc::Receiver<AuditEntry>, writer: Arc<dyn StreamWriter>) {
    let mut entries = Vec::new();
    while queue.recv_many(&mut entries, AUDIT_BATCH_ENTRIES_MAX).await > 0 {
        let count = entries.len();
        let mut lines = Vec::new();
        for entry in entries.drain(..) {
            let event = AuditEvent { id: uuid::Uuid::new_v4().simple().to_string(), entry };
            serde_json::to_writer(&mut lines, &event).expect("plain data has a JSON form");
            lines.push(b'\n');
        }
        if let Err(reason) = write(&lines, writer.as_ref()).await {
            metrics::counter!("trueup_audit_dropped_total").increment(count as u64);
            warn!(count, reason, "cannot write entries of the audit log");
        }
    }
}

/// Writes lines, again and again while the log is busy.
async fn write(lines: &[u8], writer: &dyn StreamWriter) -> Result<(), String> {
    loop {
        let options = Options { arrived_at: Some(SystemClock.now()), ..Options::default() };
        let decoded = decode(writer.stream(), lines, options).map_err(|error| error.to_string())?;
        if let Some(rejection) = decoded.rejections.first() {
            return Err(rejection.reason.clone());
        }
        match writer.submit(decoded, None).await {
            Ok(_) => return Ok(()),
            // The ids of the entries let those that were written count once.
            Err(error) if can_pass(&error.cause) => tokio::time::sleep(RETRY_AFTER).await,
            Err(error) => return Err(error.cause.to_string()),
        }
    }
}

/// Returns true if the log may take the entries later.
fn can_pass(cause: &SubmitError) -> bool {
    use SubmitError::{Behind, Busy, Exhausted, LiveState};
    matches!(cause, Busy | Behind(_) | LiveState(_) | Exhausted(_))
}
