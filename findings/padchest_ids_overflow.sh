#!/usr/bin/env bash
# PadChest's own table defeats the defaults of pandas, polars and pyarrow, each in another way.
#
# The table that torchxrayvision 1.5.7 ships (160,861 rows; PatientID has up to 39 digits), read by
# polars 2.1.0, pyarrow 26.0.1, pandas 3.1.1; seen 2026-11-29.
# polars infers 128-bit integers from the length of the text and then refuses half of the ids, as 33,698 of 67,625
# exceed them; inferring from the whole table changes nothing. pyarrow stops, because of line breaks inside cells,
# with a message about its chunker; with its advice taken it returns the ids as floating point, none of which
# equals its id. pandas makes StudyID an integer in some chunks and text in others: 568 studies become two.
# Guessed before: polars and pandas fall back to text for all ids.
# Seen:
#   polars, 100 rows inferred: could not parse as i128
#   polars, all rows inferred: could not parse as i128
#   pyarrow: CSV parser got out of sync with chunker
#   pyarrow, newlines_in_values: double, 0 of 67625 ids unchanged
#   pandas: 109931 studies counted as 110499, 568 of them twice
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1 pandas==3.1.1
# without its dependencies: only the table is needed
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torchxrayvision==1.5.7
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
import glob
import sys

import pandas as pd
import polars as pl
import pyarrow as pa
from pyarrow import csv

(table,) = glob.glob("venv/lib/python3*/site-packages/torchxrayvision/data/PADCHEST*.csv.gz")
ok = []

for name, rows in (("100 rows", 100), ("all rows", None)):
    try:
        answer = str(pl.read_csv(table, infer_schema_length=rows).schema["PatientID"])
    except pl.exceptions.ComputeError as error:
        answer = "could not parse as i128" if "as dtype `i128`" in str(error) else str(error)
    print(f"polars, {name} inferred: {answer}")
    ok.append(answer == "could not parse as i128")

try:
    answer = str(csv.read_csv(table).schema.field("PatientID").type)
except pa.ArrowInvalid as error:
    answer = str(error).split(".")[0]
print(f"pyarrow: {answer}")
ok.append(answer == "CSV parser got out of sync with chunker")

text = pl.read_csv(table, infer_schema=False)
column = csv.read_csv(table, parse_options=csv.ParseOptions(newlines_in_values=True))["PatientID"]
pairs = set(zip(text["PatientID"], column.to_pylist()))
same = sum(int(number) == int(written) for written, number in pairs)
print(f"pyarrow, newlines_in_values: {column.type}, {same} of {len(pairs)} ids unchanged")
ok.append((str(column.type), same, len(pairs)) == ("double", 0, 67_625))

studies = pd.read_csv(table)["StudyID"]
true, counted = studies.astype(str).nunique(), studies.nunique()
print(f"pandas: {true} studies counted as {counted}, {counted - true} of them twice")
ok.append((true, counted) == (109_931, 110_499))
sys.exit(not all(ok))
PYTHON
