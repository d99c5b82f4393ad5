//! Gets tokens for OAUTHBEARER: given ones, from a file, or from an issuer for client credentials.

use std::pin::Pin;
use std::time::Duration;

use krafka::KrafkaError;
use krafka::auth::OAuthBearerToken;
use serde::Deserialize;

use crate::settings::OAuthSettings;

/// Longest wait for an issuer.
const ISSUER_WAIT: Duration = Duration::from_secs(10);

type TokenFuture = Pin<Box<dyn Future<Output = Result<OAuthBearerToken, KrafkaError>> + Send>>;

/// The answer of an issuer, as far as it counts.
#[derive(Deserialize)]
struct IssuedToken {
    access_token: String,
}

/// Returns the function that the library calls at every login.
pub(crate) fn provider(settings: OAuthSettings) -> impl Fn() -> TokenFuture + Send + Sync {
    move || {
        let settings = settings.clone();
        Box::pin(async move { token(&settings).await.map(OAuthBearerToken::new).map_err(KrafkaError::auth) })
    }
}

async fn token(settings: &OAuthSettings) -> Result<String, String> {
    if let Some(token) = &settings.token {
        return Ok(token.clone());
    }
    if let Some(path) = &settings.token_file {
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        return Ok(text.trim().to_owned());
    }
    let endpoint = settings.token_endpoint.as_deref().unwrap_or_default();
    let failed = |error: reqwest::Error| format!("the issuer of tokens did not answer: {}", error.without_url());
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(settings.scope.as_deref().map(|scope| ("scope", scope)));
    let form: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    let client = reqwest::Client::builder().timeout(ISSUER_WAIT).build().map_err(failed)?;
    let request = client
        .post(endpoint)
        .basic_auth(settings.client_id.as_deref().unwrap_or_default(), settings.client_secret.as_ref())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.join("&"));
    let response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    Ok(response.json::<IssuedToken>().await.map_err(failed)?.access_token)
}

/// A value of a form.
fn encoded(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    value.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_given_or_read_again_at_every_login() {
        let given = OAuthSettings { token: Some("t".to_owned()), ..OAuthSettings::default() };
        assert_eq!(token(&given).await, Ok("t".to_owned()));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let settings = OAuthSettings { token_file: Some(file.clone()), ..OAuthSettings::default() };
        assert!(token(&settings).await.expect_err("no file").starts_with("cannot read"));
        for text in ["first\n", "second\n"] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(token(&settings).await.as_deref(), Ok(text.trim()));
        }
        assert_eq!(encoded("a b&c"), "a%20b%26c");
    }
}
