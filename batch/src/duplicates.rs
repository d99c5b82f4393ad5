//! Which events are in the archive twice? Those with the event id of an earlier one (by partition, then offset) of the
//! same event date. Intake removes all but those that come more than its horizon later. Of a historical event and one
//! that came through the log, the latter stays, whichever came first: the partition of history is the last.

use polars::prelude::{DataFrame, Expr, IntoLazy, JoinArgs, JoinType, LazyFrame, col, len, lit};
use shared::ids::Offset;
use shared::seam::Cut;
use shared::stream::{Stream, system_columns};
use shared::time::MICROS_PER_DAY;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
use crate::scan::{POSITION, Source, Watch, collect, with_positions};

const DATE: &str = "__date";
const ID: &str = "__id";
const FIRST: &str = "__first";
const COUNT: &str = "__count";

/// Can the archive hold duplicates before `cut`? Not while no partition has more events than intake remembers, and
/// nobody put events into the archive past intake.
pub fn possible(stream: &Stream, cut: &Cut, horizon_events: u64) -> bool {
    let forgotten = cut.0.values().any(|point| point.offset.0 > horizon_events);
    stream.primary_key.is_some() && (forgotten || cut.history().offset > Offset(0))
}

/// The positions of the events to leave out, in a column [`POSITION`]; `None` if there are none. `files` are all files
/// of whole event dates. Blocking.
pub fn find(source: &Source, files: &[ArchiveFile], watch: &Watch) -> Result<Option<DataFrame>, RunFailure> {
    let Some(key) = source.stream.primary_key else { return Ok(None) };
    let id = source.stream.columns[key].name.clone();
    let time = source.stream.columns[source.stream.event_time].name.clone();
    let positions = [system_columns::PARTITION.to_owned(), system_columns::OFFSET.to_owned()];
    let mut columns = vec![id.clone(), time];
    columns.extend(positions);
    columns.dedup();
    let day = source.event_time().floor_div(lit(MICROS_PER_DAY)).alias(DATE);
    let (rows, _held) = source.scan(files, columns, watch)?;
    let rows = watch.stopping(rows);
    let rows = with_positions(rows.filter(col(id.as_str()).is_not_null()));
    let rows = rows.select([day, col(id.as_str()).alias(ID), col(POSITION)]);
    let repeated = rows.clone().group_by([col(DATE), col(ID)]);
    let repeated = repeated.agg([col(POSITION).min().alias(FIRST), len().alias(COUNT)]);
    let repeated = collect(repeated.filter(col(COUNT).gt(lit(1u32))))?;
    if repeated.height() == 0 {
        return Ok(None);
    }
    let on = [col(DATE), col(ID)];
    let later = rows.join(repeated.lazy(), &on, &on, JoinArgs::new(JoinType::Inner));
    Ok(Some(collect(later.filter(col(POSITION).neq(col(FIRST))).select([col(POSITION)]))?))
}

/// `rows`, which have positions, without those in `removed`.
pub fn without(rows: LazyFrame, removed: &DataFrame) -> LazyFrame {
    join(rows, removed, JoinType::Anti)
}

/// Those of `rows`, which have positions, that are in `removed`.
pub fn only(rows: LazyFrame, removed: &DataFrame) -> LazyFrame {
    join(rows, removed, JoinType::Semi)
}

fn join(rows: LazyFrame, removed: &DataFrame, how: JoinType) -> LazyFrame {
    let on: [Expr; 1] = [col(POSITION)];
    rows.join(removed.clone().lazy(), &on, &on, JoinArgs::new(how))
}
