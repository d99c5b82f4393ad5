//! Makes rows of a view's table from those that another engine has computed: it can sum, count and list values, and write some
//! of the sketches, but does not have all states of this crate.
//!
//! | columns | contents |
//! |---|---|
//! | `__s`, `__e` | start and end of the window in microseconds; not for a window over all time |
//! | `__d<i>` | the dimensions |
//! | `_state_<i>_<part>` | the parts of the states as in a view's table, but for these: |
//! | sums of integers and DECIMALs | `sum` may have any scale; `wide` is missing |
//! | variances of integers and DECIMALs | `count` and the sums of [`ExactSpread::of_halves`] |
//! | variances of DOUBLEs | [`Deviations`], all NULL without values |
//! | COUNT(DISTINCT) | `exact`; `few`, all different values where `hll` is missing or there are at most [`SMALL_MAX`]; `hll` |
//! | TOP_K | `top`, a list of (value, count), all of them or [`SKETCH_ITEMS_MAX`] and one more; `total`, how many values there are |
//!
//! [`SMALL_MAX`]: crate::partial::sketch::distinct::SMALL_MAX
//! [`SKETCH_ITEMS_MAX`]: crate::partial::sketch::top_k::SKETCH_ITEMS_MAX

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, Int64Array, ListArray, RecordBatch, RecordBatchOptions,
    new_null_array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Decimal128Type, Field, Float64Type, Int64Type, Schema};

use super::state_columns::{WIDE, fields_of, images, ordered_values, state_columns};
use super::{CodecError, WINDOW_END, WINDOW_START};
use crate::double::canonical_column;
use crate::partial::sketch::distinct::{Distinct, SMALL_MAX};
use crate::partial::sketch::listing::{Listing, counted_double};
use crate::partial::sketch::top_k::{Item, TopK};
use crate::partial::states::exact_variance::{Deviations, ExactSpread};
use crate::partial::states::sketches::{Groups, Sketches};
use crate::partial::states::variance::Spreads;
use crate::partial::states::{EventPositions, Offsets, Selection, States};
use crate::types::{DataType, timestamp_type};
use crate::view::{Aggregate, Precision, View};
use crate::window::Window;

