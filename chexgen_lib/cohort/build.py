"""The images of the selected records: rendered (embedded cohort) or read from files (real radiographs)."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
from joblib import Parallel, delayed
from tqdm import tqdm

from chexgen_lib.cohort.layout import ANATOMY, FLAGS, CohortError
from chexgen_lib.images import cut_off, read_image, reduced, resize, to_uint8, unusual
from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS, FRONTAL, SCHEMA, check_ids, check_values, conform
from chexgen_lib.storage import ROWS, blocks, height, remove, replacing, write_blocks

CHUNK = 250  # images between two saves
STREAM = 10_000  # records that are rendered in one stream, whose processes start once
STORED_VALUES = ("bimcv_covid",)  # sources whose PNGs are what the DICOM file stored, negatives among them


def build(
    folder: Path,
    records: pl.DataFrame | pl.LazyFrame,
    resolutions: Sequence[int],
    image_root: str | None = None,
    workers: int = 2,
) -> None:
    """Write the images of `records` in the layout of `cohort.layout`; `rejects.csv` lists the records without an image.

    An image that cannot be read is a reject (source, image_id, reason) and is replaced by nothing. Every row of
    `records` is in one of the two tables. An image that was read and looks wrong stays; `remarks.csv` lists it. Called
    again after an interruption, it goes on where it was (`kept.kept`).

    Args:
        folder: an existing folder; `cohort.parquet` is the last file written.
        records: as `select` returns them. Of lazy ones a block is in memory, and of all the ids.
        resolutions: image sizes in pixels; the largest is rendered or read, the others are reduced from it.
        image_root: folder that the records' `image` is relative to; None renders the embedded cohort.
        workers: rendering or reading processes; their number does not change the images.

    Raises:
        CohortError: if there are no records.
        RecordError: if two have one id, or a patient is in several splits.
    """
    if not (n := height(records)):
        raise CohortError("there is no record to make an image of: check the selection's sources and counts")
    check_ids(records)
    parts = folder / "chunks"
    parts.mkdir(exist_ok=True)
    paths = [parts / f"{start:08d}.npz" for start in range(0, n, CHUNK)]
    done = sum(min(CHUNK, n - k * CHUNK) for k, path in enumerate(paths) if path.exists())
    if image_root is None:
        made = _rendered(records, paths, max(resolutions), workers)
    else:
        todo = _chunks(records.lazy().select("image", "source", "view"), paths)
        calls = (delayed(_save_read)(*chunk, max(resolutions), Path(image_root)) for chunk in todo)
        made = Parallel(n_jobs=max(1, min(workers, len(paths))), return_as="generator_unordered")(calls)
    with tqdm(total=n, initial=done, desc="images") as progress:
        for number in made:
            progress.update(number)
    _assemble(records, folder, paths, sorted(resolutions))
    remove(parts)


def _blocks(
    records: pl.DataFrame | pl.LazyFrame, paths: Sequence[Path], rows: int | None = None
) -> Iterator[tuple[pl.DataFrame, Sequence[Path]]]:
    """Blocks of about so many `rows` (None: `ROWS`), each with the files of its chunks."""
    number = max(1, (rows or ROWS) // CHUNK)
    for k, block in enumerate(blocks(records, number * CHUNK)):
        yield block, paths[k * number : (k + 1) * number]


def _chunks(records: pl.DataFrame | pl.LazyFrame, paths: Sequence[Path]) -> Iterator[tuple[Path, pl.DataFrame]]:
    """The chunks that are not there yet: file and records of each."""
    for block, files in _blocks(records, paths):
        for path, chunk in zip(files, block.iter_slices(CHUNK), strict=True):
            if not path.exists():
                yield path, chunk


def _rendered(records: pl.DataFrame | pl.LazyFrame, paths: Sequence[Path], size: int, workers: int) -> Iterator[int]:
    """Render and save the chunks that are not there yet; yields how many records each has."""
    for block, files in _blocks(records, paths, STREAM):
        todo = list(_chunks(block, files))
        stream = phantom.render_many([row for _, rows in todo for row in rows.to_dicts()], size, workers)
        for path, rows in todo:
            yield _save(path, _arrays(islice(stream, len(rows)), size))


def _save(path: Path, chunk: dict[str, np.ndarray]) -> int:
    """Write a chunk; returns the number of its records."""
    with replacing(path) as partial:
        np.savez(partial, **chunk)
    return len(chunk["reasons"])


def _save_read(path: Path, rows: pl.DataFrame, size: int, image_root: Path) -> int:
    """`_save` what is read; in a process of its own."""
    return _save(path, _read(rows.to_dicts(), size, image_root))


def _arrays(radiographs: Iterable[phantom.Radiograph], size: int) -> dict[str, np.ndarray]:
    """A chunk of rendered images with their ground truth, as arrays."""
    images, anatomy, truth, findings, where, which, notes = [], [], [], [], [], [], []
    for row, radiograph in enumerate(radiographs):
        images.append(to_uint8(radiograph.image))
        anatomy.append(np.stack([radiograph.masks[name] for name in ANATOMY]))
        truth.append([radiograph.truth[finding] for finding in FINDINGS])
        notes.append(json.dumps({"boxes": radiograph.boxes, "severity": radiograph.severity}))
        for index, finding in enumerate(FINDINGS):
            if finding in radiograph.masks:
                findings.append(radiograph.masks[finding])
                where.append(row)
                which.append(index)
    findings = np.stack(findings) if findings else np.zeros((0, size, size), bool)
    return dict(
        images=np.stack(images),
        anatomy=np.packbits(np.stack(anatomy), axis=-1),
        findings=np.packbits(findings, axis=-1),
        finding_row=np.array(where, np.int64),
        finding_index=np.array(which, np.int64),
        truth=np.array(truth, np.float32),
        notes=np.array(notes, np.str_),
        reasons=np.array([""] * len(images), np.str_),
    )


def _read(rows: list[dict], size: int, image_root: Path) -> dict[str, np.ndarray]:
    """A chunk of images read from files.

    `reasons` says why one is missing, or is empty; `remarks` what is unusual about one.
    """
    images, reasons, remarks = [], [], []
    for row in rows:
        found: list[str] = []
        try:
            image = resize(read_image(image_root / row["image"], found.append, row["source"] in STORED_VALUES), size)
            images.append(to_uint8(image))
            found += filter(None, [unusual(image, row["view"] in FRONTAL), cut_off(image)])
            reasons.append("")
        except (ValueError, TypeError) as error:
            reasons.append(str(error))
        remarks.append("" if reasons[-1] else "; ".join(found))
    images = np.stack(images) if images else np.zeros((0, size, size), np.uint8)
    return dict(images=images, reasons=np.array(reasons, np.str_), remarks=np.array(remarks, np.str_))


def _assemble(
    records: pl.DataFrame | pl.LazyFrame, folder: Path, paths: Sequence[Path], resolutions: Sequence[int]
) -> None:
    """Write the cohort's files from its chunks, one of which is in memory at a time, and its table in blocks."""
    with np.load(paths[0], allow_pickle=False) as chunk:
        rendered = "truth" in chunk
    rejects = _said(records, paths, "reason")
    rejects.write_csv(folder / "rejects.csv")
    np.savez(folder / "masks.npz", **(_masks(paths) if rendered else {}))
    for resolution in resolutions:
        _write_images(folder / f"images_{resolution}.npy", height(records) - len(rejects), paths, resolution)
    _write_remarks(_said(records, [] if rendered else paths, "remark"), folder / "remarks.csv")
    write_blocks(_with_images(records, paths, rendered), folder / "cohort.parquet")


