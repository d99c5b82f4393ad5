"""Runs the queries of tests on a local Spark: one JSON request per line of standard input, one JSON response per line."""

import datetime
import decimal
import json
import math
import sys

from pyspark.sql import Row, SparkSession
from pyspark.sql.functions import col, unix_micros
from pyspark.sql.types import TimestampType

EPOCH = datetime.datetime(1970, 1, 1)


def timestamp(value):
    text = value.strftime("%Y-%m-%dT%H:%M:%S")
    text = text.rjust(19, "0")  # years before 1000
    micros = value.microsecond
    fraction = "" if micros == 0 else f".{micros // 1000:03}" if micros % 1000 == 0 else f".{micros:06}"
    return text + fraction + "Z"


def shown(value):
    """Returns a value as responses of Trueup show it."""
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        return timestamp(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Row):
        return {name: shown(item) for name, item in value.asDict().items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return value


def answer(spark, request):
    for name, value in request["settings"].items():
        spark.conf.set(name, value)
    reader = spark.read.schema(request["schema"])
    reader.parquet(*request["files"]).createOrReplaceTempView(request["table"])
    for statement in request["statements"]:
        spark.sql(statement)
    found = spark.sql(request["query"])
    times = {field.name for field in found.schema.fields if isinstance(field.dataType, TimestampType)}
    # Python reads times in the machine's zone.
    found = found.select(*(unix_micros(col(f"`{c}`")).alias(c) if c in times else col(f"`{c}`") for c in found.columns))
    rows = [row.asDict() for row in found.collect()]
    for row in rows:
        for name in times:
            if row[name] is not None:
                row[name] = EPOCH + datetime.timedelta(microseconds=row[name])
    return {"rows": [{name: shown(value) for name, value in row.items()} for row in rows]}


def main():
    builder = SparkSession.builder.master("local[1]")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": sys.argv[1],
        "spark.local.dir": sys.argv[1],
        # The machine's zone must not matter.
        "spark.driver.extraJavaOptions": "-Duser.timezone=Asia/Kathmandu -Dderby.system.home=" + sys.argv[1],
    }.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    print(json.dumps({"version": spark.version}), flush=True)
    for line in sys.stdin:
        try:
            result = answer(spark, json.loads(line))
        except Exception as error:  # the test shows it
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)
    spark.stop()


main()