/// Returns the windows, the dimensions and the states of computed rows with the names and types of the view's table. The
/// measures are missing: they follow from the states.
pub fn gathered(view: &View, computed: &RecordBatch) -> Result<RecordBatch, CodecError> {
    let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    let mut add = |field: Field, column: ArrayRef| {
        columns.push(column);
        fields.push(field);
    };
    if view.window != Window::All {
        for (name, of) in [(WINDOW_START, "__s"), (WINDOW_END, "__e")] {
            let times = cast(&column(computed, of)?, &ArrowType::Int64)?;
            add(Field::new(name, timestamp_type(), false), cast(&times, &timestamp_type())?);
        }
    }
    for (index, dimension) in view.dimensions.iter().enumerate() {
        let data_type = dimension.expression.data_type.arrow();
        let values = canonical_column(cast(&column(computed, &format!("__d{index}"))?, &data_type)?);
        add(Field::new(&dimension.name, data_type, true), values);
    }
    for (index, aggregate) in view.aggregates.iter().enumerate() {
        let part = |name: &str| column(computed, &format!("_state_{index}_{name}"));
        let computed = Gathered { aggregate, part: &part, rows: computed.num_rows() };
        for (field, column) in fields_of(index, aggregate).into_iter().zip(computed.states(index)?) {
            add(field, column);
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(computed.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn column(computed: &RecordBatch, name: &str) -> Result<ArrayRef, CodecError> {
    computed.column_by_name(name).cloned().ok_or_else(|| CodecError::MissingColumn(name.to_owned()))
}

/// The computed parts of one aggregate.
struct Gathered<'a> {
    aggregate: &'a Aggregate,
    part: &'a dyn Fn(&str) -> Result<ArrayRef, CodecError>,
    rows: usize,
}

impl Gathered<'_> {
    /// Returns the columns of the states.
    fn states(&self, index: usize) -> Result<Vec<ArrayRef>, CodecError> {
        let argument = self.aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
        match States::new(self.aggregate, Precision::Sketch) {
            States::Integers { .. } => {
                let fields = fields_of(index, self.aggregate);
                let mut columns = vec![self.unscaled("sum")?, self.cast("count", &ArrowType::Int64)?];
                let wide = fields.last().filter(|field| field.name().ends_with(WIDE));
                columns.extend(wide.map(|field| new_null_array(field.data_type(), self.rows)));
                Ok(columns)
            }
            States::Spread(_) => {
                let mut spreads = Spreads::default();
                match argument {
                    DataType::Double => self.deviations()?.for_each(|group| spreads.push_stored(group.stored())),
                    _ => self.halves()?.for_each(|group| spreads.push_stored(group.stored())),
                }
                state_columns(self.aggregate, &States::Spread(spreads))
            }
            States::FirstLast(_) => {
                let times = cast(&self.cast("time", &ArrowType::Int64)?, &timestamp_type())?;
                let (offsets, partitions) = ("offset", "partition");
                let places = [self.cast(offsets, &ArrowType::Int64)?, self.cast(partitions, &ArrowType::Int64)?];
                let value = self.cast("value", &argument.arrow())?;
                Ok([times].into_iter().chain(places).chain([value]).collect())
            }
            States::Sketches(Sketches { groups, .. }) => match groups {
                Groups::Distinct(_) => self.distinct(argument),
                Groups::LongItems(listing, _) => {
                    let list = move |counts: &TopK<i64>| listing.of_longs(counts).map(|listed| listed.text);
                    self.top(argument, listing, longs, list)
                }
                Groups::TextItems(listing, _) => {
                    let list = move |counts: &TopK<String>| listing.of_texts(counts).map(|listed| listed.text);
                    self.top(argument, listing, texts, list)
                }
                Groups::Longs(..) | Groups::Doubles(..) => self.as_stored(index),
            },
            _ => self.as_stored(index),
        }
    }

    fn as_stored(&self, index: usize) -> Result<Vec<ArrayRef>, CodecError> {
        let prefix = format!("_state_{index}_");
        let stored = |field: &Field| {
            let part = field.name().strip_prefix(&prefix).unwrap_or_default();
            self.cast(part, field.data_type()).map(canonical_column)
        };
        fields_of(index, self.aggregate).iter().map(stored).collect()
    }

    fn cast(&self, part: &str, to: &ArrowType) -> Result<ArrayRef, CodecError> {
        Ok(cast(&(self.part)(part)?, to)?)
    }

    /// The digits of DECIMALs, without their scale.
    fn unscaled(&self, part: &str) -> Result<ArrayRef, CodecError> {
        let values = (self.part)(part)?;
        let digits = match values.as_primitive_opt::<Decimal128Type>() {
            Some(digits) => digits.clone().with_precision_and_scale(38, 0)?,
            None if !values.data_type().is_integer() => return Err(CodecError::WrongType(part.to_owned())),
            None => {
                let longs = cast(&values, &ArrowType::Int64)?;
                let longs = longs.as_primitive::<Int64Type>().iter();
                longs.map(|long| long.map(i128::from)).collect::<Decimal128Array>().with_precision_and_scale(38, 0)?
            }
        };
        Ok(Arc::new(digits))
    }

    fn halves(&self) -> Result<impl Iterator<Item = ExactSpread>, CodecError> {
        let counts = self.cast("count", &ArrowType::Int64)?;
        let parts = ["high", "low", "high_high", "high_low", "low_low"].map(|part| self.unscaled(part));
        let [high, low, high_high, high_low, low_low] = parts;
        let sums = [high?, low?, high_high?, high_low?, low_low?];
        let group = move |row: usize| {
            let sums = sums.each_ref().map(|part| part.as_primitive::<Decimal128Type>().value(row));
            ExactSpread::of_halves(counts.as_primitive::<Int64Type>().value(row), sums)
        };
        Ok((0..self.rows).map(group))
    }

    fn deviations(&self) -> Result<impl Iterator<Item = Deviations>, CodecError> {
        let [counts, powers] = ["count", "power"].map(|part| self.cast(part, &ArrowType::Int64));
        let [centers, sums, squares] = ["center", "sum", "squares"].map(|part| self.cast(part, &ArrowType::Float64));
        let (counts, powers, centers, sums, squares) = (counts?, powers?, centers?, sums?, squares?);
        let long = |column: &ArrayRef, row: usize| {
            let column = column.as_primitive::<Int64Type>();
            if column.is_valid(row) { column.value(row) } else { 0 }
        };
        let double = |column: &ArrayRef, row: usize| column.as_primitive::<Float64Type>().value(row);
        let group = move |row: usize| Deviations {
            count: long(&counts, row),
            center: double(&centers, row),
            sum: double(&sums, row),
            squares: double(&squares, row),
            power: i32::try_from(long(&powers, row)).unwrap_or(0),
        };
        Ok((0..self.rows).map(group))
    }

    /// Hashes the values of small groups, and takes the sketches of others as they are.
    fn distinct(&self, argument: DataType) -> Result<Vec<ArrayRef>, CodecError> {
        let few = self.list("few")?;
        let exact = self.cast("exact", &ArrowType::Int64)?;
        let sketches = self.cast("hll", &ArrowType::Binary)?;
        let (exact, sketches) = (exact.as_primitive::<Int64Type>(), sketches.as_binary::<i32>());
        let values = cast(few.values(), &argument.arrow())?;
        // The lists of others are not complete.
        let is_listed = |row: &usize| sketches.is_null(*row) || exact.value(*row) <= SMALL_MAX as i64;
        let (mut rows, mut groups) = (Vec::new(), Vec::new());
        for row in (0..self.rows).filter(|row| few.is_valid(*row)).filter(is_listed) {
            let places = few.value_offsets()[row] as u32..few.value_offsets()[row + 1] as u32;
            groups.extend(places.clone().map(|_| row as u32));
            rows.extend(places);
        }
        let mut states = States::new(self.aggregate, Precision::Exact);
        states.grow(self.rows);
        let nowhere = EventPositions { times: &[], offsets: Offsets::Run { partition: 0, first: 0 } };
        states.observe(Selection { groups: &groups, rows: &rows, mask: None }, Some(&values), &nowhere);
        let States::Sketches(Sketches { groups: Groups::Distinct(hashed), .. }) = &states else {
            unreachable!("a count of different values")
        };
        let image =
            |row: usize| hashed[row].image().or_else(|| sketches.is_valid(row).then(|| sketches.value(row).to_vec()));
        let images_of_all: BinaryArray = (0..self.rows).map(image).collect();
        let exact: Int64Array =
            (0..self.rows).map(|row| images_of_all.is_valid(row).then(|| exact.value(row))).collect();
        Ok(vec![Arc::new(images_of_all), images(hashed, Distinct::hashes), Arc::new(exact)])
    }

    fn top<T: Item>(
        &self,
        argument: DataType,
        listing: Listing,
        values_of: impl Fn(&ArrayRef) -> Vec<T>,
        list: impl Fn(&TopK<T>) -> Option<Arc<str>>,
    ) -> Result<Vec<ArrayRef>, CodecError> {
        debug_assert_eq!(listing.data_type, argument);
        let top = self.list("top")?;
        let pairs = top.values().as_struct_opt().filter(|pairs| pairs.num_columns() == 2);
        let pairs = pairs.ok_or_else(|| CodecError::WrongType("top".to_owned()))?;
        let values = values_of(&cast(pairs.column(0), &argument.arrow())?);
        let counts = cast(pairs.column(1), &ArrowType::Int64)?;
        let counts = counts.as_primitive::<Int64Type>();
        let totals = self.cast("total", &ArrowType::Int64)?;
        let totals = totals.as_primitive::<Int64Type>();
        let group = |row: usize| {
            if top.is_null(row) {
                return TopK::default();
            }
            let places = top.value_offsets()[row] as usize..top.value_offsets()[row + 1] as usize;
            let items = places.map(|at| (values[at].clone(), counts.value(at).cast_unsigned())).collect();
            let exact = |counts: &TopK<T>| list(counts).unwrap_or_else(|| Arc::from("[]"));
            TopK::of_most_frequent(items, totals.value(row).cast_unsigned(), exact)
        };
        let groups: Vec<TopK<T>> = (0..self.rows).map(group).collect();
        let exact: arrow::array::StringArray = groups.iter().map(&list).collect();
        let exact = cast(&exact, &self.aggregate.data_type().arrow())?;
        Ok(vec![images(&groups, TopK::image), exact])
    }

    fn list(&self, part: &str) -> Result<ListArray, CodecError> {
        let lists = (self.part)(part)?;
        lists.as_list_opt::<i32>().cloned().ok_or_else(|| CodecError::WrongType(part.to_owned()))
    }
}

/// Other types as the integers that are counted.
fn longs(values: &ArrayRef) -> Vec<i64> {
    match values.as_primitive_opt::<Float64Type>() {
        Some(doubles) => doubles.values().iter().map(|value| counted_double(*value)).collect(),
        None => ordered_values(values),
    }
}

/// STRING and DECIMAL as the texts that are counted.
fn texts(values: &ArrayRef) -> Vec<String> {
    match values.data_type() {
        ArrowType::Decimal128(_, scale) => {
            let written = |value: &i128| {
                let mut text = String::new();
                crate::decimal::write_decimal(*value, *scale, &mut text);
                text
            };
            values.as_primitive::<Decimal128Type>().values().iter().map(written).collect()
        }
        _ => values.as_string_view().iter().map(|text| text.unwrap_or_default().to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringBuilder, StructArray, TimestampMicrosecondArray};
    use arrow::buffer::OffsetBuffer;

    use super::*;
    use crate::partial::sketch::hash::of_text;
    use crate::partial::sketch::hll::{REGISTERS, coupon, enter, image_of_registers};

    fn view() -> View {
        let text = "CREATE STREAM e (id STRING PRIMARY KEY, at TIMESTAMP, s STRING, n BIGINT, c DECIMAL(20,2)) \
                    WITH (event_time = 'at');
                    CREATE VIEW v AS SELECT SUM(c) AS a, AVG(n) AS b, COUNT(DISTINCT s) AS d, TOP_K(s, 2) AS t, \
                    LAST_VALUE(n) AS l FROM e;";
        let parsed = crate::sql::parse_definitions(&[("t.sql".to_owned(), text.to_owned())]).expect("right");
        parsed.views.into_iter().next().expect("a view")
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .expect("columns of one length")
    }

    fn lists(groups: &[&[&str]]) -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for group in groups {
            group.iter().for_each(|text| lists.values().append_value(text));
            lists.append(true);
        }
        Arc::new(lists.finish())
    }

    /// Lists of (value, count).
    fn pairs(groups: &[&[(&str, i64)]]) -> ArrayRef {
        let all: Vec<(&str, i64)> = groups.iter().flat_map(|group| group.iter().copied()).collect();
        let values: arrow::array::StringArray = all.iter().map(|(value, _)| Some(*value)).collect();
        let counts: Int64Array = all.iter().map(|(_, count)| Some(*count)).collect();
        let fields = vec![Field::new("value", ArrowType::Utf8, true), Field::new("count", ArrowType::Int64, false)];
        let pairs = StructArray::new(fields.clone().into(), vec![Arc::new(values), Arc::new(counts)], None);
        let lengths = OffsetBuffer::from_lengths(groups.iter().map(|group| group.len()));
        let item = Arc::new(Field::new("element", ArrowType::Struct(fields.into()), true));
        Arc::new(ListArray::new(item, lengths, Arc::new(pairs), None))
    }

    /// What an engine computes of a group with the values `("a", 10, 1.00), ("", 20, 2.50), ("a", 30, NULL)` and one without any.
    fn computed() -> RecordBatch {
        let longs = |values: [Option<i64>; 2]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
        let decimals = |values: [i128; 2], scale: i8| -> ArrayRef {
            let values = Decimal128Array::from(values.to_vec()).with_precision_and_scale(38, scale);
            Arc::new(values.expect("they fit"))
        };
        batch(vec![
            ("_state_0_sum", decimals([350, 0], 2)),
            ("_state_0_count", longs([Some(2), Some(0)])),
            ("_state_1_sum", decimals([60, 0], 0)),
            ("_state_1_count", longs([Some(3), Some(0)])),
            ("_state_2_hll", Arc::new(BinaryArray::from(vec![Some(&b"not read"[..]), None]))),
            ("_state_2_few", lists(&[&["", "a"], &[]])),
            ("_state_2_exact", longs([Some(2), None])),
            ("_state_3_top", pairs(&[&[("a", 2), ("", 1)], &[]])),
            ("_state_3_total", longs([Some(3), None])),
            ("_state_4_time", Arc::new(TimestampMicrosecondArray::from(vec![Some(9), None]).with_timezone("UTC"))),
            ("_state_4_offset", longs([Some(7), None])),
            ("_state_4_partition", Arc::new(arrow::array::Int32Array::from(vec![Some(1), None]))),
            ("_state_4_value", longs([Some(30), None])),
        ])
    }

    #[test]
    fn gathered_parts_are_the_states_of_the_same_events() {
        let view = view();
        let found = gathered(&view, &computed()).expect("readable");
        let texts: ArrayRef =
            cast(&arrow::array::StringArray::from(vec!["a", "", "a"]), &ArrowType::Utf8View).expect("texts");
        let longs: ArrayRef = Arc::new(Int64Array::from(vec![10, 20, 30]));
        let costs = Decimal128Array::from(vec![Some(100), Some(250), None]).with_precision_and_scale(20, 2);
        let costs: ArrayRef = Arc::new(costs.expect("they fit"));
        let places = EventPositions {
            times: &[3, 5, 9],
            offsets: Offsets::Listed { partitions: &[1, 1, 1], offsets: &[5, 6, 7] },
        };
        for (index, argument) in [costs, Arc::clone(&longs), Arc::clone(&texts), texts, longs].iter().enumerate() {
            let aggregate = &view.aggregates[index];
            let mut states = States::new(aggregate, Precision::Exact);
            states.grow(2);
            let selection = Selection { groups: &[0, 0, 0], rows: &[0, 1, 2], mask: None };
            states.observe(selection, Some(argument), &places);
            let expected = state_columns(aggregate, &states).expect("columns");
            for (field, expected) in fields_of(index, aggregate).iter().zip(expected) {
                let column = found.column_by_name(field.name()).expect("every part");
                assert_eq!(column.data_type(), field.data_type(), "{}", field.name());
                assert_eq!(column, &expected, "{}", field.name());
            }
        }
    }

    #[test]
    fn sketches_of_large_groups_are_taken_as_they_are() {
        let view = view();
        let mut registers = [0; REGISTERS];
        (0..100).for_each(|i| _ = enter(&mut registers, coupon(of_text(&format!("v{i}")))));
        let image = image_of_registers(&registers);
        let few: Vec<String> = (0..SMALL_MAX).map(|i| format!("v{i}")).collect();
        let few: Vec<&str> = few.iter().map(String::as_str).collect();
        let frequent: Vec<(String, i64)> = (0..385).map(|i| (format!("t{i:03}"), 1000 - i)).collect();
        let frequent: Vec<(&str, i64)> = frequent.iter().map(|(text, count)| (text.as_str(), *count)).collect();
        let known: i64 = frequent.iter().map(|(_, count)| count).sum();
        let base = computed().slice(0, 1);
        let schema = base.schema();
        let replaced = schema.fields().iter().map(|field| {
            let column: ArrayRef = match field.name().as_str() {
                "_state_2_hll" => Arc::new(BinaryArray::from(vec![image.as_slice()])),
                "_state_2_few" => lists(&[&few]),
                "_state_2_exact" => Arc::new(Int64Array::from(vec![100])),
                "_state_3_top" => pairs(&[&frequent]),
                "_state_3_total" => Arc::new(Int64Array::from(vec![known + 5])),
                name => Arc::clone(base.column_by_name(name).expect("it is there")),
            };
            (field.name().clone(), column)
        });
        let replaced: Vec<(String, ArrayRef)> = replaced.collect();
        let computed = batch(replaced.iter().map(|(name, column)| (name.as_str(), Arc::clone(column))).collect());
        let found = gathered(&view, &computed).expect("readable");
        let column = |name: &str| found.column_by_name(name).expect("every part");
        assert_eq!(column("_state_2_hll").as_binary::<i32>().value(0), image.as_slice());
        assert!(column("_state_2_small").is_null(0), "the list is not complete");
        assert_eq!(column("_state_2_exact").as_primitive::<Int64Type>().value(0), 100);
        let listed = cast(column("_state_3_exact"), &ArrowType::Utf8).expect("a text");
        let expected = r#"[{"value":"t000","count":1000},{"value":"t001","count":999}]"#;
        assert_eq!(listed.as_string::<i32>().value(0), expected);
        let items = TopK::<String>::from_stored(Some(column("_state_3_items").as_binary::<i32>().value(0)), None);
        let items = items.expect("an image");
        assert!(matches!(items, TopK::Large(_)), "there are more values than the sketch holds: {items:?}");
    }

    #[test]
    fn a_missing_part_is_named() {
        let computed = computed().project(&[0]).expect("one column");
        let error = gathered(&view(), &computed).expect_err("incomplete").to_string();
        assert!(error.contains("_state_0_count"), "{error}");
    }
}
