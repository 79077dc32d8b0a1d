"""What DVC watches of the user's data: a table of the folders in params.yaml's `data`, in `root`/data.csv.

    python -m chexgen_lib.workflow.data_files

Left to itself, DVC would read every byte of these folders before the first stage, terabytes in profile `paper`, and see
nothing behind links in them. The stage `data` lists them instead, on every run: folder, files, bytes, and a digest of
the files' names, sizes and times. The names themselves stay where they are, since they may be credentialed. A single
file, such as the lock of the packages whose tables the laptop reads, is told apart by its content.
"""

import csv
import os
import sys
from hashlib import sha256
from pathlib import Path

from chexgen_lib.storage import names_below, replacing
from chexgen_lib.workflow.notebooks import ROOT, NotebookError, load_yaml

COLUMNS = ("folder", "files", "bytes", "digest")


def table(data: Path) -> list[tuple[str, int, int, str]]:
    """A row of `COLUMNS` for each folder in `data`, links followed, and one for the files that lie in `data` itself.

    Hidden files do not count.

    Raises:
        NotebookError: if there is no such file or folder.
    """
    if data.is_file():
        return [(data.name, 1, data.stat().st_size, sha256(data.read_bytes()).hexdigest())]
    if not data.is_dir():
        raise NotebookError(f"data={data}: no such folder; link it to yours, or give yours, SET=data=FOLDER")
    found: dict[str, list[tuple[str, int, int]]] = {}
    for name in names_below(data, lambda part: part.startswith(".")):
        status = os.stat(data / name)
        folder = name.partition("/")[0] if "/" in name else ""
        found.setdefault(folder, []).append((name, status.st_size, status.st_mtime_ns))
    return [
        (folder, len(files), sum(size for _, size, _ in files), sha256(repr(files).encode()).hexdigest())
        for folder, files in sorted(found.items())
    ]


def write_table() -> None:
    """Write the table of what params.yaml names."""
    params = load_yaml(ROOT / "params.yaml")
    rows = table(ROOT / params["data"])
    with replacing(ROOT / params["root"] / "data.csv") as partial, partial.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    try:
        write_table()
    except NotebookError as error:
        sys.exit(f"error: {error}")
