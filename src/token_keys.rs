//! Keeps the keys of the token issuer up to date: reads them from a file or a URL, again and again.

use std::sync::Arc;
use std::time::Duration;

use auth::token::{KeySet, TokenSettings, TokenVerifier};
use shared::clock::SystemClock;
use tracing::warn;

use crate::settings::JwtSettings;

/// Interval at which the keys are read again. Issuers publish a new key long before they use it.
const READ_EVERY: Duration = Duration::from_secs(300);
/// Pause after the keys could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Longest wait for the issuer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns a verifier of tokens, whose keys are read in the background as long as it is used.
#[expect(clippy::disallowed_methods, reason = "the task ends with the verifier")]
pub fn verifier(settings: JwtSettings) -> Arc<TokenVerifier> {
    let JwtSettings { issuer, audience, jwks, clock_skew_s, rates } = settings;
    let verifier = TokenVerifier::new(TokenSettings { issuer, audience, clock_skew_s, rates }, Arc::new(SystemClock));
    let verifier = Arc::new(verifier);
    let used = Arc::downgrade(&verifier);
    tokio::spawn(async move {
        loop {
            let read = read(&jwks).await;
            let Some(verifier) = used.upgrade() else { return };
            let pause = match read {
                Ok(keys) => {
                    verifier.set_keys(keys);
                    READ_EVERY
                }
                Err(error) => {
                    let jwks = without_secrets(&jwks);
                    warn!(jwks, error, "cannot read the keys of the token issuer; the previous ones stay valid");
                    RETRY_AFTER
                }
            };
            drop(verifier);
            tokio::time::sleep(pause).await;
        }
    });
    verifier
}

async fn read(location: &str) -> Result<KeySet, String> {
    let text = if location.starts_with("https://") || location.starts_with("http://") {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|error| error.to_string())?;
        let response = client.get(location).send().await.and_then(reqwest::Response::error_for_status);
        // The URL may have a secret in it.
        let text = |error: reqwest::Error| error.without_url().to_string();
        response.map_err(text)?.bytes().await.map_err(text)?.to_vec()
    } else {
        tokio::fs::read(location).await.map_err(|error| error.to_string())?
    };
    KeySet::parse(&text).map_err(|error| error.to_string())
}

/// Returns a location without the parts of a URL that may be secret: user, password and query.
fn without_secrets(location: &str) -> String {
    match reqwest::Url::parse(location) {
        Ok(mut url) if url.has_host() => {
            // Both fail for URLs without a host only.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        _ => location.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_logged_without_secrets() {
        for (location, logged) in [
            ("https://user:word@login.example/keys?token=t#f", "https://login.example/keys"),
            ("https://login.example/keys", "https://login.example/keys"),
            ("/etc/jwks.json", "/etc/jwks.json"),
        ] {
            assert_eq!(without_secrets(location), logged);
        }
    }
}
