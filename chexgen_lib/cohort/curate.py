"""Curation: the tables of all datasets become Records with descriptions that a program has checked."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from chexgen_lib import records
from chexgen_lib.descriptions import audit, counts
from chexgen_lib.descriptions.check import check
from chexgen_lib.language_model import writer as language_model
from chexgen_lib.sources import registry
from chexgen_lib.sources.files import Tree, stamps
from chexgen_lib.storage import digest


@dataclass(frozen=True)
class Curation:
    """What is curated, and how.

    Attributes:
        data_root: folder with a folder of each dataset that needs an account, or None.
        image_folder: NIH records are those whose image lies here; None for all, without pixels.
        rows_per_source: the first records of each source; None for all.
        split_fractions: of patients in train, val and test.
        writer, reviewer, budget: as `language_model.writer.describe` takes them.
        planted_faults: of each kind, source and wording, to test the check with.
        seed: of the splits and the planted faults.
        files: digest of the names, sizes and times of all files below `data_root` and `image_folder`, so that a kept
            curation is made again when a dataset is added or corrected. Contents are not read: there may be millions.
    """

    data_root: str | None
    image_folder: str | None
    rows_per_source: int | None
    split_fractions: list[float]
    writer: dict[str, Any] | None
    reviewer: dict[str, Any] | None
    budget: float | None
    planted_faults: int
    seed: int
    files: str = field(init=False)

    def __post_init__(self):
        folders = [folder for folder in (self.data_root, self.image_folder) if folder is not None]
        object.__setattr__(self, "files", digest([_files(Path(folder)) for folder in folders]))


def _files(folder: Path) -> str:
    """Digest of the names, sizes and times of the files of a folder; of none where there is no such folder."""
    names = Tree(folder).names if folder.is_dir() else []
    return digest([names, stamps(folder, names)])


def curate(folder: Path, settings: Curation, answers: Path) -> None:
    """Read, describe and check the records of all sources and fill `folder` (for `kept.kept`).

    Writes `records.parquet` and `rejects.parquet`, and these tables as CSV: `accounts` (source, rows, records, rejects
    as read), `rejects`, `counts` (by source), `fallbacks`, `fault_detection`, `agreement`, and what the figures plot:
    `composition`, `words`, `lengths`.

    Args:
        answers: file of a language model's answers; it must outlive `folder`, since they were paid for.
    """
    if len(settings.split_fractions) != len(records.SPLITS):
        given = f"split_fractions {settings.split_fractions}"
        raise records.RecordError(f"{given}: give one each for {', '.join(records.SPLITS)}")
    loaded = registry.load_all(None if settings.data_root is None else Path(settings.data_root))
    accounts = [(source, len(kept) + len(lost), len(kept), len(lost)) for source, (kept, lost) in loaded.items()]
    if settings.image_folder is not None:
        loaded = registry.with_images(loaded, settings.image_folder)
    rejects = pl.concat(lost for _, lost in loaded.values())
    limit = settings.rows_per_source
    table = pl.concat(kept.head(limit) if limit else kept for kept, _ in loaded.values())
    fractions = dict(zip(records.SPLITS, settings.split_fractions, strict=True))
    table = records.assign_splits(table, fractions, settings.seed)
    described = language_model.describe(table, settings.writer, settings.reviewer, answers, settings.budget)
    table, fallbacks = check(described[0]), described[1]
    records.write(table, folder / "records.parquet")
    rejects.write_parquet(folder / "rejects.parquet")
    tables = {
        "accounts": pl.DataFrame(accounts, ["source", "rows", "records", "rejects"], orient="row"),
        "rejects": rejects,
        "counts": counts.by_source(table, rejects),
        "fallbacks": fallbacks,
        "fault_detection": audit.detection_by_wording(table, settings.planted_faults, settings.seed),
        "agreement": audit.against_reports(table.filter(source="openi")),
        "composition": counts.composition(table),
        "words": counts.words(table),
        "lengths": counts.lengths(table),
    }
    for name, frame in tables.items():
        frame.write_csv(folder / f"{name}.csv")
