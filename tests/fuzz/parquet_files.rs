//! Reads mutated Parquet files as runs, compaction, queries and imports do: every reader returns the rows that the `parquet`
//! crate alone returns, or an error.
//!
//! The seeds are files that a server wrote, and files of another writer with every encoding, compression and type
//! (`tests/python/foreign_parquet.py`). Mutations prefer the footer and the headers of pages.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int64Type};
use batch::VersionReader;
use batch::blocking::blocking;
use batch::plan::ArchiveFile;
use batch::recompute::scan::{ArchiveSource, collect};
use batch::watch::Watch;
use bytes::Bytes;
use intake::decode::column_cast::ColumnCast;
use lake::{ArchiveTags, DataFile, Lake, Spool, Table, TablePath};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Encoding;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, SerializedFileReader};
use polars::prelude::DataFrame;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IndexedRandom};
use serde_json::json;
use shared::date_partition::DatePartition;
use shared::ids::{Offset, Partition};
use shared::ledger::Ledger;
use shared::stream::{Stream, system_columns};
use shared::time::{Day, Micros};
use shared::view::View;
use tokio::runtime::Runtime;
use world::World;

use crate::fuzzer::{Target, fuzz, kind_of};

const DEFINITIONS: &str = "
    CREATE STREAM s (id STRING PRIMARY KEY, at TIMESTAMP, n BIGINT, x DOUBLE) WITH (event_time = 'at');
    CREATE VIEW v AS SELECT window_start, id, COUNT(*) AS c, SUM(n) AS total, AVG(x) AS mean, MIN(n) AS low, COUNT(DISTINCT n) AS d,
        MEDIAN(x) AS m, TOP_K(id, 2) AS t, FIRST_VALUE(n) AS f FROM s GROUP BY TUMBLE(at, INTERVAL '1' HOUR), id;";
const FILE: &str = "_event_date=2001-01-01/part-0.parquet";
/// Columns that runs read.
const COLUMNS: [&str; 4] = ["id", "at", "n", "_offset"];
/// Files that promise more rows are refused before they are read, because the archive notes fewer.
const ROWS_MAX: i64 = 100_000;
/// Memory for one input, in bytes: the header of a page may claim 2 GiB, which the library allocates before it decompresses.
const MEMORY_MAX: u64 = 5 << 29;

/// The files of a server's archive and view.
fn written() -> Vec<Vec<u8>> {
    let world = World::new(DEFINITIONS);
    let event = |i: u64| {
        let at = 978_307_200_000 + i * 60_000;
        json!({"id": format!("id {}", i % 7), "at": at, "n": i * 1_000, "x": i as f64 / 8.0}).to_string() + "\n"
    };
    let events: String = (0..60).map(event).collect();
    assert_eq!(world.post("/v1/events/s", events).status, 200);
    assert_eq!(world.run("v", false)["state"], json!("published"));
    files_in(&world.store().join("lake"))
}

/// The contents of all Parquet files below `folder`.
fn files_in(folder: &Path) -> Vec<Vec<u8>> {
    let (mut folders, mut paths) = (vec![folder.to_owned()], Vec::<PathBuf>::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "parquet") => paths.push(path),
                false => {}
            }
        }
    }
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

/// Values of one column, in text.
type Values = Vec<Option<String>>;

/// The rows that the `parquet` crate returns, if it returns any, and the number of rows that the footer promises.
struct Reference {
    promised: Option<i64>,
    batches: Option<Vec<RecordBatch>>,
}

impl Reference {
    fn of(bytes: &Bytes, deltas: TextDeltas) -> Reference {
        let read = AssertUnwindSafe(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).ok()?;
            let promised = builder.metadata().file_metadata().num_rows();
            if !(0..=ROWS_MAX).contains(&promised) || deltas != TextDeltas::None {
                return Some((promised, None));
            }
            let batches = AssertUnwindSafe(|| builder.build().ok()?.collect::<Result<Vec<_>, _>>().ok());
            Some((promised, catch_unwind(batches).ok().flatten()))
        });
        // The library may panic; what uses it has to catch that.
        match catch_unwind(read).ok().flatten() {
            Some((promised, batches)) => Reference { promised: Some(promised), batches },
            None => Reference { promised: None, batches: None },
        }
    }
}

