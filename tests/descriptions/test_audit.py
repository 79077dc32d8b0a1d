"""Planted faults are found in both wordings, and radiologists' sentences are read as their indexers did."""

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.descriptions import audit, grammar
from chexgen_lib.descriptions.check import PASS
from chexgen_lib.descriptions.paraphrase import paraphrase
from chexgen_lib.sources import registry


@pytest.fixture(scope="module")
def real() -> pl.DataFrame:
    """Records of a table without places and of one with them, spread over it; the benchmark does all four."""
    frames = [registry.load(source)[0] for source in ("nih", "openi")]
    return pl.concat([df.gather_every(max(df.height // 1000, 1)).head(1000) for df in frames])


@pytest.mark.parametrize("write", [grammar.full, paraphrase])
def test_faults_are_found_and_clean_texts_pass(real, write):
    table = audit.detection(real, n=60, seed=1, write=write)
    clean, planted = (table.filter((pl.col("fault") == "clean") == is_clean) for is_clean in (True, False))
    assert table.height == 2 * (1 + len(audit.FAULTS))
    assert planted["n"].sum() > 1000
    assert planted["found"].drop_nulls().min() >= 0.98, planted
    assert clean["found"].max() <= 0.01, clean
    assert (table["low"] <= table["found"]).all()


def test_detection_counts_what_is_missed(real, monkeypatch):
    """A check that passes everything finds nothing."""
    monkeypatch.setattr(audit, "check", lambda df: df.with_columns(qc=pl.lit(PASS)))
    assert audit.detection(real.head(300), n=20)["found"].max() == 0


def one(**columns) -> pl.DataFrame:
    details = columns.pop("details", [])
    details = [dict(zip(("finding", "side", "site", "severity"), d, strict=True)) for d in details]
    row = dict.fromkeys(("image_id", "patient_id", "study_id"), "openi:1") | {"source": "openi", "details": details}
    return records.validate(pl.DataFrame([row | columns], schema_overrides={"labels": pl.List(pl.String)}))


def test_sides_given_alike_are_no_fault():
    both = [("Effusion", side, None, None) for side in ("left", "right")]
    left = [("Effusion", "left", None, None)]
    for details, n in ((both, 0), (left, 1)):
        table = audit.detection(one(details=details, Effusion=1.0), n=5)
        assert table.filter(pl.col("fault") == "side swapped")["n"].item() == n


def test_sides_are_swapped_both_ways():
    df = one().with_columns(description=pl.lit("Left effusion and right mass. Left base."))
    assert audit._swapped(df, grammar.full).item() == "right effusion and left mass. right base."


def test_agreement_with_a_report():
    reports = {
        "a": ("Small left effusion.", 1.0),
        "b": ("There may be an effusion.", 1.0),
        "c": ("No effusion.", 0.0),
        "d": ("Small effusion.", 0.0),
        "e": ("Large effusion.", None),
    }
    rows = [
        one(impression=text, Effusion=state).with_columns(image_id=pl.lit(f"openi:{i}"), study_id=pl.lit(f"openi:{i}"))
        for i, (text, state) in reports.items()
    ]
    table = audit.against_reports(pl.concat([*rows, rows[0]]))  # the second image of a study counts once
    row = table.row(by_predicate=pl.col("finding") == "Effusion", named=True)
    assert (row["present"], row["sensitivity"], row["hedged"]) == (1, 1.0, 1)
    assert (row["absent"], row["specificity"]) == (2, 0.5)
    assert (row["affirmed"], row["precision"]) == (2, 0.5)


def test_openi_is_read_as_indexed():
    openi = registry.load("openi")[0]
    table = audit.against_reports(openi)
    common = table.filter(pl.col("finding").is_in(["Cardiomegaly", "Effusion", "Atelectasis", "Lung Opacity"]))
    assert common["sensitivity"].min() > 0.95, common
    assert common["precision"].min() > 0.9, common
    assert table.filter(pl.col("finding") != "No Finding")["specificity"].min() > 0.98, table
