"""`chexgen edit`: a table of films, what is known of each and what is asked, in; edited films out."""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

import chexgen_lib
from chexgen_lib.cli.overwriting import check_outputs, check_table
from chexgen_lib.cli.sample import load_pipeline, sha256_of
from chexgen_lib.descriptions.changes import ATTRIBUTES, CHOICES, PATHOLOGIES, PLACE, changed
from chexgen_lib.export.images import read_recipe, save
from chexgen_lib.images import read_image, to_uint8
from chexgen_lib.models.loading import fastest_device
from chexgen_lib.models.metadata import DETAIL, encode_metadata
from chexgen_lib.records import FINDINGS, MAX_AGE, RecordError
from chexgen_lib.sampling.conditions import value_of
from chexgen_lib.sampling.editing import UnreadError, check_film, check_radiograph
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.sampling.prompts import LONGEST, absent, presence
from chexgen_lib.sources.given import named_file
from chexgen_lib.sources.table import read_given
from chexgen_lib.storage import digest, hash_key, write_csv

NEEDED = ("pair", "image", "change")
COLUMNS = ("pair", "image", "edited")  # of the table that is written
KNOWN = (*ATTRIBUTES, "details", "source")  # of the film
BESIDE = ("guidance", "attribute", "prompt", "source_prompt")  # the last three are the benchmark's, and not read


def edit(options: argparse.Namespace) -> int:
    """Edit the films of a table into a folder, with `labels.csv`; returns 1 where a change could not be made.

    Each film carries a digest of what it was made from, so that an interrupted call goes on with the next.

    Raises:
        ValueError: before anything is edited, naming the row and the remedy.
    """
    rows, labels = read_rows(options.films), options.out / "labels.csv"
    paths = [options.out / f"{row['pair']}.png" for row in rows]
    check_outputs(paths, [labels], [options.films, *(row["image"] for row in rows)])
    check_table(labels, COLUMNS)
    pipeline = load_pipeline(options.weights).to(fastest_device())
    try:
        pipeline.check_invertible()
    except ValueError as error:
        raise ValueError(f"--weights {options.weights}: {error}") from error
    _check_films(options.films, rows, pipeline)
    asked = {"strength": options.strength, "num_inference_steps": options.steps, "guidance_scale": options.guidance}
    made_from = {"chexgen_lib": chexgen_lib.__version__, **sha256_of(options.weights)}
    labels.unlink(missing_ok=True)  # it comes back when all films are as it says
    said = []
    for row, path in zip(tqdm(rows, desc="edits", unit="film"), paths, strict=True):
        settings = asked | ({} if row["guidance"] is None else {"guidance_scale": row["guidance"]})
        recipe = made_from | settings | row | {"image": digest(row["image"])}
        key = hash_key(json.dumps(recipe, sort_keys=True))  # a film says no more of its patient than it shows
        done = read_recipe(path)
        if done is None or done.get("made_from") != key:
            film, edited = _edited(pipeline, row, {name: v for name, v in settings.items() if v is not None})
            done = {"made_from": key, "edited": edited}
            save(path, to_uint8(film), done)
        elif not done["edited"]:
            print(f"chexgen: {row['pair']} was left as it was by an earlier call", file=sys.stderr)
        said.append(dict(zip(COLUMNS, (row["pair"], path.name, done["edited"]), strict=True)))
    write_csv(pl.DataFrame(said), labels)
    return 0 if all(film["edited"] for film in said) else 1


