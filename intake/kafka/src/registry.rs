//! Fetches the schemas of records from a schema registry, each id once: what an id means never changes. Registers those of
//! records that are written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;

use crate::settings::RegistrySettings;

/// The type of the bodies that registries expect.
const REGISTRY_JSON: &str = "application/vnd.schemaregistry.v1+json";
/// Longest wait for a registry.
const REGISTRY_WAIT: Duration = Duration::from_secs(10);
/// Schemas that are kept. Beyond it all are fetched again.
const SCHEMAS_KEPT: usize = 10_000;
/// Schemas that one schema may refer to, directly or not.
const REFERENCES_MAX: usize = 100;

/// The language of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaKind {
    Avro,
    Protobuf,
}

impl SchemaKind {
    /// The name that registries use. They omit that of Avro.
    fn name(self) -> &'static str {
        match self {
            SchemaKind::Avro => "AVRO",
            SchemaKind::Protobuf => "PROTOBUF",
        }
    }
}

/// A schema, with all schemas that it refers to, directly or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    pub text: String,
    /// By the names under which schemas refer to them: the name of a type in Avro, the path of an import in Protobuf.
    pub references: HashMap<String, String>,
}

/// A schema registry with the REST API of Confluent.
pub struct SchemaRegistry {
    settings: RegistrySettings,
    client: reqwest::Client,
    known: Mutex<HashMap<(u32, SchemaKind), Arc<RegisteredSchema>>>,
}

/// Why there is no schema for an id, or no id for a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// No retry would help: a record with this id cannot be read, or the registry refuses the schema.
    #[error("{0}")]
    Unusable(String),
    #[error("cannot reach the schema registry {url}: {reason}; will retry")]
    Unreachable { url: String, reason: String },
}

/// The id of a registered schema.
#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

/// Why a registry refuses a request.
#[derive(Deserialize)]
struct RefusalAnswer {
    message: String,
}

/// The answer of a registry, as far as it counts.
#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
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

    /// Returns the schema with this id.
    ///
    /// # Errors
    /// [`RegistryError::Unusable`] if the registry has no such id, or the schema is of another language.
    pub async fn schema(&self, id: u32, kind: SchemaKind) -> Result<Arc<RegisteredSchema>, RegistryError> {
        if let Some(known) = self.known.lock().get(&(id, kind)) {
            return Ok(Arc::clone(known));
        }
        let unusable = |reason: String| RegistryError::Unusable(format!("schema {id}: {reason}"));
        let answer = self.fetch(&["schemas", "ids", &id.to_string()]).await?;
        let answer = answer.ok_or_else(|| unusable("the registry does not have it".to_owned()))?;
        let found = answer.schema_type.as_deref().unwrap_or(SchemaKind::Avro.name());
        if found != kind.name() {
            return Err(unusable(format!("its type is {found}, but the stream expects {}", kind.name())));
        }
        let (mut references, mut wanted) = (HashMap::new(), answer.references);
        while let Some(Reference { name, subject, version }) = wanted.pop() {
            if references.contains_key(&name) {
                continue;
            }
            if references.len() == REFERENCES_MAX {
                return Err(unusable(format!("it refers to more than {REFERENCES_MAX} other schemas")));
            }
            let answer = self.fetch(&["subjects", &subject, "versions", &version.to_string()]).await?;
            let gone =
                || unusable(format!("it refers to version {version} of {subject}, which the registry does not have"));
            let answer = answer.ok_or_else(gone)?;
            wanted.extend(answer.references);
            references.insert(name, answer.schema);
        }
        let schema = Arc::new(RegisteredSchema { text: answer.schema, references });
        let mut known = self.known.lock();
        if known.len() >= SCHEMAS_KEPT {
            known.clear();
        }
        known.insert((id, kind), Arc::clone(&schema));
        Ok(schema)
    }

    /// Returns the id of an Avro schema as a version of `subject`. Registers it if the subject does not have it.
    ///
    /// # Errors
    /// [`RegistryError::Unusable`] if the registry refuses the schema, such as one that is not compatible with the last.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let request = self.request(Method::POST, &["subjects", subject, "versions"])?;
        let body = serde_json::json!({"schema": schema}).to_string();
        let response =
            request.header(CONTENT_TYPE, REGISTRY_JSON).body(body).send().await.map_err(|e| self.failed(e))?;
        if matches!(response.status(), StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY) {
            let status = response.status();
            let reason = response.json().await.map_or_else(|_| status.to_string(), |RefusalAnswer { message }| message);
            return Err(RegistryError::Unusable(format!("the registry refuses the schema of {subject}: {reason}")));
        }
        let response = response.error_for_status().map_err(|error| self.failed(error))?;
        response.json().await.map(|IdAnswer { id }| id).map_err(|error| self.failed(error))
    }

    /// Asks for a path; `None` if the registry does not have it.
    async fn fetch(&self, path: &[&str]) -> Result<Option<SchemaAnswer>, RegistryError> {
        let response = self.request(Method::GET, path)?.send().await.map_err(|error| self.failed(error))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status().map_err(|error| self.failed(error))?;
        response.json().await.map(Some).map_err(|error| self.failed(error))
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, RegistryError> {
        let RegistrySettings { url, username, password } = &self.settings;
        let mut target = Url::parse(url).map_err(|error| self.unreachable(error.to_string()))?;
        match target.path_segments_mut() {
            Ok(mut segments) => _ = segments.pop_if_empty().extend(path),
            Err(()) => return Err(self.unreachable("it is not the address of a server".to_owned())),
        }
        let request = self.client.request(method, target);
        Ok(match username {
            Some(username) => request.basic_auth(username, password.as_ref()),
            None => request,
        })
    }

    fn failed(&self, error: reqwest::Error) -> RegistryError {
        self.unreachable(error.without_url().to_string())
    }

    fn unreachable(&self, reason: String) -> RegistryError {
        RegistryError::Unreachable { url: self.settings.url.clone(), reason }
    }
}
