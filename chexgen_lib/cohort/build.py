"""Making the run's cohort: curated records are chosen, then rendered (embedded cohort) or read (real radiographs)."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

from chexgen_lib.cohort.layout import ANATOMY, FLAGS, CohortError
from chexgen_lib.descriptions import grammar as describe
from chexgen_lib.images import read_image, reduced, resize, to_uint8
from chexgen_lib.phantom import render as phantom
from chexgen_lib.records import FINDINGS, FRONTAL, SCHEMA, validate
from chexgen_lib.sources import impressions as reports
from chexgen_lib.storage import replacing

CHUNK = 250  # images between two saves


def select(
    records: pl.DataFrame,
    stage1: dict[str, int],
    stage2: dict[str, int],
    external: dict[str, int],
    stage1_sources: Sequence[str],
    stage2_sources: Sequence[str],
    external_sources: Sequence[str],
    token_counts,
    max_tokens: int,
    seed: int = 0,
    with_images: bool = False,
) -> pl.DataFrame:
    """Choose the records of both training stages, in every split, with rare findings over-represented.

    Stage I takes any view and the generated description as prompt; stage II takes frontal views whose radiologist's
    impression has under `max_tokens` tokens (paper, Methods, ChexGen Model Training), or the description where a source
    has no impressions; of MIMIC-CXR it takes what `reports.impressions` selects. A record's chance falls with the
    prevalence of its rarest present finding, so that fourteen findings can be learnt from a few thousand images;
    labels, ages, sexes, views and what occurs together stay as the source has them.

    Args:
        stage1, stage2: images of each split, e.g. {"train": 2000, "val": 200, "test": 0}; fewer if there are fewer.
        external: the same for frontal images on which classifiers are tested away from home; no generator needs them.
        stage1_sources, stage2_sources, external_sources: of which sources; one may serve several, with the same images.
        token_counts: texts -> number of tokens of each.
        with_images: only records that name an image file (real radiographs).

    Raises:
        CohortError: if a source has no record, or a stage finds none to train on.
    """
    absent = sorted({*stage1_sources, *stage2_sources, *external_sources} - set(records["source"]))
    if absent:
        raise CohortError(
            f"the curated records hold nothing of {', '.join(absent)}: put it below the data root (`chexgen data list` "
            "names the sources), or leave it out of the cohort's sources"
        )
    records = usable(records.filter(pl.col("qc") == "pass"), with_images)
    prompts = describe.prompt(records)
    described = records.with_columns(prompt=prompts)
    pool1 = described.filter(pl.col("source").is_in(list(stage1_sources)))
    pool3 = described.filter(pl.col("source").is_in(list(external_sources)), pl.col("view").is_in(FRONTAL))
    pool2 = records.with_columns(prompt=pl.coalesce("impression", prompts))
    pool2 = pool2.filter(pl.col("source").is_in(list(stage2_sources)), pl.col("view").is_in(FRONTAL))

    if "mimic_cxr" in stage2_sources:
        mimic, _ = reports.impressions(pool2, token_counts, max_tokens)
        pool2 = pl.concat([pool2.filter(pl.col("source") != "mimic_cxr"), mimic.select(pool2.columns)])

    def short(prompts: list[str]) -> np.ndarray:
        return np.array(token_counts(prompts)) < max_tokens

    chosen = []
    for flag, pool, counts in zip(FLAGS, (pool1, pool2, pool3), (stage1, stage2, external), strict=True):
        picked = pl.concat([_draw(pool.filter(pl.col("split") == s), n, seed, short) for s, n in counts.items()])
        if flag != "external" and picked.filter(pl.col("split") == "train").is_empty():
            raise CohortError(f"no training record for {flag}: its sources have none with an image and a short prompt")
        chosen.append(picked.with_columns(pl.lit(True).alias(flag)))
    both = pl.concat(chosen, how="diagonal")
    flags = [pl.col(flag).max().fill_null(False) for flag in FLAGS]
    first = [pl.col(c).first() for c in both.columns if c not in ("image_id", *FLAGS)]
    return both.group_by("image_id", maintain_order=True).agg(*first, *flags).sort("image_id")


def usable(records: pl.DataFrame, with_images: bool) -> pl.DataFrame:
    """Records that name an image file, or else those whose view the embedded cohort can render."""
    return records.filter(pl.col("image").is_not_null() if with_images else pl.col("view").is_in(list(phantom.VIEWS)))


def draw_for_autoencoder(
    records: pl.DataFrame, counts: dict[str, int], seed: int, with_images: bool = False
) -> pl.DataFrame:
    """Records of every source and view to train and test an autoencoder on; no prompt matters."""
    pool = usable(records, with_images).with_columns(
        prompt=pl.lit(""), stage1=pl.lit(True), stage2=pl.lit(False), external=pl.lit(False)
    )
    return pl.concat([_draw(pool.filter(pl.col("split") == split), n, seed) for split, n in counts.items()])


def _draw(
    pool: pl.DataFrame, n: int, seed: int, accept: Callable[[list[str]], np.ndarray] | None = None
) -> pl.DataFrame:
    """`n` rows without replacement, weighted by the rarest finding (keys of Efraimidis & Spirakis 2006).

    accept: prompts -> bool of each; rows whose prompt is not accepted are passed over.
    """
    if pool.is_empty() or n == 0:
        return pool.head(0)
    present = pool.select(pl.col(FINDINGS).fill_null(0)).to_numpy()  # [N, 14]
    rarity = 1 / np.sqrt(present.mean(axis=0).clip(1e-4))
    weight = (present * rarity).max(axis=1).clip(0.5)
    key = np.array([_uniform(image_id, seed) for image_id in pool["image_id"]]) ** (1 / weight)
    ranked = pool[np.argsort(-key, kind="stable")]
    if accept is None:
        return ranked.head(n)
    drawn = ranked.head(0)
    for block in ranked.iter_slices(max(n, 64)):  # prompts are counted until there are enough, not all of them
        drawn = pl.concat([drawn, block.filter(accept(block["prompt"].to_list()))])
        if len(drawn) >= n:
            break
    return drawn.head(n)


def _uniform(text: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) + 1) / (2**64 + 1)


def build(
    records: pl.DataFrame,
    folder: Path,
    resolutions: Sequence[int],
    image_root: Path | None = None,
    workers: int = 2,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Make the images of `records` (layout in `chexgen_lib.cohort.layout`) and return (cohort, rejects).

    Args:
        records: as `select` returns them.
        resolutions: image sizes in pixels; the largest is rendered or read, the others are reduced from it.
        image_root: folder that the records' `image` is relative to; None renders the embedded cohort.
        workers: processes that render.

    A run that was stopped goes on where it was. An image that cannot be read is a reject with its reason; it is
    replaced by nothing. Every row of `records` is in one of the two tables.
    """
    if records.is_empty():
        raise CohortError("there is no record to make an image of: check the selection's sources and counts")
    folder.mkdir(parents=True, exist_ok=True)
    size = max(resolutions)
    parts = _chunks_folder(folder, records, size, image_root)
    paths = {start: parts / f"{start:08d}.npz" for start in range(0, len(records), CHUNK)}
    todo = {start: records[start : start + CHUNK].to_dicts() for start, path in paths.items() if not path.exists()}
    rendered = image_root is None
    if rendered:  # one stream for all chunks: its workers start once
        stream = phantom.render_many(list(chain.from_iterable(todo.values())), size, workers)
    progress = tqdm(total=len(records), initial=len(records) - sum(map(len, todo.values())), desc="images")
    for start, rows in todo.items():
        arrays = _arrays(islice(stream, len(rows)), size) if rendered else _read(rows, size, image_root)
        with replacing(paths[start]) as partial:
            np.savez(partial, **arrays)
        progress.update(len(rows))
    progress.close()
    cohort, rejects = _assemble(records, folder, list(paths.values()), sorted(resolutions))
    shutil.rmtree(parts)
    return cohort, rejects


