//! Posts mutated bodies to the events endpoint in every encoding and media type, compressed before or after the mutation:
//! the counts of a response add up, every refusal is a documented problem, and none is an error of the server.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures::FutureExt;
use futures::future::BoxFuture;
use intake::decode::Decoded;
use intake::http::{self, AppendVerdict, EntityEvents, StreamDirectory, WriteError, WriteReceipt, routes};
use intake::partition::{IdempotencyKey, SubmitError};
use intake::quarantine::RejectedLines;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use problem::{CONTENT_TYPE, Problem};
use serde_json::Value;
use shared::ids::StreamName;
use shared::stream::Stream;
use tower::ServiceExt;

use crate::fuzzer::{Target, fuzz, kind_of};

const ENCODINGS: [&str; 6] = ["", "identity", "gzip", "x-gzip", "zstd", "br"];
const TYPES: [&str; 8] = [
    "",
    "application/x-ndjson",
    "application/json",
    "text/plain",
    "application/json; charset=utf-8",
    "text/csv",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
];

/// Accepts every event.
struct Sink(Arc<Stream>);

struct Directory(Arc<Sink>);

impl StreamDirectory for Directory {
    fn stream(&self, name: &str) -> Option<Arc<dyn http::StreamWriter>> {
        (name == "s").then(|| Arc::clone(&self.0) as Arc<dyn http::StreamWriter>)
    }

    fn stream_names(&self) -> Vec<StreamName> {
        vec![self.0.0.name.clone()]
    }
}

impl http::StreamWriter for Sink {
    fn stream(&self) -> &Arc<Stream> {
        &self.0
    }

    fn record_rejected(&self, _: RejectedLines, _: u64) {}

    fn submit(&self, decoded: Decoded, _: Option<IdempotencyKey>) -> BoxFuture<'_, Result<WriteReceipt, WriteError>> {
        let accepted = decoded.rows.num_rows() as u64;
        let receipt = WriteReceipt { accepted, offsets: BTreeMap::new(), ..WriteReceipt::default() };
        async move { Ok(receipt) }.boxed()
    }

    fn append_each(&self, _: Vec<EntityEvents>) -> BoxFuture<'_, Result<Vec<AppendVerdict>, SubmitError>> {
        unreachable!("the stream has no entity")
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A table of three events as an Arrow stream, and as Parquet files with and without dictionaries.
fn tables() -> [Vec<u8>; 3] {
    let times: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), None]));
    let numbers: ArrayRef = Arc::new(StringArray::from(vec![Some("7"), Some("x"), None]));
    let rows = RecordBatch::try_from_iter_with_nullable([("at", times, true), ("n", numbers, true)]).expect("rows");
    let mut arrow = StreamWriter::try_new(Vec::new(), &rows.schema()).expect("memory");
    arrow.write(&rows).expect("memory");
    let parquet = |properties: WriterPropertiesBuilder| {
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties.build())).expect("memory");
        writer.write(&rows).expect("memory");
        writer.into_inner().expect("memory")
    };
    let plain = WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::SNAPPY);
    [arrow.into_inner().expect("memory"), parquet(WriterProperties::builder()), parquet(plain)]
}

/// The first two bytes of an input choose headers and compression.
fn seeds() -> Vec<Vec<u8>> {
    let events = b"{\"at\":0,\"n\":1}\n{\"at\":\"2001-01-01T00:00:00Z\"}\nnonsense\n".to_vec();
    let array = b"[{\"at\":1},{\"at\":2,\"n\":\"x\"}]".to_vec();
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("memory");
    let bodies = [
        (0, events.clone()),
        (2, gzip(&events)),
        (4, zstd(&events)),
        (2, [gzip(&events), gzip(&array)].concat()),
        (4, [zstd(&events), zstd(&events)].concat()),
        (2, gzip(&vec![b'\n'; 200_000])),
        (4, zstd(&vec![b' '; 1_000_000])),
        (0, array),
    ];
    let [arrow, parquet, plain] = tables();
    let csv = b"at,n\n0,1\n1,x\n\"2\",\n".to_vec();
    let typed = [(5, csv), (6, arrow), (7, parquet), (7, plain)].map(|(kind, body)| (0, kind, body));
    let untyped = (0u8..).zip(bodies).map(|(kind, (encoding, body))| (encoding, kind % 5, body));
    untyped.chain(typed).map(|(encoding, kind, body)| [&[encoding, kind], &body[..]].concat()).collect()
}

#[test]
fn bodies_are_accepted_or_refused_with_a_problem() {
    let files = [("s.sql".to_owned(), "CREATE STREAM s (at TIMESTAMP, n BIGINT) WITH (event_time = 'at');".to_owned())];
    let stream =
        shared::sql::parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0])).streams.remove(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let routes = routes(Arc::new(Directory(Arc::new(Sink(Arc::new(stream))))));
    let tokens = ["{\"at\":0}\n", "\n", "[", "]", ",", "\u{1f}\u{8b}\u{8}", "(\u{b5}/\u{fd}"];
    let memory_max = Some(1 << 30);
    let target =
        Target { name: "body", seeds: seeds(), tokens: &tokens, inputs: 15_000, memory_max, ..Target::default() };
    fuzz(&target, |input| {
        let (encoding, kind) = (input.first().copied().unwrap_or(0), input.get(1).copied().unwrap_or(0));
        let encoding = ENCODINGS[usize::from(encoding) % ENCODINGS.len()];
        let mut body = input.get(2..).unwrap_or_default().to_vec();
        if kind & 0x40 != 0 {
            body = match encoding {
                "gzip" | "x-gzip" => gzip(&body),
                "zstd" => zstd::encode_all(&body[..], 1).expect("memory"),
                _ => body,
            };
        }
        let strict = if kind & 0x80 == 0 { "" } else { "?strict=true" };
        let mut request = Request::post(format!("/v1/events/s{strict}"));
        let media = TYPES[usize::from(kind & 0x3f) % TYPES.len()];
        for (name, value) in [("content-encoding", encoding), ("content-type", media)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        let request = request.body(Body::from(body)).expect("a request");
        let (parts, body) = runtime.block_on(async {
            let (parts, body) = routes.clone().oneshot(request).await.expect("a router does not fail").into_parts();
            (parts, to_bytes(body, usize::MAX).await.expect("a body"))
        });
        if parts.status == StatusCode::OK {
            let response: Value = serde_json::from_slice(&body).expect("JSON");
            let count = |name: &str| response[name].as_u64().unwrap_or_else(|| panic!("no {name} in {response}"));
            assert!(strict.is_empty() || count("rejected") == 0, "strict, and {response}");
            let reason = response["rejections"][0]["reason"].as_str().unwrap_or_default();
            return format!("{encoding} {} {} {}", count("accepted").min(3), count("rejected").min(3), kind_of(reason));
        }
        assert!(parts.status.is_client_error(), "{}: {body:?}", parts.status);
        assert_eq!(parts.headers["content-type"], CONTENT_TYPE);
        let problem = Problem::from_json(&body).unwrap_or_else(|| panic!("not a problem: {body:?}"));
        assert_eq!(problem.status(), parts.status);
        format!("{encoding} {} {}", problem.code().name(), kind_of(problem.detail()))
    });
}
