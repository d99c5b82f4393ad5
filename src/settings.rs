//! Reads and checks `trueup.toml`, the settings file of `serve`. Errors name the file and the line.
//!
//! Options on the command line take precedence over the file; defaults are in [`shared::limits`].

mod substitution;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alerts::template::NoticeTemplate;
use alerts::webhook::{Webhook, WebhookError};
use auth::rate::Rate;
use kafka::ConnectionSettings;
use postgres::ConnectionSettings as DatabaseSettings;
use serde::{Deserialize, Deserializer, de};
use serving::admission::QueryLimits;
use shared::engine::EngineChoice;
use shared::ids::Name;
use shared::limits;
use spark_connect::ConnectionSettings as SparkConnection;

use self::substitution::{Substituted, substitute};
use crate::human_units::parse_bytes;

/// A settings file. Every entry is optional; an unknown entry is an error.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// Folder or URL of the archive and the views.
    pub data: Option<String>,
    /// Folder for the log, the quarantine and the spool, on this machine.
    pub local: Option<PathBuf>,
    /// Origins whose pages may query and send events, such as `https://app.example`.
    #[serde(default)]
    pub cors_origins: Vec<String>,
    /// Names under which clients reach this server, beside its addresses and `localhost`.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    #[serde(default)]
    pub auth: AuthSettings,
    /// Without it, only keys are accepted.
    pub jwt: Option<JwtSettings>,
    /// Without it, the server speaks plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Other systems, by the name under which definitions refer to them.
    #[serde(default)]
    pub connections: BTreeMap<Name, Connection>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub batch: BatchResources,
}

/// Another system that Trueup sends to or reads.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Connection {
    /// An HTTP endpoint that receives the notices of alerts.
    Webhook {
        url: String,
        /// The key of the signatures of notices.
        secret: Option<String>,
        /// The body of notices, as a template of JSON; usually `"file:PATH"`.
        template: Option<String>,
        /// What the template calls `values.NAME`, for instance a key of the receiver.
        #[serde(default)]
        values: BTreeMap<String, String>,
    },
    /// A Kafka cluster: streams read its topics, sinks and alerts write to them.
    Kafka(Box<ConnectionSettings>),
    /// A database of PostgreSQL: streams read its outboxes.
    Postgres(DatabaseSettings),
    /// A server of Spark Connect that computes batch runs.
    Spark(SparkConnection),
}

impl Connection {
    /// Returns the webhook of the entry, if it is one.
    pub fn webhook(&self) -> Result<Option<Webhook>, WebhookError> {
        let Connection::Webhook { url, secret, template, values } = self else { return Ok(None) };
        let webhook = Webhook::new(url.clone(), secret.as_deref())?;
        let template = template.as_ref().map(|text| NoticeTemplate::new(text, values.clone())).transpose()?;
        Ok(Some(Webhook { template, ..webhook }))
    }

    /// Returns what is wrong with the entry, if anything is.
    fn problem(&self) -> Option<String> {
        match self {
            Connection::Webhook { url, .. } => {
                let is_http = url.starts_with("http://") || url.starts_with("https://");
                match self.webhook() {
                    _ if !is_http => Some("url must start with http:// or https://".to_owned()),
                    Err(error) => Some(error.to_string()),
                    Ok(_) => None,
                }
            }
            Connection::Kafka(settings) => settings.check().err(),
            Connection::Postgres(settings) => settings.check().err(),
            Connection::Spark(settings) => settings.check().err(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connection::Webhook { .. } => f.write_str("Webhook { .. }"),
            Connection::Kafka(settings) => settings.fmt(f),
            Connection::Postgres(settings) => settings.fmt(f),
            Connection::Spark(settings) => settings.fmt(f),
        }
    }
}

/// Access to the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Whether requests need a key even before the first one has been created.
    pub required: bool,
}

/// The issuer whose JSON Web Tokens are accepted beside keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The claim `iss` of the tokens.
    pub issuer: String,
    /// A value of their claim `aud`.
    pub audience: String,
    /// File or URL of the public keys (JWKS).
    pub jwks: String,
    /// Seconds by which the clocks of issuer and server may differ.
    #[serde(default = "default_clock_skew_s")]
    pub clock_skew_s: u32,
    /// Requests that each subject may send, such as `["100/s", "50000/d"]`; an empty list: any number.
    #[serde(default = "default_token_rates")]
    pub rates: Vec<Rate>,
}

fn default_token_rates() -> Vec<Rate> {
    vec![Rate { requests: limits::TOKEN_REQUESTS_PER_S, window_s: 1 }]
}

