//! Compares bodies of CSV, Arrow and Parquet with the same events as JSON.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
    RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType as ArrowType, Field, Int32Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use shared::entity::EntityId;
use shared::limits::TABLE_EVENTS_BYTES_MAX;

use super::*;
use crate::decode::column_cast::ColumnCast;
use crate::decode::decode_of_entity;

/// An event by the columns of [`every_type`]; values that no column can hold among them.
#[derive(Debug, Clone)]
struct Event {
    id: Option<String>,
    flag: Option<bool>,
    small: Option<i64>,
    big: Option<i64>,
    ratio: Option<f64>,
    price: Option<i64>,
    day: Option<i32>,
    note: Option<String>,
    at: Option<i64>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,3}",
        1 => Just("a \"quote\", a comma,\na line and a text that is longer than twelve bytes".to_owned()),
        1 => "\\PC{1,40}".prop_filter("JSON and CSV hold any text, but trimmed lines differ", |text| !text.is_empty()),
    ]
}

fn maybe<T: Strategy>(share: f64, values: T) -> impl Strategy<Value = Option<T::Value>> {
    prop::option::weighted(share, values)
}

fn event() -> impl Strategy<Value = Event> {
    let at = prop_oneof![8 => 0i64..4_000_000_000_000_000, 1 => Just(i64::MAX)];
    let small = prop_oneof![4 => -5i64..5, 1 => Just(1i64 << 40), 1 => Just(i64::from(i32::MIN))];
    let ratio = prop_oneof![4 => -1e3f64..1e3, 1 => Just(-0.0), 1 => Just(1e300)];
    let day = prop_oneof![4 => 0i32..30_000, 1 => Just(-719_162)];
    let head = (maybe(0.9, text()), maybe(0.9, any::<bool>()), maybe(0.9, small), maybe(0.9, any::<i64>()));
    let tail = (maybe(0.9, ratio), maybe(0.9, -10_000i64..10_000), maybe(0.9, day), maybe(0.9, text()), maybe(0.9, at));
    (head, tail).prop_map(|((id, flag, small, big), (ratio, price, day, note, at))| Event {
        id,
        flag,
        small,
        big,
        ratio,
        price,
        day,
        note,
        at,
    })
}

/// A time that JSON and CSV can write; the others are written as a text that is not a time.
fn time_text(at: i64) -> String {
    if at == i64::MAX { "never".to_owned() } else { Micros(at).to_string() }
}

fn price_text(price: i64) -> String {
    let sign = if price < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", price.abs() / 100, price.abs() % 100)
}

fn json_body(events: &[Event]) -> String {
    let line = |event: &Event| {
        json!({
            "id": event.id, "flag": event.flag, "small": event.small, "big": event.big, "ratio": event.ratio,
            "price": event.price.map(price_text), "day": event.day.map(|day| Day(day).to_string()), "note": event.note,
            "at": event.at.map(time_text),
        })
        .to_string()
            + "\n"
    };
    events.iter().map(line).collect()
}

fn csv_body(events: &[Event]) -> String {
    let quoted = |text: &Option<String>| text.as_ref().map(|text| format!("\"{}\"", text.replace('"', "\"\"")));
    let line = |event: &Event| {
        let plain = [
            quoted(&event.id),
            event.flag.map(|v| v.to_string()),
            event.small.map(|v| v.to_string()),
            event.big.map(|v| v.to_string()),
            event.ratio.map(|v| json!(v).to_string()),
            event.price.map(price_text),
            event.day.map(|day| Day(day).to_string()),
            quoted(&event.note),
            event.at.map(time_text),
        ];
        plain.map(Option::unwrap_or_default).join(",") + "\r\n"
    };
    let lines: String = events.iter().map(line).collect();
    format!("id,FLAG,small,big,ratio,price,day,note,at\n{lines}")
}

