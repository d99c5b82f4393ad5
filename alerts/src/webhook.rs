//! Sends notices and rows of sinks to webhooks, signed according to Standard Webhooks (<https://www.standardwebhooks.com>).

use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::control::AlertRecord;
use shared::limits::{WEBHOOK_ATTEMPTS_MAX, WEBHOOK_RETRY_FIRST_MS, WEBHOOK_TIMEOUT_MS};
use shared::time::Micros;

use crate::delivery::{DueNotice, notice_id, notice_json};
use crate::template::{NoticeTemplate, TemplateError};

/// A webhook that receives notices of alerts and rows of sinks.
#[derive(Clone)]
pub struct Webhook {
    pub url: String,
    /// The key of the signatures; without one, nothing is signed.
    pub secret: Option<Vec<u8>>,
    /// The form of notices; `None`: that of Standard Webhooks.
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

    /// Sends a notice once, at `now`.
    ///
    /// # Errors
    /// The receiver does not respond, or its status is not 2xx.
    pub(crate) async fn send(&self, client: &reqwest::Client, notice: &DueNotice, now: Micros) -> Result<(), String> {
        let body = self.body(&notice.record, notice.suppressed)?;
        self.post(client, &notice_id(&notice.record), body, now).await
    }

    /// Sends a JSON body once, at `now`, under an id that its repetitions have too.
    ///
    /// # Errors
    /// The receiver does not respond, or its status is not 2xx.
    pub async fn post(&self, client: &reqwest::Client, id: &str, body: Vec<u8>, now: Micros) -> Result<(), String> {
        let seconds = now.0.div_euclid(1_000_000);
        let mut request = client
            .post(&self.url)
            .timeout(self.timeout)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("idempotency-key", id)
            .header("webhook-timestamp", seconds);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", signature(secret, id, seconds, &body));
        }
        let response = request.body(body).send().await.map_err(reason)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the receiver answered with {status}")),
        }
    }

    fn body(&self, record: &AlertRecord, suppressed: u64) -> Result<Vec<u8>, String> {
        match &self.template {
            Some(template) => template.render(record, suppressed).map_err(|error| error.to_string()),
            None => Ok(notice_json(record, suppressed)),
        }
    }
}

/// Returns what went wrong, and its first cause. The URL, which may have a secret in it, is in neither.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    if let Some(cause) = cause {
        text = format!("{text}: {cause}");
    }
    text
}

/// Returns the signature of a notice: `v1,` and the HMAC-SHA256 of id, time (seconds) and body, joined with points.
pub fn signature(secret: &[u8], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
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
}