/// Whether columns have an encoding for which the `parquet` crate allocates as much memory as a page asks for: then the crate
/// cannot be the reference. The product refuses such pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextDeltas {
    None,
    /// The footer says so.
    Declared,
    /// The pages alone do.
    Hidden,
}

impl TextDeltas {
    fn in_file(bytes: &Bytes) -> TextDeltas {
        let is_one =
            |encoding: Encoding| matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY);
        let walk = AssertUnwindSafe(|| {
            let file = SerializedFileReader::new(bytes.clone()).ok()?;
            let columns = file.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
            if columns.flat_map(ColumnChunkMetaData::encodings).any(is_one) {
                return Some(TextDeltas::Declared);
            }
            for group in 0..file.num_row_groups() {
                let group = file.get_row_group(group).ok()?;
                for column in 0..group.num_columns() {
                    let Ok(mut pages) = group.get_column_page_reader(column) else { continue };
                    while let Ok(Some(page)) = pages.get_next_page() {
                        if is_one(page.encoding()) {
                            return Some(TextDeltas::Hidden);
                        }
                    }
                }
            }
            None
        });
        catch_unwind(walk).ok().flatten().unwrap_or(TextDeltas::None)
    }
}

/// The columns that runs read, in text; `None`: a value does not fit its type.
fn values(batches: &[RecordBatch]) -> Option<Vec<Values>> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let column = |name: &&str| {
        let data_type = match *name {
            "id" => DataType::Utf8,
            "at" => shared::types::timestamp_type(),
            _ => DataType::Int64,
        };
        let mut values = Values::new();
        for batch in batches {
            let found = match batch.column_by_name(name) {
                Some(found) => cast_with_options(found, &data_type, &strict).ok()?,
                None => new_null_array(&data_type, batch.num_rows()),
            };
            let found: ArrayRef =
                if *name == "at" { cast_with_options(&found, &DataType::Int64, &strict).ok()? } else { found };
            values.extend((0..found.len()).map(|row| match found.data_type() {
                _ if found.is_null(row) => None,
                DataType::Utf8 => Some(found.as_string::<i32>().value(row).to_owned()),
                _ => Some(found.as_primitive::<Int64Type>().value(row).to_string()),
            }));
        }
        Some(values)
    };
    COLUMNS.iter().map(column).collect()
}

fn values_of_frame(frame: &DataFrame) -> Vec<Values> {
    let column = |name: &&str| -> Values {
        let found =
            frame.column(name).expect("it was selected").as_materialized_series().to_physical_repr().into_owned();
        match found.str() {
            Ok(texts) => texts.iter().map(|text| text.map(str::to_owned)).collect(),
            Err(_) => found.i64().expect("a number").iter().map(|number| number.map(|n| n.to_string())).collect(),
        }
    };
    COLUMNS.iter().map(column).collect()
}

/// Everything in the product that reads Parquet files.
struct Readers {
    runtime: Runtime,
    folder: tempfile::TempDir,
    stream: Arc<Stream>,
    view: Arc<View>,
    /// The archive on this machine, and one in an object store.
    local: Table,
    remote: Table,
    store: Lake,
}

