//! Finds events that are in the archive twice: those with the event id of an earlier one (by partition, then offset) of the
//! same event date, and of the same entity if the stream has one. Intake removes all duplicates within its horizon. Of a
//! historical event and one that came through the log, the latter stays, whichever came first: the historical partition
//! sorts last.
//!
//! Nearly all ids occur once, so their hashes are compared first: [`repeated_hashes`]. Only events whose hash is not their
//! own are compared by their ids. Both happen in several passes if hashes or ids do not fit in their share of the memory
//! limit.

use polars::prelude::{DataFrame, Expr, IntoLazy, JoinArgs, JoinType, LazyFrame, col, len, lit};
use shared::evaluate::column;
use shared::ids::Offset;
use shared::seam::Cut;
use shared::stream::{Stream, system_columns};
use shared::time::MICROS_PER_DAY;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::recompute::repeated_hashes::{self, Share};
use crate::recompute::scan::{ArchiveSource, POSITION, collect, with_positions};
use crate::watch::Watch;

const DATE: &str = "__date";
const ID: &str = "__id";
const ENTITY: &str = "__entity";
const FIRST: &str = "__first";
const COUNT: &str = "__count";
/// Bytes that an id costs at most during the search: the text, its entry in a table, a position, a count.
const ID_BYTES: u64 = 192;

/// Returns whether the archive can hold duplicates before `cut`. It cannot while every partition has fewer events than
/// intake remembers, and there are no historical events.
pub fn possible(stream: &Stream, cut: &Cut, horizon_events: u64) -> bool {
    let forgotten = cut.0.values().any(|point| point.offset.0 > horizon_events);
    stream.primary_key.is_some() && (forgotten || cut.history().offset > Offset(0))
}

/// Returns the positions of the duplicates, in a column [`POSITION`]; `None`: there are none. `files` are all files of
/// complete event dates, `ids_bytes` the memory that their ids may use at once. Blocking.
pub fn find(
    source: &ArchiveSource,
    files: &[ArchiveFile],
    ids_bytes: usize,
    watch: &Watch,
) -> Result<Option<DataFrame>, RunFailure> {
    let Some(key) = source.stream.primary_key else { return Ok(None) };
    let id = source.stream.columns[key].name.clone();
    let time = source.stream.columns[source.stream.event_time].name.clone();
    let positions = [system_columns::PARTITION.to_owned(), system_columns::OFFSET.to_owned()];
    let entity = source.stream.entity.map(|entity| source.stream.columns[entity].name.clone());
    let mut columns = vec![id.clone(), time];
    columns.extend(entity.clone());
    columns.extend(positions);
    columns.dedup();
    let day = source.event_time().floor_div(lit(MICROS_PER_DAY)).alias(DATE);
    let (rows, _held) = source.scan(files, columns, watch)?;
    let rows = watch.stopping(rows);
    let rows = with_positions(rows.filter(column(&id).is_not_null()));
    let entity = entity.map(|entity| column(&entity).alias(ENTITY));
    let identity: Vec<&str> = [DATE, ID].into_iter().chain(entity.iter().map(|_| ENTITY)).collect();
    let columns: Vec<Expr> = identity.iter().map(|name| col(*name)).collect();
    let selected = [day, column(&id).alias(ID), col(POSITION)].into_iter().chain(entity);
    let rows = rows.select(selected.collect::<Vec<_>>());
    let count: u64 = files.iter().map(|file| file.tags.rows).sum();
    // The other half holds the hashes.
    let events_max = (ids_bytes as u64 / 2 / ID_BYTES).max(1);
    let mut removed: Option<DataFrame> = None;
    for share in Share::all(count, ids_bytes) {
        let identities = rows.clone().select(columns.clone());
        for hashes in repeated_hashes::repeated(identities, count, share, events_max)? {
            let candidates = repeated_hashes::among(rows.clone(), identity.clone(), hashes);
            let Some(more) = later_events(candidates, &columns)? else { continue };
            match &mut removed {
                Some(removed) => _ = removed.vstack_mut(&more)?,
                None => removed = Some(more),
            }
        }
    }
    Ok(removed)
}

/// Returns the positions of all but the first event of each `identity`.
fn later_events(rows: LazyFrame, identity: &[Expr]) -> Result<Option<DataFrame>, RunFailure> {
    let repeated = rows.clone().group_by(identity);
    let repeated = repeated.agg([col(POSITION).min().alias(FIRST), len().alias(COUNT)]);
    let repeated = collect(repeated.filter(col(COUNT).gt(lit(1u32))))?;
    if repeated.height() == 0 {
        return Ok(None);
    }
    let later = rows.join(repeated.lazy(), identity, identity, JoinArgs::new(JoinType::Inner));
    Ok(Some(collect(later.filter(col(POSITION).neq(col(FIRST))).select([col(POSITION)]))?))
}

/// Returns `rows`, which have positions, without those in `removed`.
pub fn without(rows: LazyFrame, removed: &DataFrame) -> LazyFrame {
    join(rows, removed, JoinType::Anti)
}

/// Returns those of `rows`, which have positions, that are in `removed`.
pub fn only(rows: LazyFrame, removed: &DataFrame) -> LazyFrame {
    join(rows, removed, JoinType::Semi)
}

fn join(rows: LazyFrame, removed: &DataFrame, how: JoinType) -> LazyFrame {
    let on: [Expr; 1] = [col(POSITION)];
    rows.join(removed.clone().lazy(), &on, &on, JoinArgs::new(how))
}
