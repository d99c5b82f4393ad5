//! What is the JSON document of an answer? The contract's: columns, rows, and what they were read from.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::ids::{Offset, Partition};
use shared::published::Published;
use shared::time::Micros;
use shared::types::DataType;
use utoipa::ToSchema;

use super::json_rows::RowWriter;
use crate::answer::{Answer, Column, Role};
use crate::pin::{Balance, Pinned};
use crate::query::{LayerChoice, Shape};

/// What the document tells beside the rows.
#[derive(Debug)]
pub struct About<'a> {
    pub pinned: &'a Pinned,
    pub layer: LayerChoice,
    /// When the answer was given, or the version of the past that answers was published; for a view with SLIDE, where its
    /// window ends.
    pub as_of: Micros,
}

#[derive(Serialize, ToSchema)]
pub struct Head<'a> {
    view: &'a str,
    layer: &'a str,
    columns: Vec<ColumnHead<'a>>,
}

/// A column, as answers and the description of a view show it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ColumnHead<'a> {
    pub name: &'a str,
    #[serde(rename = "type", serialize_with = "in_words")]
    #[schema(value_type = String)]
    pub data_type: DataType,
    pub role: &'static str,
    /// The layer in which a measure that speed estimates is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_in: Option<&'static str>,
}

#[derive(Serialize, ToSchema)]
pub struct Tail<'a> {
    seam: Seam,
    watermark: Option<Micros>,
    as_of: Micros,
    complete: bool,
    ledger: LedgerCounts,
    /// Are there more rows than the limit let through?
    truncated: bool,
    next: Option<&'a str>,
}

/// Where batch ends and speed begins.
#[derive(Debug, Serialize, ToSchema)]
pub struct Seam {
    pub version: Option<i64>,
    pub published_at: Option<Micros>,
    #[schema(value_type = BTreeMap<String, Offset>)]
    pub offsets: BTreeMap<Partition, Offset>,
}

/// Events by where they are.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerCounts {
    pub accepted: u64,
    pub batch: u64,
    pub speed: u64,
    pub late: u64,
}

impl Seam {
    /// The seam of what was published.
    pub fn of(published: &Published) -> Seam {
        let version = published.version.as_ref();
        Seam {
            version: version.map(|v| v.version),
            published_at: version.map(|v| v.published_at),
            offsets: published.seam.offsets(),
        }
    }
}

impl<'a> ColumnHead<'a> {
    fn of(column: &'a Column) -> ColumnHead<'a> {
        ColumnHead {
            name: &column.name,
            data_type: column.data_type,
            role: column.role.name(),
            exact_in: column.exact_in,
        }
    }
}

impl From<&Balance> for LedgerCounts {
    fn from(balance: &Balance) -> LedgerCounts {
        let Balance { accepted, batch, speed, late, .. } = balance;
        LedgerCounts { accepted: accepted.events, batch: batch.events, speed: speed.events, late: late.events }
    }
}

impl Role {
    /// As answers show it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Window => "window",
            Role::Dimension => "dimension",
            Role::Measure => "measure",
        }
    }
}

impl LayerChoice {
    /// As the parameter is written.
    pub fn name(self) -> &'static str {
        match self {
            LayerChoice::Merged => "merged",
            LayerChoice::Batch => "batch",
            LayerChoice::Speed => "speed",
        }
    }
}

fn in_words<S: serde::Serializer>(data_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(data_type)
}

/// Writes the answer.
pub fn write(answer: &Answer, about: &About<'_>, shape: Shape) -> Vec<u8> {
    let mut rows = RowWriter::new(answer);
    let mut out = Vec::with_capacity(rows.bytes_expected() + 2048);
    if shape == Shape::Document {
        let view = about.pinned.published.view.name.as_str();
        let head =
            Head { view, layer: about.layer.name(), columns: answer.columns.iter().map(ColumnHead::of).collect() };
        append(&head, &mut out);
        // The head is an object of its own; its closing brace gives way to the rows.
        out.pop();
        out.extend_from_slice(b",\"rows\":");
    }
    out.push(b'[');
    for row in 0..answer.rows() {
        if row > 0 {
            out.push(b',');
        }
        rows.write(row, &mut out);
    }
    out.push(b']');
    if shape == Shape::Document {
        append_tail(answer.next.as_deref(), about, &mut out);
    }
    out
}

/// Writes what changed since an earlier answer: rows that are new or other, and the keys of those that are no more, both as
/// JSON separated by commas; then what a document tells behind its rows.
pub fn write_change(changed: &[u8], gone: &[u8], next: Option<&str>, about: &About<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(changed.len() + gone.len() + 512);
    for (before, list) in [(&b"{\"rows\":["[..], changed), (b"],\"gone\":[", gone)] {
        out.extend_from_slice(before);
        out.extend_from_slice(list);
    }
    out.push(b']');
    append_tail(next, about, &mut out);
    out
}

/// Ends the object that is open with what the answer was read from.
fn append_tail(next: Option<&str>, about: &About<'_>, out: &mut Vec<u8>) {
    let pinned = about.pinned;
    let tail = Tail {
        seam: Seam::of(&pinned.published),
        watermark: pinned.speed.watermark,
        as_of: about.as_of,
        complete: pinned.complete,
        ledger: LedgerCounts::from(&pinned.balance),
        truncated: next.is_some(),
        next,
    };
    let at = out.len();
    append(&tail, out);
    // The tail's opening brace continues the object.
    out[at] = b',';
}

fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain data has a JSON form");
}
