//! Merges several files of a table into one, in their order, decoded and encoded batch by batch. Memory holds the bytes
//! of one source file and of the new file, and some rows. A file can also be written again without some of its rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch, not};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::columns::columns_named;
use super::encode::Encoder;
use super::footer::{check_footer, check_footer_lists};
use super::{DataFile, LakeError, PageBounds, Table, check_pages};

/// Rows decoded at once; as many as are sampled for repeated values.
const READ_ROWS: usize = 32 * 1024;

/// Says of each value of a column whether its row is omitted.
pub type IsLeftOut = Arc<dyn Fn(&ArrayRef) -> BooleanArray + Send + Sync>;

/// The rows that a rewrite leaves out, by their values in one column.
#[derive(Clone)]
pub struct LeftOut {
    pub column: String,
    pub is_left_out: IsLeftOut,
}

impl Table {
    /// Writes the rows of `files`, all of one date, as one file; see [`Table::write_parquet`] for its status. Its
    /// columns are those of `schema`, followed by any further columns of the files: nothing is lost. A column that a
    /// file does not have is null. Tags are left to the caller.
    pub async fn rewrite(&self, files: &[DataFile], schema: &SchemaRef) -> Result<DataFile, LakeError> {
        self.rewrite_all(files, schema, None).await
    }

    /// Writes the rows of `file` but for the omitted ones as another file, as [`Table::rewrite`] does; `None`: it has none of
    /// those.
    pub async fn rewrite_without(
        &self,
        file: &DataFile,
        schema: &SchemaRef,
        left_out: &LeftOut,
    ) -> Result<Option<DataFile>, LakeError> {
        let bytes = self.store().get(&Path::from(file.path.as_str())).await?.bytes().await?;
        let of_file = left_out.clone();
        let found = tokio::task::spawn_blocking(move || has_omitted(bytes, &of_file)).await?;
        let found = found.map_err(|error| match error {
            LakeError::Parquet(error) => self.file_error(&file.path, error),
            other => other,
        });
        match found? {
            false => Ok(None),
            true => self.rewrite_all(std::slice::from_ref(file), schema, Some(left_out)).await.map(Some),
        }
    }

    async fn rewrite_all(
        &self,
        files: &[DataFile],
        schema: &SchemaRef,
        left_out: Option<&LeftOut>,
    ) -> Result<DataFile, LakeError> {
        let wrong = |reason: String| LakeError::Schema { table: self.name(), reason };
        let date = files.first().ok_or_else(|| wrong("a file made of no files".to_owned()))?.partition;
        if let Some(other) = files.iter().find(|file| file.partition != date) {
            return Err(wrong(format!("{} is of another date than {}", other.path, files[0].path)));
        }
        let path = self.new_path(date)?;
        let kept = schema.fields().iter().filter(|field| field.name() != self.partition_column());
        let mut schema: SchemaRef = Arc::new(Schema::new(kept.cloned().collect::<Vec<_>>()));
        let encoded = 'again: loop {
            let mut encoder = None;
            for file in files {
                let bytes = self.store().get(&Path::from(file.path.as_str())).await?.bytes().await?;
                let (columns, left_out) = (Arc::clone(&schema), left_out.cloned());
                let append = move || append(bytes, columns, encoder, left_out.as_ref());
                let appended = tokio::task::spawn_blocking(append).await?;
                let appended = appended.map_err(|error| match error {
                    LakeError::Parquet(error) => self.file_error(&file.path, error),
                    other => other,
                });
                match appended? {
                    AppendOutcome::Rows(more) => encoder = Some(more),
                    // Columns that the stream no longer declares are rare, so they are handled when they occur.
                    AppendOutcome::OtherColumns(all) => {
                        schema = all;
                        continue 'again;
                    }
                }
            }
            let Some(encoder) = encoder else { return Err(wrong("a file made of no files".to_owned())) };
            break tokio::task::spawn_blocking(move || encoder.finish()).await??;
        };
        self.store_encoded(date, path, encoded).await
    }
}

enum AppendOutcome {
    Rows(Box<Encoder>),
    /// The file has columns that the others do not have; these are all columns.
    OtherColumns(SchemaRef),
}

/// Returns whether a file has rows that are omitted. Blocking.
fn has_omitted(bytes: Bytes, left_out: &LeftOut) -> Result<bool, LakeError> {
    let size = bytes.len() as u64;
    check_footer_lists(&bytes)?;
    let file = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
    check_footer(file.metadata(), size)?;
    check_pages(&bytes, file.metadata(), PageBounds::TABLE, |_| true).map_err(ParquetError::from)?;
    let mask = columns_named(file.parquet_schema(), &[left_out.column.as_str()]);
    for batch in file.with_projection(mask).with_batch_size(READ_ROWS).build()? {
        let batch = batch?;
        let column = batch.column_by_name(&left_out.column);
        if column.is_some_and(|column| (left_out.is_left_out)(column).true_count() > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Appends the rows of a file. Blocking.
fn append(
    bytes: Bytes,
    schema: SchemaRef,
    mut encoder: Option<Box<Encoder>>,
    left_out: Option<&LeftOut>,
) -> Result<AppendOutcome, LakeError> {
    let size = bytes.len() as u64;
    check_footer_lists(&bytes)?;
    let file = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
    check_footer(file.metadata(), size)?;
    check_pages(&bytes, file.metadata(), PageBounds::TABLE, |_| true).map_err(ParquetError::from)?;
    let others: Vec<Field> = file
        .schema()
        .fields()
        .iter()
        .filter(|f| schema.index_of(f.name()).is_err())
        .map(|f| f.as_ref().clone())
        .collect();
    if !others.is_empty() {
        let all = schema.fields().iter().map(|field| field.as_ref().clone());
        let all: Vec<Field> = all.chain(others.into_iter().map(|field| field.with_nullable(true))).collect();
        return Ok(AppendOutcome::OtherColumns(Arc::new(Schema::new(all))));
    }
    for batch in file.with_batch_size(READ_ROWS).build()? {
        let mut rows = fitted(&batch?, &schema)?;
        if let Some(LeftOut { column, is_left_out }) = left_out
            && let Some(column) = rows.column_by_name(column)
        {
            rows = filter_record_batch(&rows, &not(&is_left_out(column))?)?;
        }
        let mut open = match encoder.take() {
            Some(open) => open,
            None => Box::new(Encoder::new(Arc::clone(&schema), Some(&rows))?),
        };
        open.write(&rows)?;
        encoder = Some(open);
    }
    match encoder {
        Some(encoder) => Ok(AppendOutcome::Rows(encoder)),
        None => Ok(AppendOutcome::Rows(Box::new(Encoder::new(schema, None)?))),
    }
}

/// Returns the rows with the columns of `schema`. A value that does not fit its column is an error, never a null.
fn fitted(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, LakeError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<Field>| -> Result<ArrayRef, LakeError> {
        match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => Ok(cast_with_options(column, field.data_type(), &strict)?),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
