//! Describes an outbox: the place in a PostgreSQL database to which an application writes the events of a stream, in the
//! transactions that they are about.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::Name;
use crate::types::DataType;

/// The outbox that a stream reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// The connection of the settings.
    pub connection: Name,
    pub mode: OutboxMode,
    /// The table, as `NAME` or `SCHEMA.NAME`; of messages, their prefix.
    pub name: String,
    pub columns: OutboxColumns,
    /// Not used if the table is polled.
    pub slot: OutboxSlot,
}

/// How the events of an outbox are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboxMode {
    /// Logical decoding of the rows that are inserted into a table.
    Decoding,
    /// Logical decoding of messages: there is no table.
    Messages,
    /// Queries of a table.
    Polling,
}

/// The names in the database that logical decoding needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxSlot {
    pub slot: String,
    pub publication: String,
}

/// The names of the columns of an outbox table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxColumns {
    pub id: String,
    pub aggregatetype: String,
    pub aggregateid: String,
    pub kind: String,
    pub payload: String,
    /// Polling only: the transaction that inserted the row.
    pub txid: String,
    /// Polling only: the time of the row. Logical decoding knows that of the commit.
    pub timestamp: Option<String>,
}

impl OutboxMode {
    /// The values of the option `mode`.
    pub const NAMES: [&str; 3] = ["decoding", "messages", "polling"];

    /// The mode with this name.
    pub fn named(name: &str) -> Option<OutboxMode> {
        match name {
            "decoding" => Some(OutboxMode::Decoding),
            "messages" => Some(OutboxMode::Messages),
            "polling" => Some(OutboxMode::Polling),
            _ => None,
        }
    }
}

impl fmt::Display for OutboxMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutboxMode::Decoding => "decoding",
            OutboxMode::Messages => "messages",
            OutboxMode::Polling => "polling",
        })
    }
}

impl Outbox {
    /// The outbox in a few words.
    pub fn describe(&self) -> String {
        match self.mode {
            OutboxMode::Decoding => format!("outbox {}", self.name),
            OutboxMode::Messages => format!("messages {}", self.name),
            OutboxMode::Polling => format!("outbox {} (polling)", self.name),
        }
    }

    /// Whether events of this outbox have the part.
    pub fn has(&self, part: OutboxPart) -> bool {
        match self.mode {
            OutboxMode::Decoding => true,
            OutboxMode::Messages => part == OutboxPart::Lsn,
            OutboxMode::Polling => part != OutboxPart::Lsn,
        }
    }

    /// Whether the time of an event is known.
    pub fn has_timestamp(&self) -> bool {
        self.mode != OutboxMode::Polling || self.columns.timestamp.is_some()
    }

    /// The column of the table that has the part; `None`: it is not in a column.
    pub fn column(&self, part: OutboxPart) -> Option<&str> {
        match part {
            OutboxPart::Id => Some(&self.columns.id),
            OutboxPart::AggregateType => Some(&self.columns.aggregatetype),
            OutboxPart::AggregateId => Some(&self.columns.aggregateid),
            OutboxPart::Type => Some(&self.columns.kind),
            OutboxPart::Lsn => None,
        }
    }
}

impl Default for OutboxColumns {
    /// Those of Debezium's outbox event router.
    fn default() -> Self {
        OutboxColumns {
            id: "id".to_owned(),
            aggregatetype: "aggregatetype".to_owned(),
            aggregateid: "aggregateid".to_owned(),
            kind: "type".to_owned(),
            payload: "payload".to_owned(),
            txid: "txid".to_owned(),
            timestamp: None,
        }
    }
}

impl OutboxColumns {
    /// What the option `columns` can name.
    pub const NAMES: [&str; 7] = ["id", "aggregatetype", "aggregateid", "type", "payload", "timestamp", "txid"];

    /// Sets the column of one of [`OutboxColumns::NAMES`]; `false`: it is none of them.
    pub fn set(&mut self, name: &str, column: String) -> bool {
        let place = match name {
            "id" => &mut self.id,
            "aggregatetype" => &mut self.aggregatetype,
            "aggregateid" => &mut self.aggregateid,
            "type" => &mut self.kind,
            "payload" => &mut self.payload,
            "txid" => &mut self.txid,
            "timestamp" => {
                self.timestamp = Some(column);
                return true;
            }
            _ => return false,
        };
        *place = column;
        true
    }
}

/// A part of an event of an outbox beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutboxPart {
    Id,
    AggregateType,
    AggregateId,
    Type,
    /// The place of the transaction's commit in the write-ahead log, as PostgreSQL writes it: `0/16B3748`.
    Lsn,
}

impl OutboxPart {
    /// All parts.
    pub const ALL: [OutboxPart; 5] =
        [OutboxPart::Id, OutboxPart::AggregateType, OutboxPart::AggregateId, OutboxPart::Type, OutboxPart::Lsn];

    /// The name in `METADATA FROM`.
    pub fn name(self) -> &'static str {
        match self {
            OutboxPart::Id => "id",
            OutboxPart::AggregateType => "aggregatetype",
            OutboxPart::AggregateId => "aggregateid",
            OutboxPart::Type => "type",
            OutboxPart::Lsn => "lsn",
        }
    }

    /// Whether a column of this type can hold the part.
    pub fn fits(self, data_type: DataType) -> bool {
        match self {
            OutboxPart::Lsn => data_type == DataType::String,
            _ => matches!(data_type, DataType::String | DataType::Int | DataType::BigInt),
        }
    }
}
