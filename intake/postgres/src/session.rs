//! Connects to a database: one connection, which ends with its session.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, RowStream, SimpleQueryStream};

use crate::OutboxError;
use crate::lsn::Lsn;
use crate::settings::ConnectionSettings;
use crate::tls::Encryption;

/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A server that is gone without a farewell is noticed within about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// Decoding the log can take longer than the limit for the statements of applications.
const PREPARE: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// A connection.
pub(crate) struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    /// Connects; `application` is the name that the database shows.
    pub async fn connect(settings: &ConnectionSettings, application: &str) -> Result<Session, OutboxError> {
        let mut config = settings.config().map_err(OutboxError::Settings)?;
        config
            .application_name(application)
            .connect_timeout(CONNECT_WAIT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES);
        let session = match settings.tls(&config) {
            Some(tls) => {
                config.ssl_mode(tokio_postgres::config::SslMode::Require);
                Session::open(&config, Encryption::new(&tls)?).await?
            }
            None => {
                config.ssl_mode(tokio_postgres::config::SslMode::Disable);
                Session::open(&config, NoTls).await?
            }
        };
        session.client.batch_execute(PREPARE).await.map_err(|error| OutboxError::of(&error, ""))?;
        Ok(session)
    }

    async fn open<T>(config: &Config, tls: T) -> Result<Session, OutboxError>
    where
        T: tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket> + Send,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as tokio_postgres::tls::TlsConnect<tokio_postgres::Socket>>::Future: Send,
    {
        // A server that accepts connections but does not answer on them.
        let connected = tokio::time::timeout(CONNECT_WAIT * 2, config.connect(tls)).await;
        let connected = connected.map_err(|_| OutboxError::Unreachable("no answer".to_owned()))?;
        let (client, connection) = connected.map_err(|error| OutboxError::of(&error, ""))?;
        let connection = tokio::spawn(async move {
            // Its error reaches the next call of the client.
            let _ = connection.await;
        });
        Ok(Session { client, connection })
    }

    /// Runs statements without values.
    pub async fn run(&self, statements: &str) -> Result<(), OutboxError> {
        self.client.batch_execute(statements).await.map_err(|error| OutboxError::of(&error, ""))
    }

    /// Runs a statement whose rows come one by one, with their values as the texts that the server prints and `pgoutput` writes. All
    /// must be read before the next statement.
    pub async fn texts(&self, statement: &str, help: &str) -> Result<SimpleQueryStream, OutboxError> {
        self.client.simple_query_raw(statement).await.map_err(|error| OutboxError::of(&error, help))
    }

    /// Runs a statement. `help` says what to do if a privilege is missing.
    pub async fn query(
        &self,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
        help: &str,
    ) -> Result<Vec<Row>, OutboxError> {
        self.client.query(statement, values).await.map_err(|error| OutboxError::of(&error, help))
    }

    /// Runs a statement that returns one row.
    pub async fn row(&self, statement: &str, values: &[&(dyn ToSql + Sync)], help: &str) -> Result<Row, OutboxError> {
        self.client.query_one(statement, values).await.map_err(|error| OutboxError::of(&error, help))
    }

    /// The place in the log that a function returns.
    pub async fn lsn(&self, function: &str) -> Result<Lsn, OutboxError> {
        let row = self.row(&format!("SELECT {function}::text"), &[], "").await?;
        let text: &str = value(&row, 0)?;
        let bad = || OutboxError::Other(format!("the database named a place in its log that is none: {text}"));
        text.parse().map_err(|()| bad())
    }

    /// Runs a statement whose rows come one by one. All must be read before the next statement.
    pub async fn stream(
        &self,
        statement: &str,
        values: &[&(dyn ToSql + Sync)],
        help: &str,
    ) -> Result<RowStream, OutboxError> {
        let values = values.iter().map(|value| *value as &(dyn ToSql + Sync));
        self.client.query_raw(statement, values).await.map_err(|error| OutboxError::of(&error, help))
    }
}

/// The value of a column.
pub(crate) fn value<'r, T: tokio_postgres::types::FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, OutboxError> {
    row.try_get(column).map_err(|error| OutboxError::Other(format!("unexpected answer of the database: {error}")))
}
