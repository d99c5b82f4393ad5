//! Describes how a database is reached: `[connections.NAME]` with `kind = "postgres"` in the settings file.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// A database and the access to it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSettings {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: String,
    /// TLS; without it, connections are plain, unless the URL says `sslmode=require`.
    pub tls: Option<TlsSettings>,
}

/// TLS to the server, whose certificate is always verified. An empty table trusts the certificates of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificates of the issuers that are trusted instead, in PEM format.
    pub ca: Option<PathBuf>,
    /// The certificate that Trueup shows, in PEM format.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl fmt::Debug for ConnectionSettings {
    /// Without the URL, which has the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSettings").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl ConnectionSettings {
    /// Checks everything that can be checked without the network and without reading files.
    ///
    /// # Errors
    /// What is wrong, and what to do. It does not repeat the URL.
    pub fn check(&self) -> Result<(), String> {
        if !(self.url.starts_with("postgres://") || self.url.starts_with("postgresql://")) {
            return Err("url must start with postgres://".to_owned());
        }
        let config = self.config()?;
        if config.get_hosts().is_empty() || config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(
                "url names no user, host or database: write postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()
            );
        }
        match &self.tls {
            Some(tls) if tls.certificate.is_some() != tls.key.is_some() => {
                Err("tls.certificate and tls.key belong together: set both or none".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The URL as the client library reads it.
    pub(crate) fn config(&self) -> Result<Config, String> {
        let wrong = "cannot read the url: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for characters such as @ \
                     and / in the password";
        Config::from_str(&self.url).map_err(|_| wrong.to_owned())
    }

    /// TLS, if connections have it.
    pub(crate) fn tls(&self, config: &Config) -> Option<TlsSettings> {
        match &self.tls {
            Some(tls) => Some(tls.clone()),
            None => (config.get_ssl_mode() == SslMode::Require).then(TlsSettings::default),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_with_advice_and_without_the_password() {
        for (text, word) in [
            (r#"{"url":"mysql://hidden@db/shop"}"#, "postgres://"),
            (r#"{"url":"postgres://u:hidden@db:x/shop"}"#, "%XX"),
            (r#"{"url":"postgres://db/shop"}"#, "no user"),
            (r#"{"url":"postgres://u:hidden@db"}"#, "DATABASE"),
            (r#"{"url":"postgres://u:hidden@db/shop","tls":{"key":"k.pem"}}"#, "set both or none"),
        ] {
            let settings: ConnectionSettings = serde_json::from_str(text).expect("JSON");
            let error = settings.check().expect_err(text);
            assert!(error.contains(word) && !error.contains("hidden"), "{text}: {error}");
            assert!(!format!("{settings:?}").contains("hidden"));
        }
        for (url, has_tls) in [("postgres://u:p@db/shop", false), ("postgres://u:p@db/shop?sslmode=require", true)] {
            let settings = ConnectionSettings { url: url.to_owned(), tls: None };
            assert_eq!(settings.check(), Ok(()));
            assert_eq!(settings.tls(&settings.config().expect("a URL")).is_some(), has_tls, "{url}");
        }
    }
}
