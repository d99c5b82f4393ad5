//! Does every line of a file arrive once, whole, in order and with its number, whatever the format and batch size?

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray};
use proptest::prelude::*;

use super::*;

fn batches(path: &Path, batch_bytes: usize) -> anyhow::Result<Vec<LineBatch>> {
    let mut batches = Vec::new();
    EventsFile::open(path)?.read(batch_bytes, &ProgressBar::hidden(), &mut |batch| {
        batches.push(batch);
        true
    })?;
    Ok(batches)
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(content).expect("written");
    file
}

proptest! {
    #[test]
    fn lines_are_complete_and_numbered(lines in prop::collection::vec("[a-z]{0,12}", 0..60), batch in 1usize..40, last in any::<bool>()) {
        let mut text = lines.join("\n");
        if last {
            text.push('\n');
        }
        let mut batches = Vec::new();
        cut(text.as_bytes(), batch, &mut |b| { batches.push(b); true }).expect("cut");
        let together: Vec<u8> = batches.iter().flat_map(|b| b.body.to_vec()).collect();
        prop_assert_eq!(together, text.as_bytes());
        let mut next_line = 1;
        for (index, b) in batches.iter().enumerate() {
            prop_assert_eq!(b.number, index as u64);
            prop_assert_eq!(b.first_line, next_line);
            prop_assert_eq!(b.lines, std::str::from_utf8(&b.body).expect("text").lines().count() as u64);
            prop_assert!(index + 1 == batches.len() || b.body.ends_with(b"\n"));
            next_line += b.lines;
        }
    }
}

#[test]
fn compressed_files_are_recognized_by_their_first_bytes() {
    let text = "{\"a\":1}\n{\"a\":2}\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).expect("packed");
    let gzip = gzip.finish().expect("packed");
    let zstd = zstd::stream::encode_all(text.as_bytes(), 1).expect("packed");
    for content in [text.as_bytes(), &gzip, &zstd] {
        let batches = batches(file(content).path(), 1 << 20).expect("read");
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].body, text);
        assert_eq!(batches[0].lines, 2);
    }
    // Cut off in the middle: an error, not a short file.
    assert!(batches(file(&gzip[..gzip.len() - 5]).path(), 1 << 20).is_err());
    assert!(batches(file(b"").path(), 1 << 20).expect("read").is_empty());
}

fn parquet(rows: &RecordBatch) -> tempfile::NamedTempFile {
    let mut content = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut content, rows.schema(), None).expect("a writer");
    writer.write(rows).expect("written");
    writer.close().expect("written");
    file(&content)
}

fn flat_columns() -> Vec<(&'static str, ArrayRef, bool)> {
    vec![
        ("id", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")])), true),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000, 978_307_200_000_000])), true),
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3])), true),
    ]
}

#[test]
fn parquet_rows_become_arrow_streams() {
    let rows = RecordBatch::try_from_iter_with_nullable(flat_columns()).expect("rows");
    for batch_bytes in [1, 1 << 20] {
        let batches = batches(parquet(&rows).path(), batch_bytes).expect("read");
        assert_eq!(batches.len(), 1);
        assert_eq!((batches[0].first_line, batches[0].lines, batches[0].format), (1, 3, BatchFormat::Arrow));
        let reader = arrow::ipc::reader::StreamReader::try_new(&*batches[0].body, None).expect("a stream");
        let read: Vec<RecordBatch> = reader.collect::<Result<_, _>>().expect("read");
        assert_eq!(read, std::slice::from_ref(&rows));
    }
}

#[test]
fn nested_parquet_rows_become_lines_with_rfc_3339_times_and_without_nulls() {
    let mut columns = flat_columns();
    let origins: ArrayRef = Arc::new(StringArray::from(vec!["ATL", "ORD", "LAX"]));
    let field = Arc::new(arrow::datatypes::Field::new("origin", origins.data_type().clone(), true));
    columns.push(("leg", Arc::new(StructArray::from(vec![(field, origins)])), true));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).expect("rows");
    let batches = batches(parquet(&rows).path(), 1 << 20).expect("read");
    assert_eq!((batches.len(), batches[0].lines, batches[0].format), (1, 3, BatchFormat::Lines));
    let expected = "{\"id\":\"a\",\"at\":\"1970-01-01T00:00:00Z\",\"n\":1,\"leg\":{\"origin\":\"ATL\"}}\n\
                    {\"at\":\"1970-01-01T00:00:01.500Z\",\"n\":2,\"leg\":{\"origin\":\"ORD\"}}\n\
                    {\"id\":\"c\",\"at\":\"2001-01-01T00:00:00Z\",\"n\":3,\"leg\":{\"origin\":\"LAX\"}}\n";
    assert_eq!(std::str::from_utf8(&batches[0].body), Ok(expected));
}

#[test]
fn dropping_the_receiver_stops_the_reader() {
    let mut seen = 0;
    cut("a\nb\nc\n".as_bytes(), 2, &mut |_| {
        seen += 1;
        false
    })
    .expect("cut");
    assert_eq!(seen, 1);
}
