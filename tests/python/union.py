"""Checks that Apache DataSketches for Python reads and unions the sketches of a view's table.

union.py TABLE EVENTS: reads the Delta table TABLE with deltalake and Polars, and compares it with what Python makes of
the events in the NDJSON file EVENTS. Exits with a traceback where they disagree.
"""

import json
import os
import re
import sys
from collections import Counter, defaultdict

import polars
from datasketches import (
    PyLongsSerDe,
    PyStringsSerDe,
    frequent_items_error_type,
    frequent_items_sketch,
    hll_sketch,
    hll_union,
    kll_doubles_sketch,
    kll_items_sketch,
    tgt_hll_type,
)
from deltalake import DeltaTable

LG_K = 12
KLL_K = 200
COLUMNS = ["s", "n", "x"]


def hll_of(values):
    sketch = hll_sketch(LG_K, tgt_hll_type.HLL_8)
    for value in values:
        sketch.update(value)
    return sketch


def union_of(*sketches):
    union = hll_union(LG_K)
    for sketch in sketches:
        union.update(sketch)
    return union.get_result(tgt_hll_type.HLL_8)


def others(values, n):
    """Returns as many further values of the same type, different from these."""
    kind = type(values[0])
    return [kind(f"other {i}") if kind is str else kind(10_000_000 + i) for i in range(n)]


def check_distinct(image, values, where):
    known = set(values)
    ours, theirs = hll_sketch.deserialize(image), hll_of(known)
    assert ours.lg_config_k == LG_K, where
    # The same values on both sides: the union is no larger than either. Different hashes would double it.
    same, alone = union_of(ours, theirs), union_of(ours, ours)
    assert abs(same.get_estimate() - alone.get_estimate()) < 1e-6 * len(known), (
        f"{where}: {same.get_estimate()} with the same values, {alone.get_estimate()} without"
    )
    assert alone.get_lower_bound(3) <= len(known) <= alone.get_upper_bound(3), f"{where}: {alone.get_estimate()}"
    # Half of the other values are shared.
    more = others(values, len(known))
    both = union_of(ours, hll_of(list(known)[: len(known) // 2] + more))
    truth = len(known) + len(more)
    assert both.get_lower_bound(3) <= truth <= both.get_upper_bound(3), f"{where}: {both.get_estimate()} of {truth}"
    return f"{where}: {len(known)} values, {alone.get_estimate():.1f}; united with {len(more)} more {both.get_estimate():.1f}"


def check_kll(image, values, where, is_double):
    if is_double:
        ours, theirs = kll_doubles_sketch.deserialize(image), kll_doubles_sketch(KLL_K)
    else:
        ours, theirs = kll_items_sketch.deserialize(image, PyLongsSerDe()), kll_items_sketch(KLL_K)
    assert ours.n == len(values) and ours.k == KLL_K, f"{where}: {ours.n} of {len(values)} values"
    assert ours.get_min_value() == min(values) and ours.get_max_value() == max(values), where
    more = [type(values[0])(-1000 + i) for i in range(len(values))]
    for value in more:
        theirs.update(value)
    ours.merge(theirs)
    everything = sorted(values + more)
    assert ours.n == len(everything), where
    # The library's error holds 99 % of the time; three times as much never fails by chance.
    error = 3 * ours.normalized_rank_error(False) + 1 / len(everything)
    for fraction in [0.01, 0.25, 0.5, 0.95, 0.99]:
        found = ours.get_quantile(fraction)
        below = sum(v < found for v in everything) / len(everything)
        up_to = sum(v <= found for v in everything) / len(everything)
        assert below - error <= fraction <= up_to + error, f"{where}: {fraction} is {found}, of rank {below} to {up_to}"
    return f"{where}: {len(values)} values merged with as many of Python's, median {ours.get_quantile(0.5)}"


def check_items(image, values, where):
    serde = PyStringsSerDe() if isinstance(values[0], str) else PyLongsSerDe()
    ours = frequent_items_sketch.deserialize(image, serde)
    assert ours.total_weight == len(values), f"{where}: {ours.total_weight} of {len(values)}"
    counts = Counter(values)
    # Python's sketch counts the most frequent value again, and one that Trueup's does not have.
    first, new = counts.most_common(1)[0][0], others(values, 1)[0]
    theirs = frequent_items_sketch(9)
    for value, more in [(first, 100), (new, 50)]:
        theirs.update(value, more)
        counts[value] += more
    ours.merge(theirs)
    for value, count in counts.items():
        low, high = ours.get_lower_bound(value), ours.get_upper_bound(value)
        assert low <= count <= high, f"{where}: {value!r} occurs {count} times, not {low} to {high}"
    listed = [row[0] for row in ours.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)]
    assert first in listed, f"{where}: {first!r} is not among {listed}"
    return f"{where}: {len(values)} values, {first!r} {counts[first]} times"


def main(table_path, events_path):
    groups = defaultdict(lambda: {name: [] for name in COLUMNS})
    with open(events_path, encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            group = groups[event["grp"]]
            for name in COLUMNS:
                if event[name] is not None:
                    group[name].append(event[name])

    rows = {row["grp"]: row for row in DeltaTable(table_path).to_pyarrow_table().to_pylist()}
    frame = {row["grp"]: row for row in polars.read_delta(table_path).to_dicts()}
    assert rows.keys() == frame.keys() == groups.keys(), f"{rows.keys()} where {groups.keys()} are true"

    names = [name for name in next(iter(rows.values())) if re.fullmatch(r"_state_\d+_(hll|kll|items)", name)]
    names.sort(key=lambda name: int(name.split("_")[2]))
    # In the order of the view's measures.
    expected = [("hll", "s"), ("hll", "n"), ("hll", "x"), ("kll", "n"), ("kll", "x"), ("items", "s"), ("items", "n")]
    assert [name.rsplit("_", 1)[1] for name in names] == [kind for kind, _ in expected], names

    for group, columns in sorted(groups.items()):
        row = rows[group]
        for name, column in [("ds", "s"), ("dn", "n"), ("dx", "x")]:
            assert row[name] == len(set(columns[column])), f"{group}: {name} is {row[name]}"
            assert frame[group][name] == row[name]
        for name, (kind, column) in zip(names, expected):
            values, where = columns[column], f"{group}, {kind} of {column}"
            assert frame[group][name] == row[name], f"{where}: Polars reads it differently"
            if not values:
                assert row[name] is None, f"{where}: a state of nothing"
                continue
            if kind == "hll":
                print(check_distinct(row[name], values, where))
            elif kind == "kll":
                print(check_kll(row[name], values, where, column == "x"))
            else:
                print(check_items(row[name], values, where))
    print(f"{len(rows)} groups agree")


if __name__ == "__main__":
    main(*sys.argv[1:])

# Threads of the libraries that still run at the end can abort the interpreter.
sys.stdout.flush()
os._exit(0)
