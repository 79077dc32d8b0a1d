"""The one list of datasets: their readers, which of them are on this disk, and their counts beside the paper's.

A new dataset is a module in this folder and its name in `ALL`.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import polars as pl
from tqdm import tqdm

from chexgen_lib.paper import published
from chexgen_lib.records import FINDINGS, RecordError
from chexgen_lib.sources import image_sizes, mesh_headings
from chexgen_lib.sources.datasheet import EMPTY, MISSING, PRESENT, ROLES, Datasheet, Part
from chexgen_lib.sources.files import Tree
from chexgen_lib.sources.table import REPAIRS

ALWAYS = ("nih", "chexpert", "padchest", "openi")  # curated in every run: torchxrayvision ships their tables
ALL = (
    *ALWAYS,
    *("mimic_cxr", "bimcv_covid", "vindr_pcxr", "brax", "vindr_cxr"),
    *("ranczr_clip", "siim_acr_ptx", "candid_ptx", "vindr_ribcxr", "object_cxr", "chestx_det", "ralo", "chest_dr"),
)
STATE_SHIPPED = "ships with torchxrayvision"
INTRODUCTION = """Made from the datasheets in `chexgen_lib/sources` by `make docs`.

Put each dataset, or a link to it, into a folder of its source's name below a data root `DATA`;
`chexgen data check --source NAME --root DATA` then says what is missing, which tables it read, and how many records
find their image, report or mask. Patterns are those of Python's `Path.glob`, in any depth and case: files may lie in
further folders, tables may be packed (.gz, .zip, .bz2, .xz), hidden files do not count. A part that is optional is not
needed to read the records. Of two tables, or two files of one image, that
differ none is chosen: move one away. Where files of one image differ in type, the one of the type that the table names
is taken.

No patient is in two sets, of one dataset or of several with the same images: who is tested on in one of them is tested
on in all. Validation is cut from the training set by a hash of the patient (`chexgen_lib.records.assign_splits`)."""


def reader(source: str) -> ModuleType:
    """The module of a source.

    Raises:
        RecordError: if there is none of that name.
    """
    if source not in ALL:
        raise RecordError(f"unknown source {source!r}: choose from {', '.join(ALL)}")
    return import_module(f"{__package__}.{source}")


def load(source: str, path: str | Path | Tree | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of a source by name; `image` is the file's path in the folder, where it is found there.

    Raises:
        RecordError: for an unknown source, one whose table is not shipped where no path is given, or an unusable file.
    """
    module = reader(source)
    sheet = module.DATASHEET
    if path is None and not sheet.shipped:
        raise RecordError(f"{source}: its table is not shipped; give its folder. To obtain: {sheet.obtain}")
    if path is None:
        return module.load()
    tree = Tree.of(path)
    records, rejects = module.load(tree)
    if tree.names:
        found = tree.find(records["image"]).filter(pl.col("rival").is_null())
        images = dict(found.drop_nulls("file").select("image", "file").iter_rows())
        records = records.with_columns(pl.col("image").replace(images))
    return records, rejects


def repairs(source: str, path: str | Path | Tree | None = None) -> pl.DataFrame:
    """The values of a source that could not be used, one row each: the Record holds null in their place.

    A reader without `repairs` rejects the row of such a value.
    """
    module = reader(source)
    return module.repairs(path) if hasattr(module, "repairs") else pl.DataFrame(schema=REPAIRS)


def emptied(source: str, path: str | Path | Tree | None = None) -> list[str]:
    """A line for each field of which `repairs` lists values, with the first of them; boxes are said of elsewhere."""
    own = (
        repairs(source, path)
        .filter(pl.col("field") != "boxes")
        .group_by("field", maintain_order=True)
        .agg(pl.len(), pl.first("value", "row"))
    )
    return [f"{n:,} x {field} left empty, first {value!r} in row {row}" for field, n, value, row in own.iter_rows()]


@cache
def finding_of(label: str) -> str | None:
    """The CheXpert finding that a source's label means, or None where it means none of the 14."""
    if label in FINDINGS:
        return label
    for source in ALL:
        if label in (table := getattr(reader(source), "FINDING_OF", {})):
            return table[label]
    return mesh_headings.parse_heading(label).finding  # Open-i's labels are no closed list


