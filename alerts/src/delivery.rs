//! Delivers notices to their receivers: webhooks ([`crate::webhook`]) and Kafka topics ([`crate::notice_topic`]).
//!
//! Every change of a record is one notice, and the notices of a target are sent in order: to a webhook one by one, to a
//! topic in transactions of all that are waiting. A notice is marked as delivered, durably, after the receiver has
//! accepted it: one may be sent again after a crash, under the same id, and none is lost. Failures are retried with
//! growing pauses. After the last attempt a notice to a webhook becomes a dead letter; one to a topic is retried until
//! the brokers accept it, or until too many notices wait. Notices that are silenced or beyond the rate of their alert are not sent: see
//! [`crate::quiet`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kafka::TopicWriter;
use serde::Serialize;
use shared::clock::Clock;
use shared::control::{AlertRecord, DeadLetter};
use shared::ids::AlertName;
use shared::limits::{WEBHOOK_RETRY_FIRST_MS, WEBHOOK_RETRY_MAX_MS};
use tokio::sync::watch;

use crate::book::{Book, Entry, Notice};
use crate::notice_topic::NoticeTopic;
use crate::quiet::Rates;
use crate::webhook::Webhook;

/// Maximum number of notices read from the book, or written to a topic, at once.
const NOTICES_AT_ONCE: usize = 256;

/// The receiver of the notices of a target.
#[derive(Debug, Clone)]
pub enum Receiver {
    Webhook(Webhook),
    Topic(NoticeTopic),
}

/// A notice to send.
#[derive(Debug)]
pub(crate) struct DueNotice {
    pub seq: u64,
    pub record: Arc<AlertRecord>,
    /// Number of notices of the alert that were suppressed since the last one was sent.
    pub suppressed: u64,
}

/// The body of a notice.
#[derive(Debug, Serialize)]
struct Body<'a> {
    /// `alert.raised` and so on.
    r#type: String,
    /// When the state changed.
    timestamp: String,
    /// Number of notices of the alert that were suppressed since the last one was sent.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
    data: &'a AlertRecord,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Returns the id of the notice of a record: the same for every attempt, another for every change.
pub fn notice_id(record: &AlertRecord) -> String {
    format!("{}-{}-{}", record.id, record.state.name(), record.times)
}

/// Returns a notice as JSON.
pub(crate) fn notice_json(record: &AlertRecord, suppressed: u64) -> Vec<u8> {
    let body = Body {
        r#type: format!("alert.{}", record.state.name()),
        timestamp: record.changed_at.to_string(),
        suppressed,
        data: record,
    };
    serde_json::to_vec(&body).expect("a record always has a JSON form")
}

/// Sends the notices of one target until `stop` is true.
pub struct Delivery {
    pub target: String,
    /// `None`: the settings have no such connection; its notices become dead letters.
    pub receiver: Option<Receiver>,
    pub book: Arc<Book>,
    pub clock: Arc<dyn Clock>,
}

/// The connections that a delivery keeps open.
struct Links {
    http: reqwest::Client,
    topic: Option<Box<dyn TopicWriter>>,
}

impl Receiver {
    /// Returns the maximum number of notices to send together.
    fn at_once(&self) -> usize {
        match self {
            Receiver::Webhook(_) => 1,
            Receiver::Topic(_) => NOTICES_AT_ONCE,
        }
    }

    fn first_pause(&self) -> Duration {
        match self {
            Receiver::Webhook(webhook) => webhook.first_pause,
            Receiver::Topic(_) => Duration::from_millis(WEBHOOK_RETRY_FIRST_MS),
        }
    }

    /// Returns whether to give up a notice after this number of attempts.
    fn gives_up_after(&self, attempts: u32) -> bool {
        match self {
            Receiver::Webhook(webhook) => attempts >= webhook.attempts_max,
            Receiver::Topic(_) => false,
        }
    }
}

