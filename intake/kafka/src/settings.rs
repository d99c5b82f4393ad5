//! Describes how the brokers of a cluster are reached: `[connections.NAME]` with `kind = "kafka"` in the settings file.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// A cluster and the access to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSettings {
    /// Some brokers of the cluster, each `HOST:PORT`; they name the others.
    pub brokers: Vec<String>,
    /// TLS; without it, connections are plain.
    pub tls: Option<TlsSettings>,
    /// The login; without it, none is made.
    pub sasl: Option<SaslSettings>,
    /// The registry that has the schemas of records.
    pub schema_registry: Option<RegistrySettings>,
}

/// TLS to the brokers. An empty table trusts the certificates of the system.
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

/// A login.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "mechanism", deny_unknown_fields)]
pub enum SaslSettings {
    #[serde(rename = "PLAIN")]
    Plain { username: String, password: String },
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256 { username: String, password: String },
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512 { username: String, password: String },
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer(OAuthSettings),
}

/// Where the tokens of OAUTHBEARER come from: exactly one of `token`, `token_file` and `token_endpoint`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuthSettings {
    pub token: Option<String>,
    /// A file that another program keeps current; it is read at every login.
    pub token_file: Option<PathBuf>,
    /// The URL of an issuer that gives tokens for client credentials.
    pub token_endpoint: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<String>,
    pub scope: Option<String>,
}

/// A schema registry with the REST API of Confluent.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrySettings {
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

impl fmt::Debug for SaslSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SaslSettings::Plain { .. } => "Plain { .. }",
            SaslSettings::ScramSha256 { .. } => "ScramSha256 { .. }",
            SaslSettings::ScramSha512 { .. } => "ScramSha512 { .. }",
            SaslSettings::OAuthBearer(_) => "OAuthBearer(..)",
        })
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistrySettings {{ url: {:?}, .. }}", self.url)
    }
}

impl ConnectionSettings {
    /// Checks everything that can be checked without the network and without reading files.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.brokers.is_empty() {
            return Err("brokers is empty: list at least one \"HOST:PORT\"".to_owned());
        }
        if let Some(broker) = self.brokers.iter().find(|broker| !is_host_and_port(broker)) {
            return Err(format!("\"{broker}\" is not a broker: write \"HOST:PORT\", such as \"kafka-1:9092\""));
        }
        if let Some(tls) = &self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            return Err("tls.certificate and tls.key belong together: set both or none".to_owned());
        }
        if let Some(SaslSettings::OAuthBearer(oauth)) = &self.sasl {
            oauth.check()?;
        }
        if let Some(registry) = &self.schema_registry
            && !is_http(&registry.url)
        {
            return Err("schema_registry.url must start with http:// or https://".to_owned());
        }
        Ok(())
    }

    /// The brokers as one text.
    pub fn bootstrap(&self) -> String {
        self.brokers.join(",")
    }
}

impl OAuthSettings {
    fn check(&self) -> Result<(), String> {
        let sources = [self.token.is_some(), self.token_file.is_some(), self.token_endpoint.is_some()];
        if sources.iter().filter(|is_set| **is_set).count() != 1 {
            return Err("OAUTHBEARER needs exactly one of token, token_file and token_endpoint".to_owned());
        }
        match &self.token_endpoint {
            Some(url) if !is_http(url) => Err("token_endpoint must start with http:// or https://".to_owned()),
            Some(_) if self.client_id.is_none() || self.client_secret.is_none() => {
                Err("token_endpoint needs client_id and client_secret".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

fn is_host_and_port(broker: &str) -> bool {
    let parts = broker.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<ConnectionSettings, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn settings_are_checked_with_advice() {
        for (text, word) in [
            (r#"{"brokers":[]}"#, "HOST:PORT"),
            (r#"{"brokers":["kafka"]}"#, "\"kafka\" is not a broker"),
            (r#"{"brokers":["k:0"]}"#, "HOST:PORT"),
            (r#"{"brokers":["k:1"],"tls":{"certificate":"c.pem"}}"#, "set both or none"),
            (r#"{"brokers":["k:1"],"sasl":{"mechanism":"OAUTHBEARER"}}"#, "exactly one of"),
            (r#"{"brokers":["k:1"],"sasl":{"mechanism":"OAUTHBEARER","token_endpoint":"http://i"}}"#, "client_secret"),
            (r#"{"brokers":["k:1"],"schema_registry":{"url":"registry"}}"#, "http://"),
        ] {
            let error = parsed(text).expect("JSON").check().expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
        let full = r#"{"brokers":["a:1","b:2"],"tls":{},"sasl":{"mechanism":"SCRAM-SHA-512","username":"u","password":"hidden"},
            "schema_registry":{"url":"http://r","username":"u","password":"hidden"}}"#;
        let settings = parsed(full).expect("JSON");
        assert_eq!((settings.check(), settings.bootstrap()), (Ok(()), "a:1,b:2".to_owned()));
        assert!(!format!("{settings:?}").contains("hidden"));
        assert!(parsed(r#"{"brokers":["a:1"],"sasl":{"mechanism":"GSSAPI"}}"#).is_err());
    }
}
