"""`chexgen edit`: a table of films, what is known of each and what is asked, in; edited films out."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from chexgen_lib.cli.sample import load_pipeline
from chexgen_lib.descriptions.changes import ATTRIBUTES, changed
from chexgen_lib.images import read_image, write_png
from chexgen_lib.models.loading import fastest_device
from chexgen_lib.records import FINDINGS
from chexgen_lib.sampling.editing import UnreadError
from chexgen_lib.storage import replacing

NEEDED = ("pair", "image", "change")
KNOWN = (*ATTRIBUTES, "details", "source")  # of the film; other columns are not used, but for `guidance`


def edit(options: argparse.Namespace) -> int:
    """Edit the films of a table into a folder, with `labels.csv`; returns 1 where a change could not be made.

    Raises:
        ValueError: before anything is edited, naming the row and the remedy.
    """
    rows = read_rows(options.films)
    pipeline = load_pipeline(options.weights).to(fastest_device())
    asked = {"strength": options.strength, "num_inference_steps": options.steps, "guidance_scale": options.guidance}
    options.out.mkdir(parents=True, exist_ok=True)
    unread = []
    for row in tqdm(rows, desc="edits", unit="film"):
        film = read_image(row["image"])
        own = asked | ({} if row["guidance"] is None else {"guidance_scale": row["guidance"]})
        settings = {name: value for name, value in own.items() if value is not None}
        try:
            film = pipeline.edit(film, row["change"], row["record"], output_type="np", **settings).images[0, ..., 0]
        except UnreadError as error:
            unread.append(row["pair"])
            print(f"chexgen: {row['pair']} is left as it was: {error}", file=sys.stderr)
        write_png(options.out / f"{row['pair']}.png", film)
    said = [{"pair": r["pair"], "image": f"{r['pair']}.png", "edited": r["pair"] not in unread} for r in rows]
    with replacing(options.out / "labels.csv") as partial:
        pl.DataFrame(said).write_csv(partial)
    return 1 if unread else 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table of films: pair, image (its path), change, record and guidance or None, every one checked.

    The table has the columns pair (a name), image (a file beside the table), change (JSON, as
    `descriptions.changes.changed` takes it), and what is known of the film: age, sex, view, site, findings (1 or 0) and
    details (JSON). `guidance`, if there is such a column, is the weight of that row's change.

    Raises:
        ValueError: for a missing table or column, or up to ten rows that cannot be used, with the reason of each.
    """
    try:
        table = pl.read_csv(path, infer_schema_length=None, schema_overrides={"pair": pl.String, "change": pl.String})
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path} cannot be read as a table with commas: {error}") from error
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise ValueError(f"{path}: no column {missing[0]}; it needs {', '.join(NEEDED)}, and what is known of the film")
    rows, wrong = [], []
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        try:
            rows.append(_row(row, path.parent))
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
    names = [row["pair"] for row in rows]
    wrong += [f"pair {name!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if wrong or not rows:
        raise ValueError("\n  ".join([f"{path}: {len(wrong) or 'no'} rows cannot be used", *wrong[:10]]))
    return rows


def _row(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    name = row["pair"]
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"pair {name!r} is no plain file name")
    if not (folder / str(row["image"])).is_file():
        raise ValueError(f"{folder / str(row['image'])} does not exist")
    change = _json(row, "change")
    record = {key: row[key] for key in KNOWN if row.get(key) is not None} | {"image_id": name}
    record["details"] = _json(row, "details") if row.get("details") else []
    record |= {finding: float(record[finding]) for finding in FINDINGS if finding in record}
    changed(record, change)
    guidance = row.get("guidance")
    if not (guidance is None or isinstance(guidance, int | float) and 0 < guidance < math.inf):
        raise ValueError(f"guidance {guidance!r} is no weight above 0: leave it empty for the default")
    return {"pair": name, "image": folder / row["image"], "change": change, "record": record, "guidance": guidance}


def _json(row: Mapping[str, Any], column: str) -> Any:
    try:
        return json.loads(row[column])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{column} {row[column]!r} is no JSON: {error}") from error
