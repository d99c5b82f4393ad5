//! Keeps a session of Spark: its settings, and the operations that it executes, one at a time.
//!
//! An operation lives in the server and does not end with the connection. If the stream of its responses breaks, the session
//! attaches to it again behind the last response that it got, for [`SPARK_RECONNECT_MS`]. The id of the operation is chosen
//! here, so a request that is sent twice is executed once. The id of the server's part of the session is sent along: a server that
//! was started again refuses the request instead of executing it without the tables and settings of the session.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use shared::clock::monotonic_now;
use shared::limits::SPARK_RECONNECT_MS;
use uuid::Uuid;

use crate::channel::{Channel, Responses};
use crate::endpoint::Endpoint;
use crate::error::{CallError, SparkError};
use crate::messages::{
    AnalyzePlanRequest, AnalyzePlanResponse, ConfigOperation, ConfigRequest, ConfigResponse, ConfigSet, Empty,
    ExecutePlanRequest, ExecutePlanResponse, ExecutionProgress, INTERRUPT_ALL, InterruptRequest, KeyValue, LiteralKind,
    ReattachExecuteRequest, ReattachOptions, ReleaseExecuteRequest, ReleaseSessionRequest, RequestOption, ResponseKind,
    UserContext,
};
use crate::plan::{Plan, ROWS_WRITTEN};
use crate::settings::ConnectionSettings;

const CLIENT: &str = "trueup";
/// Longest wait for calls that end something: a server that stops must not wait for them.
const HURRY: Duration = Duration::from_secs(5);
/// Pauses between attempts to reach the server: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(10)];

/// A session of Spark.
#[derive(Debug)]
pub struct Session {
    channel: Channel,
    id: String,
    /// The server's name of its part of the session, once it is known.
    server: Mutex<Option<String>>,
    /// The version of Spark.
    version: String,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub tasks: u64,
    pub completed_tasks: u64,
    pub bytes_read: u64,
}

/// What an operation gave.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Rows, as streams of Arrow IPC.
    pub batches: Vec<Bytes>,
    /// The number of rows that [`Plan::write`] wrote.
    pub rows_written: Option<u64>,
}

impl Session {
    /// Opens a session, and asks for the version of Spark.
    pub async fn open(settings: &ConnectionSettings) -> Result<Session, SparkError> {
        let channel = Channel::new(Endpoint::of(settings).map_err(SparkError::Settings)?)?;
        let (id, server, version) = (Uuid::new_v4().to_string(), Mutex::default(), String::new());
        let session = Session { channel, id, server, version };
        let request = AnalyzePlanRequest {
            session_id: session.id.clone(),
            user_context: session.user(),
            client_type: client(),
            spark_version: Some(Empty {}),
        };
        let answer: AnalyzePlanResponse = session.persistently("AnalyzePlan", &request).await?;
        session.observe(&answer.server);
        let version = answer.spark_version.map(|found| found.version).unwrap_or_default();
        Ok(Session { version, ..session })
    }

