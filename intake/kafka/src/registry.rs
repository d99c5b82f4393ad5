//! Fetches the schemas of records from a schema registry, each id once: what an id means never changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::settings::RegistrySettings;

/// Longest wait for a registry.
const REGISTRY_WAIT: Duration = Duration::from_secs(10);
/// Schemas that are kept. Beyond it all are fetched again.
const SCHEMAS_KEPT: usize = 10_000;

/// A schema registry with the REST API of Confluent.
pub struct SchemaRegistry {
    settings: RegistrySettings,
    client: reqwest::Client,
    known: Mutex<HashMap<u32, Arc<str>>>,
}

/// Why there is no schema for an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No retry would help: a record with this id cannot be read.
    #[error("{0}")]
    Unusable(String),
    #[error("cannot reach the schema registry {url}: {reason}; will retry")]
    Unreachable { url: String, reason: String },
}

/// The answer of a registry, as far as it counts.
#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

impl SchemaRegistry {
    /// Makes a client. Sends nothing.
    ///
    /// # Errors
    /// The system has no usable TLS.
    pub fn new(settings: RegistrySettings) -> Result<SchemaRegistry, String> {
        let client = reqwest::Client::builder().timeout(REGISTRY_WAIT).build().map_err(|error| error.to_string())?;
        Ok(SchemaRegistry { settings, client, known: Mutex::default() })
    }

    /// The Avro schema with this id, as JSON.
    ///
    /// # Errors
    /// [`RegistryError::Unusable`] if the registry has no such id, or the schema is not one of Avro alone.
    pub async fn avro(&self, id: u32) -> Result<Arc<str>, RegistryError> {
        if let Some(known) = self.known.lock().get(&id) {
            return Ok(Arc::clone(known));
        }
        let unusable = |reason: &str| RegistryError::Unusable(format!("schema {id}: {reason}"));
        let answer = self.fetch(id).await?;
        if answer.schema_type.is_some_and(|kind| kind != "AVRO") {
            return Err(unusable("it is not of Avro"));
        }
        if !answer.references.is_empty() {
            return Err(unusable("it refers to other schemas, which is not supported yet"));
        }
        let schema: Arc<str> = answer.schema.into();
        let mut known = self.known.lock();
        if known.len() >= SCHEMAS_KEPT {
            known.clear();
        }
        known.insert(id, Arc::clone(&schema));
        Ok(schema)
    }

    async fn fetch(&self, id: u32) -> Result<SchemaAnswer, RegistryError> {
        let RegistrySettings { url, username, password } = &self.settings;
        let unreachable = |error: reqwest::Error| RegistryError::Unreachable {
            url: url.clone(),
            reason: error.without_url().to_string(),
        };
        let mut request = self.client.get(format!("{}/schemas/ids/{id}", url.trim_end_matches('/')));
        if let Some(username) = username {
            request = request.basic_auth(username, password.as_ref());
        }
        let response = request.send().await.map_err(unreachable)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(RegistryError::Unusable(format!("schema {id}: the registry does not have it")));
        }
        let response = response.error_for_status().map_err(unreachable)?;
        response.json().await.map_err(unreachable)
    }
}
