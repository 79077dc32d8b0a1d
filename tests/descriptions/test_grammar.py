"""What the grammar says, and what it never says."""

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.descriptions import grammar
from chexgen_lib.records import FINDINGS


def record(image_id: str = "nih:1", details=(), labels=(), view="PA", age=63.0, sex="F", race=None, **states) -> dict:
    named = {f.replace(" ", "_"): f for f in FINDINGS}
    row = {"image_id": image_id, "source": "nih", "patient_id": "nih:p", "study_id": "nih:s", "view": view}
    row |= {"age": age, "sex": sex, "race": race, "labels": list(labels)}
    row["details"] = [dict(zip(("finding", "side", "site", "severity"), d, strict=True)) for d in details]
    return row | {named[name]: float(value) for name, value in states.items()}


def table(*rows: dict) -> pl.DataFrame:
    return records.validate(pl.DataFrame(list(rows), infer_schema_length=None))


def variants(n: int = 60, **kwargs) -> pl.DataFrame:
    """The same record under many image ids, so in all wordings."""
    return table(*(record(f"nih:{i}", **kwargs) for i in range(n)))


def test_sections_and_facts():
    df = table(record(details=[("Effusion", "left", None, "moderate")], Effusion=1, Cardiomegaly=1, Pneumothorax=0))
    text = grammar.full(df)[0]
    assert [text.index(s) for s in ("Patient Information:", "Technique:", "Findings:", "Impression:")]
    findings, impression = text.split("Findings: ")[1].split("Impression: ")
    for section in (findings, impression):
        assert "moderate left pleural effusion" in section
    assert "63-year-old woman" in text
    assert "No pneumothorax." in findings
    assert "right" not in text and "severe" not in text


def test_only_what_is_asserted_in_every_wording():
    df = variants(Edema=1, Pneumonia=0)
    for text in [*grammar.full(df), *grammar.prompt(df)]:
        words = text.lower()
        assert "edema" in words
        for other in (
            "consolidation",
            "effusion",
            "pneumothorax",
            "fracture",
            "left",
            "right",
            "mild",
            "severe",
        ):
            assert other not in words
        assert "no pneumonia." in words or "pneumonia" not in words


def test_uncertain_findings_are_not_mentioned():
    df = variants(5, Edema=1).with_columns(uncertain=pl.lit(["Pneumonia"]))
    assert not grammar.full(df).str.to_lowercase().str.contains("pneumonia").any()


def test_wording_varies_and_is_deterministic():
    df = variants(Effusion=1, Cardiomegaly=1)
    texts = grammar.full(df)
    assert texts.n_unique() > 8
    assert texts.equals(grammar.full(df))
    shuffled = df.sample(fraction=1, shuffle=True, seed=1)
    assert (
        shuffled.with_columns(text=grammar.full(shuffled))
        .sort("image_id")["text"]
        .equals(df.with_columns(text=texts).sort("image_id")["text"])
    )


@pytest.mark.parametrize(
    ("age", "sex", "expected"),
    [
        (63, "F", "63-year-old woman"),
        (8, "M", "8-year-old boy"),
        (18, None, "18-year-old patient"),
        (0.5, "F", "infant girl"),
        (None, None, "a patient"),
        (63.9, "M", "63-year-old man"),
    ],
)
def test_patient(age, sex, expected):
    assert expected in grammar.prompt(table(record(age=age, sex=sex)))[0]


def test_article_and_race():
    text = grammar.prompt(table(record(age=81.0, race="Black")))[0]
    assert "of an 81-year-old Black woman." in text


def test_no_finding_is_short():
    absent = {f.replace(" ", "_"): 0 for f in FINDINGS[1:]}
    for text in grammar.prompt(variants(12, No_Finding=1, **absent)):
        assert len(text.split()) < 25
        assert "No acute" in text


def test_labels_beyond_the_findings_are_said_with_their_place():
    df = table(
        record(
            labels=["kyphosis", "calcified granuloma", "Calcinosis/aorta"],
            details=[("Lung Lesion", "right", "upper lobe", None), ("Calcinosis/aorta", None, "aorta", None)],
            Lung_Lesion=1,
        )
    )
    text = grammar.full(df)[0]
    assert "calcified granuloma in the right upper lobe" in text
    assert "kyphosis" in text and "calcification in the aorta" in text


def test_two_labels_of_one_finding_do_not_swap_their_places():
    labels = ["Nodule/lung/upper lobe/left", "Mass/lung/lower lobe/right/large"]
    details = [("Lung Lesion", "left", "upper lobe", None), ("Lung Lesion", "right", "lower lobe", "severe")]
    text = grammar.full(table(record(labels=labels, details=details, Lung_Lesion=1)))[0]
    assert "nodule in the left upper lobe" in text
    assert "large mass in the right lower lobe" in text
    # Nothing tells which of two plain labels is where: neither is given the place.
    text = grammar.full(table(record(labels=["nodule", "pulmonary mass"], details=details, Lung_Lesion=1)))[0]
    assert "nodule in" not in text and "mass in" not in text


def test_prompt_is_short_whatever_the_record_says():
    states = {f.replace(" ", "_"): 1 for f in FINDINGS[1:]}
    text = grammar.prompt(table(record(labels=["kyphosis", "goiter", "scoliosis", "hiatal hernia"], **states)))[0]
    assert len(text.split()) <= grammar.PROMPT_WORDS


def test_the_origin_is_named():
    assert grammar.describe(variants(3, Edema=1))["description_origin"].unique().to_list() == ["grammar-1"]


def test_empty_table():
    empty = variants(1).clear()
    assert grammar.full(empty).len() == grammar.prompt(empty).len() == 0


def test_each_combination_is_written_once_whatever_its_columns_are_called():
    df = pl.DataFrame({"text": ["a", None, "a", "b", None], "n": [1, 2, 1, 1, 2]})
    calls = []
    written = grammar.per_combination(df, ("text", "n"), lambda *row: calls.append(row) or f"{row[0]}{row[1]}")
    assert written.to_list() == ["a1", "None2", "a1", "b1", "None2"]
    assert sorted(calls, key=str) == [("a", 1), ("b", 1), (None, 2)]
