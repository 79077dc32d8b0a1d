"""A prompt grades each opacity by its own score, says nothing else of it, and is requested for training records."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.descriptions.report_parser import read
from chexgen_lib.learners.regressor import OPAQUE
from chexgen_lib.models.metadata import ATTRIBUTES, encode_metadata
from chexgen_lib.pools import severity_prompts as sp
from chexgen_lib.pools.requests import metadata_for
from chexgen_lib.records import FINDINGS, SCHEMA, SEVERITIES

CUTS = dict.fromkeys(OPAQUE, np.array([0.1, 0.2]))


def records(*rows):
    """Records in the Record table's types; a row names findings that are present and whatever else it has."""
    defaults = {"view": "PA", "split": "train", "stage2": True, "labels": [], "details": []}
    rows = [{"image_id": f"i{k}", "patient_id": f"p{k}"} | defaults | row for k, row in enumerate(rows)]
    schema = {c: SCHEMA[c] for c in SCHEMA} | {"stage2": pl.Boolean, "prompt": pl.String}
    return pl.DataFrame([{c: row.get(c, 0 if c in FINDINGS else None) for c in schema} for row in rows], schema=schema)


def scores(**given):
    return [{"finding": finding.replace("_", " "), "score": score} for finding, score in given.items()]


def impressions(*rows):
    return sp.impressions(sp.graded(records(*rows), CUTS))


def said(prompt):
    """Finding -> grade of all opacities that a prompt affirms."""
    return {mention.finding: mention.place[2] for mention in read(prompt).affirmed if mention.finding in OPAQUE}


def detail(finding, severity, side=None, site=None):
    return {"finding": finding, "side": side, "site": site, "severity": severity}


def test_each_opacity_is_graded_by_its_own_score():
    both = scores(Edema=0.5, Atelectasis=0.05)
    prompts = impressions(
        *({"Edema": 1, "Atelectasis": 1, "severity": both, "image_id": f"{k}"} for k in range(12)),
        *({"Consolidation": 1, "severity": scores(Consolidation=0.15), "image_id": f"c{k}"} for k in range(12)),
    )
    assert prompts.n_unique() > 3  # whatever the wording
    assert all(said(p) == {"Edema": "severe", "Atelectasis": "mild"} for p in prompts[:12])
    assert all(said(p) == {"Consolidation": "moderate"} for p in prompts[12:])


def test_places_are_the_records_and_its_own_grades_are_not_said():
    row = {
        "Atelectasis": 1,
        "Lung Opacity": 1,
        "Cardiomegaly": 1,
        "severity": scores(Atelectasis=0.3, Cardiomegaly=0.9),
    }
    row["details"] = [detail("Atelectasis", "mild", "left", "lower lobe"), detail("Cardiomegaly", "mild")]
    row["labels"] = ["Pulmonary Atelectasis/lower lobe/left/mild"]
    (prompt,) = impressions(row)
    assert said(prompt) == {"Atelectasis": "severe"}  # and no opacity without a score of its own
    (place,) = [m.place for m in read(prompt).affirmed if m.finding == "Atelectasis"]
    assert place == ("left", "lower lobe", "severe")
    assert [m.place[2] for m in read(prompt).affirmed if m.finding == "Cardiomegaly"] == ["mild"]


def test_clear_lungs_are_said_to_be_clear():
    prompts = impressions(
        {"Effusion": 1, "severity": []}, {"No Finding": 1, "severity": scores(Edema=0.0)}, {"severity": []}
    )
    assert all(p.endswith(sp.CLEAR) and said(p) == {} for p in prompts) and prompts[2] == sp.CLEAR
    assert "effusion" in prompts[0] and "No acute" in prompts[1]


def test_training_records_with_a_score_are_chosen():
    lungs = [{"Edema": 1, "severity": scores(Edema=0.1 * k)} if k else {"severity": []} for k in range(7)]
    others = [{"severity": None}, {"split": "test", "severity": scores(Edema=0.9)}, {"stage2": False, "severity": []}]
    chosen = sp.requests(records(*lungs, *others), 99)
    assert chosen["image_id"].to_list() == [f"i{k}" for k in range(7)]
    assert chosen["score"].to_list() == pytest.approx([0.1 * k for k in range(7)])
    assert chosen["grade"].to_list() == ["none", "mild", "mild", "moderate", "moderate", "severe", "severe"]
    fewer = sp.requests(records(*lungs, *others), 3)
    assert len(fewer) == 3 and set(fewer["image_id"]) < set(chosen["image_id"])
    nothing = sp.requests(records({"severity": None}, {"severity": []}), 99)
    assert nothing.is_empty() and nothing.columns == chosen.columns


def test_a_grade_is_the_findings_own():
    lungs = [{"Edema": 1, "severity": scores(Edema=0.1 * k)} for k in range(1, 7)]
    lesions = [{"Lung Lesion": 1, "severity": scores(Lung_Lesion=0.001 * k)} for k in range(1, 7)]
    cohort = records(*lungs, *lesions).with_columns(image_id=pl.int_range(12).cast(pl.String))
    asked = sp.requests(cohort, 99).sort("score")
    grades = [row[0]["severity"] for row in asked["details"]]
    assert grades == ["mild", "mild", "moderate", "moderate", "severe", "severe"] * 2
    assert asked["grade"].to_list() == ["mild"] * 4 + ["moderate"] * 4 + ["severe"] * 4  # of the image's score


def test_descriptions_and_metadata_say_the_same():
    row = {"Edema": 1, "Lung Opacity": 1, "Pneumonia": 0, "age": 40.0, "sex": "F", "severity": scores(Edema=0.3)}
    mild = {"Edema": 1, "Lung Opacity": 1, "age": 50.0, "sex": "M", "severity": scores(Edema=0.1)}
    cohort = records(row, mild, {"Lung Opacity": 1, "severity": []}).with_columns(source=pl.lit("nih"))
    asked = sp.requests(cohort, 99, prompt="description").sort("image_id")
    assert "40-year-old" in asked["prompt"][0] and said(asked["prompt"][0]) == {"Edema": "severe"}
    codes = encode_metadata(metadata_for(asked, ["nih"]), ["nih"])
    at = ATTRIBUTES.index
    assert codes[0, [at("Edema"), at("Pneumonia")]].tolist() == [1, 0] and codes[:, at("Lung Opacity")].isnan().all()
    severities = codes[:, -len(FINDINGS) :][:, FINDINGS.index("Edema")]
    assert severities[:2].tolist() == [SEVERITIES.index("severe"), SEVERITIES.index("mild")]
    with pytest.raises(ValueError, match="pools.prompt 'report'"):
        sp.requests(cohort, 99, prompt="report")


def test_what_training_prompts_say_is_counted():
    prompts = [
        "Mild pulmonary edema.",
        "Severe consolidation, mild atelectasis.",
        "Pneumonia.",
        "Clear lungs. No edema.",
    ]
    assert dict(sp.stated(prompts).iter_rows()) == {"mild": 2, "moderate": 0, "severe": 1, "not graded": 1}