def figure_names(sources: Iterable[str]) -> dict[str, str]:
    """Source -> its name in figures, each once, in the order of `ALL`; last those that are not in it, as they are."""
    present = set(sources)
    known = {source: reader(source).DATASHEET.figure_name for source in ALL if source in present}
    return known | {source: source for source in sorted(present - set(ALL))}


def overview(root: Path | None = None) -> pl.DataFrame:
    """One row per dataset: source, title, role, cases in the paper (ED Tables 1 and 2), state below a data root."""
    _check_root(root)
    rows = [(s.source, s.title, s.role, paper_cases(s), _state(s, root)) for s in sheets()]
    columns = {"source": pl.String, "title": pl.String, "role": pl.String, "paper": pl.Int64, "state": pl.String}
    return pl.DataFrame(rows, schema=columns, orient="row")


def sheets() -> list[Datasheet]:
    """Every dataset's datasheet, in the order of the roles."""
    found = [reader(source).DATASHEET for source in ALL]
    return sorted(found, key=lambda sheet: ROLES.index(sheet.role))


def paper_cases(sheet: Datasheet) -> int | None:
    """Cases of a dataset in the paper's ED Tables 1 and 2, None where they do not list it."""
    tables = pl.concat([published.load("table1"), published.load("table2")])
    values = dict(tables.select("dataset", pl.col("value").cast(pl.Int64)).iter_rows())
    return values.get(sheet.paper_name)


def load_all(root: Path | None = None) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """Records and rejects of the sources of every run, and of all others that have a folder below the data root.

    A dataset that lies below the root is read from there, and `image` begins with its folder. Of NIH, if images lie
    there, the records without one are rejects: its archives are often unpacked in part.
    """
    _check_root(root)
    loaded = {}
    for source in tqdm(list(dict.fromkeys([*ALWAYS, *(sheet.source for sheet in sheets())])), desc="reading"):
        if root is not None and (root / source).is_dir():
            records, rejects = load(source, root / source)
            if source == "nih":
                records, rejects = _with_images_beside(records, rejects, root / source)
            loaded[source] = records.with_columns(image=pl.lit(f"{source}/") + pl.col("image")), rejects
        elif source in ALWAYS:
            loaded[source] = load(source)
    return loaded


