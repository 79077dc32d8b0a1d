"""What is known of a public dataset before it is read: who made it, how to get it, which files it consists of.

Each source module carries one `DATASHEET`; `chexgen data` and docs/datasets.md are made from them.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from chexgen_lib.sources.files import Tree

ROLES = ("stage I", "stage II", "annotation-to-image", "downstream")
HASHED = "by a hash of the patient: its publisher's, if there is one, is not read"
PRESENT, MISSING, EMPTY, OPTIONAL = "present", "missing", "empty", "not there (optional)"


@dataclass(frozen=True)
class Part:
    """Files that belong together; `pattern` is as `files.Tree.matches` understands it.

    read: whether a dataset's folder is read with them, or they are for other uses.
    either: of what they are one of several forms, "table" or "images", of which one is needed; "" if they are none.
    """

    pattern: str
    holds: str
    needed: bool = True
    read: bool = True
    either: str = ""

    @property
    def is_image(self) -> bool:
        """Whether these are the radiographs, which `files.Tree.find` finds in other places, too."""
        return self.pattern.endswith((".png", ".jpg", ".dcm", ".dicom", "/*"))

    def files(self, tree: Tree) -> list[Path]:
        """Those that a dataset's folder holds, sorted. A pattern `../NAME/...` is of the folder NAME beside it, if
        there is one."""
        if not self.pattern.startswith("../"):
            return [tree.folder / name for name in tree.matches(self.pattern)]
        _, beside, pattern = self.pattern.split("/", 2)
        folder = tree.folder.parent / beside
        tree = Tree(folder) if folder.is_dir() else tree
        return [tree.folder / name for name in tree.matches(pattern)]


@dataclass(frozen=True)
class Datasheet:
    """Facts of one dataset as its publisher states them.

    Attributes:
        source: name of its module, and of its folder below a data root.
        title, citation: as the publisher asks it to be cited.
        role: one of `ROLES`, what the paper uses it for.
        paper_name: its name in ED Tables 1 and 2 (`paper/published_results.csv`); None if it is in neither.
        size: images, patients and what is annotated.
        licence, obtain: terms, and how access is given.
        parts: the files, in the publisher's layout; those that can come in several layouts are not `needed`.
        shipped: whether its table comes with torchxrayvision and needs no download.
        short_name: for figures, where neither the paper's name nor the title serves.
        gives: the Record's columns that are of no use to anybody if all are empty: image, report, mask;
            and boxes, where some of an image whose size is not known would be lost.
        split: where training and test set come from (`records.assign_splits`).
        caution: what results that are based on its annotations must take into account.
    """

    source: str
    title: str
    role: str
    paper_name: str | None
    size: str
    licence: str
    obtain: str
    citation: str
    parts: tuple[Part, ...]
    shipped: bool = False
    short_name: str | None = None
    gives: tuple[str, ...] = ("image",)
    caution: str = ""
    split: str = HASHED

    @property
    def figure_name(self) -> str:
        """Its name in figures: short, the paper's where it has one."""
        return self.short_name or self.paper_name or self.title

    def check(self, folder: Path | Tree) -> pl.DataFrame:
        """State of each part in a folder: part, holds, files, bytes, state (one of the constants above)."""
        rows, tree = [], Tree.of(folder)
        found = {part: [path.stat().st_size for path in part.files(tree)] for part in self.parts}
        there = {part.either for part, sizes in found.items() if any(sizes)}
        for part, sizes in found.items():
            absent = MISSING if part.needed or part.either and part.either not in there else OPTIONAL
            state = PRESENT if any(sizes) else EMPTY if sizes else absent
            rows.append((part.pattern, part.holds, len(sizes), sum(sizes), state))
        columns = {"part": pl.String, "holds": pl.String, "files": pl.Int64, "bytes": pl.Int64, "state": pl.String}
        return pl.DataFrame(rows, schema=columns, orient="row")
