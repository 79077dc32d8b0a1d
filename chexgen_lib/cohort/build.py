"""The images of the selected records: rendered (embedded cohort) or read from files (real radiographs)."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from chexgen_lib.cohort.layout import ANATOMY, FLAGS, CohortError
from chexgen_lib.images import read_image, reduced, resize, to_uint8, unusual
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
        workers: rendering processes; their number does not change the images.

    Raises:
        CohortError: if there are no records.
    """
    if records.is_empty():
        raise CohortError("there is no record to make an image of: check the selection's sources and counts")
    size, parts = max(resolutions), folder / "chunks"
    parts.mkdir(exist_ok=True)
    paths = {start: parts / f"{start:08d}.npz" for start in range(0, len(records), CHUNK)}
    todo = {start: records[start : start + CHUNK].to_dicts() for start, path in paths.items() if not path.exists()}
    if image_root is None:  # one stream for all chunks: its workers start once
        stream = phantom.render_many(list(chain.from_iterable(todo.values())), size, workers)
    progress = tqdm(total=len(records), initial=len(records) - sum(map(len, todo.values())), desc="images")
    for start, rows in todo.items():
        rendered = image_root is None
        arrays = _arrays(islice(stream, len(rows)), size) if rendered else _read(rows, size, Path(image_root))
        with replacing(paths[start]) as partial:
            np.savez(partial, **arrays)
        progress.update(len(rows))
    progress.close()
    _assemble(records, folder, list(paths.values()), sorted(resolutions))
    remove(parts)


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
            found += filter(None, [unusual(image, row["view"] in FRONTAL)])
            reasons.append("")
        except (ValueError, TypeError) as error:
            reasons.append(str(error))
        remarks.append("" if reasons[-1] else "; ".join(found))
    images = np.stack(images) if images else np.zeros((0, size, size), np.uint8)
    return dict(images=images, reasons=np.array(reasons, np.str_), remarks=np.array(remarks, np.str_))


def _assemble(records: pl.DataFrame, folder: Path, paths: Sequence[Path], resolutions: Sequence[int]) -> None:
    """Write the cohort's files from its chunks."""
    chunks = [dict(np.load(path, allow_pickle=False)) for path in paths]
    reasons = pl.Series("reason", np.concatenate([c["reasons"] for c in chunks]).tolist(), dtype=pl.String)
    readable = reasons == ""
    images = np.concatenate([c["images"] for c in chunks])
    cohort = records.filter(readable)
    if "truth" in chunks[0]:
        cohort = _with_truth(cohort, chunks)
    np.savez(folder / "masks.npz", **_masks(chunks))
    for resolution in resolutions:
        np.save(folder / f"images_{resolution}.npy", reduced(images, resolution))
    about = records.select("source", "image_id")
    about.with_columns(reasons).filter(~readable).write_csv(folder / "rejects.csv")
    texts = [text for c in chunks for text in c.get("remarks", [""] * len(c["images"]))]  # none on a rendered image
    remarks = pl.Series("remark", texts, dtype=pl.String)
    _write_remarks(about.with_columns(remarks).filter(remarks != ""), folder / "remarks.csv")
    extra = cohort.select("image_id", "prompt", *FLAGS)
    cohort = validate(cohort.select(c for c in SCHEMA)).join(extra, on="image_id", how="left", maintain_order="left")
    with replacing(folder / "cohort.parquet") as partial:
        cohort.write_parquet(partial)


def _write_remarks(remarks: pl.DataFrame, path: Path) -> None:
    """List the images about which there is something to say, and print how many."""
    remarks.write_csv(path)
    if not remarks.is_empty():
        first = remarks.row(0, named=True)
        print(f"{len(remarks)} images to look at, first {first['image_id']}: {first['remark']}. All: {path}")


def _masks(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All chunks' masks; real radiographs have none, so the file then holds no array."""
    if "anatomy" not in chunks[0]:
        return {}
    starts = np.cumsum([0, *(len(c["images"]) for c in chunks[:-1])])
    masks = {name: np.concatenate([c[name] for c in chunks]) for name in ("anatomy", "findings", "finding_index")}
    masks["finding_row"] = np.concatenate([c["finding_row"] + s for c, s in zip(chunks, starts, strict=True)])
    return masks


def _with_truth(cohort: pl.DataFrame, chunks: list[dict[str, np.ndarray]]) -> pl.DataFrame:
    """Replace the source's labels by what was rendered: findings, boxes and severity."""
    truth = np.concatenate([c["truth"] for c in chunks])  # [N, 14]
    notes = [json.loads(str(text)) for c in chunks for text in c["notes"]]
    scores = [[{"finding": k, "score": v} for k, v in note["severity"].items()] for note in notes]
    return cohort.with_columns(
        *(pl.Series(finding, truth[:, i]) for i, finding in enumerate(FINDINGS)),
        image=pl.lit("phantom:") + pl.col("image_id"),
        states=pl.lit([], SCHEMA["states"]),
        boxes=pl.Series([note["boxes"] for note in notes], dtype=SCHEMA["boxes"]),
        severity=pl.Series(scores, dtype=SCHEMA["severity"]),
    )
