"""Checks that other tools read exactly what the server returns. Reads events, a view and its reconciliations with
deltalake, Polars and DuckDB. Usage: tables.py LAKE STREAM EVENTS.ndjson VIEW ROWS.parquet OLD_VERSION OLD_ROWS.parquet"""

import json
import os
import sys

import duckdb
import polars as pl
from deltalake import DeltaTable

lake, stream, sent_file, view, rows_file, old_version, old_rows_file = sys.argv[1:]


def same(found: pl.DataFrame, expected: pl.DataFrame, what: str) -> None:
    """Compares two tables as bags of rows, with columns by name."""
    columns = sorted(expected.columns)
    found, expected = found.select(columns), expected.select(columns)
    for column in columns:
        if found[column].dtype != expected[column].dtype:
            found = found.with_columns(found[column].cast(expected[column].dtype))
    found, expected = found.sort(columns, nulls_last=True), expected.sort(columns, nulls_last=True)
    assert found.height == expected.height, f"{what}: {found.height} rows, not {expected.height}"
    assert found.equals(expected, null_equal=True), f"{what}:\n{found}\nis not\n{expected}"
    print(f"{what}: {found.height} rows, equal")


def delta(path: str, version: int | None = None) -> pl.DataFrame:
    return pl.read_delta(f"{lake}/{path}", version=version)


def duck(table: DeltaTable, columns: list[str]) -> pl.DataFrame:
    """Reads the files that the Delta log lists: DuckDB's Delta extension would have to be downloaded."""
    names = ", ".join(f'"{column}"' for column in columns)
    files = [uri.removeprefix("file://") for uri in table.file_uris()]
    query = duckdb.execute(f"SET TimeZone = 'UTC'; SELECT {names} FROM read_parquet(?, union_by_name => true)", [files])
    return pl.from_arrow(query.to_arrow_table())


# Events: exactly those that were sent, each once, with dense offsets.
events = delta(f"events/{stream}")
assert sorted(events["_offset"].to_list()) == list(range(events.height)), "offsets are dense"
with open(sent_file, encoding="utf-8") as lines:
    sent = [json.loads(line) for line in lines]
read = events.sort("_offset").to_dicts()
assert len(read) == len(sent), f"{len(read)} events, {len(sent)} sent"
for got, want in zip(read, sent, strict=True):
    for name, value in want.items():
        found = got[name]
        if name == "at":
            found = int(found.timestamp() * 1000)
        elif name == "price" and found is not None:
            found, value = str(found), value if value is None else value
        assert found == value, f"{name}: {found!r}, sent {value!r}"
assert set(events["_event_date"].unique().to_list()) >= {row["at"].date() for row in read if row["at"].year < 9999}
print(f"events: {len(read)} rows, equal")

# The view: exactly the published rows, of the current and of an older version.
expected = pl.read_parquet(rows_file)
# Intervals of estimates are in responses only: batch's values are exact.
shown = [c for c in expected.columns if not c.startswith("_") and not c.endswith(("_low", "_high"))]
same(delta(f"views/{view}").select(shown), expected.select(shown), "view, Polars")
table = DeltaTable(f"{lake}/views/{view}")
same(duck(table, shown), expected.select(shown), "view, DuckDB")
old = pl.read_parquet(old_rows_file).select(shown)
same(delta(f"views/{view}", version=int(old_version)).select(shown), old, f"view at version {old_version}, Polars")

# Reconciliations: a row per version and measure, whose causes add up.
drift = delta(f"reconciliations/{view}")
causes = [column for column in drift.columns if column.startswith("cause_")]
versions = drift["version"].unique().sort().to_list()
assert versions == list(range(1, table.version() + 1)), f"reconciliations of versions {versions}, of {table.version()}"
for (version,), rows in drift.group_by("version"):
    listed = sum(len(json.loads(text)) for text in rows["differences"])
    differing = rows.select(causes).row(0)
    assert sum(differing) == listed + rows["rows_omitted"][0], f"version {version}: causes {differing}, {listed} listed"
print(f"reconciliations: {len(versions)} versions, causes add up")

# Threads of the libraries that still run at the end can abort the interpreter.
sys.stdout.flush()
os._exit(0)
