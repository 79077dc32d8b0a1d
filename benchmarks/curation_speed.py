"""Curation in rows per second: the library at full size beside a plain row-by-row pandas loop.

    python benchmarks/curation_speed.py [--rows 1000]

Both make Records of a shipped table, describe them and check the descriptions. The loop does so for "--rows" rows
spread over the table (its cost per row does not depend on the table's size), and must give the same records,
descriptions and verdicts, or the benchmark stops. Both run in one process, one after the other, with empty caches; the
loop's time leaves out reading the file, splitting and writing, the library's includes them. Writes curation_speed.csv
beside this file.
"""

import argparse
import os
import re
import resource
import sys
import tempfile
import time
import zlib
from pathlib import Path

import pandas as pd
import polars as pl
from tqdm import tqdm

from chexgen_lib import records
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import SEX_WORDS, SPECULATION, VIEW_WORDS, _reasons, check
from chexgen_lib.records import FINDINGS
from chexgen_lib.sources import chexpert, chexpert_labels, nih, padchest, registry
from chexgen_lib.sources.table import shipped

PLAIN = {"nih": nih, "chexpert": chexpert, "padchest": padchest}
COMPARED = ["image_id", "view", "age", "sex", *FINDINGS, "description", "qc"]


def nih_row(row) -> dict | None:
    labels = row["Finding Labels"].split("|")
    present = {nih.FINDING_OF[label] for label in labels}
    states = {f: 1.0 if f in present else 0.0 if f in nih.ANNOTATED else None for f in FINDINGS}
    if not states["Lung Opacity"] and present & set(nih.OPACITIES):
        states["Lung Opacity"] = None
    stem = row["Image Index"].removesuffix(".png")
    age = float(row["Patient Age"].strip("Y"))
    return states | {
        "image_id": f"nih:{stem}",
        "view": row["View Position"],
        "age": age,
        "sex": row["Patient Gender"],
        "labels": labels,
        "details": [],
    }


def chexpert_row(row) -> dict | None:
    value = {f: float(row[name]) if row[name] else None for f, name in chexpert_labels.NAMES.items()}
    labels = [chexpert_labels.NAMES[f] for f in FINDINGS if value[f] == 1]
    states = {f: None if v == -1 else v for f, v in value.items()}
    ill = any(states[f] == 1 for f in FINDINGS if f not in ("No Finding", "Support Devices"))
    if states["No Finding"] == 1:
        states |= {f: 0.0 for f in FINDINGS if f not in ("No Finding", "Support Devices")}
    elif ill:
        states["No Finding"] = 0.0
    view = "LATERAL" if row["Frontal/Lateral"] == "Lateral" else row["AP/PA"]
    view = view if view in ("LATERAL", "AP", "PA") else "FRONTAL"
    name = "/".join(row["Path"].removesuffix(".jpg").split("/")[-3:])
    sex = {"Male": "M", "Female": "F"}.get(row["Sex"])
    return states | {
        "image_id": f"chexpert:{name}",
        "view": view,
        "age": float(row["Age"]),
        "sex": sex,
        "labels": labels,
        "details": [],
    }


def padchest_row(row) -> dict | None:
    labels = list(dict.fromkeys(label.strip() for label in re.findall(r"'([^']*)'", row["Labels"])))
    if not row["Labels"].startswith("[") or "exclude" in labels or row["Projection"] == "EXCLUDE":
        return None
    present = {padchest.FINDING_OF.get(label) for label in labels}
    open_ = {f for f, words in padchest.MAYBE.items() if set(words) & set(labels)}
    incomplete = bool(set(padchest.INCOMPLETE) & set(labels))
    states = {f: 1.0 if f in present else None if incomplete or f in open_ else 0.0 for f in FINDINGS}
    if set(labels) - {*padchest.INCOMPLETE, "normal"}:
        states["No Finding"] = 0.0
    year = row["PatientBirth"]
    details = padchest.parse_details(row["LabelsLocalizationsBySentence"])
    return states | {
        "image_id": f"padchest:{row['ImageID'].removesuffix('.png')}",
        "view": padchest.VIEWS.get(row["Projection"]),
        "age": float(row["StudyDate_DICOM"][:4]) - float(year) if year else None,
        "sex": row["PatientSex_DICOM"] if row["PatientSex_DICOM"] in ("M", "F") else None,
        "labels": [label for label in labels if label not in ("", "unchanged")],
        "details": [(*detail, None) for detail in details],
    }


ROW = {"nih": nih_row, "chexpert": chexpert_row, "padchest": padchest_row}


