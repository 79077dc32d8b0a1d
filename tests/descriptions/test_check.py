"""The check reads any describer's text: most texts here are written by hand, not by the grammar."""

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.descriptions import grammar, report_parser
from chexgen_lib.descriptions.check import PASS, check, reasons_for
from chexgen_lib.sources import registry

HEAD = "Patient Information: A 63-year-old woman. Technique: PA chest radiograph. "


def verdict(text: str, details=(), labels=(), age=63, sex="F", view="PA", **states) -> str:
    """qc of a description of one record; a text without "Technique:" gets the head that fits the record."""
    details = [dict(zip(("finding", "side", "site", "severity"), d, strict=True)) for d in details]
    row = dict.fromkeys(("image_id", "patient_id", "study_id"), "nih:1") | {"source": "nih", "view": view}
    row |= {"age": age, "sex": sex, "labels": list(labels), "details": details}
    row |= {name.replace("_", " "): value for name, value in states.items()}
    df = records.validate(pl.DataFrame([row], schema_overrides={"labels": pl.List(pl.String)}))
    text = text if "Technique:" in text else HEAD + text
    return check(df.with_columns(description=pl.lit(text)))["qc"][0]


@pytest.mark.parametrize(
    "text",
    [
        "Findings: Small left effusion is present. No pneumothorax. Impression: Small left pleural effusion.",
        "Findings: The lungs are without pneumothorax. There is a small left-sided effusion. "
        "Impression: small left effusions",
        "A small effusion on the left, negative for pneumothorax.",
    ],
)
def test_other_wordings_pass(text):
    assert verdict(text, details=[("Effusion", "left", None, "mild")], Effusion=1, Pneumothorax=0) == PASS


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Findings: Not stated. Impression: Small left effusion.", "omits Effusion"),
        ("Findings: Small left effusion. Impression: Not stated.", "omits Effusion"),
        ("Small left effusion and consolidation.", "adds Consolidation"),
        ("Small left effusion. No edema.", "denies Edema"),  # unknown is not absent
        ("No effusion.", "omits Effusion; denies Effusion"),
        ("Small right effusion.", "misplaces Effusion"),
        ("Small bilateral effusions.", "misplaces Effusion"),
        ("Large left effusion.", "misplaces Effusion"),
        ("Left effusion.", "misplaces Effusion"),
        ("Small left effusion at the base.", "misplaces Effusion"),
        ("Possible small left effusion.", "omits Effusion; speculates"),
        ("Small left effusion. No acute cardiopulmonary abnormality.", "adds No Finding"),
        ("Small left effusion and scoliosis.", "adds label scoliosis"),
    ],
)
def test_faults_are_found(text, reason):
    assert verdict(text, details=[("Effusion", "left", None, "mild")], Effusion=1) == f"fail: {reason}"


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("A 64-year-old woman. Technique: PA chest radiograph.", "age"),
        ("A 63-year-old man. Technique: PA chest radiograph.", "sex"),
        ("A 63-year-old patient. Technique: PA chest radiograph.", "sex"),
        ("A 63-year-old woman. Technique: Lateral chest radiograph.", "view"),
        ("A 63-year-old woman. Technique: Chest radiograph.", "view"),
        ("A woman. Technique: PA chest radiograph.", "age"),
    ],
)
def test_wrong_patient_or_technique(head, reason):
    text = f"Patient Information: {head} Findings: Pulmonary edema. Impression: Edema."
    assert verdict(text, Edema=1) == f"fail: {reason}"


def test_unknown_age_and_sex_must_not_be_given():
    text = HEAD + "Findings: Edema. Impression: Edema."
    assert verdict(text, age=None, sex=None, Edema=1) == "fail: age; sex"


def test_negation_reaches_over_a_list_but_not_past_but():
    assert verdict("No effusion, pneumothorax or edema.", Effusion=0, Pneumothorax=0, Edema=0) == PASS
    assert verdict("No effusion but edema is present.", Effusion=0, Edema=1) == PASS


def test_two_places_of_one_finding():
    details = [("Consolidation", "left", "base", None), ("Consolidation", "right", "upper lobe", None)]
    text = "Consolidation at the left base and in the right upper lobe."
    assert verdict(text, details=details, Consolidation=1) == PASS
    swapped = "Consolidation at the right base and in the left upper lobe."
    assert verdict(swapped, details=details, Consolidation=1) == "fail: misplaces Consolidation"


def test_labels_beyond_the_findings():
    case = {"labels": ["hiatal hernia", "kyphosis"], "details": [("kyphosis", "left", None, None)]}
    assert verdict("Hiatal hernia and left kyphosis.", **case) == PASS
    assert verdict("Left kyphosis.", **case) == "fail: omits label hiatal hernia"
    assert verdict("Hiatal hernia and right kyphosis.", **case) == "fail: misplaces label kyphosis"


