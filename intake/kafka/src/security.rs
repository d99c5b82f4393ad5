//! Translates the settings of a connection into those of the client library.

use krafka::auth::{AuthConfig, TlsConfig};

use crate::TopicError;
use crate::oauth;
use crate::settings::{ConnectionSettings, SaslSettings, TlsSettings};

/// The security of a connection.
pub(crate) fn security(settings: &ConnectionSettings) -> Result<AuthConfig, TopicError> {
    let login = match &settings.sasl {
        None => AuthConfig::plaintext(),
        Some(SaslSettings::Plain { username, password }) => AuthConfig::sasl_plain(username, password),
        Some(SaslSettings::ScramSha256 { username, password }) => AuthConfig::sasl_scram_sha256(username, password),
        Some(SaslSettings::ScramSha512 { username, password }) => AuthConfig::sasl_scram_sha512(username, password),
        Some(SaslSettings::OAuthBearer(oauth)) => AuthConfig::sasl_oauthbearer_provider(oauth::provider(oauth.clone())),
    };
    match &settings.tls {
        None => Ok(login),
        Some(tls) => Ok(login.with_tls(tls_config(tls)?)),
    }
}

fn tls_config(tls: &TlsSettings) -> Result<TlsConfig, TopicError> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read(path).map_err(|error| TopicError::Settings(format!("cannot read {}: {error}", path.display())))
    };
    let config = match &tls.ca {
        Some(ca) => TlsConfig::new().with_ca_cert_pem(read(ca)?),
        None => TlsConfig::new().with_native_roots(),
    };
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Ok(config.with_client_cert_pem(read(certificate)?, read(key)?)),
        _ => Ok(config),
    }
}
