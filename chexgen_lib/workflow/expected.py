"""What each notebook must compute with its default parameters: tests/expected/NN_name, and how exactly.

A folder holds CSV files only:

    cells.csv            the code cells: a digest of each one's code without comments, and its first line
    figures.csv          the PNG files: width and height in pixels, and ink, the share of pixels unlike the background
    metrics.csv          metrics.json, one row per number
    tables/NAME.csv      the tables that the notebook wrote beside its figures

tests/expected/tolerances.yaml says how far a number may be from the expected one. Words, whole numbers and the order of
rows must be equal. Decimal numbers may differ a little, because processors round differently and training amplifies it.
"""

import ast
import csv
import fnmatch
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from nbformat import NotebookNode
from PIL import Image

from chexgen_lib.storage import replacing
from chexgen_lib.workflow.notebooks import NotebookError, code_cells, load_yaml

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
SHOWN = 5  # differences of one file that a message lists

Files = dict[str, str]  # contents by path below tests/expected/NN_name


@dataclass(frozen=True)
class Tolerance:
    """How far a decimal number may be from the expected one: the larger of an absolute and a relative distance."""

    absolute: float = 0.0
    relative: float = 0.0

    def allows(self, actual: str, expected: str) -> bool:
        """Whether two texts differ in nothing but decimal numbers, and in these by no more than this."""
        if actual == expected:
            return True
        if NUMBER.sub("", actual) != NUMBER.sub("", expected):
            return False
        numbers, wanted = NUMBER.findall(actual), NUMBER.findall(expected)
        return len(numbers) == len(wanted) and all(map(self._near, numbers, wanted))

    def _near(self, actual: str, expected: str) -> bool:
        if not set(".eE") & set(actual + expected):  # both are whole numbers
            return int(actual) == int(expected)
        a, b = float(actual), float(expected)
        return abs(a - b) <= max(self.absolute, self.relative * abs(b))


class Tolerances:
    """The rules of tolerances.yaml: patterns of `NN_name/FILE.csv:COLUMN` and tolerances; the last that fits counts.

    In metrics.csv, COLUMN is the name of the metric. The tolerance `any` is for what measures the machine, not the run.
    """

    def __init__(self, rules: dict[str, Any]):
        self.rules = [(pattern, None if rule == "any" else Tolerance(**rule)) for pattern, rule in rules.items()]

    def of(self, address: str) -> Tolerance | None:
        """The tolerance of a column; None for one that is not compared."""
        fitting = [rule for pattern, rule in self.rules if fnmatch.fnmatchcase(address, pattern)]
        return fitting[-1] if fitting else Tolerance()


def load_tolerances(folder: Path) -> Tolerances:
    return Tolerances(load_yaml(folder / "tolerances.yaml"))


# What a notebook is and wrote, as such files.


def of_cells(notebook: NotebookNode) -> str:
    """cells.csv of a notebook."""
    rows = []
    for cell in code_cells(notebook):
        code = ast.dump(ast.parse(cell.source))
        lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        rows.append((hashlib.sha256(code.encode()).hexdigest()[:12], lines[0] if lines else ""))
    return _written(("digest", "begins"), rows)


def of_figures(paths: dict[str, Path]) -> str:
    """figures.csv of PNG files by name."""
    rows = []
    for name, path in sorted(paths.items()):
        with Image.open(path) as image:
            rows.append((name, image.width, image.height, f"{ink(path):.4f}"))
    return _written(("figure", "width", "height", "ink"), rows)


def ink(file: Path | BinaryIO) -> float:
    """Share of an image's pixels that are unlike the commonest colour: 0 of a blank one."""
    with Image.open(file) as image:
        counts = image.convert("RGB").getcolors(image.width * image.height)
        return 1 - max(count for count, _ in counts) / (image.width * image.height)


def of_metrics(path: Path) -> str:
    """metrics.csv of a metrics.json."""
    return _written(("metric", "value"), list(_leaves(json.loads(path.read_text()), "")))


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _written(header: tuple[str, ...], rows: list[tuple]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


# Keeping and comparing them.


def load(folder: Path) -> Files:
    """The expected files of one notebook."""
    if not folder.is_dir():
        raise NotebookError(f"nothing is expected of {folder.name} yet: `make expected NAMES={folder.name}`")
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.csv"))}


def outputs_of_others(folder: Path, name: str) -> set[str]:
    """Figures and tables that are expected of other notebooks than `name`, and not of this one."""
    outputs: dict[bool, set[str]] = {True: set(), False: set()}
    for path in folder.glob("*/"):
        files = load(path)
        own = outputs[path.name == name]
        own |= {file.removeprefix("tables/") for file in files if file.startswith("tables/")}
        own |= {row["figure"] for row in _rows(files.get("figures.csv", ""))}
    return outputs[False] - outputs[True]


def save(files: Files, folder: Path) -> None:
    """Replace what is expected of a notebook."""
    with replacing(folder) as partial:
        for name, text in files.items():
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def differences(name: str, actual: Files, expected: Files, tolerances: Tolerances) -> list[str]:
    """One line for each thing of the notebook `name` that is not as expected."""
    lines = [f"{file}: expected, but not written" for file in expected if file not in actual]
    lines += [f"{file}: written, but not expected" for file in actual if file not in expected]
    lines += [f"{row['figure']} is blank" for row in _rows(actual.get("figures.csv", "")) if not float(row["ink"])]
    for file in sorted(actual.keys() & expected.keys()):
        found = list(_of_file(f"{name}/{file}", actual[file], expected[file], tolerances))
        lines += found[:SHOWN]
        if len(found) > SHOWN:
            lines.append(f"{file}: {len(found) - SHOWN} more differences")
    return lines


def _of_file(address: str, actual: str, expected: str, tolerances: Tolerances) -> Iterator[str]:
    if actual == expected:
        return
    file = address.partition("/")[2]
    rows, wanted = _rows(actual), _rows(expected)
    if rows and wanted and list(rows[0]) != list(wanted[0]):
        yield f"{file}: columns {', '.join(rows[0])}; expected {', '.join(wanted[0])}"
        return
    keyed = {"cells.csv": "digest", "figures.csv": "figure", "metrics.csv": "metric"}.get(file)
    if keyed and [row[keyed] for row in rows] != [row[keyed] for row in wanted]:
        yield from _other_rows(file, keyed, rows, wanted)
        return
    for number, (row, other) in enumerate(zip_longest(rows, wanted), 2):
        if row is None or other is None:
            yield f"{file}: {len(rows)} rows, expected {len(wanted)}"
            return
        for column in other:
            tolerance = tolerances.of(f"{address}:{other['metric'] if file == 'metrics.csv' else column}")
            if tolerance and not tolerance.allows(row[column], other[column]):
                label = other[keyed] if keyed else f"line {number}"
                yield f"{file}, {label}: {column} is {row[column]!r}, expected {other[column]!r}"


def _other_rows(file: str, key: str, rows: list[dict], wanted: list[dict]) -> Iterator[str]:
    """Rows that have no counterpart: cells, figures or metrics that went or came."""
    label = "begins" if key == "digest" else key
    present, asked = {row[key] for row in rows}, {row[key] for row in wanted}
    changes = [f"{file}: missing {row[label]!r}" for row in wanted if row[key] not in present]
    changes += [f"{file}: not expected {row[label]!r}" for row in rows if row[key] not in asked]
    yield from changes or [f"{file}: {len(rows)} rows in another order or number, expected {len(wanted)}"]


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