def _with_images_beside(
    records: pl.DataFrame, rejects: pl.DataFrame, folder: Path
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """NIH's records whose image lies in the folder of its tables, or all where none has one there."""
    attached, left = reader("nih").attach_images(records, folder)
    if attached.is_empty():
        return records, rejects
    # without the files that are no record's image, such as the tables: accounts are of the rows of a table
    return attached, pl.concat([rejects, left.filter(pl.col("source") == "nih")])


def with_images(loaded: dict[str, tuple[pl.DataFrame, pl.DataFrame]], folder: str | Path) -> dict:
    """What `load_all` returns, with NIH's records only where their image lies in `folder`, and no other images.

    Raises:
        RecordError: if no image there is NIH's.
    """
    no_pixels = pl.lit(None, pl.String).alias("image")
    attached, absent = reader("nih").attach_images(loaded["nih"][0], folder)
    if attached.is_empty():
        example = loaded["nih"][0]["image"].first()
        raise RecordError(
            f"{folder}: no file is named as one of NIH's images{f' ({example})' if example else ''}, by which records "
            "are found; other films need a module of their own in chexgen_lib/sources (docs/own_data.md)"
        )
    others = {source: (records.with_columns(no_pixels), rejects) for source, (records, rejects) in loaded.items()}
    return others | {"nih": (attached, pl.concat([loaded["nih"][1], absent]))}


def check(source: str, root: Path | None = None) -> tuple[str, bool]:
    """A report on one dataset in `root / source` (its shipped table without a root), and whether it can be used.

    Raises:
        RecordError: for an unknown source, or one that is not shipped where no root is given.
    """
    sheet = reader(source).DATASHEET
    lines = [f"{sheet.title} ({source}): {sheet.size}", *([f"mind: {sheet.caution}"] if sheet.caution else [])]
    if root is None and not sheet.shipped:
        raise RecordError(f"{source}: its table is not shipped; name the data root that holds {source}/ (--root)")
    if root is not None:
        _check_root(root)
        tree = Tree(_folder(sheet, root))
        said, ready = _check_parts(sheet, tree)
        lines += said
        if not ready:
            return "\n".join(lines), False
    try:
        records, rejects = load(source, None if root is None else tree)
        wants, ready = ([], True) if root is None else _check_finds(sheet, tree, records)
    except RecordError as error:
        return "\n".join([*lines, f"first remedy: {error}"]), False
    paper = paper_cases(sheet)
    beside = "not in ED Tables 1 and 2" if paper is None else f"paper: {paper:,} cases"
    rows = records.height + rejects.height
    lines += [f"{rows:,} rows = {records.height:,} records + {rejects.height:,} rejects ({beside})"]
    reasons = rejects["reason"].value_counts(sort=True).head(5)
    lines += [f"  {n:,} x {reason}" for reason, n in reasons.iter_rows()]
    lines += [f"  {line}" for line in emptied(source, None if root is None else tree)]
    views = records["view"].fill_null("unknown").value_counts(sort=True)
    lines += ["views: " + ", ".join(f"{n:,} {view}" for view, n in views.iter_rows())]
    if records.is_empty():
        reason = reasons["reason"][0] if rows else "the tables have no rows"
        wants = [*wants, f"first remedy: no row can be used ({reason}). {_obtain(sheet)}"]
    return "\n".join([*lines, *wants]), ready and not records.is_empty()


def _check_parts(sheet: Datasheet, tree: Tree) -> tuple[list[str], bool]:
    """What is said of a dataset's parts and the tables among them, and whether it can be read."""
    parts = sheet.check(tree)
    lines = [text(parts)]
    for part in sheet.parts:
        files = [] if part.is_image or not part.read else part.files(tree)[:5]
        lines += [f"reads {path}" for path in files if path.suffix != ".txt"]
    images = [part.pattern for part in sheet.parts if part.is_image]
    wanting = parts.filter(pl.col("state").is_in([MISSING, EMPTY]), ~pl.col("part").is_in(images))
    if wanting.is_empty():
        return lines, True
    first = wanting.row(0, named=True)
    forms = [part.pattern for part in sheet.parts if part.either == "table"]
    others = "".join(f" or {pattern}" for pattern in forms if pattern != first["part"]) * (first["part"] in forms)
    remedy = f"first remedy: {tree.folder / first['part']}{others} ({first['holds']}) is {first['state']}."
    return [*lines, remedy, _unpack(sheet, tree, _obtain(sheet))], False


def _check_finds(sheet: Datasheet, tree: Tree, records: pl.DataFrame) -> tuple[list[str], bool]:
    """How many records find their image, report and mask, and whether none of these has nothing, or two candidates."""
    # Rival files come first: neither gives a size or a frame, so that boxes and masks may be missing for them alone.
    lines, remedies = [], []
    files = tree.find(records["image"])
    hollow = tree.hollow(files["file"].drop_nulls())
    files = files.with_columns(pl.when(~pl.col("file").is_in(list(hollow))).then("file").alias("file"))
    found = records.select(
        "report", "mask", image=pl.col("image").replace_strict(files["image"], files["file"], default=None)
    )
    rivals = files.drop_nulls("rival")
    if rivals.height:
        image, file, rival = rivals.row(0)
        remedies += [f"{rivals.height:,} images have several files, first {image}: {file} and {rival}; move one away"]
    for column in (column for column in sheet.gives if column != "boxes"):
        n = found[column].count()
        lines += [f"{n:,} of {records.height:,} records find their {column}"]
        if not n and records.height:
            part = next((p for p in sheet.parts if p.is_image), sheet.parts[0])
            wanted = f" (for example {records['image'][0]})" if column == "image" else ""
            where = (
                _place_of_images(sheet, tree, hollow, part)
                if column == "image"
                else _unpack(sheet, tree, _obtain(sheet))
            )
            remedies += [f"no record finds its {column}{wanted}: {where}"]
    if hollow:
        name, kind = next(iter(hollow.items()))
        lines += [f"{len(hollow):,} images are none, first {tree.folder / name}: {kind}"]
    if "boxes" in sheet.gives:
        said, wanted = _check_boxes(sheet, tree, records)
        lines, remedies = lines + said, remedies + wanted
    return lines + [f"first remedy: {remedy}" for remedy in remedies[:1]], not remedies


def _check_boxes(sheet: Datasheet, tree: Tree, records: pl.DataFrame) -> tuple[list[str], list[str]]:
    """What is said of boxes: how many records have some, and which are left out, as their image's size is not known;
    and the remedy, if all are left out."""
    given = (records["boxes"].list.len() > 0).sum()
    lost = repairs(sheet.source, tree).filter(field="boxes").filter(pl.col("value").str.ends_with(image_sizes.UNKNOWN))
    lines = [f"{given:,} of {records.height:,} records have boxes"]
    if lost.is_empty():
        return lines, []
    left_out = f"{lost.height:,} boxes of {lost['image_id'].n_unique():,} images are left out, first of "
    left_out += f"{lost['image_id'][0]}: {lost['value'][0]}"
    remedy = f"no box can be placed in its image: {image_sizes.REMEDY}"
    return [*lines, left_out], [] if given else [remedy]


def _place_of_images(sheet: Datasheet, tree: Tree, hollow: dict[str, str], part: Part) -> str:
    """What to do so that images are found."""
    if hollow:
        name, kind = next(iter(hollow.items()))
        return f"{tree.folder / name} is {kind}"
    return _unpack(sheet, tree, f"put {part.holds} into {tree.folder}, as {part.pattern}")


def _unpack(sheet: Datasheet, tree: Tree, otherwise: str) -> str:
    """What to do for a part that is not there: to copy what links lead to, or to unpack the first archive that nothing
    reads, if there is one."""
    if tree.lost_links:
        return f"{tree.lost_links}, or {otherwise[0].lower()}{otherwise[1:]}"
    read = {path for part in sheet.parts for path in part.files(tree)}
    packed = [name for name in tree.archives if tree.folder / name not in read]
    return f"unpack {packed[0]}, or {otherwise[0].lower()}{otherwise[1:]}" if packed else otherwise


def _check_root(root: Path | None) -> None:
    if root is not None and not root.is_dir():
        raise RecordError(f"{root}: no such folder; name the data root, which holds a folder for each dataset")


def _folder(sheet: Datasheet, root: Path) -> Path:
    folder = root / sheet.source
    if not folder.is_dir():
        remedy = "put the dataset there, or a link to it (the root is the folder above those of the datasets)"
        raise RecordError(f"{folder}: no such folder; {remedy}. {_obtain(sheet)}")
    return folder


def _obtain(sheet: Datasheet) -> str:
    return f"To obtain it: {sheet.obtain}."


def _state(sheet: Datasheet, root: Path | None) -> str:
    absent = STATE_SHIPPED if sheet.shipped else "absent"
    if root is None or not (root / sheet.source).is_dir():
        return absent
    parts = sheet.check(root / sheet.source)
    if not (parts["state"] == PRESENT).any():
        return "empty"
    wanting = parts.filter(pl.col("state").is_in([MISSING, EMPTY]))
    if set(wanting["part"]) & {part.pattern for part in sheet.parts if part.either == "table"}:
        return "no table"
    return f"{wanting.height} of {len(sheet.parts)} parts missing" if wanting.height else "present"


def text(table: pl.DataFrame) -> str:
    """A table as plain text, `-` for null."""
    options = dict(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=100, tbl_width_chars=180, tbl_formatting="NOTHING")
    hidden = dict(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True)
    with pl.Config(**options, **hidden):
        return str(table.select(pl.all().cast(pl.String).fill_null("-")))


def _whether_needed(part: Part) -> str:
    return f" (one form of the {part.either} is enough)" if part.either else "" if part.needed else " (optional)"


def page() -> str:
    """docs/datasets.md: every datasheet, as Markdown."""
    lines = ["# The datasets", "", INTRODUCTION, ""]
    for sheet in sheets():
        paper = paper_cases(sheet)
        lines += [f"## {sheet.title}", "", "| | |", "|---|---|", f"| source | `{sheet.source}` |"]
        lines += [f"| role | {sheet.role} |", f"| size | {sheet.size} |"]
        lines += [f"| cases in the paper | {paper:,} |"] if paper is not None else []
        lines += [f"| licence | {sheet.licence} |", f"| to obtain | {sheet.obtain} |"]
        lines += [f"| comes with torchxrayvision | {'yes' if sheet.shipped else 'no'} |"]
        lines += [f"| training and test | {sheet.split} |"]
        lines += [f"| mind | {sheet.caution} |"] if sheet.caution else []
        lines += [f"| cite | {sheet.citation} |", "", f"Expected in `{sheet.source}/` below the data root:", ""]
        lines += [f"- `{p.pattern}`: {p.holds}{_whether_needed(p)}" for p in sheet.parts]
        lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
