"""Writes small Parquet files as other programs write them: the seeds of the fuzz target `parquet`.

foreign_parquet.py FOLDER: one file for each kind of encoding, compression and type. tests/fuzz/seeds/parquet/ holds its
output; run it again after a change, and commit what it wrote."""

import datetime
import decimal
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
UTC = datetime.UTC
START = datetime.datetime(2001, 1, 1, tzinfo=UTC)


def write(name: str, table: pa.Table, **options: object) -> None:
    pq.write_table(table, folder / f"{name}.parquet", store_schema=False, **options)


def rows(count: int, text: pa.DataType = pa.string(), time: pa.DataType = pa.timestamp("us", "UTC")) -> pa.Table:
    times = [START + datetime.timedelta(minutes=i) for i in range(count)]
    return pa.table({
        "id": pa.array([None if i % 7 == 3 else f"id {i % 5}" for i in range(count)], text),
        "at": pa.array([t if pa.types.is_timestamp(time) and time.tz else t.replace(tzinfo=None) for t in times], time),
        "n": pa.array([None if i % 4 == 1 else i * 1_000 for i in range(count)], pa.int64()),
        "x": pa.array([i / 8 for i in range(count)], pa.float64()),
        "_partition": pa.array([0] * count, pa.int32()),
        "_offset": pa.array(range(count), pa.int64()),
        "_arrived_at": pa.array(times, pa.timestamp("us", "UTC")),
        "_watermark": pa.array([None] * count, pa.timestamp("us", "UTC")),
    })


for compression in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
    write(compression, rows(20), compression=compression)
write("pages_v2", rows(40), data_page_version="2.0", compression="zstd", data_page_size=64)
write("no_dictionary", rows(20), use_dictionary=False, write_statistics=False)
encodings = {"id": "DELTA_BYTE_ARRAY", "n": "DELTA_BINARY_PACKED", "x": "BYTE_STREAM_SPLIT"}
write("delta_encodings", rows(30), use_dictionary=False, column_encoding=encodings)
write("row_groups", rows(30), row_group_size=7, compression="snappy")
write("int96", rows(10), use_deprecated_int96_timestamps=True)
write("millis_without_zone", rows(10, time=pa.timestamp("ms")))
write("large_text", rows(10, text=pa.large_string()))
write("page_index", rows(30), write_page_index=True, write_page_checksum=True)
write("no_rows", rows(0))
expands = rows(10).append_column("text", pa.array(["a" * 60_000] * 10))
write("expands", expands, compression="zstd", use_dictionary=False)
nested = rows(6).append_column("list", pa.array([[1, None], [], None, [2], [3], [4]], pa.list_(pa.int32())))
nested = nested.append_column("struct", pa.array([{"a": 1, "b": {"c": "x"}}] * 6))
nested = nested.append_column("map", pa.array([[("k", 1)]] * 6, pa.map_(pa.string(), pa.int64())))
write("nested", nested)
types = pa.table({
    "at": pa.array([START.replace(tzinfo=None)] * 3, pa.timestamp("ns")),
    "id": pa.array([b"a", b"\xff\x00", None], pa.binary()),
    "n": pa.array([1, 2, None], pa.uint64()),
    "x": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal("-2.25")], pa.decimal128(38, 2)),
    "date": pa.array([datetime.date(2001, 1, 1)] * 3, pa.date32()),
    "ok": pa.array([True, None, False]),
    "fixed": pa.array([b"abcd"] * 3, pa.binary(4)),
})
write("other_types", types, compression="snappy")
