"""Whether a privacy audit catches copiers and passes innocent pools, on rendered radiographs of 128 px.

    python -m benchmarks.privacy_audit
    python -m benchmarks.privacy_audit --foundation runs/laptop/curation/records.parquet

Training images are two studies each of 120 made-up patients; 150 other patients calibrate and 100 more are the innocent
pool. Half of each copied pool are altered training images (`privacy.planted`; "autoencoder": through the shipped one,
as a generator that memorises would return them), the other half innocent. Writes privacy_audit.csv beside this file;
the second call replaces its own part of it:

- part "feature": the share of copies found at 1 % false alarms by likeness, and by simpler features;
- part "audit": the verdict on a pool, the share of its copies and of its innocent images that raise an alarm, and what
  the other measures find;
- part "foundation": the same of 64 samples of the shipped foundation, half for prompts that it was
  trained on, beside a subset of its training images and unseen ones, rendered from the curated records of a run.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from chexgen_lib import records as record_table
from chexgen_lib.cohort.select import Selection, select
from chexgen_lib.estimates.resampling import Interval
from chexgen_lib.images import from_uint8, to_uint8
from chexgen_lib.models.autoencoder import decode, encode, load_autoencoder
from chexgen_lib.models.foundation import read_recipe
from chexgen_lib.models.text import count_tokens, load_tokenizer
from chexgen_lib.phantom.render import render_many
from chexgen_lib.privacy import model_error, planted
from chexgen_lib.privacy.audit import Audit, audit
from chexgen_lib.privacy.copies import Calibration, share
from chexgen_lib.privacy.folders import HELD_OUT, POOL, TRAINING, Images
from chexgen_lib.privacy.likeness import Reference
from chexgen_lib.records import FINDINGS, FRONTAL
from chexgen_lib.sampling.pipeline import ChexGenPipeline
from chexgen_lib.training.foundation import told

SIZE = 128
PATIENTS, UNSEEN, INNOCENT, COPIED = 120, 150, 100, 100
SAMPLES, SUBSET = 64, (300, 200)  # of the foundation: samples; training images and unseen ones
AUTOENCODER = "autoencoder"
PARTS = ("feature", "audit", "foundation")
SCHEMA = {
    **dict.fromkeys(("part", "pool", "measure"), pl.String),
    **dict.fromkeys(("value", "low", "high"), pl.Float64),
    "n": pl.Int64,
    "verdict": pl.String,
}
SHOWN = (
    "with an alarm",
    "closer to training",
    "density ratio",
    "error of the model",
    "linked to a patient",
    "real images recognised",
)


def made_up(name: str, patients: int, studies: int = 1) -> list[dict]:
    """Records of made-up people with up to two findings; a patient's studies differ in all but the body."""
    rows = []
    for i in range(patients * studies):
        person, study = divmod(i, studies)
        shown = {} if i % 5 == 0 else {FINDINGS[1 + i % 13]: 1, FINDINGS[1 + 5 * i % 13]: 1}
        body = dict(patient_id=f"{name}{person}", age=20.0 + 7 * person % 70, sex="MF"[person % 2])
        shot = dict(
            image_id=f"{name}{person}-{study}", study_id=f"{name}{person}-{study}", view=("PA", "AP")[i % 3 > 1]
        )
        rows.append(body | shot | {"source": ("nih", "chexpert")[(person + study) % 2]} | shown)
    return rows


def rendered(records: list[dict]) -> Images:
    """The images of records, as an audit takes them."""
    pixels = np.stack([to_uint8(radiograph.image) for radiograph in render_many(records, SIZE)])
    columns = {key: [r.get(key) for r in records] for key in ("image_id", "patient_id", "study_id", "prompt")}
    return Images(pl.DataFrame({"file": columns["image_id"], **columns}, dict.fromkeys(("file", *columns), pl.String)),
                  pixels)  # fmt: skip


