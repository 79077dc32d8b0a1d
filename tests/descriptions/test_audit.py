"""Planted faults are found in both wordings, and radiologists' sentences are read as their indexers did."""

import polars as pl
import pytest

from chexgen_lib import records, sources
from chexgen_lib.descriptions import audit as faults
from chexgen_lib.descriptions import check as quality_control
from chexgen_lib.descriptions import grammar as describe
from chexgen_lib.descriptions import report_parser as reading
from chexgen_lib.records import FINDINGS


@pytest.fixture(scope="module")
def real() -> pl.DataFrame:
    """Records of a table without places and of one with them, spread over it; the benchmark does all four."""
    frames = [sources.load(source)[0] for source in ("nih", "openi")]
    return pl.concat([df.gather_every(max(df.height // 1000, 1)).head(1000) for df in frames])


@pytest.mark.parametrize("write", [describe.full, faults.paraphrase])
def test_faults_are_found_and_clean_texts_pass(real, write):
    table = faults.detection(real, n=60, seed=1, write=write)
    clean, planted = (table.filter((pl.col("fault") == "clean") == is_clean) for is_clean in (True, False))
    assert table.height == 2 * (1 + len(faults.FAULTS))
    assert planted["n"].sum() > 1000
    assert planted["found"].drop_nulls().min() >= 0.98, planted
    assert clean["found"].max() <= 0.01, clean
    assert (table["low"] <= table["found"]).all()


def test_detection_counts_what_is_missed(real, monkeypatch):
    """A check that passes everything finds nothing."""
    monkeypatch.setattr(faults, "check", lambda df: df.with_columns(qc=pl.lit(quality_control.PASS)))
    assert faults.detection(real.head(300), n=20)["found"].max() == 0


def one(**columns) -> pl.DataFrame:
    details = columns.pop("details", [])
    details = [dict(zip(("finding", "side", "site", "severity"), d, strict=True)) for d in details]
    row = dict.fromkeys(("image_id", "patient_id", "study_id"), "openi:1") | {"source": "openi", "details": details}
    return records.validate(pl.DataFrame([row | columns], schema_overrides={"labels": pl.List(pl.String)}))


def test_sides_given_alike_are_no_fault():
    both = [("Effusion", side, None, None) for side in ("left", "right")]
    left = [("Effusion", "left", None, None)]
    for details, n in ((both, 0), (left, 1)):
        table = faults.detection(one(details=details, Effusion=1.0), n=5)
        assert table.filter(pl.col("fault") == "side swapped")["n"].item() == n


def test_sides_are_swapped_both_ways():
    df = one().with_columns(description=pl.lit("Left effusion and right mass. Left base."))
    assert faults._swapped(df, describe.full).item() == "right effusion and left mass. right base."


@pytest.mark.parametrize("finding", FINDINGS[1:])
def test_each_paraphrase_says_its_finding_and_place(finding):
    for wording in faults.WORDINGS[finding]:
        text = faults._placed(wording, "left", "lower lobe", "mild")
        said = reading.read(text)
        assert {m.finding for m in said.affirmed if m.finding} == {finding}, text
        assert ("left", "lower lobe", "mild") in {m.place for m in said.affirmed}, text


@pytest.mark.parametrize("finding", FINDINGS[1:])
def test_each_denial_denies(finding):
    for key in range(len(faults.DENIALS)):
        text = faults._denial(finding, key)
        said = reading.read(text)
        assert finding in {m.finding for m in said.denied}, text
        assert not {m.finding for m in said.affirmed} & set(FINDINGS), text


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
    table = faults.against_reports(pl.concat([*rows, rows[0]]))  # the second image of a study counts once
    row = table.row(by_predicate=pl.col("finding") == "Effusion", named=True)
    assert (row["present"], row["sensitivity"], row["hedged"]) == (1, 1.0, 1)
    assert (row["absent"], row["specificity"]) == (2, 0.5)
    assert (row["affirmed"], row["precision"]) == (2, 0.5)


def test_openi_is_read_as_indexed():
    openi = sources.load("openi")[0]
    table = faults.against_reports(openi)
    common = table.filter(pl.col("finding").is_in(["Cardiomegaly", "Effusion", "Atelectasis", "Lung Opacity"]))
    assert common["sensitivity"].min() > 0.95, common
    assert common["precision"].min() > 0.9, common
    assert table.filter(pl.col("finding") != "No Finding")["specificity"].min() > 0.98, table