def _edited(pipeline: ChexGenPipeline, row: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
    """The film of a row after its change, and whether the model could make it; if not, as it was."""
    film = read_image(row["image"])
    try:
        made = pipeline.edit(film, row["change"], row["record"], output_type="np", **settings)
    except UnreadError as error:
        reason = str(error).removeprefix("film 0: ")  # of those of this call
        print(f"chexgen: {row['pair']} is left as it was: {reason}", file=sys.stderr)
        return film, False
    except ValueError as error:
        raise ValueError(f"{row['pair']}: {error}") from error
    return made.images[0, ..., 0], True


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a table of films: pair, image (its path), change, record and guidance or None, every one checked.

    The table has the columns pair (a name), image (a file beside the table), change (JSON, as
    `descriptions.changes.changed` takes it), and what is known of the film: age, sex, view, site, findings (1 or 0) and
    details (JSON, a list). `guidance`, if there is such a column, is the weight of that row's change.

    Raises:
        ValueError: for a missing table or column, or up to ten rows that cannot be used, with the reason of each.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is a folder: name a table of films")
    try:
        table = read_given(path, "pair", ("pair", "image", "change"))
    except RecordError as error:
        raise ValueError(f"{error}; save it as CSV with the columns {', '.join(NEEDED)}") from error
    if missing := [name for name in NEEDED if name not in table.columns]:
        raise ValueError(f"{path}: no column {missing[0]}; it needs {', '.join(NEEDED)}, and what is known of the film")
    known = (*NEEDED, *KNOWN, *BESIDE)
    if unused := [column for column in table.columns if column not in known]:
        columns = ", ".join((*NEEDED, *KNOWN, "guidance"))
        warnings.warn(f"{path}: not used: {', '.join(unused)}; known columns: {columns}", stacklevel=2)
    rows, wrong = [], []
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        given = {name: value for name, value in row.items() if not absent(value)}
        try:
            if given:  # spreadsheets save empty rows, too
                rows.append(_row(given, path.parent))
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
    names = [row["pair"].casefold() for row in rows]  # some disks do not tell a file A from a file a
    wrong += [f"pair {name!r} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not rows and not wrong:
        raise ValueError(f"{path} has no rows: write one for each film")
    _refuse(path, wrong)
    return rows


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    """Raise ValueError if rows of the table at `path` are wrong, with the reasons of the first ten."""
    if wrong:
        raise ValueError("\n  ".join([f"{path}: {len(wrong)} rows cannot be used", *wrong[:10]]))


def _check_films(path: Path, rows: Sequence[Mapping[str, Any]], pipeline: ChexGenPipeline) -> None:
    """Raise ValueError for films or requests of rows that the model cannot take; no film is kept in memory."""
    wrong = []
    for row in rows:
        name = str(row["image"])
        try:
            film = check_film(read_image(name), pipeline.image_size, name)
            check_radiograph(film, row["record"], name)
            _check_read(row, pipeline)
        except ValueError as error:
            wrong.append(f"{row['pair']}: {error}")
    _refuse(path, wrong)


def _check_read(row: Mapping[str, Any], pipeline: ChexGenPipeline) -> None:
    """Raise ValueError for a film or a change whose words or metadata the model cannot read."""
    asked = pipeline.requests_of([row["record"], changed(row["record"], row["change"])])
    pipeline.encode_prompt(asked.prompts, asked.metadata)
    if asked.metadata is not None:
        encode_metadata(asked.metadata, pipeline.transformer.metadata_sources)


def _row(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    name = row.get("pair", "")
    if Path(name).name != name or name.startswith(".") or not 0 < len(name.encode()) <= LONGEST:
        raise ValueError(f"pair {name!r} is no plain file name of up to {LONGEST} letters")
    if missing := [column for column in NEEDED if column not in row]:
        raise ValueError(f"{missing[0]} is empty")
    image = named_file(folder, row["image"])
    if not image.is_file():
        raise ValueError(f"{image} does not exist")
    change, record = _json(row, "change"), _record(row)
    changed(record, change)
    guidance = row.get("guidance")
    guidance = guidance if guidance is None else _number("guidance", guidance)
    return {"pair": name, "image": image, "change": change, "record": record, "guidance": guidance}


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a row's film, as a Record has it."""
    record = {key: row[key] for key in KNOWN if key in row} | {"image_id": row["pair"]}
    for key in ("sex", "view"):
        if record.get(key) not in (None, *CHOICES[key]):
            raise ValueError(f"{key} {record[key]!r} is none of {', '.join(CHOICES[key])}")
    if "age" in record:
        record["age"] = _number("age", record["age"])
    record |= {finding: presence(finding, record[finding]) for finding in FINDINGS if finding in record}
    shown = [finding for finding in PATHOLOGIES if record.get(finding) == 1]
    if record.get("No Finding") == 1 and shown:
        raise ValueError(f"No Finding and {shown[0]} are both 1: set one of them to 0")
    details = _json(row, "details") if row.get("details") else []
    if not isinstance(details, list):
        raise ValueError(f"details {details!r} is no list: write [{DETAIL}]")
    details = [_detail(detail) for detail in details]
    if absent_ones := [detail["finding"] for detail in details if record.get(detail["finding"]) != 1]:
        raise ValueError(f"details of {absent_ones[0]!r}, whose column is not 1: set it to 1, or leave the details out")
    return record | {"details": details}


def _number(key: str, value: Any) -> float:
    """An age or a weight; polars reads a column as text where one of its values is no number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        number = math.nan
    if key == "guidance":
        if not 0 < number < math.inf:
            raise ValueError(f"guidance {value!r} is no weight above 0: leave it empty for the default")
        return number
    if not 0 <= number <= MAX_AGE:
        raise ValueError(f"age {value!r} is no number of years from 0 to {MAX_AGE}")
    return number


def _detail(detail: Any) -> dict[str, Any]:
    if (
        not isinstance(detail, Mapping)
        or set(detail) - {"finding", *PLACE}
        or not isinstance(detail.get("finding"), str)
    ):
        raise ValueError(f"details of {detail!r} are not understood: write {DETAIL}")
    for key in ("side", "severity"):
        if detail.get(key) not in (None, *PLACE[key]):
            raise ValueError(f"{key} {detail[key]!r} of {detail['finding']} is none of {', '.join(PLACE[key])}")
    return dict(detail)


def _json(row: Mapping[str, Any], column: str) -> Any:
    try:
        return value_of(row[column])
    except (ValueError, TypeError) as error:  # a number, where the table is read so
        raise ValueError(f"{column} {row[column]!r} is no JSON: {error}") from error
