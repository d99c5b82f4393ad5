"""Checks that a stream's archive holds every event once, for readers without any code of Trueup.

archive.py TABLE EVENTS: reads the Delta table TABLE with deltalake and with Polars, and expects EVENTS rows, each with a
position of its own. Exits with a traceback where that is not so.
"""

import os
import sys

import polars
from deltalake import DeltaTable

table, expected = sys.argv[1], int(sys.argv[2])
for rows in (polars.scan_delta(table).collect(), polars.from_arrow(DeltaTable(table).to_pyarrow_table())):
    assert rows.height == expected, f"{rows.height} rows, expected {expected}"
    positions = rows.select("_partition", "_offset").unique().height
    assert positions == expected, f"{positions} positions of {expected} rows"

# Threads of the libraries that still run at the end can abort the interpreter.
sys.stdout.flush()
os._exit(0)
