"""The embedded reference: held-out patients rendered by the phantom, for judging without data of one's own.

Records are those of tables that the package ships: test and validation patients by the splits of the shipped
foundation, and training patients from the tenth that it never saw. A finding that can be graded gets a severity, and
one of a single lung a side, so that a prompt requests both and the image shows what was requested.
"""

from pathlib import Path

import polars as pl

from chexgen_lib.cohort.build import build
from chexgen_lib.cohort.select import SPLITS_SEED, Selection, is_reserved, select
from chexgen_lib.descriptions import grammar
from chexgen_lib.descriptions.check import check
from chexgen_lib.models.text import count_tokens, load_tokenizer
from chexgen_lib.records import FRONTAL, SCHEMA, SEVERITIES, assign_splits
from chexgen_lib.sources import registry
from chexgen_lib.storage import replacing, seed_of

SOURCES = ("nih", "chexpert", "padchest")  # what the foundation's prompts are like
COUNTS = {"train": 2000, "val": 250, "test": 800}  # images of the embedded reference
RESOLUTION, TOKENS = 128, 120
SIDED = ("Lung Opacity", "Lung Lesion", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Effusion")
GRADED = (*SIDED, "Edema", "Cardiomegaly")


def render_reference(folder: Path, counts: dict[str, int], resolution: int, workers: int = 2) -> None:
    """Select, describe and render the embedded reference into `folder` (for `kept.kept`); it resumes."""
    chosen = folder / "records.parquet"
    if not chosen.is_file():
        records = pl.concat(_candidates(source) for source in SOURCES)
        described = check(grammar.describe(placed(records)))
        tokenizer = load_tokenizer("minilm")
        selection = Selection("stage2", SOURCES, counts, views=FRONTAL, reserved=True)
        picked = pl.concat(
            select(described, [selection], lambda texts: count_tokens(tokenizer, texts), TOKENS, SPLITS_SEED)
        )
        with replacing(chosen) as partial:
            picked.write_parquet(partial)
    build(folder, pl.read_parquet(chosen, glob=False), [resolution], None, workers)


def _candidates(source: str) -> pl.DataFrame:
    """Frontal films of adults whom the foundation never saw; of held-out patients one each."""
    records = assign_splits(registry.load(source)[0], seed=SPLITS_SEED)
    known = pl.col("view").is_in(FRONTAL) & (pl.col("age") >= 18) & pl.col("sex").is_not_null()
    records = records.filter(known)
    trained = records.filter(split="train").filter(is_reserved(records.filter(split="train")))
    return pl.concat([trained, records.filter(pl.col("split") != "train").unique("patient_id", maintain_order=True)])


def placed(records: pl.DataFrame) -> pl.DataFrame:
    """Records whose findings have a side and a severity where their source gives none; a hash of the image id decides.

    The phantom renders what `details` say, and a description states it.
    """
    rows = []
    for row in records.select("image_id", "details", *GRADED).iter_rows(named=True):
        details = list(row["details"] or ())
        given = {detail["finding"] for detail in details}
        for finding in (f for f in GRADED if row[f] == 1 and f not in given):
            draw = seed_of(f"judge:{row['image_id']}:{finding}")
            side = ("left", "right")[draw % 2] if finding in SIDED else None
            details.append({"finding": finding, "side": side, "site": None, "severity": SEVERITIES[draw // 2 % 3]})
        rows.append(details)
    return records.with_columns(details=pl.Series(rows, dtype=SCHEMA["details"]))
