//! Describes raised alerts, and the trait that lists them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::ids::{AlertName, Offset, Partition, ViewName};
use crate::limits::SILENCES_MAX;
use crate::time::Micros;

/// The state of a raised alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The live figure satisfied the condition. No batch run has judged it yet.
    Raised,
    /// The exact figure satisfies it, too.
    Confirmed,
    /// The exact figure does not.
    Withdrawn,
    /// The exact figure satisfies it, although no live figure had.
    Corrected,
}

impl AlertState {
    /// Every state.
    pub const ALL: [AlertState; 4] =
        [AlertState::Raised, AlertState::Confirmed, AlertState::Withdrawn, AlertState::Corrected];

    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            AlertState::Raised => "raised",
            AlertState::Confirmed => "confirmed",
            AlertState::Withdrawn => "withdrawn",
            AlertState::Corrected => "corrected",
        }
    }

    /// Returns the state called `name`.
    pub fn from_name(name: &str) -> Option<AlertState> {
        AlertState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A value that the condition of an alert read.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct AlertFigure {
    /// The live value when the alert was raised; `null`: it was not, or the value was.
    pub served: Value,
    /// The 95 % interval of an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[Value; 2]>,
    /// The value of the previous window, if the condition reads it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub previous: Option<Value>,
    /// The value of the batch version that judged the alert.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub exact: Option<Value>,
}

/// Reads a value that is there: `null` is one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// A raised alert: one record per alert and key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlertRecord {
    /// The same for every state of the record, and after a restart.
    pub id: String,
    pub alert: AlertName,
    pub view: ViewName,
    pub state: AlertState,
    /// The values of the columns in `once_per`.
    #[schema(value_type = Object)]
    pub key: Map<String, Value>,
    /// Window and dimensions of the row that satisfied the condition.
    #[schema(value_type = Object)]
    pub row: Map<String, Value>,
    /// The condition, as it was declared.
    pub condition: String,
    /// The measures that it reads.
    pub figures: BTreeMap<String, AlertFigure>,
    /// `open` while the watermark had not passed the window's end, then `closed`.
    pub finality: String,
    /// When the alert was raised, or corrected, the last time.
    pub raised_at: Micros,
    /// When its state changed.
    pub changed_at: Micros,
    /// How often it has been raised: more than once only if it was withdrawn in between.
    pub times: u32,
    /// The log positions that the live figure includes the events up to; empty for corrected ones.
    pub position: BTreeMap<Partition, Offset>,
    /// The batch version that judged it.
    pub version: Option<i64>,
    /// Why the exact figure differs from the served one: a cause of the comparison of the version, `later_events`, or
    /// `unlisted` if the comparison does not list the row.
    pub cause: Option<String>,
    /// Whether the alert is declared as it was when the record was made. Otherwise no run judges it any more.
    pub declared: bool,
    /// Grows with every change of a record; the id of the event in `/v1/alerts/live`.
    pub seq: u64,
}

/// A notice that was given up after its last attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// The idempotency key of the notice.
    pub key: String,
    pub target: String,
    pub failed_at: Micros,
    pub attempts: u32,
    pub error: String,
    /// The record as it was to be delivered.
    pub record: AlertRecord,
}

/// A declared alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlertDeclaration {
    pub name: AlertName,
    pub view: ViewName,
    pub condition: String,
    /// Names of columns.
    pub once_per: Vec<String>,
    pub to: Option<String>,
    /// Most notices in a minute; further ones are not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notices_per_minute: Option<u32>,
}

/// A time in which notices of some alerts are not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Silence {
    pub id: String,
    /// The silenced alert; `null`: all of them.
    pub alert: Option<AlertName>,
    /// The values of columns that a record must have to be silenced; `*` stands for any text.
    pub key: BTreeMap<String, String>,
    pub created_at: Micros,
    pub until: Micros,
    /// The principal that made it.
    pub by: String,
    pub reason: Option<String>,
}

/// Why a silence cannot be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    #[error("there are {SILENCES_MAX} silences already; end one")]
    TooMany,
    #[error("no alert is declared")]
    NoAlerts,
    #[error("cannot write the book of alerts: {0}")]
    Write(#[from] std::io::Error),
}

/// The alerts to list.
#[derive(Debug, Clone, Default)]
pub struct AlertFilter {
    pub alert: Option<String>,
    pub state: Option<AlertState>,
}

/// The alerts of a server without any.
#[derive(Debug, Default)]
pub struct NoAlerts(watch::Sender<u64>);

impl Alerts for NoAlerts {
    fn declared(&self) -> Vec<AlertDeclaration> {
        Vec::new()
    }

    fn list(&self, _: &AlertFilter, _: &dyn Fn(&AlertRecord) -> bool, _: usize) -> (Vec<AlertRecord>, usize) {
        (Vec::new(), 0)
    }

    fn since(&self, _: u64, _: usize) -> Vec<AlertRecord> {
        Vec::new()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn dead_letters(&self) -> Vec<DeadLetter> {
        Vec::new()
    }

    fn silences(&self, _: Micros) -> Vec<Silence> {
        Vec::new()
    }

    fn silence(&self, _: Silence) -> Result<(), SilenceError> {
        Err(SilenceError::NoAlerts)
    }

    fn unsilence(&self, _: &str) -> Result<(), SilenceError> {
        Err(SilenceError::NoAlerts)
    }
}

/// Raised alerts.
pub trait Alerts: Send + Sync {
    /// Returns the declared alerts, by name.
    fn declared(&self) -> Vec<AlertDeclaration>;
    /// Returns the newest records that `filter` and `is_visible` admit, last changed first, at most `limit`, and the number
    /// of all of them.
    fn list(
        &self,
        filter: &AlertFilter,
        is_visible: &dyn Fn(&AlertRecord) -> bool,
        limit: usize,
    ) -> (Vec<AlertRecord>, usize);
    /// Returns the records that changed after `seq`, in the order of their changes, at most `limit`. A record that changed
    /// several times is returned once.
    fn since(&self, seq: u64, limit: usize) -> Vec<AlertRecord>;
    /// Returns a receiver of the number of the last change.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Returns the notices that were given up, newest first.
    fn dead_letters(&self) -> Vec<DeadLetter>;
    /// Returns the silences that are not over, the first to end first.
    fn silences(&self, now: Micros) -> Vec<Silence>;
    /// Adds a silence, durably. Blocks.
    fn silence(&self, silence: Silence) -> Result<(), SilenceError>;
    /// Ends a silence, durably. Blocks.
    fn unsilence(&self, id: &str) -> Result<(), SilenceError>;
}