def test_nothing_to_describe_is_said():
    assert verdict("Findings: Not stated. Impression: Not stated.") == "fail: nothing to describe"


def test_no_finding():
    assert verdict("No acute cardiopulmonary disease.", No_Finding=1) == PASS
    assert verdict("No pneumothorax.", No_Finding=1, Pneumothorax=0) == "fail: omits No Finding"


@pytest.mark.parametrize(
    ("text", "affirmed", "denied", "hedged"),
    [
        ("Left effusion without pneumothorax.", "Effusion", "Pneumothorax", ""),
        ("Effusion and pneumothorax are not seen.", "", "Effusion, Pneumothorax", ""),
        ("The effusion has resolved.", "", "Effusion", ""),
        ("The heart is not enlarged.", "", "Cardiomegaly", ""),
        ("Cardiac silhouette is mildly enlarged.", "Cardiomegaly", "", ""),
        ("Heart size is normal.", "", "Cardiomegaly", ""),
        ("No significant change in the effusion.", "Effusion", "", ""),
        ("Opacity may represent pneumonia.", "Lung Opacity", "", "Pneumonia"),
        ("Pneumonia cannot be excluded.", "", "", "Pneumonia"),
        ("Possible edema or pneumonia.", "", "", "Edema, Pneumonia"),
        ("Edema may be present.", "", "", "Edema"),
        ("History of pneumonia.", "", "", "Pneumonia"),
        ("Pneumonia is not excluded.", "", "", "Pneumonia"),
        ("There is no evidence to suggest edema.", "", "Edema", ""),
        ("No effusion; there is edema.", "Edema", "Effusion", ""),
        ("Left base atelectasis/consolidation.", "Atelectasis, Consolidation", "", ""),
        ("There are lung masses.", "Lung Lesion", "", ""),
        ("Pericardial effusion.", "", "", ""),
        ("The pleural line is thin.", "", "", ""),
    ],
)
def test_negation_and_doubt(text, affirmed, denied, hedged):
    said = [{m.finding for m in mentions if m.finding} for mentions in report_parser.read(text)[:3]]
    assert said == [set(filter(None, names.split(", "))) for names in (affirmed, denied, hedged)]


@pytest.mark.parametrize(
    "text",
    [
        "Blunting of the left costophrenic angle consistent with a small effusion.",
        "Small left pleural fluid collection.",
    ],
)
def test_place_of_an_effusion_in_other_words(text):
    assert verdict(text, details=[("Effusion", "left", None, "mild")], Effusion=1) == PASS


def test_left_and_right_are_both_sides():
    details = [("Effusion", "bilateral", None, None)]
    assert verdict("Left effusion and right effusion.", details=details, Effusion=1) == PASS
    assert verdict("Left effusion.", details=details, Effusion=1) == "fail: misplaces Effusion"


@pytest.fixture(scope="module")
def real() -> pl.DataFrame:
    """1,500 records of each shipped table, spread over it, described."""
    frames = []
    for source in registry.ALWAYS:
        df = registry.load(source)[0]
        frames.append(df.gather_every(max(df.height // 1500, 1)).head(1500))
    return check(grammar.describe(pl.concat(frames)))


def test_grammar_passes_on_real_records(real):
    failed = real.filter((pl.col("qc") != PASS) & (pl.col("qc") != "fail: nothing to describe"))
    assert failed.height <= 0.001 * real.height, failed["qc"].unique().to_list()
    silent = real.filter(pl.col("qc") == "fail: nothing to describe")
    assert silent.height < 0.03 * real.height


def test_prompts_are_right_and_fit_the_encoder(real):
    """The short form passes the same check; omitted labels beyond the 14 are allowed there."""
    prompts = grammar.prompt(real)
    assert prompts.str.split(" ").list.len().max() <= grammar.PROMPT_WORDS
    checked = check(real.with_columns(description=prompts))
    wrong = checked.filter((pl.col("qc") != PASS) & (real["qc"] == PASS) & ~pl.col("qc").str.contains("omits label"))
    assert wrong.height <= 0.001 * real.height, wrong.select("qc", "description").head(5).to_dicts()


def test_reasons_are_counted():
    qc = pl.Series("qc", [PASS, "fail: omits Edema; sex", "fail: omits Edema"])
    assert dict(reasons_for(qc).iter_rows()) == {"omits": 2, "sex": 1}


def test_empty_table():
    empty = pl.DataFrame(schema=records.SCHEMA)
    assert check(grammar.describe(empty)).height == 0