fn default_clock_skew_s() -> u32 {
    limits::TOKEN_CLOCK_SKEW_S
}

/// The files of TLS, in PEM format.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate of the server, followed by those of its issuers.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// If given, clients need a certificate of one of these issuers.
    pub client_ca: Option<PathBuf>,
}

/// What batch runs may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchResources {
    /// Memory limit of a run, in bytes: a number, or a string such as "2 GiB".
    #[serde(deserialize_with = "optional_size")]
    pub memory_limit: Option<u64>,
    /// Number of threads.
    pub threads: Option<std::num::NonZeroUsize>,
    /// What computes the runs of views that do not say it; by default Polars.
    pub engine: Option<EngineChoice>,
    /// The connection to Spark of views that do not name one.
    pub connection: Option<Name>,
    /// Bytes to read from which `engine = 'auto'` chooses Spark: a number, or a string such as "10 GiB".
    #[serde(deserialize_with = "some_size")]
    pub spark_above: Option<u64>,
}

/// Limits that an operator can change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of cached batch rows, in bytes over all views: a number, or a string such as "512 MiB".
    #[serde(deserialize_with = "size")]
    pub batch_cache_bytes: u64,
    /// Event ids remembered per partition; about 40 bytes each.
    pub dedup_horizon_events: u64,
    /// Entities of a partition, for streams with an entity; 28 to 56 bytes each.
    pub entities_max: u64,
    /// Memory of the current rows of a partition of a table, in bytes.
    #[serde(deserialize_with = "size")]
    pub table_bytes_max: u64,
    /// Memory of the versions of a table's rows that views look up, in bytes.
    #[serde(deserialize_with = "size")]
    pub lookup_bytes_max: u64,
    /// Milliseconds for which an idempotency key is remembered.
    pub idempotency_keep_ms: u64,
    /// Memory of the idempotency keys of a partition, in bytes.
    #[serde(deserialize_with = "size")]
    pub idempotency_bytes_max: u64,
    /// Longest time an event waits for its archive file, in milliseconds.
    pub archive_wait_ms: u64,
    /// Rows after which the archiver writes a file without waiting for more.
    pub archive_file_rows: u64,
    /// Bytes of a partition's log that the archive may be behind before events are refused with 429.
    #[serde(deserialize_with = "size")]
    pub archive_backlog_bytes_max: u64,
    /// Memory of the live state of all views, in bytes, beyond which events are refused with 429.
    #[serde(deserialize_with = "size")]
    pub live_state_bytes_max: u64,
    /// Size at which a log segment is closed and the next one is started, in bytes.
    #[serde(deserialize_with = "size")]
    pub log_segment_bytes: u64,
    /// Late events, and events too far ahead, that are listed per stream.
    pub listed_events_kept: u64,
    /// Rejected lines that the quarantine keeps per stream.
    pub quarantine_lines_max: u64,
    /// Memory of those lines per stream, in bytes; on disk they take up to twice as much.
    #[serde(deserialize_with = "size")]
    pub quarantine_bytes_max: u64,
    /// Milliseconds after which a file is deleted that no kept version of a view needs or that compaction replaced.
    pub vacuum_age_ms: u64,
    /// Shortest interval between two searches for such files, per view or stream, in milliseconds.
    pub vacuum_every_ms: u64,
    /// Target size of the archive files that compaction writes, in rows.
    pub compaction_file_rows: u64,
    /// Target size of the archive files that compaction writes, in bytes.
    #[serde(deserialize_with = "size")]
    pub compaction_file_bytes: u64,
    /// Interval between two compactions of a stream, in milliseconds; 0: only on request.
    pub compaction_every_ms: u64,
    /// Milliseconds before the first retry of a failed run; the pause grows with every further retry.
    pub run_retry_first_ms: u64,
    /// Longest pause before a retry, in milliseconds.
    pub run_retry_max_ms: u64,
    /// Attempts of a run in total.
    pub run_attempts_max: u32,
    /// Time limit of a query, in milliseconds.
    pub query_time_ms: u64,
    /// Memory limit of a query, in bytes.
    #[serde(deserialize_with = "size")]
    pub query_memory_bytes: u64,
    /// Concurrent queries, not counting small ones.
    pub queries_at_once: usize,
    /// Milliseconds that a stopping server waits for requests in progress.
    pub shutdown_wait_ms: u64,
    /// Time limit of one request to a remote store, in milliseconds.
    pub store_request_timeout_ms: u64,
    /// Milliseconds during which a failed request to a remote store is retried.
    pub store_retry_ms: u64,
    /// Bytes that archive files of a remote lake may take on this machine while they are read.
    #[serde(deserialize_with = "size")]
    pub spool_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            batch_cache_bytes: limits::BATCH_CACHE_BYTES as u64,
            dedup_horizon_events: limits::DEDUP_HORIZON_EVENTS,
            entities_max: limits::ENTITIES_MAX as u64,
            table_bytes_max: limits::TABLE_ROWS_BYTES_MAX as u64,
            lookup_bytes_max: limits::LOOKUP_BYTES_MAX as u64,
            idempotency_keep_ms: limits::IDEMPOTENCY_KEEP_MS,
            idempotency_bytes_max: limits::IDEMPOTENCY_BYTES_MAX as u64,
            archive_wait_ms: limits::ARCHIVE_WAIT_MS,
            archive_file_rows: limits::ARCHIVE_FILE_ROWS as u64,
            archive_backlog_bytes_max: limits::ARCHIVE_BACKLOG_BYTES_MAX,
            live_state_bytes_max: limits::LIVE_STATE_BYTES_MAX,
            log_segment_bytes: limits::LOG_SEGMENT_BYTES,
            listed_events_kept: limits::LISTED_EVENTS_KEPT as u64,
            quarantine_lines_max: limits::QUARANTINE_LINES_MAX as u64,
            quarantine_bytes_max: limits::QUARANTINE_BYTES_MAX as u64,
            vacuum_age_ms: limits::VACUUM_AGE_MS,
            vacuum_every_ms: limits::VACUUM_EVERY_MS,
            compaction_file_rows: limits::COMPACTION_FILE_ROWS,
            compaction_file_bytes: limits::COMPACTION_FILE_BYTES,
            compaction_every_ms: limits::COMPACTION_EVERY_MS,
            run_retry_first_ms: limits::RUN_RETRY_FIRST_MS,
            run_retry_max_ms: limits::RUN_RETRY_MAX_MS,
            run_attempts_max: limits::RUN_ATTEMPTS_MAX,
            query_time_ms: limits::QUERY_TIME_MS,
            query_memory_bytes: limits::QUERY_MEMORY_BYTES,
            queries_at_once: QueryLimits::default().at_once,
            shutdown_wait_ms: limits::SHUTDOWN_WAIT_MS,
            store_request_timeout_ms: limits::STORE_REQUEST_TIMEOUT_MS,
            store_retry_ms: limits::STORE_RETRY_MS,
            spool_bytes: limits::SPOOL_BYTES,
        }
    }
}

