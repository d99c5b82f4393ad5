//! Delivers notices to webhooks, signed as Standard Webhooks says (<https://www.standardwebhooks.com>).
//!
//! Every change of a record is one notice, and the notices of a target are sent one after the other. A notice is marked as
//! delivered, durably, after the receiver has answered with 2xx: one may be sent again after a crash, under the same id, and
//! none is lost. Failures are retried with growing pauses; after the last attempt a notice becomes a dead letter. Notices
//! that are silenced or beyond the rate of their alert are not sent: see [`crate::quiet`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use shared::clock::Clock;
use shared::control::{AlertRecord, DeadLetter};
use shared::limits::{WEBHOOK_ATTEMPTS_MAX, WEBHOOK_RETRY_FIRST_MS, WEBHOOK_RETRY_MAX_MS, WEBHOOK_TIMEOUT_MS};
use tokio::sync::watch;

use crate::book::{Book, Entry, Notice};
use crate::quiet::Rates;
use crate::template::{NoticeTemplate, TemplateError};

/// Notices read from the book at once.
const NOTICES_AT_ONCE: usize = 256;

/// A webhook that receives notices.
#[derive(Clone)]
pub struct Webhook {
    pub url: String,
    /// The key of the signatures; without one, notices are not signed.
    pub secret: Option<Vec<u8>>,
    /// The form of the body; `None`: that of Standard Webhooks.
    pub template: Option<NoticeTemplate>,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Pause before the first retry.
    pub first_pause: Duration,
    pub attempts_max: u32,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the secret nor the URL, which may have one in it.
        f.debug_struct("Webhook").field("is_signed", &self.secret.is_some()).finish_non_exhaustive()
    }
}

/// A webhook cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the secret begins with whsec_ but the rest is not base64")]
    Secret,
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// The body of a notice.
#[derive(Debug, Serialize)]
struct Body<'a> {
    /// `alert.raised` and so on.
    r#type: String,
    /// When the state changed.
    timestamp: String,
    /// Notices of the alert that were not sent since the last one that was.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
    data: &'a AlertRecord,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Webhook {
    /// Returns a webhook with the usual limits. A secret that begins with `whsec_` is base64, any other is used as it is.
    pub fn new(url: String, secret: Option<&str>) -> Result<Webhook, WebhookError> {
        let secret = match secret {
            None => None,
            Some(text) => Some(match text.strip_prefix("whsec_") {
                Some(encoded) => STANDARD.decode(encoded).map_err(|_| WebhookError::Secret)?,
                None => text.as_bytes().to_vec(),
            }),
        };
        Ok(Webhook {
            url,
            secret,
            template: None,
            timeout: Duration::from_millis(WEBHOOK_TIMEOUT_MS),
            first_pause: Duration::from_millis(WEBHOOK_RETRY_FIRST_MS),
            attempts_max: WEBHOOK_ATTEMPTS_MAX,
        })
    }
}

/// Returns the id of the notice of a record: the same for every attempt, another for every change.
pub fn notice_id(record: &AlertRecord) -> String {
    format!("{}-{}-{}", record.id, record.state.name(), record.times)
}

