//! How does a batch of events reach a stream for certain, and once? By retries under one `Idempotency-Key`.
//!
//! 429 is waited out as the server asks; a broken connection is tried again with growing pauses. A server that was
//! never reached is not waited for: it is most likely not running. What a batch holds is the caller's business.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use shared::ids::StreamName;

use crate::client::{Client, ClientError};

/// What the server says about a batch: the contract's answer to `POST /v1/events/{stream}`.
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

/// A line that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rejection {
    /// From 1, in the batch.
    pub line: u64,
    pub reason: String,
}

/// How long to go on trying.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Pause after the first broken connection; it doubles with every further one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Broken connections of one batch, in a row, before giving up.
    pub broken_max: u32,
    /// Refusals with 429 or 503 of one batch, in a row, before giving up.
    pub busy_max: u32,
}

impl Default for Patience {
    /// About half a minute for a server that is gone, ten minutes for one that asks to wait a second each time.
    fn default() -> Patience {
        Patience {
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
    /// Makes this sender's keys differ from those of every other.
    key_prefix: String,
    patience: Patience,
    reached: AtomicBool,
}

impl Sender {
    pub fn new(client: Client, stream: &StreamName, patience: Patience) -> Sender {
        let key_prefix = uuid::Uuid::new_v4().simple().to_string();
        let path = format!("/v1/events/{stream}");
        Sender { client, path, key_prefix, patience, reached: AtomicBool::new(false) }
    }

    /// Sends NDJSON; `number` is unlike that of every other batch of this sender. `on_wait` hears of every pause.
    /// Errors: those that no retry can mend, and those that outlast the patience.
    pub async fn send(&self, number: u64, body: Bytes, on_wait: impl Fn(&ClientError)) -> Result<Receipt, ClientError> {
        let key = format!("{}-{number}", self.key_prefix);
        let (mut broken, mut busy) = (0, 0);
        loop {
            let error = match self.attempt(&key, body.clone()).await {
                Ok(receipt) => {
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(receipt);
                }
                Err(error) => error,
            };
            let pause = match &error {
                ClientError::Unreachable { .. } if self.reached.load(Ordering::Relaxed) => {
                    broken += 1;
                    (broken <= self.patience.broken_max).then(|| self.pause_after(broken))
                }
                ClientError::Refused(problem) if matches!(problem.status, 429 | 503) => {
                    self.reached.store(true, Ordering::Relaxed);
                    (broken, busy) = (0, busy + 1);
                    let asked = problem.retry_after_s.map(Duration::from_secs);
                    (busy <= self.patience.busy_max).then(|| asked.unwrap_or(self.pause_after(1)))
                }
                _ => None,
            };
            let Some(pause) = pause else { return Err(error) };
            on_wait(&error);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, key: &str, body: Bytes) -> Result<Receipt, ClientError> {
        let request = self.client.request(Method::POST, &self.path);
        let request = request.header("content-type", "application/x-ndjson").header("idempotency-key", key);
        self.client.json(request.body(body)).await
    }

    fn pause_after(&self, broken: u32) -> Duration {
        let doubled = self.patience.first_pause.saturating_mul(1 << (broken - 1).min(16));
        doubled.min(self.patience.longest_pause)
    }
}