def _chunks_folder(folder: Path, records: pl.DataFrame, size: int, image_root: Path | None) -> Path:
    """Where unfinished work lies; another selection, size or origin gets another folder, the old one is removed."""
    digest = hashlib.sha256(json.dumps([size, str(image_root), records["image_id"].to_list()]).encode())
    parts = folder / f"unfinished-{digest.hexdigest()[:12]}"
    for old in folder.glob("unfinished-*"):
        if old != parts:
            shutil.rmtree(old)
    parts.mkdir(exist_ok=True)
    return parts


def _arrays(radiographs: Iterable[phantom.Radiograph], size: int) -> dict[str, np.ndarray]:
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
    images, reasons = [], []
    for row in rows:
        try:
            images.append(to_uint8(resize(read_image(image_root / row["image"]), size)))
            reasons.append("")
        except (ValueError, TypeError) as error:
            reasons.append(str(error))
    images = np.stack(images) if images else np.zeros((0, size, size), np.uint8)
    return dict(images=images, reasons=np.array(reasons, np.str_))


def _assemble(
    records: pl.DataFrame, folder: Path, paths: Sequence[Path], resolutions: Sequence[int]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    chunks = [dict(np.load(path, allow_pickle=False)) for path in paths]
    reasons = pl.Series("reason", np.concatenate([c["reasons"] for c in chunks]).tolist(), dtype=pl.String)
    kept = reasons == ""
    images = np.concatenate([c["images"] for c in chunks])
    cohort = records.filter(kept)
    if "truth" in chunks[0]:
        cohort = _with_truth(cohort, chunks)
    with replacing(folder / "masks.npz") as partial:
        np.savez(partial, **_masks(chunks))
    for resolution in resolutions:
        with replacing(folder / f"images_{resolution}.npy") as partial:
            np.save(partial, reduced(images, resolution))
    extra = cohort.select("image_id", "prompt", *FLAGS)
    cohort = validate(cohort.select(c for c in SCHEMA)).join(extra, on="image_id", how="left", maintain_order="left")
    with replacing(folder / "cohort.parquet") as partial:
        cohort.write_parquet(partial)
    rejects = records.select("source", "image_id").with_columns(reasons).filter(~kept)
    return cohort, rejects


def _masks(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All chunks' masks; real radiographs have none, so the file then holds no array."""
    if "anatomy" not in chunks[0]:
        return {}
    starts = np.cumsum([0, *(len(c["images"]) for c in chunks[:-1])])
    masks = {name: np.concatenate([c[name] for c in chunks]) for name in ("anatomy", "findings", "finding_index")}
    masks["finding_row"] = np.concatenate([c["finding_row"] + s for c, s in zip(chunks, starts, strict=True)])
    return masks


def _with_truth(cohort: pl.DataFrame, chunks: list[dict[str, np.ndarray]]) -> pl.DataFrame:
    """What was rendered takes the place of the source's labels: states, boxes and severity."""
    truth = np.concatenate([c["truth"] for c in chunks])  # [N, 14]
    notes = [json.loads(str(text)) for c in chunks for text in c["notes"]]
    scores = [[{"finding": k, "score": v} for k, v in note["severity"].items()] for note in notes]
    return cohort.with_columns(
        *(pl.Series(finding, truth[:, i]) for i, finding in enumerate(FINDINGS)),
        image=pl.lit("phantom:") + pl.col("image_id"),
        boxes=pl.Series([note["boxes"] for note in notes], dtype=SCHEMA["boxes"]),
        severity=pl.Series(scores, dtype=SCHEMA["severity"]),
    )
