#!/usr/bin/env bash
# NIH ChestX-ray14: the number in a file's name is not the order in which the films were taken.
#
# The two tables of the same images in torchxrayvision 1.5.7 (the edition of 2020 with all 112,120, and Google's labels
# of 2019 with the original columns of 4,376), read by polars 2.1.0; seen 2026-11-29.
# In the original columns "Follow-up #" is the number in the file's name. The edition of 2020 numbers the films of a
# patient anew, by time (ages never decrease), and kept the names: for 22 % of the images name and follow-up differ.
# Sorted by name, a patient grows younger 2,034 times, and the first file is not the first film in 16 % of the patients
# with several. So "first image of a patient", baseline and follow-up pairs, and "previous film" taken from names, or
# from any table with the original columns, are not what they say. Of the images in both tables 35 % also have another
# age: nearly all by one year, but 155 is 46 now, and 71 is 28.
# Guessed before: both tables agree on more than 99 % of ages and follow-up numbers, and names are in order of time.
# Seen:
#   images                                   112120
#   their file's number is their follow-up   88014
#   ages that go back, by follow-up          0
#   ages that go back, by file               2034
#   patients with several films              13302
#   their first file is their first film     11138
#   images in both tables                    4376
#   same follow-up in both                   3273
#   original follow-up is the file's number  4376
#   same age in both                         2830
#   largest difference of age                109
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check polars==2.1.0
# without its dependencies: only the tables are needed
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps torchxrayvision==1.5.7
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import glob
import sys

import polars as pl


def read(name):
    (path,) = glob.glob(f"venv/lib/python3*/site-packages/torchxrayvision/data/{name}")
    number = pl.col("Image Index").str.extract(r"_(\d+)\.").cast(pl.Int64)
    columns = {"followup": "Follow-up #", "age": "Patient Age", "patient": "Patient ID"}
    return pl.read_csv(path, infer_schema=False).select(
        "Image Index", file=number, **{new: pl.col(old).cast(pl.Int64) for new, old in columns.items()}
    )


edition, original = read("Data_Entry_2017_v2020.csv.gz"), read("google2019_nih-chest-xray-labels.csv.gz")


def goes_back(order):
    """How often a patient is younger in the next film of this order."""
    return edition.sort("patient", order).select((pl.col("age").diff().over("patient") < 0).sum()).item()


patients = edition.group_by("patient").agg(
    several=pl.len() > 1, first=pl.col("followup").sort_by("file").first() == pl.col("followup").min()
)
several = patients.filter("several")
both = edition.join(original, on="Image Index", suffix=" before")
seen = {
    "images": edition.height,
    "their file's number is their follow-up": (edition["file"] == edition["followup"]).sum(),
    "ages that go back, by follow-up": goes_back("followup"),
    "ages that go back, by file": goes_back("file"),
    "patients with several films": several.height,
    "their first file is their first film": several["first"].sum(),
    "images in both tables": both.height,
    "same follow-up in both": (both["followup"] == both["followup before"]).sum(),
    "original follow-up is the file's number": (both["file"] == both["followup before"]).sum(),
    "same age in both": (both["age"] == both["age before"]).sum(),
    "largest difference of age": (both["age"] - both["age before"]).abs().max(),
}
for name, value in seen.items():
    print(f"{name:40} {value}")
expected = [112_120, 88_014, 0, 2_034, 13_302, 11_138, 4_376, 3_273, 4_376, 2_830, 109]
sys.exit(list(seen.values()) != expected)
PYTHON