    /// Returns the version of Spark, as in `4.3.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Sets settings of the session.
    pub async fn set(&self, settings: &[(&str, &str)]) -> Result<(), SparkError> {
        let pair = |(key, value): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: Some((*value).to_owned()) };
        let set = ConfigSet { pairs: settings.iter().map(pair).collect() };
        let request = ConfigRequest {
            session_id: self.id.clone(),
            user_context: self.user(),
            operation: Some(ConfigOperation { set: Some(set) }),
            client_type: client(),
            observed_server: self.observed(),
        };
        let answer: ConfigResponse = self.persistently("Config", &request).await?;
        self.observe(&answer.server);
        Ok(())
    }

    /// Executes a plan. `progress` is called from time to time.
    pub async fn execute(
        &self,
        plan: Plan,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Outcome, SparkError> {
        let mut operation = Operation {
            session: self,
            request: ExecutePlanRequest {
                session_id: self.id.clone(),
                user_context: self.user(),
                plan: Some(plan.0),
                client_type: client(),
                request_options: vec![RequestOption { reattach: Some(ReattachOptions { reattachable: true }) }],
                operation_id: Some(Uuid::new_v4().to_string()),
                observed_server: self.observed(),
            },
            last_response: None,
            outcome: Outcome::default(),
        };
        let mut patience = Patience::new();
        loop {
            let failure = match operation.follow(progress, &mut patience).await {
                Ok(true) => break,
                // The server ends streams after a while; the operation continues.
                Ok(false) => continue,
                Err(failure) => failure,
            };
            let is_unsent = failure.is_unknown_operation() && operation.last_response.is_none();
            if !(failure.is_transient() || is_unsent) || !patience.pause().await {
                return Err(failure.into_error(&self.channel.endpoint.origin));
            }
        }
        operation.release().await;
        Ok(operation.outcome)
    }

    /// Stops all operations of the session. Failures are only logged: the caller does not wait for the operations.
    pub async fn interrupt(&self) {
        let request = InterruptRequest {
            session_id: self.id.clone(),
            user_context: self.user(),
            client_type: client(),
            interrupt_type: INTERRUPT_ALL,
        };
        if let Err(error) = self.shortly("Interrupt", &request).await {
            tracing::warn!(?error, "could not interrupt Spark; it ends the operation some minutes after its client");
        }
    }

    /// Ends the session, and what it still executes. Failures are only logged: Spark ends sessions without use by itself.
    pub async fn close(&self) {
        let request =
            ReleaseSessionRequest { session_id: self.id.clone(), user_context: self.user(), client_type: client() };
        if let Err(error) = self.shortly("ReleaseSession", &request).await {
            tracing::debug!(?error, "could not close the session of Spark");
        }
    }

    fn user(&self) -> Option<UserContext> {
        let user = &self.channel.endpoint.user;
        Some(UserContext { user_id: user.clone(), user_name: user.clone() })
    }

    fn observed(&self) -> Option<String> {
        self.server.lock().clone()
    }

    fn observe(&self, server: &str) {
        if !server.is_empty() {
            self.server.lock().get_or_insert_with(|| server.to_owned());
        }
    }

    /// Calls a method whose effect may fail to appear; its caller is in a hurry.
    async fn shortly(&self, method: &str, request: &impl Message) -> Result<Empty, CallError> {
        let call = self.channel.call(method, request);
        let late = |_| CallError::Connection(format!("no response for {} s", HURRY.as_secs()));
        tokio::time::timeout(HURRY, call).await.map_err(late)?
    }

    /// Calls a method that can be called twice, until the server answers or patience ends.
    async fn persistently<T: Message + Default>(&self, method: &str, request: &impl Message) -> Result<T, SparkError> {
        let mut patience = Patience::new();
        loop {
            match self.channel.call(method, request).await {
                Err(failure) if failure.is_transient() && patience.pause().await => {}
                answer => return answer.map_err(|failure| failure.into_error(&self.channel.endpoint.origin)),
            }
        }
    }
}

fn client() -> Option<String> {
    Some(CLIENT.to_owned())
}

/// One execution of a plan.
struct Operation<'s> {
    session: &'s Session,
    request: ExecutePlanRequest,
    last_response: Option<String>,
    outcome: Outcome,
}

