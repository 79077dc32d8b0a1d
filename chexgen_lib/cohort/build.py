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
from chexgen_lib.records import FINDINGS, FRONTAL, SCHEMA, validate
from chexgen_lib.storage import remove, replacing

CHUNK = 250  # images between two saves
STORED_VALUES = ("bimcv_covid",)  # sources whose PNGs are what the DICOM file stored, negatives among them


def build(
    folder: Path,
    records: pl.DataFrame,
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
        records: as `select` returns them.
        resolutions: image sizes in pixels; the largest is rendered or read, the others are reduced from it.
        image_root: folder that the records' `image` is relative to; None renders the embedded cohort.
        workers: rendering or reading processes; their number does not change the images.

    Raises:
        CohortError: if there are no records.
    """
    if records.is_empty():
        raise CohortError("there is no record to make an image of: check the selection's sources and counts")
    size, parts = max(resolutions), folder / "chunks"
    parts.mkdir(exist_ok=True)
    chunks = {parts / f"{start:08d}.npz": records[start : start + CHUNK] for start in range(0, len(records), CHUNK)}
    todo = {path: rows for path, rows in chunks.items() if not path.exists()}
    if image_root is None:  # one stream for all chunks: its workers start once
        stream = phantom.render_many([row for rows in todo.values() for row in rows.to_dicts()], size, workers)
        made = (_save(path, _arrays(islice(stream, len(rows)), size)) for path, rows in todo.items())
    else:
        used = ["image", "source", "view"]
        calls = (delayed(_save_read)(path, rows.select(used), size, Path(image_root)) for path, rows in todo.items())
        made = Parallel(n_jobs=max(1, min(workers, len(todo))), return_as="generator_unordered")(calls)
    done = len(records) - sum(map(len, todo.values()))
    with tqdm(total=len(records), initial=done, desc="images") as progress:
        for n in made:
            progress.update(n)
    _assemble(records, folder, list(chunks), sorted(resolutions))
    remove(parts)


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


def _assemble(records: pl.DataFrame, folder: Path, paths: Sequence[Path], resolutions: Sequence[int]) -> None:
    """Write the cohort's files from its chunks, one of which is in memory at a time."""
    reasons = pl.Series("reason", np.concatenate([*_stored(paths, "reasons")]).tolist(), dtype=pl.String)
    readable = reasons == ""
    about = records.select("source", "image_id")
    about.with_columns(reasons).filter(~readable).write_csv(folder / "rejects.csv")
    cohort = records.filter(readable)
    with np.load(paths[0], allow_pickle=False) as chunk:
        rendered = "truth" in chunk
    if rendered:
        cohort = _with_truth(cohort, paths)
    np.savez(folder / "masks.npz", **(_masks(paths) if rendered else {}))
    for resolution in resolutions:
        _write_images(folder / f"images_{resolution}.npy", len(cohort), paths, resolution)
    texts = [] if rendered else np.concatenate([*_stored(paths, "remarks")]).tolist()
    remarks = pl.Series("remark", texts or [""] * len(records), dtype=pl.String)
    _write_remarks(about.with_columns(remarks).filter(remarks != ""), folder / "remarks.csv")
    cohort = validate(cohort.select(list(SCHEMA))).hstack(cohort.select("prompt", *FLAGS))
    with replacing(folder / "cohort.parquet") as partial:
        cohort.write_parquet(partial)


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