def _said(records: pl.DataFrame | pl.LazyFrame, paths: Sequence[Path], what: str) -> pl.DataFrame:
    """The records with a `reason` or `remark` in their chunk: source, image_id and that text."""
    found = [pl.DataFrame(schema=dict.fromkeys(("source", "image_id", what), pl.String))]
    for block, files in _blocks(records.lazy().select("source", "image_id"), paths) if paths else ():
        found.append(block.with_columns(_texts(files, f"{what}s").alias(what)).filter(pl.col(what) != ""))
    return pl.concat(found)


def _with_images(records: pl.DataFrame | pl.LazyFrame, paths: Sequence[Path], rendered: bool) -> Iterator[pl.DataFrame]:
    """The cohort's table in blocks."""
    first = 0
    for block, files in _blocks(records, paths):
        cohort = block.filter(_texts(files, "reasons") == "")
        cohort = _with_truth(cohort, files) if rendered else cohort
        table = conform(cohort.select(list(SCHEMA)))
        check_values(table, first)
        first += len(table)
        yield table.hstack(cohort.select("prompt", *FLAGS))


def _texts(paths: Sequence[Path], name: str) -> pl.Series:
    """The texts of some chunks' records."""
    return pl.Series([text for texts in _stored(paths, name) for text in texts.tolist()], dtype=pl.String)


def _stored(paths: Sequence[Path], name: str) -> Iterator[np.ndarray]:
    """An array of each chunk."""
    for path in paths:
        with np.load(path, allow_pickle=False) as chunk:
            yield chunk[name]


def _write_images(path: Path, n: int, paths: Sequence[Path], resolution: int) -> None:
    """The chunks' images as one .npy of uint8 [n, R, R]."""
    shape = {"descr": "|u1", "fortran_order": False, "shape": (n, resolution, resolution)}
    with replacing(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, shape)
        for images in _stored(paths, "images"):
            reduced(images, resolution).tofile(file)


def _write_remarks(remarks: pl.DataFrame, path: Path) -> None:
    """List the images about which there is something to say, and print how many."""
    remarks.write_csv(path)
    if not remarks.is_empty():
        first = remarks.row(0, named=True)
        print(f"{len(remarks)} images to look at, first {first['image_id']}: {first['remark']}. All: {path}")


def _masks(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """All chunks' masks. Real radiographs have none."""
    starts = np.cumsum([0, *(len(reasons) for reasons in _stored(paths, "reasons"))])
    masks = {name: np.concatenate([*_stored(paths, name)]) for name in ("anatomy", "findings", "finding_index")}
    rows = zip(_stored(paths, "finding_row"), starts, strict=False)
    return masks | {"finding_row": np.concatenate([row + start for row, start in rows])}


def _with_truth(cohort: pl.DataFrame, paths: Sequence[Path]) -> pl.DataFrame:
    """Replace the source's labels by what was rendered: findings, boxes and severity."""
    truth = np.concatenate([*_stored(paths, "truth")])  # [N, 14]
    notes = [json.loads(text) for texts in _stored(paths, "notes") for text in texts.tolist()]
    scores = [[{"finding": k, "score": v} for k, v in note["severity"].items()] for note in notes]
    return cohort.with_columns(
        *(pl.Series(finding, truth[:, i]) for i, finding in enumerate(FINDINGS)),
        image=pl.lit("phantom:") + pl.col("image_id"),
        states=pl.lit([], SCHEMA["states"]),
        boxes=pl.Series([note["boxes"] for note in notes], dtype=SCHEMA["boxes"]),
        severity=pl.Series(scores, dtype=SCHEMA["severity"]),
    )