impl Operation<'_> {
    /// Reads responses until the stream ends; `true`: the operation is complete.
    async fn follow(
        &mut self,
        progress: &mut (dyn FnMut(Progress) + Send),
        patience: &mut Patience,
    ) -> Result<bool, CallError> {
        let mut responses = self.start(patience.is_first).await?;
        patience.is_first = false;
        while let Some(response) = responses.next::<ExecutePlanResponse>().await? {
            patience.renew();
            self.session.observe(&response.server);
            if !response.response_id.is_empty() {
                self.last_response = Some(response.response_id);
            }
            for metrics in response.observed_metrics.iter().filter(|metrics| metrics.name == ROWS_WRITTEN) {
                let rows = metrics.values.first().and_then(|value| match value.kind {
                    Some(LiteralKind::Long(rows)) => u64::try_from(rows).ok(),
                    Some(LiteralKind::Integer(rows)) => u64::try_from(rows).ok(),
                    None => None,
                });
                self.outcome.rows_written = rows.or(self.outcome.rows_written);
            }
            match response.kind {
                Some(ResponseKind::Complete(_)) => return Ok(true),
                Some(ResponseKind::ArrowBatch(batch)) => self.outcome.batches.push(batch.data),
                Some(ResponseKind::Progress(stages)) => progress(Progress::of(&stages)),
                None => {}
            }
        }
        Ok(false)
    }

    /// Sends the plan, or attaches to the operation if Spark may have it.
    async fn start(&self, is_first: bool) -> Result<Responses, CallError> {
        let channel = &self.session.channel;
        if is_first {
            return channel.stream("ExecutePlan", &self.request).await;
        }
        let reattach = ReattachExecuteRequest {
            session_id: self.request.session_id.clone(),
            user_context: self.request.user_context.clone(),
            operation_id: self.request.operation_id.clone().unwrap_or_default(),
            client_type: client(),
            last_response_id: self.last_response.clone(),
            observed_server: self.session.observed(),
        };
        match channel.stream("ReattachExecute", &reattach).await {
            // The plan never arrived.
            Err(failure) if failure.is_unknown_operation() && self.last_response.is_none() => {
                channel.stream("ExecutePlan", &self.request).await
            }
            attached => attached,
        }
    }

    /// Lets the server forget the responses.
    async fn release(&self) {
        let request = ReleaseExecuteRequest {
            session_id: self.request.session_id.clone(),
            user_context: self.request.user_context.clone(),
            operation_id: self.request.operation_id.clone().unwrap_or_default(),
            client_type: client(),
            release_all: Some(Empty {}),
        };
        if let Err(error) = self.session.shortly("ReleaseExecute", &request).await {
            tracing::debug!(?error, "could not release the responses of Spark");
        }
    }
}

impl Progress {
    fn of(progress: &ExecutionProgress) -> Progress {
        let sum = |of: fn(&crate::messages::StageInfo) -> i64| {
            progress.stages.iter().map(|stage| u64::try_from(of(stage)).unwrap_or(0)).sum()
        };
        Progress {
            tasks: sum(|stage| stage.tasks),
            completed_tasks: sum(|stage| stage.completed_tasks),
            bytes_read: sum(|stage| stage.input_bytes_read),
        }
    }
}

/// How long a server is tried that does not answer.
struct Patience {
    /// Whether the plan has not been sent.
    is_first: bool,
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience { is_first: true, since: None, pause: PAUSES[0] }
    }

    /// The server has answered.
    fn renew(&mut self) {
        (self.since, self.pause) = (None, PAUSES[0]);
    }

    /// Waits before the next attempt; `false`: there is none.
    async fn pause(&mut self) -> bool {
        self.is_first = false;
        let since = *self.since.get_or_insert_with(monotonic_now);
        match self.next_pause(since.elapsed()) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return false,
        }
        true
    }

    /// Returns the pause before the next attempt of a server that has not answered for `silent`; `None`: there is none.
    fn next_pause(&mut self, silent: Duration) -> Option<Duration> {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES[1]);
        (silent + pause <= Duration::from_millis(SPARK_RECONNECT_MS)).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_tried_for_a_limited_time() {
        let mut patience = Patience::new();
        let (mut silent, mut attempts) = (Duration::ZERO, 0);
        while let Some(pause) = patience.next_pause(silent) {
            (silent, attempts) = (silent + pause, attempts + 1);
        }
        let limit = Duration::from_millis(SPARK_RECONNECT_MS);
        assert!(silent <= limit && silent + PAUSES[1] > limit, "{silent:?}");
        assert!((5..50).contains(&attempts), "{attempts}");
        patience.renew();
        assert_eq!(patience.next_pause(Duration::ZERO), Some(PAUSES[0]));
        assert_eq!(patience.next_pause(limit), None);
    }

    #[tokio::test]
    async fn an_address_without_a_server_is_an_error_that_names_it() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let settings = ConnectionSettings { url: format!("sc://127.0.0.1:{port}"), token: None };
        let channel = Channel::new(Endpoint::of(&settings).expect("right")).expect("a channel");
        let request = ReleaseSessionRequest::default();
        let error = channel.call::<Empty>("ReleaseSession", &request).await.expect_err("no server");
        let error = error.into_error(&channel.endpoint.origin);
        assert!(error.may_pass() && error.to_string().contains(&format!("http://127.0.0.1:{port}")), "{error}");
    }
}
