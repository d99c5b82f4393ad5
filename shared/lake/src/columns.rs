//! Names columns of Parquet files that are read. Names may have points, which `ProjectionMask::columns` takes for paths: it would read
//! nothing of such a column.

use parquet::arrow::ProjectionMask;
use parquet::schema::types::SchemaDescriptor;

/// Returns the columns of a file that are called one of `names`, whatever characters these have.
pub fn columns_named(file: &SchemaDescriptor, names: &[&str]) -> ProjectionMask {
    let fields = file.root_schema().get_fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| names.contains(&field.name())).map(|(root, _)| root);
    ProjectionMask::roots(file, roots)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use bytes::Bytes;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn a_name_with_a_point_is_a_column() {
        let column = |value: i64| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) };
        let rows = RecordBatch::try_from_iter([("order.id", column(1)), ("order", column(2)), ("id", column(3))]);
        let rows = rows.expect("a batch");
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).expect("a writer");
        writer.write(&rows).expect("written");
        writer.close().expect("closed");
        let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file)).expect("a file");
        let mask = columns_named(builder.parquet_schema(), &["order.id", "id", "none"]);
        let read = builder.with_projection(mask).build().expect("a reader").next().expect("rows").expect("rows");
        assert_eq!(read, rows.project(&[0, 2]).expect("columns"));
    }
}