impl Readers {
    fn new() -> Readers {
        let files = [("s.sql".to_owned(), DEFINITIONS.to_owned())];
        let mut parsed = shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0]));
        let (stream, view) = (Arc::new(parsed.streams.remove(0)), Arc::new(parsed.views.remove(0)));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(&folder.path().join("spool"), 1 << 30).expect("a spool");
        let store = Lake::over(Arc::new(InMemory::new())).with_spool(spool);
        let path = TablePath::events(&stream.name);
        let table = |lake: &Lake| {
            runtime.block_on(lake.table(&path, stream.archive_schema(), system_columns::EVENT_DATE)).expect("a table")
        };
        let local = Lake::open(folder.path().join("lake").to_str().expect("UTF-8")).expect("a lake");
        let (local, remote) = (table(&local), table(&store));
        std::fs::create_dir_all(folder.path().join("lake/events/s/_event_date=2001-01-01")).expect("a folder");
        Readers { runtime, folder, stream, view, local, remote, store }
    }

    fn check(&self, input: &[u8]) -> String {
        let bytes = Bytes::copy_from_slice(input);
        let deltas = TextDeltas::in_file(&bytes);
        let reference = Reference::of(&bytes, deltas);
        let expected = reference.batches.as_deref();
        let rows = expected.map(|batches| batches.iter().map(RecordBatch::num_rows).sum::<usize>());
        let values = expected.and_then(values);
        let mut seen = format!("{} {} ", expected.is_some(), rows.unwrap_or(0).min(3));
        seen += &self.scan(input, &reference, values.as_ref());
        seen += &self.runtime.block_on(self.rewrite(&bytes, values.as_ref()));
        seen += &self.runtime.block_on(self.query(&bytes, &reference, rows));
        for batch in expected.unwrap_or_default() {
            seen += &self.cast(batch);
        }
        seen
    }

    fn file(&self, bytes: usize, rows: i64) -> ArchiveFile {
        let tags = ArchiveTags {
            partition: Partition(0),
            from: Offset(0),
            to: Offset(rows as u64),
            erased: 0,
            rows: rows as u64,
            ledger: Ledger::EMPTY,
            latest_watermark: Micros::MIN,
        };
        let file = DataFile {
            path: FILE.to_owned(),
            partition: DatePartition::Day(Day::parse("2001-01-01").expect("a day")),
            size_bytes: bytes as i64,
            rows,
            tags: tags.to_tags(),
            stats_json: None,
        };
        ArchiveFile { file, tags }
    }

    /// Reads the file as a run does.
    fn scan(&self, input: &[u8], reference: &Reference, values: Option<&Vec<Values>>) -> String {
        let path = self.folder.path().join("lake/events/s").join(FILE);
        // A new file each time: Polars maps files into memory, and may still read the last one after an error.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, input).expect("writes");
        let source = ArchiveSource { table: self.local.clone(), stream: Arc::clone(&self.stream) };
        let file = self.file(input.len(), reference.promised.unwrap_or(20).clamp(0, ROWS_MAX));
        let scanned = self.runtime.block_on(blocking(move || {
            let columns = COLUMNS.map(str::to_owned);
            let (frame, held) = source.scan(&[file], columns, &Watch::default())?;
            let frame = collect(frame)?;
            drop(held);
            Ok(frame)
        }));
        match scanned {
            Err(error) => text(&error),
            Ok(frame) => {
                if let Some(values) = values {
                    assert_eq!(values_of_frame(&frame), *values, "a run reads other rows");
                }
                "scanned; ".to_owned()
            }
        }
    }

    /// Reads the file as compaction does, and its footer.
    async fn rewrite(&self, bytes: &Bytes, values: Option<&Vec<Values>>) -> String {
        let store = self.store.store();
        let path = |file: &str| object_store::path::Path::from(format!("events/s/{file}"));
        store.put(&path(FILE), bytes.clone().into()).await.expect("memory");
        let ArchiveFile { file, .. } = self.file(bytes.len(), 20);
        let mut seen = String::new();
        for size_bytes in [file.size_bytes, file.size_bytes + 7, i64::MAX] {
            let file = DataFile { size_bytes, ..file.clone() };
            seen += &self.remote.column_bytes(&file).await.err().map_or_else(String::new, |error| text(&error));
        }
        let held = self.remote.hold(std::slice::from_ref(&file), &COLUMNS.map(str::to_owned), &AtomicU64::new(0)).await;
        seen += &held.err().map_or_else(String::new, |error| text(&error));
        match self.remote.rewrite(std::slice::from_ref(&file), &self.stream.archive_schema()).await {
            Err(error) => seen += &text(&error),
            Ok(copy) => {
                let copied = store.get(&path(&copy.path)).await.expect("it was written").bytes().await.expect("memory");
                let copied = Reference::of(&copied, TextDeltas::None).batches.expect("a whole file");
                if let Some(values) = values {
                    assert_eq!(self::values(&copied).as_ref(), Some(values), "compaction keeps other rows");
                }
                self.remote.delete_files(&[copy]).await.expect("memory");
                seen += "rewritten; ";
            }
        }
        seen
    }

    /// Reads the file as a query reads one of its view.
    async fn query(&self, bytes: &Bytes, reference: &Reference, rows: Option<usize>) -> String {
        if reference.promised.is_some_and(|promised| promised > ROWS_MAX) {
            return String::new();
        }
        let path = object_store::path::Path::from("views/v/file.parquet");
        self.store.store().put(&path, bytes.clone().into()).await.expect("memory");
        // A cache without room: every input is another file of the same name.
        match VersionReader::new(&self.store, 0).file(&self.view, "file.parquet").await {
            Err(error) => text(&error),
            Ok(part) => {
                assert!(rows.is_none_or(|rows| rows == part.rows()), "a query reads other rows");
                "decoded; ".to_owned()
            }
        }
    }

    /// Casts rows as an import does.
    fn cast(&self, batch: &RecordBatch) -> String {
        match ColumnCast::new(&self.stream, &batch.schema()) {
            Err(error) => text(&error),
            Ok(cast) => match cast.apply(batch, usize::MAX) {
                Err(error) => text(&error),
                Ok(cast) => {
                    assert_eq!(cast.rows.num_rows() + cast.rejected.len(), batch.num_rows(), "an import loses rows");
                    format!("{} rejected; ", cast.rejected.len().min(2))
                }
            },
        }
    }
}

