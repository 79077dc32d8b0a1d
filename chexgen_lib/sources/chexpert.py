"""Stanford CheXpert training set (Irvin et al. 2019): 223,414 radiographs, 14 findings from reports."""

from pathlib import Path

import polars as pl

from chexgen_lib.records import FINDINGS, conform
from chexgen_lib.sources import read_table, separate, sex, shipped, unread, years

TABLE = "chexpert_train.csv.gz"
NAMES = {finding: "Pleural Effusion" if finding == "Effusion" else finding for finding in FINDINGS}
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *NAMES.values())
STATES = {"1.0": 1.0, "1": 1.0, "0.0": 0.0, "0": 0.0, "-1.0": -1.0, "-1": -1.0, "": None}


def load(path: str | Path | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and rejects of ``train.csv``; rejected: unreadable path or state, broken or duplicate row.

    Blank stays null (not mentioned), -1 becomes null and is named in ``uncertain``. Where No Finding is 1,
    the pathologies are 0 (torchxrayvision's convention), Support Devices excepted; where one is 1, No
    Finding is 0.
    """
    table, rejects = separate(_prepare(path), "chexpert")
    pathologies = [f for f in FINDINGS if f not in ("No Finding", "Support Devices")]
    uncertain = pl.concat_list(pl.when(pl.col(f) == -1).then(pl.lit(f)) for f in FINDINGS).list.drop_nulls()
    present = pl.concat_list(pl.when(pl.col(f) == 1).then(pl.lit(n)) for f, n in NAMES.items()).list.drop_nulls()
    table = table.with_columns(uncertain=uncertain, labels=present)
    table = table.with_columns(pl.when(pl.col(f) >= 0).then(pl.col(f)).alias(f) for f in FINDINGS)
    healthy, ill = pl.col("No Finding") == 1, pl.any_horizontal(pl.col(f) == 1 for f in pathologies)
    table = table.with_columns(
        *(pl.when(healthy).then(0.0).otherwise(pl.col(f)).alias(f) for f in pathologies),
        pl.when(ill).then(0.0).otherwise(pl.col("No Finding")).alias("No Finding"),
    )
    keep = [
        "image_id",
        "patient_id",
        "study_id",
        "image",
        "view",
        "age",
        "sex",
        "labels",
        "uncertain",
        *FINDINGS,
    ]
    return conform(table.select(keep).with_columns(source=pl.lit("chexpert"))), rejects


def repairs(path: str | Path | None = None) -> pl.DataFrame:
    """Ages, sexes and views that could not be used."""
    fields = {"age": "raw Age", "sex": "raw Sex", "view": "raw Frontal/Lateral"}
    return unread(separate(_prepare(path), "chexpert")[0], "chexpert", fields)


def _prepare(path: str | Path | None) -> pl.DataFrame:
    """The Record's plain columns, states as numbers, and the reason to reject a row, if any."""
    table = read_table(path or shipped(TABLE), COLUMNS)
    parts = pl.col("Path").str.extract_groups(r"(?<patient>patient\d+)/(?<study>study\d+)/(?<view>view[^/]+)\.\w+$")
    parts = parts.struct
    frontal = pl.col("AP/PA").replace_strict({"AP": "AP", "PA": "PA"}, default="FRONTAL")
    view = pl.when(pl.col("Frontal/Lateral") == "Lateral").then(pl.lit("LATERAL"))
    view = view.when(pl.col("Frontal/Lateral") == "Frontal").then(frontal)
    raw = {finding: pl.col(name).str.strip_chars() for finding, name in NAMES.items()}
    wrong = pl.coalesce(pl.when(~text.is_in(list(STATES))).then(pl.format("{} '{}'", pl.lit(f), text))
                        for f, text in raw.items())  # fmt: skip
    reason = (
        pl.when(parts["patient"].is_null()).then(pl.format("path without patient/study/view: '{}'", "Path"))
        .when(wrong.is_not_null()).then(pl.format("unknown state {}", wrong))
    )  # fmt: skip
    names = [pl.col(c).alias(f"raw {c}") for c in ("Age", "Sex", "Frontal/Lateral")]
    return table.select(
        "row",
        "broken",
        *names,
        reason=reason,
        image_id=pl.format("chexpert:{}/{}/{}", parts["patient"], parts["study"], parts["view"]),
        patient_id=pl.format("chexpert:{}", parts["patient"]),
        study_id=pl.format("chexpert:{}/{}", parts["patient"], parts["study"]),
        image=pl.col("Path"),
        view=view,
        age=years(pl.col("Age")),
        sex=sex(pl.col("Sex")),
        **{f: text.replace_strict(STATES, default=None, return_dtype=pl.Float32) for f, text in raw.items()},
    )