/// Returns the signature of a notice: `v1,` and the HMAC-SHA256 of id, time (seconds) and body, joined with points.
pub fn signature(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// Sends the notices of one target until `stop` is true.
pub struct Delivery {
    pub target: String,
    /// `None`: the settings have no such connection; its notices become dead letters.
    pub webhook: Option<Webhook>,
    pub book: Arc<Book>,
    pub clock: Arc<dyn Clock>,
}

impl Delivery {
    /// Runs the delivery.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut due, mut rates) = (self.book.due(), Rates::default());
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
        let client = match client {
            Ok(client) => client,
            Err(error) => return tracing::error!(target = self.target, %error, "cannot send notices of alerts"),
        };
        loop {
            due.borrow_and_update();
            let notices = self.book.notices(&self.target, NOTICES_AT_ONCE);
            let is_idle = notices.is_empty();
            for (seq, notice) in notices {
                if let Some(reason) = self.suppression(&notice, &mut rates) {
                    self.count(reason);
                    let alert = notice.record.alert.clone();
                    self.note(Entry::Suppressed { seq, alert, count: 1 }).await;
                    continue;
                }
                tokio::select! {
                    () = self.deliver(&client, seq, &notice) => {}
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
            if is_idle {
                tokio::select! {
                    changed = due.changed() => if changed.is_err() { return },
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        }
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

    /// Sends one notice until it is delivered or given up.
    async fn deliver(&self, client: &reqwest::Client, seq: u64, notice: &Notice) {
        let mut pause = self.webhook.as_ref().map_or(Duration::ZERO, |webhook| webhook.first_pause);
        let mut attempts = 0;
        let error = loop {
            let Some(webhook) = &self.webhook else {
                break format!("the settings have no connection for {}", self.target);
            };
            attempts += 1;
            match self.send(client, webhook, &notice.record).await {
                Ok(()) => {
                    self.count("delivered");
                    return self.note(Entry::Delivered { seq }).await;
                }
                Err(error) if attempts >= webhook.attempts_max => break error,
                Err(error) => {
                    self.count("retried");
                    tracing::debug!(target = self.target, error, attempts, "a notice was not accepted; will retry");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(WEBHOOK_RETRY_MAX_MS));
        };
        self.count("dead");
        let record = notice.record.as_ref().clone();
        tracing::warn!(target = self.target, alert = %record.alert, error, attempts, "a notice was given up");
        let (key, target, failed_at) = (notice_id(&record), self.target.clone(), self.clock.now());
        let letter = DeadLetter { key, target, failed_at, attempts, error, record };
        self.note(Entry::Dead { seq, letter: Box::new(letter) }).await;
    }

    async fn send(&self, client: &reqwest::Client, webhook: &Webhook, record: &AlertRecord) -> Result<(), String> {
        let body = body(webhook, record, self.book.suppressed(&record.alert))?;
        let (id, seconds) = (notice_id(record), self.clock.now().0.div_euclid(1_000_000));
        let mut request = client
            .post(&webhook.url)
            .timeout(webhook.timeout)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("idempotency-key", &id)
            .header("webhook-timestamp", seconds);
        if let Some(secret) = &webhook.secret {
            request = request.header("webhook-signature", signature(secret, &id, seconds, &body));
        }
        // The URL may have a secret in it.
        let response = request.body(body).send().await.map_err(|error| error.without_url().to_string())?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the receiver answered with {status}")),
        }
    }

    async fn note(&self, entry: Entry) {
        let book = Arc::clone(&self.book);
        let written = tokio::task::spawn_blocking(move || book.write(vec![entry])).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(target = self.target, %error, "cannot note a delivery; the notice may be sent again");
            // A full disk must not become a flood of the same notice.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn count(&self, result: &'static str) {
        metrics::counter!("trueup_alert_notices_total", "target" => self.target.clone(), "result" => result)
            .increment(1);
    }
}

/// Returns the body of a notice.
fn body(webhook: &Webhook, record: &AlertRecord, suppressed: u64) -> Result<Vec<u8>, String> {
    if let Some(template) = &webhook.template {
        return template.render(record, suppressed).map_err(|error| error.to_string());
    }
    let body = Body {
        r#type: format!("alert.{}", record.state.name()),
        timestamp: record.changed_at.to_string(),
        suppressed,
        data: record,
    };
    serde_json::to_vec(&body).map_err(|error| error.to_string())
}

/// Returns the webhook of each target: those of the connections, and those of which only notices are left.
pub fn targets(
    connections: &BTreeMap<String, Webhook>,
    declared: impl IntoIterator<Item = String>,
    book: &Book,
) -> BTreeMap<String, Option<Webhook>> {
    let targets = declared.into_iter().chain(book.targets());
    targets.map(|target| (target.clone(), connections.get(&target).cloned())).collect()
}

#[cfg(test)]
mod tests {
    use shared::control::Alerts;

    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let webhook = Webhook::new(String::new(), Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).expect("base64");
        let signed = signature(
            webhook.secret.as_deref().expect("a secret"),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Webhook::new(String::new(), Some("whsec_###")).is_err());
        assert!(!format!("{webhook:?}").contains("MfKQ"));
    }

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
            webhook: Some(webhook),
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
