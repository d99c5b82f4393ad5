//! Takes the values of erased events out of rows. Offsets are dense, so the rows stay: with sequence 0, which no event has, and
//! without a value of their own.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, RecordBatch, Scalar, StringArray, StringViewArray,
    TimestampMicrosecondArray, make_array,
};
use arrow::buffer::Buffer;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use shared::stream::{Stream, system_columns};
use shared::time::Micros;

/// Bytes of the widest plain value.
const VALUE_BYTES: usize = 16;

/// Returns the rows that are blank, by their sequences; `None`: none is.
pub(crate) fn blank_rows(sequences: &ArrayRef) -> Option<BooleanArray> {
    let sequences = sequences.as_primitive_opt::<Int64Type>()?;
    let is_blank = |row: usize| sequences.is_null(row) || sequences.value(row) <= 0;
    let blank: BooleanArray = (0..sequences.len()).map(|row| Some(is_blank(row))).collect();
    (blank.true_count() > 0).then_some(blank)
}

/// Returns `rows` of `stream` with the `erased` ones blank. Their event time becomes that of their acceptance.
pub(crate) fn blank(
    rows: &RecordBatch,
    stream: &Stream,
    erased: &BooleanArray,
    accepted_at: Micros,
) -> Result<RecordBatch, ArrowError> {
    let event_time = &stream.columns[stream.event_time].name;
    let schema = rows.schema();
    let column = |(field, column): (&Arc<arrow::datatypes::Field>, &ArrayRef)| -> Result<ArrayRef, ArrowError> {
        let value: ArrayRef = match field.name() {
            name if name == system_columns::WATERMARK => return Ok(Arc::clone(column)),
            name if name == event_time => {
                Arc::new(TimestampMicrosecondArray::from(vec![accepted_at.0]).with_timezone("UTC"))
            }
            _ => no_value(column.data_type())?,
        };
        zip(erased, &Scalar::new(value), column)
    };
    let columns = schema.fields().iter().zip(rows.columns()).map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema, columns)
}

/// Returns one value that says nothing: zero, an empty text. Not null: a blank frame has exactly the length of the whole one.
fn no_value(data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    Ok(match data_type {
        DataType::Utf8 => Arc::new(StringArray::from(vec![""])),
        DataType::Utf8View => Arc::new(StringViewArray::from(vec![""])),
        plain => {
            let zeros = Buffer::from(vec![0u8; VALUE_BYTES]);
            make_array(ArrayData::builder(plain.clone()).len(1).add_buffer(zeros).build()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, new_null_array,
    };
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn every_type_is_blank_and_other_rows_are_as_they_were() {
        let sql =
            "CREATE STREAM s (t STRING, i INT, d DOUBLE, b BOOLEAN, y DATE, m DECIMAL(12,2), at TIMESTAMP, note STRING)
            WITH (event_time = 'at', entity = 't');";
        let stream = crate::testing::stream(sql);
        let schema = Arc::new(Schema::new(
            stream.log_schema().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        ));
        let of = |name: &str| -> ArrayRef {
            match name {
                "t" => {
                    Arc::new(StringViewArray::from(vec!["a long text of one entity", "b", "a long text of one entity"]))
                }
                "i" => Arc::new(Int32Array::from(vec![Some(1), Some(2), None])),
                "d" => Arc::new(Float64Array::from(vec![1.5, 2.5, 3.5])),
                "b" => Arc::new(BooleanArray::from(vec![true; 3])),
                "y" => Arc::new(Date32Array::from(vec![9; 3])),
                "m" => Arc::new(Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(12, 2).expect("a scale")),
                system_columns::SEQUENCE => Arc::new(Int64Array::from(vec![1, 1, 2])),
                "at" | system_columns::WATERMARK => {
                    Arc::new(TimestampMicrosecondArray::from(vec![10, 20, 30]).with_timezone("UTC"))
                }
                _ => new_null_array(&DataType::Utf8View, 3),
            }
        };
        let columns = schema.fields().iter().map(|field| of(field.name())).collect();
        let rows = RecordBatch::try_new(schema, columns).expect("columns");
        let erased = BooleanArray::from(vec![true, false, true]);
        let blanked = blank(&rows, &stream, &erased, Micros(99)).expect("blanks");
        let sequence = stream.sequence().expect("a sequence");
        assert_eq!(blank_rows(blanked.column(sequence)), Some(erased));
        assert_eq!(blank_rows(rows.column(sequence)), None);
        assert_eq!(blanked.slice(1, 1), rows.slice(1, 1));
        let text = format!("{:?}", blanked.slice(0, 1));
        assert!(!text.contains("long text") && !text.contains("1.5"), "{text}");
        assert_eq!(blanked.column_by_name("_watermark"), rows.column_by_name("_watermark"));
        let times = blanked
            .column_by_name("at")
            .expect("the time")
            .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!(times.values()[..], [99, 20, 99]);
    }
}