/// The events as a table whose types are wider than the stream's, in batches of at most `batch_rows`.
fn arrow_body(events: &[Event], batch_rows: usize) -> Bytes {
    let column = |name: &str, array: ArrayRef| (Field::new(name, array.data_type().clone(), true), array);
    let batch = |events: &[Event]| {
        let of = |get: fn(&Event) -> Option<String>| events.iter().map(get).collect::<Vec<Option<String>>>();
        let notes: DictionaryArray<Int32Type> = events.iter().map(|event| event.note.as_deref()).collect();
        let columns = vec![
            column("note", Arc::new(notes)),
            column("id", Arc::new(StringArray::from(of(|event| event.id.clone())))),
            column("flag", Arc::new(events.iter().map(|event| event.flag).collect::<BooleanArray>())),
            column("small", Arc::new(events.iter().map(|event| event.small).collect::<Int64Array>())),
            column("big", Arc::new(events.iter().map(|event| event.big).collect::<Int64Array>())),
            column("ratio", Arc::new(events.iter().map(|event| event.ratio).collect::<Float64Array>())),
            column(
                "price",
                Arc::new(
                    events
                        .iter()
                        .map(|event| event.price.map(i128::from))
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(12, 2)
                        .unwrap(),
                ),
            ),
            column("day", Arc::new(events.iter().map(|event| event.day).collect::<Date32Array>())),
            column("AT", Arc::new(events.iter().map(|event| event.at).collect::<TimestampMicrosecondArray>())),
        ];
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    };
    let schema = batch(&[]).schema();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    for events in events.chunks(batch_rows) {
        writer.write(&batch(events)).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap().into()
}

/// The same table as a Parquet file with row groups of at most `batch_rows` rows.
fn parquet_body(table: &Bytes, batch_rows: usize, compression: Compression) -> Bytes {
    let mut batches = StreamReader::try_new(table.as_ref(), None).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(batch_rows))
        .set_data_page_row_count_limit(3)
        .set_write_batch_size(2)
        .set_compression(compression);
    let mut writer = ArrowWriter::try_new(Vec::new(), batches.schema(), Some(properties.build())).unwrap();
    batches.try_for_each(|batch| writer.write(&batch?)).unwrap();
    writer.into_inner().unwrap().into()
}

/// The rows, the number of rejected events, and where the first ones are.
fn outcome(decoded: &Decoded) -> (Vec<Vec<String>>, u64, u64) {
    (rows(&decoded.rows), decoded.rejected(), decoded.lines_read)
}

proptest! {
    #[test]
    fn csv_arrow_and_parquet_mean_what_json_means(
        events in prop::collection::vec(event(), 0..40),
        batch_rows in 1usize..20,
        has_key in any::<bool>(),
    ) {
        let stream = Arc::new(Stream { primary_key: has_key.then_some(0), ..every_type() });
        let options = Options::default();
        let json = decode(&stream, json_body(&events).as_bytes(), options).unwrap();
        let csv = decode_csv(&stream, csv_body(&events).as_bytes(), options).unwrap();
        let arrow = decode_arrow(&stream, &arrow_body(&events, batch_rows), options).unwrap();
        let compression = if has_key { Compression::SNAPPY } else { Compression::LZ4_RAW };
        let parquet = parquet_body(&arrow_body(&events, batch_rows), batch_rows, compression);
        let parquet = decode_parquet(&stream, &parquet, options).unwrap();
        prop_assert_eq!(outcome(&json), outcome(&parquet), "{:?}", parquet.rejections);
        prop_assert_eq!(&json.id_hashes, &parquet.id_hashes);
        prop_assert_eq!(outcome(&json), outcome(&csv), "{:?} {}", csv.rejections, csv_body(&events));
        prop_assert_eq!(outcome(&json), outcome(&arrow), "{:?}", arrow.rejections);
        prop_assert_eq!(&json.id_hashes, &csv.id_hashes);
        prop_assert_eq!(&json.id_hashes, &arrow.id_hashes);
        let lines = |decoded: &Decoded| decoded.rejections.iter().map(|rejection| rejection.line).collect::<Vec<_>>();
        prop_assert_eq!(lines(&json), lines(&arrow));
    }

    #[test]
    fn arrow_bodies_that_were_damaged_are_refused_or_read(
        events in prop::collection::vec(event(), 1..10),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut body = arrow_body(&events, 5).to_vec();
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        // The endpoint turns a panic of the reader into a refusal.
        let decoded = std::panic::catch_unwind(|| decode_arrow(&Arc::new(every_type()), &body.into(), Options::default()));
        if let Ok(Ok(decoded)) = decoded {
            prop_assert!(decoded.rows.num_rows() as u64 <= decoded.lines_read);
        }
    }
}