fn text(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.trim().is_empty(), "an error without a reason");
    kind_of(&text).chars().take(100).collect::<String>() + "; "
}

/// Changes a few bytes of the footer, whose length is kept right, or of the headers of pages.
pub fn mutate(random: &mut StdRng, input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let length =
        bytes.len().checked_sub(8).and_then(|at| Some(u32::from_le_bytes(bytes[at..at + 4].try_into().ok()?) as usize));
    let Some(footer) = length.and_then(|length| bytes.len().checked_sub(8 + length)) else {
        if let Some(byte) = bytes.choose_mut(random) {
            *byte = random.random();
        }
        return bytes;
    };
    let is_footer = random.random_bool(0.7) || footer < 8;
    for _ in 0..random.random_range(1..4) {
        let end = bytes.len() - 8;
        let at = if is_footer { random.random_range(footer..=end) } else { random.random_range(4..footer.min(80)) };
        match random.random_range(0..6) {
            0 if at < end => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < end => bytes[at] = random.random(),
            2 if is_footer => bytes.insert(at, random.random()),
            3 if is_footer && at < end => _ = bytes.remove(at),
            4 if is_footer => {
                let from = random.random_range(footer..=end);
                let copied = bytes[from..(from + random.random_range(0..24)).min(end)].to_vec();
                bytes.splice(at..at, copied);
            }
            _ => {
                // A number of thrift's compact protocol, larger or smaller than anything real.
                let number = *[0_u64, 1, 2, u64::from(u32::MAX), 1 << 40, u64::MAX].choose(random).expect("numbers");
                let (mut varint, mut rest) = (Vec::new(), number);
                while rest >= 0x80 {
                    varint.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                varint.push(rest as u8);
                let to = (at + varint.len() * usize::from(random.random_bool(0.5))).min(end);
                if is_footer {
                    bytes.splice(at..to, varint);
                } else {
                    varint.truncate(end - at);
                    bytes[at..at + varint.len()].copy_from_slice(&varint);
                }
            }
        }
    }
    if is_footer {
        let (at, length) = (bytes.len() - 8, (bytes.len() - 8 - footer) as u32);
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

#[test]
fn parquet_files_are_read_as_the_reference_does_or_refused() {
    let readers = Readers::new();
    let mut seeds = files_in(&world::root().join("tests/fuzz/seeds/parquet"));
    assert!(seeds.len() > 15, "files of another writer");
    seeds.extend(written());
    let target = Target {
        name: "parquet",
        seeds,
        tokens: &["PAR1", "\u{0}\u{0}\u{0}\u{0}", "\u{7f}\u{7f}\u{7f}\u{7f}"],
        inputs: 4_000,
        bytes_max: 32 * 1024,
        memory_max: Some(MEMORY_MAX),
        mutate: Some(mutate),
    };
    fuzz(&target, |input| readers.check(input));
}
