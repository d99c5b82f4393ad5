//! Finds events that are in the archive twice: those with the event id of an earlier one (by partition, then offset) of the
//! same event date, and of the same entity if the stream has one. Intake removes all duplicates within its horizon. Of a historical event and one that came through the
//! log, the latter stays, whichever came first: the historical partition sorts last.
//!
//! Ids that do not fit in their share of the memory limit are searched in several passes, each over the ids whose hash falls
//! to it.

use polars::prelude::{
    AllowedOptimizations, AnyValue, BooleanChunked, Column, DataFrame, Expr, IntoLazy, JoinArgs, JoinType, LazyFrame,
    PolarsResult, col, len, lit,
};
use shared::evaluate::column;
use shared::ids::Offset;
use shared::seam::Cut;
use shared::stream::{Stream, system_columns};
use shared::time::MICROS_PER_DAY;

use xxhash_rust::xxh3::xxh3_64;

use crate::failure::RunFailure;
use crate::plan::ArchiveFile;
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
    let identity: Vec<Expr> = [col(DATE), col(ID)].into_iter().chain(entity.iter().map(|_| col(ENTITY))).collect();
    let selected = [day, column(&id).alias(ID), col(POSITION)].into_iter().chain(entity);
    let rows = rows.select(selected.collect::<Vec<_>>());
    let count: u64 = files.iter().map(|file| file.tags.rows).sum();
    let passes = count.saturating_mul(ID_BYTES).div_ceil(ids_bytes as u64).max(1);
    let mut removed: Option<DataFrame> = None;
    for pass in 0..passes {
        let rows = if passes > 1 { of_pass(rows.clone(), pass, passes) } else { rows.clone() };
        let Some(more) = later_events(rows, &identity)? else { continue };
        match &mut removed {
            Some(removed) => _ = removed.vstack_mut(&more)?,
            None => removed = Some(more),
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

/// Returns those of `rows` whose ids fall to one of several passes.
fn of_pass(rows: LazyFrame, pass: u64, passes: u64) -> LazyFrame {
    let keep = move |rows: DataFrame| {
        let mask = falls_to(rows.column(ID)?, pass, passes)?;
        rows.filter(&mask)
    };
    rows.map(keep, AllowedOptimizations::STREAMING, None, Some("ids of one pass"))
}

fn falls_to(ids: &Column, pass: u64, passes: u64) -> PolarsResult<BooleanChunked> {
    // The upper bits of the product: as even as the hash is.
    let falls = |bytes: &[u8]| (u128::from(xxh3_64(bytes)) * u128::from(passes)) >> 64 == u128::from(pass);
    let ids = ids.as_materialized_series();
    if let Ok(texts) = ids.str() {
        return Ok(texts.iter().map(|text| falls(text.unwrap_or_default().as_bytes())).collect());
    }
    if let Ok(numbers) = ids.i64() {
        return Ok(numbers.iter().map(|number| falls(&number.unwrap_or_default().to_le_bytes())).collect());
    }
    if let Ok(numbers) = ids.f64() {
        // Ids that Polars considers equal must fall to the same pass: both zeros, and every NaN.
        let bits = |number: f64| if number.is_nan() { u64::MAX } else { (number + 0.0).to_bits() };
        return Ok(numbers.iter().map(|number| falls(&bits(number.unwrap_or_default()).to_le_bytes())).collect());
    }
    let of_value = |value: AnyValue| falls(value.to_string().as_bytes());
    Ok(ids.iter().map(of_value).collect())
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

#[cfg(test)]
mod tests {
    use polars::prelude::{IntoColumn, NamedFrom, Series};

    use super::*;

    #[test]
    fn every_id_of_any_type_belongs_to_one_pass() {
        let texts = Series::new(ID.into(), (0..10_000).map(|i| format!("id-{i}")).collect::<Vec<_>>());
        let numbers = Series::new(ID.into(), (0..10_000i64).map(|i| i << 20).collect::<Vec<_>>());
        let floats = Series::new(ID.into(), (0..10_000).map(|i| i as f64 / 3.0).collect::<Vec<_>>());
        for ids in [texts, numbers, floats] {
            let ids = ids.into_column();
            let passes = 7;
            let mut fallen = vec![0; ids.len()];
            for pass in 0..passes {
                let mask = falls_to(&ids, pass, passes).expect("a mask");
                let count = mask.iter().filter(|falls| *falls == Some(true)).count();
                assert!((1_200..1_700).contains(&count), "{count} of 10,000 in one of seven");
                mask.iter().zip(&mut fallen).for_each(|(falls, times)| *times += usize::from(falls == Some(true)));
            }
            assert!(fallen.iter().all(|times| *times == 1));
        }
        let same = Series::new(ID.into(), [0.0, -0.0, f64::NAN, -f64::NAN]).into_column();
        for pass in 0..7 {
            let mask: Vec<_> = falls_to(&same, pass, 7).expect("a mask").iter().collect();
            assert!(mask[0] == mask[1] && mask[2] == mask[3], "{pass}: {mask:?}");
        }
    }
}
