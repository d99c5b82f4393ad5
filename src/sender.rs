//! Sends batches of events to a stream exactly once, by retrying each batch under one `Idempotency-Key`.
//!
//! After 429 the sender waits as long as the server asks; after a broken connection it retries with growing pauses. It
//! does not wait for a server that it has never reached, because that server is probably not running.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use shared::ids::StreamName;

use crate::client::{Client, ClientError};
use crate::line_batch::BatchFormat;

/// The response of `POST /v1/events/{stream}` to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Receipt {
    pub accepted: u64,
    #[serde(default)]
    pub duplicates: u64,
    #[serde(default)]
    pub late: u64,
    #[serde(default)]
    pub rejected: u64,
    #[serde(default)]
    pub rejections: Vec<Rejection>,
}

/// A rejected line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rejection {
    /// Number of the line in the batch, from 1.
    pub line: u64,
    pub reason: String,
}

/// How long a sender retries a batch.
#[derive(Debug, Clone, Copy)]
pub struct RetryLimits {
    /// Pause after the first broken connection; it doubles after each further one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Consecutive broken connections for one batch before the sender gives up.
    pub broken_max: u32,
    /// Consecutive responses with 429 or 503 to one batch before the sender gives up.
    pub busy_max: u32,
}

impl Default for RetryLimits {
    /// About half a minute for a server that has gone away; ten minutes for one that asks to wait a second each time.
    fn default() -> RetryLimits {
        RetryLimits {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            broken_max: 10,
            busy_max: 600,
        }
    }
}

/// Sends batches to one stream.
#[derive(Debug)]
pub struct Sender {
    client: Client,
    path: String,
    /// Makes the keys of this sender differ from those of all other senders.
    key_prefix: String,
    retry_limits: RetryLimits,
    reached: AtomicBool,
}

impl Sender {
    pub fn new(client: Client, stream: &StreamName, retry_limits: RetryLimits) -> Sender {
        let key_prefix = uuid::Uuid::new_v4().simple().to_string();
        let path = format!("/v1/events/{stream}");
        Sender { client, path, key_prefix, retry_limits, reached: AtomicBool::new(false) }
    }

    /// Sends a batch. `number` must be unique among the batches of this sender. `on_wait` is called before every pause. Returns
    /// errors that a retry cannot fix, and errors that persist beyond the retry limits.
    pub async fn send(
        &self,
        number: u64,
        format: BatchFormat,
        body: Bytes,
        on_wait: impl Fn(&ClientError),
    ) -> Result<Receipt, ClientError> {
        let key = format!("{}-{number}", self.key_prefix);
        let (mut broken, mut busy) = (0, 0);
        loop {
            let error = match self.attempt(&key, format, body.clone()).await {
                Ok(receipt) => {
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(receipt);
                }
                Err(error) => error,
            };
            let pause = match &error {
                ClientError::Unreachable { .. } if self.reached.load(Ordering::Relaxed) => {
                    broken += 1;
                    (broken <= self.retry_limits.broken_max).then(|| self.pause_after(broken))
                }
                ClientError::Refused(refusal) if matches!(refusal.status.as_u16(), 429 | 503) => {
                    self.reached.store(true, Ordering::Relaxed);
                    (broken, busy) = (0, busy + 1);
                    let asked = refusal.retry_after_s.map(Duration::from_secs);
                    (busy <= self.retry_limits.busy_max).then(|| asked.unwrap_or(self.pause_after(1)))
                }
                _ => None,
            };
            let Some(pause) = pause else { return Err(error) };
            on_wait(&error);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, key: &str, format: BatchFormat, body: Bytes) -> Result<Receipt, ClientError> {
        let request = self.client.request(Method::POST, &self.path);
        let request = request.header("content-type", format.content_type()).header("idempotency-key", key);
        self.client.json(request.body(body)).await
    }

    fn pause_after(&self, broken: u32) -> Duration {
        let doubled = self.retry_limits.first_pause.saturating_mul(1 << (broken - 1).min(16));
        doubled.min(self.retry_limits.longest_pause)
    }
}
