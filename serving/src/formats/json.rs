//! Writes results as JSON documents: columns, rows, and the state they were computed from.

use std::collections::BTreeMap;

use serde::Serialize;
use shared::ids::{Offset, Partition};
use shared::partial::query_budget::{Exceeded, QueryBudget};
use shared::published::PublishedView;
use shared::time::Micros;
use shared::types::DataType;
use shared::version::Origin;
use utoipa::ToSchema;

use super::ResponseSize;
use super::json_rows::RowWriter;
use crate::execute::{ColumnRole, QueryResult, ResultColumn};
use crate::lazy_measures::FailedGroups;
use crate::pin::{Balance, ViewPin};
use crate::query::{LayerChoice, Shape};

/// The metadata of a document, beside the rows.
#[derive(Debug)]
pub struct ResponseContext<'a> {
    pub pinned: &'a ViewPin,
    pub layer: LayerChoice,
    /// The instant of the request, or when the version of the past was published; for a view with SLIDE, the end of its window.
    pub as_of: Micros,
}

#[derive(Serialize, ToSchema)]
pub struct DocumentHead<'a> {
    view: &'a str,
    layer: &'a str,
    columns: Vec<ColumnHead<'a>>,
}

/// A column, as results and the description of a view show it.
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
pub struct DocumentTail<'a> {
    seam: Seam,
    watermark: Option<Micros>,
    as_of: Micros,
    complete: bool,
    ledger: LedgerCounts,
    /// Rows that are excluded, because the HAVING of the view fails for them. Missing if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_rows: Option<&'a FailedGroups>,
    /// True if the limit cut off rows.
    truncated: bool,
    next: Option<&'a str>,
}

/// The position where batch ends and speed starts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Seam {
    pub version: Option<i64>,
    pub published_at: Option<Micros>,
    /// `speed` if the version is a checkpoint of the speed layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<&'static str>,
    #[schema(value_type = BTreeMap<String, Offset>)]
    pub offsets: BTreeMap<Partition, Offset>,
}

/// Event counts by layer.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerCounts {
    pub accepted: u64,
    pub batch: u64,
    pub speed: u64,
    pub late: u64,
    /// Events excluded because an expression failed for them: see `/v1/streams/{stream}/failed`. Missing if there are none.
    #[serde(skip_serializing_if = "is_none_failed")]
    pub failed: u64,
}

fn is_none_failed(failed: &u64) -> bool {
    *failed == 0
}

impl Seam {
    /// Returns the seam of the published version.
    pub fn of(published: &PublishedView) -> Seam {
        let version = published.version.as_ref();
        Seam {
            version: version.map(|v| v.version),
            published_at: version.map(|v| v.published_at),
            origin: version.map(|v| v.origin).filter(|origin| *origin == Origin::Speed).map(Origin::name),
            offsets: published.seam.offsets(),
        }
    }
}

impl<'a> ColumnHead<'a> {
    fn of(column: &'a ResultColumn) -> ColumnHead<'a> {
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
        let Balance { accepted, batch, speed, late, failed, failed_in_batch, .. } = balance;
        LedgerCounts {
            accepted: accepted.events,
            batch: batch.events.saturating_sub(*failed_in_batch),
            speed: speed.events,
            late: late.events,
            failed: failed.events + failed_in_batch,
        }
    }
}

impl ColumnRole {
    /// Returns the name that responses show.
    pub fn name(self) -> &'static str {
        match self {
            ColumnRole::Window => "window",
            ColumnRole::Dimension => "dimension",
            ColumnRole::Measure => "measure",
        }
    }
}

impl LayerChoice {
    /// Returns the value of the `layer` parameter.
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

/// Writes the result, within the memory of its query.
pub fn write(
    result: &QueryResult,
    about: &ResponseContext<'_>,
    shape: Shape,
    budget: &QueryBudget,
) -> Result<Vec<u8>, Exceeded> {
    let mut size = ResponseSize::within(budget);
    let mut rows = RowWriter::new(result);
    let mut out = Vec::with_capacity(rows.bytes_expected() + 2048);
    if shape == Shape::Document {
        let view = about.pinned.published.view.name.as_str();
        let head = DocumentHead {
            view,
            layer: about.layer.name(),
            columns: result.columns.iter().map(ColumnHead::of).collect(),
        };
        append(&head, &mut out);
        // The head is a complete object; the rows replace its closing brace.
        out.pop();
        out.extend_from_slice(b",\"rows\":");
    }
    out.push(b'[');
    for row in 0..result.rows() {
        if row > 0 {
            out.push(b',');
        }
        rows.write(row, &mut out);
        size.check(out.len())?;
    }
    out.push(b']');
    if shape == Shape::Document {
        append_tail(result, about, &mut out);
    }
    Ok(out)
}

/// Writes the changes since an earlier result: new or changed rows, and the keys of rows that disappeared, both as JSON
/// separated by commas; then the metadata of a document.
pub fn write_change(changed: &[u8], gone: &[u8], result: &QueryResult, about: &ResponseContext<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(changed.len() + gone.len() + 512);
    for (before, list) in [(&b"{\"rows\":["[..], changed), (b"],\"gone\":[", gone)] {
        out.extend_from_slice(before);
        out.extend_from_slice(list);
    }
    out.push(b']');
    append_tail(result, about, &mut out);
    out
}

/// Ends the open object with the metadata.
fn append_tail(result: &QueryResult, about: &ResponseContext<'_>, out: &mut Vec<u8>) {
    let (pinned, next) = (about.pinned, result.next.as_deref());
    let tail = DocumentTail {
        seam: Seam::of(&pinned.published),
        watermark: pinned.speed.watermark,
        as_of: about.as_of,
        complete: result.is_complete(pinned),
        ledger: LedgerCounts::from(&pinned.balance),
        failed_rows: result.failed_groups.as_ref(),
        truncated: next.is_some(),
        next,
    };
    let at = out.len();
    append(&tail, out);
    // A comma replaces the tail's opening brace.
    out[at] = b',';
}

fn append(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain data has a JSON form");
}
