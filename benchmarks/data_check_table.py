"""What `chexgen data check` says of every dataset in sound, damaged and unusual layouts.

    python -m benchmarks.data_check_table

Lays each dataset out in a temporary folder as `tests/sources/unusual_layouts.py` does, and writes data_check_table.csv
beside this file: source, layout, kind (sound, unclear, useless), fine, records, found (records whose image can be
read), says (the first remedy). Fails if a check says fine where no record finds an image, refuses a layout that is
sound, or refuses one without a remedy.
"""

import sys
import tempfile
from pathlib import Path

import polars as pl
from tqdm import tqdm

from chexgen_lib.images import read_image
from chexgen_lib.pixels import ImageError
from chexgen_lib.records import RecordError
from chexgen_lib.sources import registry
from tests.sources import unusual_layouts as unusual

KINDS = {"sound": unusual.SOUND, "unclear": unusual.UNCLEAR, "useless": unusual.USELESS}


def checked(source: str, root: Path) -> tuple[str, bool]:
    """What the command says of a dataset, and whether it calls it fine."""
    try:
        return registry.check(source, root)
    except RecordError as error:
        return f"first remedy: {error}", False


def found_images(source: str, folder: Path) -> tuple[int | None, int]:
    """Records that are read, null where none can be, and how many of them have an image that can be read."""
    try:
        images = registry.load(source, folder)[0]["image"]
    except RecordError:
        return None, 0
    return len(images), sum(readable(folder / image) for image in images.drop_nulls())


def readable(path: Path) -> bool:
    try:
        return path.is_file() and read_image(path).size > 0
    except ImageError:
        return False


def row(source: str, kind: str, layout: unusual.Layout) -> dict:
    """What is said of one dataset in one layout."""
    with tempfile.TemporaryDirectory() as place:
        folder = unusual.whole(source, Path(place))
        layout(folder)
        said, fine = checked(source, Path(place))
        records, found = found_images(source, folder)
        remedy = next((line for line in said.splitlines() if line.startswith("first remedy: ")), "")
        says = remedy.replace(f"{place}/", "").replace(place, "")
    name = layout.__name__.replace("_", " ")
    return dict(source=source, layout=name, kind=kind, fine=fine, records=records, found=found, says=says)


def main() -> None:
    cases = [(source, kind, layout) for source in registry.ALL for kind in KINDS for layout in KINDS[kind]]
    table = pl.DataFrame([row(*case) for case in tqdm(cases)], infer_schema_length=None)
    table.write_csv(Path(__file__).with_suffix(".csv"))
    refused = ~pl.col("fine") & ((pl.col("kind") == "sound") | (pl.col("says") == ""))
    wrong = table.filter((pl.col("fine") & (pl.col("found") == 0)) | refused)
    with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=110, tbl_width_chars=250):
        print(table.group_by("layout", "kind", maintain_order=True).agg(pl.sum("fine"), checks=pl.len()), wrong)
    sys.exit(not wrong.is_empty())


if __name__ == "__main__":
    main()