proptest! {
    #[test]
    fn parquet_bodies_that_were_damaged_are_refused_or_read(
        events in prop::collection::vec(event(), 1..10),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let mut body = parquet_body(&arrow_body(&events, 5), 4, Compression::UNCOMPRESSED).to_vec();
        for (place, byte) in damage {
            let place = place.index(body.len());
            body[place] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        // The endpoint turns a panic of the reader into a refusal.
        let decoded = std::panic::catch_unwind(|| decode_parquet(&Arc::new(every_type()), &body.into(), Options::default()));
        if let Ok(Ok(decoded)) = decoded {
            prop_assert!(decoded.rows.num_rows() as u64 <= decoded.lines_read);
        }
    }
}

/// A Parquet file of an event time and a text.
fn stored(text: &str, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let times: ArrayRef = Arc::new(Int64Array::from(vec![0, 1]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec![text, text]));
    let rows = RecordBatch::try_from_iter([("at", times), ("note", notes)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

fn refusal(body: Vec<u8>) -> String {
    decode_parquet(&Arc::new(every_type()), &body.into(), Options::default()).unwrap_err().to_string()
}

#[test]
fn what_a_parquet_body_claims_is_checked_before_memory_is_allocated() {
    let plain = || WriterProperties::builder().set_dictionary_enabled(false);
    let whole = stored("a text", plain());
    assert_eq!(
        decode_parquet(&Arc::new(every_type()), &whole.clone().into(), Options::default()).unwrap().lines_read,
        2
    );
    // The first page begins after the mark of the file; its header has a type, then the decompressed size as a zigzag varint.
    assert_eq!(whole[4..6], [0x15, 0x00]);
    let mut claim = whole.clone();
    assert_eq!(claim[6], 0x15);
    claim.splice(7..8, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
    let error = refusal(claim);
    assert!(error.contains("damaged") || error.contains("footer"), "{error}");
    // Of a dictionary: two rows, and pages that decompress to more than a request may hold.
    let long = "x".repeat(TABLE_EVENTS_BYTES_MAX + 1);
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
    let bomb = stored(&long, WriterProperties::builder().set_compression(zstd));
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    assert_eq!(refusal(bomb), DecodeError::EventsTooLarge { max: TABLE_EVENTS_BYTES_MAX }.to_string());
}

#[test]
fn parquet_bodies_that_are_not_supported_say_what_to_do() {
    let plain = WriterProperties::builder().set_dictionary_enabled(false);
    let delta = plain.set_column_encoding("note".into(), Encoding::DELTA_BYTE_ARRAY);
    assert!(refusal(stored("a", delta)).contains("write it without it"));
    let lz4 = WriterProperties::builder().set_compression(Compression::LZ4);
    assert!(refusal(stored("a", lz4)).contains("LZ4 is not supported; write it with one of"));
    for body in [&b"not Parquet"[..], b"", b"PAR1"] {
        assert!(refusal(body.to_vec()).contains("cannot read the table: "));
    }
    let pair = StructArray::from(vec![(
        Arc::new(Field::new("b", ArrowType::Int64, false)),
        Arc::new(Int64Array::from(vec![1])) as ArrayRef,
    )]);
    let rows = RecordBatch::try_from_iter([("a", Arc::new(pair) as ArrayRef)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    let error = refusal(writer.into_inner().unwrap());
    assert!(error.contains("the column a.b is nested; send nested events as JSON"), "{error}");
}

fn table(columns: Vec<(&str, ArrayRef)>) -> Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap().into()
}

#[test]
fn texts_and_numbers_in_a_table_are_read_as_in_json() {
    let body = table(vec![
        ("at", Arc::new(StringArray::from(vec!["2026-01-02T03:04:05Z", "nonsense", "1970-01-01T00:00:00.5+0100"]))),
        ("big", Arc::new(StringArray::from(vec!["7", "8", "07"]))),
        ("small", Arc::new(Float64Array::from(vec![3.0, 1.0, 2.5]))),
        ("price", Arc::new(Float64Array::from(vec![1.25, 1.0, 1.0]))),
    ]);
    let decoded = decode_arrow(&Arc::new(every_type()), &body, Options::default()).unwrap();
    let reasons: Vec<&str> = decoded.rejections.iter().map(|rejection| rejection.reason.as_str()).collect();
    assert_eq!(reasons, ["at: not a value of TIMESTAMP", "small: not a value of INT"]);
    assert_eq!(decoded.malformed[0].text, r#"{"at":"nonsense","big":"8","small":1.0,"price":1.0}"#);
    assert_eq!(rows(&decoded.rows)[0][2..6], ["3", "7", "NULL", "125"]);
    let millis = table(vec![("at", Arc::new(Int64Array::from(vec![1_500])))]);
    let decoded = decode_arrow(&Arc::new(every_type()), &millis, Options::default()).unwrap();
    assert_eq!(rows(&decoded.rows)[0][9], Micros(1_500_000).to_string());
}

#[test]
fn events_that_are_too_old_or_too_long_are_rejected_in_every_format() {
    let stream = Arc::new(Stream { max_age: Some(Duration::from_secs(60)), ..every_type() });
    let options = Options { arrived_at: Some(Micros(100_000_000)), ..Options::default() };
    let long = "x".repeat(EVENT_LINE_BYTES_MAX + 1);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![39_999_999, 40_000_000, 50_000_000]));
    let notes: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", &long]));
    let arrow = decode_arrow(&stream, &table(vec![("at", times), ("note", notes)]), options).unwrap();
    let csv = format!("at,note\n1970-01-01T00:00:39Z,a\n1970-01-01T00:00:40Z,b\n1970-01-01T00:00:50Z,{long}\n");
    let csv = decode_csv(&stream, csv.as_bytes(), options).unwrap();
    for decoded in [arrow, csv] {
        assert_eq!((decoded.rows.num_rows(), decoded.rejected()), (1, 2));
        assert!(decoded.rejections[0].reason.contains("before its arrival (max_age)"), "{:?}", decoded.rejections);
        assert_eq!(decoded.rejections[1].reason, "the event is longer than 1048576 bytes");
    }
}

#[test]
fn a_bad_csv_record_is_rejected_alone_with_its_line_and_text() {
    let body = b"at,small,other\n1,2,x\n\n3\n4,five,y\n\"6\",7,\"two\nlines\"\n8,9,\xff\n";
    let decoded = decode_csv(&every_type(), body, Options::default()).unwrap();
    assert_eq!((decoded.rows.num_rows(), decoded.unknown_fields), (3, 3));
    let rejections: Vec<(u64, &str)> = decoded.rejections.iter().map(|r| (r.line, r.reason.as_str())).collect();
    let fields = "expected 3 fields, as in the header, found 1";
    assert_eq!(rejections, [(4, fields), (5, "small: expected INT, found \"five\"")]);
    assert_eq!(decoded.malformed[1].text, "4,five,y");
}

#[test]
fn a_csv_record_is_bounded_in_bytes_and_fields() {
    let stream = every_type();
    let mut body = b"\xef\xbb\xbfat,note\n1,\"".to_vec();
    body.extend(std::iter::repeat_n(b'x', 3 * EVENT_LINE_BYTES_MAX));
    body.extend(b"\"\n2,");
    body.extend(std::iter::repeat_n(b',', 500_000));
    body.extend(b"\n3,c\n4,unfinished \"quote");
    let decoded = decode_csv(&stream, &body, Options::default()).unwrap();
    assert_eq!((decoded.lines_read, decoded.rows.num_rows()), (4, 2));
    let rejections: Vec<(u64, &str)> = decoded.rejections.iter().map(|r| (r.line, r.reason.as_str())).collect();
    let (long, many) = ("the event is longer than 1048576 bytes", "expected 2 fields, as in the header, found 500002");
    assert_eq!(rejections, [(2, long), (3, many)]);
    let names = ",".repeat(2 * shared::limits::TABLE_COLUMNS_MAX);
    let refused = decode_csv(&stream, names.as_bytes(), Options::default()).unwrap_err();
    assert_eq!(refused.to_string(), "cannot read the table: it has more than 10000 columns");
}

#[test]
fn reasons_against_many_rows_are_bounded_and_of_the_first_rows() {
    let times: ArrayRef = Arc::new((0..5_000i64).map(|n| (n % 2 == 0).then_some(0)).collect::<Int64Array>());
    let small: ArrayRef = Arc::new((0..5_000i64).map(|n| if n == 2 { 1 << 40 } else { n }).collect::<Int64Array>());
    let body = table(vec![("at", times), ("small", small)]);
    let options = Options { rejections_listed_max: 3, malformed_kept_max: 2, ..Options::default() };
    let decoded = decode_arrow(&Arc::new(every_type()), &body, options).unwrap();
    assert_eq!((decoded.rejected(), decoded.malformed.len()), (2_501, 2));
    let rejections: Vec<(u64, &str)> = decoded.rejections.iter().map(|r| (r.line, r.reason.as_str())).collect();
    let missing = "at: the event time is missing";
    assert_eq!(rejections, [(2, missing), (3, "small: not a value of INT"), (4, missing)]);
}

proptest! {
    #[test]
    fn no_bytes_of_csv_panic(body in prop::collection::vec(prop::sample::select(&b"at,1\"\r\n \xff"[..]), 0..200)) {
        for header in ["", "at,note\n"] {
            let body = [header.as_bytes(), &body].concat();
            if let Ok(decoded) = decode_csv(&every_type(), &body, Options::default()) {
                prop_assert!(decoded.rows.num_rows() as u64 <= decoded.lines_read);
            }
        }
    }
}

#[test]
fn tables_whose_columns_do_not_fit_are_refused_with_every_reason() {
    let strict = Arc::new(Stream { unknown_fields: UnknownFields::Reject, ..every_type() });
    let refused = decode_csv(&strict, b"small,more,more\n1,2,3\n", Options::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot read the table: the columns do not fit the stream: at: the event time is missing; more: the field appears \
         twice; more: the stream does not declare it; more: the stream does not declare it"
    );
    let body = table(vec![("at", Arc::new(BooleanArray::from(vec![true])))]);
    let refused = decode_arrow(&Arc::new(every_type()), &body, Options::default()).unwrap_err();
    assert!(refused.to_string().contains("at: TIMESTAMP cannot be read from Boolean"), "{refused}");
    for body in [&b"not arrow"[..], b"", b"\xff\xff\xff\xff\x10\x00\x00\x00"] {
        let decoded = decode_arrow(&Arc::new(every_type()), &Bytes::from_static(body), Options::default());
        assert!(decoded.is_err() || body.is_empty(), "{decoded:?}");
    }
}

#[test]
fn a_dictionary_that_repeats_long_texts_is_bounded_in_bytes() {
    let text = "x".repeat(EVENT_LINE_BYTES_MAX - 1);
    let notes: DictionaryArray<Int32Type> = std::iter::repeat_n(Some(&*text), 300).collect();
    let times: ArrayRef = Arc::new(Int64Array::from(vec![0; 300]));
    let body = table(vec![("at", times), ("note", Arc::new(notes))]);
    assert!(body.len() < 2 * EVENT_LINE_BYTES_MAX);
    let refused = decode_arrow(&Arc::new(every_type()), &body, Options::default()).unwrap_err();
    assert!(matches!(refused, DecodeError::EventsTooLarge { .. }), "{refused}");
}

#[test]
fn a_body_of_which_little_is_read_is_not_kept() {
    let unread: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(4 * 1024 * 1024)]));
    let note: ArrayRef = Arc::new(StringArray::from(vec!["a text that is longer than twelve bytes"]));
    let body = table(vec![("at", Arc::new(Int64Array::from(vec![0])) as ArrayRef), ("note", note), ("other", unread)]);
    let decoded = decode_arrow(&Arc::new(every_type()), &body, Options::default()).unwrap();
    assert_eq!(rows(&decoded.rows)[0][8], "a text that is longer than twelve bytes");
    let kept = shared::retained_bytes::retained_bytes(&decoded.rows);
    assert!(kept < 64 * 1024, "{kept}");
    assert_eq!(decoded.rows.column(8).data_type(), &ArrowType::Utf8View);
}

#[test]
fn an_event_without_its_entity_is_rejected_in_every_form() {
    let sql = "CREATE STREAM s (order_id STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'order_id');";
    let stream = Arc::new(crate::testing::stream(sql));
    let reasons = |decoded: &Decoded| decoded.rejections.iter().map(|r| r.reason.clone()).collect::<Vec<_>>();
    let missing = "order_id: the entity may not be null or empty";
    let json =
        "{\"order_id\":\"a\",\"at\":0}\n{\"at\":0}\n{\"order_id\":null,\"at\":0}\n{\"order_id\":\"\",\"at\":0}\n";
    let decoded = decode(&stream, json.as_bytes(), Options::default()).expect("events");
    assert_eq!((decoded.rows.num_rows(), reasons(&decoded)), (1, vec![missing.to_owned(); 3]));
    assert_eq!(decoded.entity_hashes.as_ref().map(Vec::len), Some(1));
    let decoded = decode_csv(&stream, b"order_id,at\na,0\n,0\n\"\",0\n", Options::default()).expect("events");
    assert_eq!((decoded.rows.num_rows(), reasons(&decoded)), (1, vec![missing.to_owned(); 2]));
    assert!(matches!(decode_csv(&stream, b"at\n0\n", Options::default()), Err(DecodeError::Table { .. })));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("")]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(0), Some(0)]));
    let batch = RecordBatch::try_from_iter([("order_id", texts), ("_sequence", numbers.clone()), ("at", numbers)]);
    let batch = batch.expect("a table");
    let cast = ColumnCast::new(&stream, &batch.schema()).expect("fits");
    assert_eq!(cast.unknown, ["_sequence"], "only the log assigns sequences");
    let found = cast.apply(&batch, 10).expect("rows");
    assert_eq!((found.rows.num_rows(), found.rows.column(2).null_count()), (1, 1));
    assert_eq!(found.rejected, [(1, missing.to_owned()), (2, missing.to_owned())]);
}

#[test]
fn an_append_fills_in_its_entity_and_rejects_events_of_others() {
    let sql =
        "CREATE STREAM s (order_id STRING, n BIGINT, at TIMESTAMP) WITH (event_time = 'at', entity = 'order_id');";
    let stream = crate::testing::stream(sql);
    let id = EntityId::Text("o-1".to_owned());
    let body = "{\"at\":0}\n{\"order_id\":\"o-1\",\"at\":0}\n{\"order_id\":\"o\\u002d1\",\"at\":0}\n\
                {\"order_id\":\"o-2\",\"at\":0}\n{\"order_id\":null,\"at\":0}\n{\"order_id\":7,\"at\":0}\n";
    let decoded = decode_of_entity(&stream, body.as_bytes(), Options::default(), &id).expect("events");
    assert_eq!(decoded.entity_hashes, Some(vec![crate::event_id::hash_entity(&id); 3]));
    assert_eq!(decoded.rejections.iter().map(|r| r.line).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(decoded.rejections[0].reason, "order_id: the event belongs to another entity than the path names");
}
