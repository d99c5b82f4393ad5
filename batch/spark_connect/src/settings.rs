//! Describes how a server of Spark Connect is reached: `[connections.NAME]` with `kind = "spark"` in the settings file.

use std::fmt;

use serde::Deserialize;

use crate::endpoint::Endpoint;

/// A server, and the access to it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSettings {
    /// `sc://HOST:PORT`, as all clients of Spark Connect write it: parameters follow after `/;`.
    pub url: String,
    /// The bearer token; without it, the one of `url`, if any.
    pub token: Option<String>,
}

impl ConnectionSettings {
    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        Endpoint::of(self).map(|_| ())
    }
}

impl fmt::Debug for ConnectionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionSettings { .. }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_show_no_secret() {
        let text = r#"{"url":"sc://localhost/;token=hidden","token":"hidden"}"#;
        let settings: ConnectionSettings = serde_json::from_str(text).expect("JSON");
        assert_eq!(settings.check(), Ok(()));
        assert!(!format!("{settings:?}").contains("hidden"));
        assert!(serde_json::from_str::<ConnectionSettings>(r#"{"url":"sc://x","tokn":"y"}"#).is_err());
    }
}