def altered(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind != AUTOENCODER:
        return planted.copies(pixels, kind, rng)
    autoencoder = load_autoencoder()
    noise = torch.Generator().manual_seed(int(rng.integers(2**32)))  # as of samples
    return to_uint8(decode(autoencoder, encode(autoencoder, from_uint8(pixels))[0], noise))


def pixel_correlation(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Pearson r of the pixels of all pairs [N, M]."""
    query, reference = (from_uint8(x).reshape(len(x), -1) for x in (query, reference))
    query, reference = (x - x.mean(1, keepdims=True) for x in (query, reference))
    return (query / np.linalg.norm(query, axis=1, keepdims=True)) @ (
        reference / np.linalg.norm(reference, axis=1, keepdims=True)
    ).T


def features(training: Images) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Features by name: images -> how alike each is to its most alike training image."""
    trained = Reference(training.pixels)
    return {
        "registered structure (likeness)": lambda x: trained.search(x).r[:, 0],
        "structure on 16 x 16 cells, best shift": lambda x: trained.coarse(x).max(1),
        "correlation of pixels": lambda x: pixel_correlation(x, training.pixels).max(1),
    }


def compare_features(training: Images, held_out: Images, innocent: Images, copied: dict[str, np.ndarray]) -> list[dict]:
    rows = []
    for name, alike in features(training).items():
        calibration = Calibration(np.sort(alike(held_out.pixels)), np.empty(0))
        for kind, pixels in {"none: innocent images": innocent.pixels, **copied}.items():
            alarms = int((alike(pixels) >= calibration.threshold).sum())
            rows.append(row("feature", name, kind, share(alarms, len(pixels)), len(pixels)))
    return rows


def row(part: str, pool: str, measure: str, found: Interval, n: int, verdict: str = "") -> dict:
    return dict(part=part, pool=pool, measure=measure, **found._asdict(), n=n, verdict=verdict)


def audited(part: str, name: str, found: Audit, copies: int) -> list[dict]:
    """Rows of an audit; the last `copies` images of its pool are copies."""
    alarm = found.images.sort("row")["call"].to_numpy() != ""
    groups = {
        "copies with an alarm": alarm[len(alarm) - copies :],
        "others with an alarm": alarm[: len(alarm) - copies],
    }
    rows = [
        row(part, name, measure, share(int(own.sum()), len(own)), len(own), found.verdict)
        for measure, own in groups.items()
        if len(own)
    ]
    for shown in found.measures.drop_nulls("value").iter_rows(named=True):
        if shown["measure"].startswith(SHOWN):
            interval = Interval(shown["value"], shown["low"], shown["high"])
            rows.append(row(part, name, shown["measure"], interval, shown["n"], found.verdict))
    return rows


def pool_of(pixels: np.ndarray, prompts: list[str] | None = None) -> Images:
    names = [f"pool{i}" for i in range(len(pixels))]
    columns = {"file": names, "image_id": names, "patient_id": names, "study_id": None, "prompt": prompts}
    return Images(pl.DataFrame(columns, dict.fromkeys(columns, pl.String)), pixels)


def copiers(seed: int) -> list[dict]:
    """The parts "feature" and "audit"."""
    training, held_out = rendered(made_up("t", PATIENTS, 2)), rendered(made_up("h", UNSEEN))
    innocent, rng = rendered(made_up("i", INNOCENT)), np.random.default_rng(seed)
    source = training.pixels[np.sort(rng.permutation(len(training))[:COPIED])]
    kinds = (*planted.KINDS, AUTOENCODER, planted.TURNED)
    copied = {kind: altered(source, kind, rng) for kind in kinds}
    rows = compare_features(training, held_out, innocent, copied)
    pools = {"innocent": (innocent.pixels, 0)}
    for kind in (planted.EXACT, planted.ALL):
        pools[f"half copied: {kind}"] = np.concatenate([innocent.pixels, copied[kind]]), COPIED
    for name, (pixels, copies) in pools.items():
        found = audit({POOL: pool_of(pixels), TRAINING: training, HELD_OUT: held_out}, seed=seed)
        rows += audited("audit", name, found, copies)
    return rows


def foundation_sets(curated: Path, pipeline: ChexGenPipeline, seed: int) -> dict[str, Images]:
    """Samples of the foundation for prompts that it was trained on and for others, and images of both kinds.

    Unseen patients are of the validation split, selected as the training images were and as large a share.
    """
    tokenizer = load_tokenizer("minilm")
    images = read_recipe()["images"]
    counts = {"train": images, "val": images // 8}
    selection = Selection("stage1", ["nih", "chexpert", "padchest"], counts, views=FRONTAL, reserved=False)
    table = record_table.read(curated)
    chosen = pl.concat(select(table, [selection], lambda texts: count_tokens(tokenizer, texts), 120))
    rng, parts = np.random.default_rng(seed), []
    for split, n in zip(counts, SUBSET, strict=True):
        own = chosen.filter(split=split)
        parts.append(told(own[rng.permutation(len(own))[:n]], "minilm").to_dicts())
    prompts = [r["prompt"] for records in parts for r in records[: SAMPLES // 2]]
    generators = [torch.Generator().manual_seed(seed + i) for i in range(SAMPLES)]
    batches = [
        pipeline(prompts[i : i + 16], generator=generators[i : i + 16], output_type="np").images[..., 0]
        for i in range(0, SAMPLES, 16)
    ]
    pool = pool_of(to_uint8(np.concatenate(batches)), prompts)
    return {POOL: pool, TRAINING: rendered(parts[0]), HELD_OUT: rendered(parts[1])}


def foundation(sets: dict[str, Images], pipeline: ChexGenPipeline, seed: int) -> list[dict]:
    """The part "foundation"."""
    attacks = {model_error.NAME: partial(model_error.scores, pipeline=pipeline, seed=seed)}
    known = read_recipe()["images"]
    of = f"{SAMPLES} samples of the shipped foundation, beside {SUBSET[0]} of its {known:,} training images"
    return audited("foundation", of, audit(sets, attacks, seed=seed), 0)


def save(rows: list[dict]) -> pl.DataFrame:
    """Put the rows in place of those of the same parts; the whole table."""
    path = Path(__file__).with_suffix(".csv")
    table = pl.DataFrame(rows, SCHEMA)
    if path.is_file():
        table = pl.concat([table, pl.read_csv(path, schema=SCHEMA).filter(~pl.col("part").is_in(set(table["part"])))])
    table = table.sort(pl.col("part").replace_strict(PARTS, range(3), return_dtype=pl.Int8), maintain_order=True)
    table.write_csv(path, float_precision=4)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--foundation", type=Path, metavar="RECORDS", help="curated records of a run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.foundation is None:
        table = save(copiers(arguments.seed))
    else:
        pipeline = ChexGenPipeline.from_pretrained("shipped")
        pipeline.set_progress_bar_config(disable=True)
        sets = foundation_sets(arguments.foundation, pipeline, arguments.seed)
        table = save(foundation(sets, pipeline, arguments.seed))
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, fmt_str_lengths=80, float_precision=3):
        print(table)


if __name__ == "__main__":
    main()