impl Limits {
    /// Returns the limits of queries.
    pub fn queries(&self) -> QueryLimits {
        QueryLimits {
            time: Duration::from_millis(self.query_time_ms),
            bytes_max: usize::try_from(self.query_memory_bytes).unwrap_or(usize::MAX),
            at_once: self.queries_at_once,
            ..QueryLimits::default()
        }
    }
}

/// Why a settings file is invalid.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {file}: {cause}")]
    Unreadable { file: String, cause: std::io::Error },
    #[error("{file}:{line}: {message}")]
    Wrong { file: String, line: usize, message: String },
}

impl Settings {
    /// Reads a file. Errors name the file and the line.
    pub fn read(path: &Path) -> Result<Settings, SettingsError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Settings::parse(&file, &text),
            Err(cause) => Err(SettingsError::Unreadable { file, cause }),
        }
    }

    fn parse(file: &str, text: &str) -> Result<Settings, SettingsError> {
        let wrong =
            |line, message: &str| SettingsError::Wrong { file: file.to_owned(), line, message: message.to_owned() };
        let replaced = substitute(text, |name| std::env::var(name).ok());
        let Substituted { text, values } = replaced.map_err(|(line, message)| wrong(line, &message))?;
        let text = text.as_str();
        // What stands in the environment or in another file may be secret: no error repeats it.
        let redacted = |message: &str| values.iter().fold(message.to_owned(), |text, value| text.replace(value, "..."));
        let settings: Settings = toml::from_str(text).map_err(|error| {
            let before = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
            wrong(line, &redacted(error.message()))
        })?;
        for (name, connection) in &settings.connections {
            let Some(problem) = connection.problem() else { continue };
            let section = format!("[connections.{name}]");
            let line = 1 + text.lines().position(|line| line.trim() == section).unwrap_or(0);
            return Err(wrong(line, &format!("connection {name}: {problem}")));
        }
        for (name, value) in [
            ("batch_cache_bytes", settings.limits.batch_cache_bytes),
            ("archive_file_rows", settings.limits.archive_file_rows),
            ("archive_backlog_bytes_max", settings.limits.archive_backlog_bytes_max),
            ("compaction_file_rows", settings.limits.compaction_file_rows),
            ("compaction_file_bytes", settings.limits.compaction_file_bytes),
            ("log_segment_bytes", settings.limits.log_segment_bytes),
            ("store_request_timeout_ms", settings.limits.store_request_timeout_ms),
            ("spool_bytes", settings.limits.spool_bytes),
        ] {
            if value == 0 {
                let line = 1 + text.lines().position(|line| line.trim_start().starts_with(name)).unwrap_or(0);
                return Err(wrong(line, &format!("{name} must be greater than 0")));
            }
        }
        Ok(settings)
    }
}

fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let bytes = size(deserializer)?;
    if bytes < limits::BATCH_MEMORY_BYTES_MIN {
        return Err(de::Error::custom("memory_limit must be at least 64 MiB"));
    }
    Ok(Some(bytes))
}

fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    size(deserializer).map(Some)
}

/// Parses a number of bytes, or a string with a unit.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;
    impl de::Visitor<'_> for Size {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes or a string such as \"512 MiB\"")
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
            u64::try_from(value).map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse_bytes(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_entries_have_defaults() {
        let text = "listen = \"127.0.0.1:9000\"\n[limits]\nbatch_cache_bytes = \"512 MiB\"\nlog_segment_bytes = 4096\n";
        let settings = Settings::parse("t", text).expect("right");
        assert_eq!(settings.listen, Some(([127, 0, 0, 1], 9000).into()));
        assert_eq!(settings.data, None);
        let expected = Limits { batch_cache_bytes: 512 << 20, log_segment_bytes: 4096, ..Limits::default() };
        assert_eq!(settings.limits, expected);
        assert_eq!(Settings::parse("t", "").expect("right"), Settings::default());
    }

    #[test]
    fn batch_memory_and_threads_are_limited() {
        let settings = Settings::parse("t", "[batch]\nmemory_limit = \"512 MiB\"\nthreads = 3\n").expect("right");
        assert_eq!(
            settings.batch,
            BatchResources {
                memory_limit: Some(512 << 20),
                threads: std::num::NonZeroUsize::new(3),
                ..BatchResources::default()
            }
        );
        let error = Settings::parse("t", "[batch]\nmemory_limit = 7\n").expect_err("too little").to_string();
        assert!(error.contains("t:2: ") && error.contains("64 MiB"), "{error}");
        assert!(Settings::parse("t", "[batch]\nthreads = 0\n").is_err());
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, place, word) in [
            ("data = \"d\"\nlisen = \"127.0.0.1:1\"\n", "trueup.toml:2: ", "lisen"),
            ("\n\nlisten = \"nowhere\"\n", "trueup.toml:3: ", "socket address"),
            ("[limits]\n\nbatch_cache = 1\n", "trueup.toml:3: ", "batch_cache"),
            ("[limits]\nbatch_cache_bytes = \"2 parsecs\"\n", "trueup.toml:2: ", "2 parsecs"),
            ("[limits]\narchive_wait_ms = -1\n", "trueup.toml:2: ", "-1"),
            ("[limits]\narchive_wait_ms = 5\narchive_file_rows = 0\n", "trueup.toml:3: ", "greater than 0"),
            ("data = \n", "trueup.toml:1: ", ""),
            ("\n[connections.main]\nkind = \"kafka\"\nbrokers = [\"x\"]\n", "trueup.toml:2: ", "HOST:PORT"),
            ("\n[connections.s]\nkind = \"spark\"\nurl = \"http://x\"\n", "trueup.toml:2: ", "sc://HOST:PORT"),
            ("\n[connections.s]\nkind = \"postgres\"\nurl = \"http://x\"\n", "trueup.toml:2: ", "postgres://"),
            ("[batch]\n\nengine = \"sparc\"\n", "trueup.toml:3: ", "sparc"),
            (
                "[connections.main]\nkind = \"kafka\"\nbrokers = [\"x:1\"]\nsasl = {mechanism = \"X\"}\n",
                "trueup.toml:",
                "X",
            ),
            (
                "[connections.main]\nkind = \"kafka\"\nbrokers = [\"x:1\"]\ntls = {cert = \"X\"}\n",
                "trueup.toml:",
                "cert",
            ),
        ] {
            let message = Settings::parse("trueup.toml", text).expect_err(text).to_string();
            assert!(message.starts_with(place) && message.contains(word), "{text:?}: {message}");
        }
        let missing = Settings::read(Path::new("no-such.toml")).expect_err("missing").to_string();
        assert!(missing.starts_with("cannot read no-such.toml: "), "{missing}");
    }
}