def described_and_checked(row: dict) -> dict:
    """One record described and checked, with the library's scalar functions."""
    states = "".join("?" if row[f] is None else str(int(row[f])) for f in FINDINGS)
    labels = "\t".join(row["labels"])
    details = "\t".join("\n".join(field or "" for field in detail) for detail in row["details"])
    crc = zlib.crc32(row["image_id"].encode())
    opening, variant = crc % grammar.VARIANTS, crc // grammar.VARIANTS % grammar.VARIANTS
    patient = grammar._patient(row["age"], row["sex"], None, opening)
    head = f"Patient Information: {patient[:1].upper() + patient[1:]}. "
    head += f"Technique: {grammar._technique(row['view'], opening)}. "
    body = f"Findings: {grammar._findings(states, labels, details, variant)} "
    body += f"Impression: {grammar._impression(states, labels, details, variant)}"
    reasons = [_reasons(body, states, labels, details), *patient_reasons(head, row)]
    if re.search(SPECULATION, head + body):
        reasons.append("speculates")
    reasons = "; ".join(filter(None, reasons))
    return row | {"description": head + body, "qc": f"fail: {reasons}" if reasons else "pass"}


def patient_reasons(head: str, row: dict) -> list[str]:
    age = re.search(r"(\d+)[- ]year", head)
    known = row["age"] is not None and row["age"] >= 1
    wrong = []
    infant = row["age"] is not None and row["age"] < 1
    if (int(age[1]) if age else None) != (int(row["age"]) if known else None) or ("infant" in head) != infant:
        wrong.append("age")
    if any(bool(re.search(w, head)) != (row["sex"] == s) for s, w in SEX_WORDS.items()):
        wrong.append("sex")
    views = (row["view"] or "").split()
    if any(bool(re.search(w, head)) != (v in views) for v, w in VIEW_WORDS.items()):
        wrong.append("view")
    return wrong


def by_loop(source: str, n: int) -> tuple[float, pl.DataFrame]:
    """Seconds per row and the records of `n` rows, row by row; reading the file is not counted."""
    module = PLAIN[source]
    table = pd.read_csv(shipped(module.TABLE), dtype=str, keep_default_na=False)
    table = table.iloc[:: max(len(table) // n, 1)].head(n)
    started = time.perf_counter()
    rows = []
    for _, raw in tqdm(table.iterrows(), total=len(table), desc=f"loop: {source}", leave=False):
        if (row := ROW[source](raw)) is not None:
            rows.append(described_and_checked(row))
    seconds = (time.perf_counter() - started) / len(table)
    schema = {c: records.SCHEMA[c] for c in COMPARED}
    return seconds, pl.DataFrame([{c: row[c] for c in COMPARED} for row in rows], schema=schema)


def by_library(source: str, folder: Path) -> tuple[float, int, pl.DataFrame]:
    """Seconds, source rows and records for the whole table, read from and written to disk."""
    started = time.perf_counter()
    df, rejects = registry.load(source)
    df = check(grammar.describe(records.assign_splits(df)))
    records.write(df, folder / f"{source}.parquet")
    return time.perf_counter() - started, df.height + rejects.height, df


def forget() -> None:
    """Empty what the library remembers of labels and sentences: neither side profits from the other."""
    for name, module in list(sys.modules.items()):
        if name.startswith("chexgen_lib."):
            for function in vars(module).values():
                getattr(function, "cache_clear", lambda: None)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000, help="rows of each source for the loop")
    arguments = parser.parse_args()
    registry.finding_of("")  # imports every reader, before a clock starts
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for source in PLAIN:
            forget()
            per_row, looped = by_loop(source, arguments.rows)
            forget()
            seconds, rows, df = by_library(source, Path(folder))
            ours = looped.select("image_id").join(df, on="image_id", how="left", maintain_order="left")
            if not ours.select(COMPARED).equals(looped):
                raise SystemExit(f"{source}: the loop and the library differ; a speed is not comparable")
            results.append(
                {
                    "source": source,
                    "rows": rows,
                    "library_s": round(seconds, 2),
                    "library_rows_per_s": round(rows / seconds),
                    "loop_rows": arguments.rows,
                    "loop_rows_per_s": round(1 / per_row),
                    "speedup": round(per_row * rows / seconds, 1),
                    "loop_s_at_full_size": round(per_row * rows, 1),
                }
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table = pl.DataFrame(results).with_columns(cores=pl.lit(os.cpu_count()), peak_gib=pl.lit(round(peak, 2)))
    table.write_csv(Path(__file__).with_suffix(".csv"))
    print(table)


if __name__ == "__main__":
    main()