impl Delivery {
    /// Runs the delivery.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut due, mut rates) = (self.book.due(), Rates::default());
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let mut links = match http {
            Ok(http) => Links { http, topic: None },
            Err(error) => return tracing::error!(target = self.target, %error, "cannot send notices of alerts"),
        };
        let at_once = self.receiver.as_ref().map_or(1, Receiver::at_once);
        loop {
            due.borrow_and_update();
            let notices = self.book.notices(&self.target, NOTICES_AT_ONCE);
            let is_idle = notices.is_empty();
            for notices in notices.chunks(at_once) {
                let sent = self.due(notices, &mut rates).await;
                if sent.is_empty() {
                    continue;
                }
                tokio::select! {
                    () = self.deliver(&mut links, &sent) => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
            }
            if is_idle {
                tokio::select! {
                    changed = due.changed() => if changed.is_err() { break },
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
            if *stop.borrow() {
                break;
            }
        }
        if let Some(writer) = links.topic {
            writer.close().await;
        }
    }

    /// Returns the notices to send, and notes the others as suppressed.
    async fn due(&self, notices: &[(u64, Notice)], rates: &mut Rates) -> Vec<DueNotice> {
        let (mut due, mut counted) = (Vec::new(), BTreeSet::<AlertName>::new());
        for (seq, notice) in notices {
            let (seq, record) = (*seq, Arc::clone(&notice.record));
            if let Some(reason) = self.suppression(notice, rates) {
                self.count(reason, 1);
                let alert = record.alert.clone();
                self.note(vec![Entry::Suppressed { seq, alert, count: 1 }]).await;
                continue;
            }
            // Of several notices of an alert that are sent together, only the first one has the number.
            let is_first = counted.insert(record.alert.clone());
            let suppressed = if is_first { self.book.suppressed(&record.alert) } else { 0 };
            due.push(DueNotice { seq, record, suppressed });
        }
        due
    }

    /// Returns why a notice is not sent: it is `silenced`, or beyond the rate of its alert, `limited`.
    fn suppression(&self, notice: &Notice, rates: &mut Rates) -> Option<&'static str> {
        let (record, now) = (&notice.record, self.clock.now());
        if self.book.is_silenced(record, now) {
            return Some("silenced");
        }
        let rate = self.book.known(&record.alert).and_then(|known| known.declaration.notices_per_minute)?;
        (!rates.admit(&record.alert, rate, now)).then_some("limited")
    }

    /// Sends notices until they are delivered or given up.
    async fn deliver(&self, links: &mut Links, notices: &[DueNotice]) {
        let mut pause = self.receiver.as_ref().map_or(Duration::ZERO, Receiver::first_pause);
        let mut attempts = 0;
        let error = loop {
            let Some(receiver) = &self.receiver else {
                break format!("the settings have no connection for {}", self.target);
            };
            attempts += 1;
            match self.send(receiver, links, notices).await {
                Ok(()) => {
                    self.count("delivered", notices.len());
                    return self
                        .note(notices.iter().map(|notice| Entry::Delivered { seq: notice.seq }).collect())
                        .await;
                }
                Err(error) if receiver.gives_up_after(attempts) => break error,
                Err(error) => {
                    self.count("retried", notices.len());
                    if attempts == 1 {
                        tracing::warn!(target = self.target, error, "a notice was not accepted; will retry");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(WEBHOOK_RETRY_MAX_MS));
        };
        self.count("dead", notices.len());
        let dead = |notice: &DueNotice| {
            let record = notice.record.as_ref().clone();
            tracing::warn!(target = self.target, alert = %record.alert, error, attempts, "a notice was given up");
            let (key, target, failed_at) = (notice_id(&record), self.target.clone(), self.clock.now());
            let letter = DeadLetter { key, target, failed_at, attempts, error: error.clone(), record };
            Entry::Dead { seq: notice.seq, letter: Box::new(letter) }
        };
        self.note(notices.iter().map(dead).collect()).await;
    }

    async fn send(&self, receiver: &Receiver, links: &mut Links, notices: &[DueNotice]) -> Result<(), String> {
        match receiver {
            Receiver::Topic(topic) => topic.send(&mut links.topic, notices).await.map_err(|error| error.to_string()),
            Receiver::Webhook(webhook) => {
                for notice in notices {
                    webhook.send(&links.http, notice, self.clock.now()).await?;
                }
                Ok(())
            }
        }
    }

    async fn note(&self, entries: Vec<Entry>) {
        let book = Arc::clone(&self.book);
        let written = tokio::task::spawn_blocking(move || book.write(entries)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(target = self.target, %error, "cannot note a delivery; the notice may be sent again");
            // A full disk must not become a flood of the same notice.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn count(&self, result: &'static str, notices: usize) {
        metrics::counter!("trueup_alert_notices_total", "target" => self.target.clone(), "result" => result)
            .increment(notices as u64);
    }
}

#[cfg(test)]
mod tests {
    use shared::control::Alerts;

    use super::*;

    /// A receiver that does not answer, and counts the connections.
    fn silent() -> (String, Arc<std::sync::atomic::AtomicU32>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let count = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&count);
        std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || {
                let mut sockets = Vec::new();
                for socket in listener.incoming() {
                    counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    sockets.push(socket);
                }
            })
            .expect("a thread");
        (url, count)
    }

    #[test]
    fn a_notice_is_retried_with_growing_pauses_and_then_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = Arc::new(Book::open(folder.path()).expect("opens"));
        book.write(vec![crate::book::tests::record("a", 1, shared::control::AlertState::Raised)]).expect("writes");
        let (url, connections) = silent();
        let webhook = Webhook {
            timeout: Duration::from_millis(20),
            first_pause: Duration::from_millis(1),
            attempts_max: 3,
            ..Webhook::new(url, None).expect("no secret")
        };
        let delivery = Delivery {
            target: "webhook:ops".to_owned(),
            receiver: Some(Receiver::Webhook(webhook)),
            book: Arc::clone(&book),
            clock: Arc::new(shared::clock::SystemClock),
        };
        let (stop, stopped) = watch::channel(false);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut due = book.due();
            let run = delivery.run(stopped);
            let given_up = async {
                while book.dead_letters().is_empty() {
                    let _ = tokio::time::timeout(Duration::from_millis(20), due.changed()).await;
                }
                stop.send(true).expect("it runs");
            };
            tokio::join!(run, given_up);
        });
        let letters = book.dead_letters();
        assert_eq!((letters.len(), letters[0].attempts, letters[0].key.as_str()), (1, 3, "a-raised-1"));
        assert!(!letters[0].error.contains("127.0.0.1"), "{}", letters[0].error);
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 3);
        assert!(book.notices("webhook:ops", 1).is_empty());
    }
}
