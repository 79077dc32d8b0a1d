"""Sections of free-text reports, and stage II's selection."""

import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.records import RecordError
from chexgen_lib.sources import impressions

MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with cough  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  Chest radiograph ___

 FINDINGS:

 The lungs are clear.  No effusion
 or pneumothorax.

 IMPRESSION:

 No acute process.
"""


def parsed(text: str | None) -> dict[str, str]:
    """The sections that a report has."""
    row = impressions.sections(pl.Series([text], dtype=pl.String)).row(0, named=True)
    assert tuple(row) == impressions.SECTIONS
    return {name: value for name, value in row.items() if value is not None}


def test_mimic_report():
    assert parsed(MIMIC) == {
        "indication": "___F with cough // pneumonia?",
        "comparison": "Chest radiograph ___",
        "technique": "Chest PA and lateral",
        "findings": "The lungs are clear. No effusion or pneumothorax.",
        "impression": "No acute process.",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CONCLUSION: Cardiomegaly.", {"impression": "Cardiomegaly."}),
        ("FINDINGS AND IMPRESSION: Small effusion.", {"impression": "Small effusion."}),
        ("FINDINGS/IMPRESSION: Small effusion.", {"impression": "Small effusion."}),
        ("REASON FOR EXAM: fall\nIMPRESSION: Normal.", {"indication": "fall", "impression": "Normal."}),
        (
            "HISTORY: ___ year old man.\nCHEST, TWO VIEWS: Large heart.\nIMPRESSION: Cardiomegaly.",
            {"indication": "___ year old man.", "findings": "Large heart.", "impression": "Cardiomegaly."},
        ),
        ("WET READ: ___ 10:10 PM\n no pneumothorax\n FINAL REPORT\n IMPRESSION: Normal.", {"impression": "Normal."}),
        ("WET READ VERSION #1 ___ 9 PM\n clear\nFINDINGS: Clear lungs.", {"findings": "Clear lungs."}),
        (
            "IMPRESSION: Normal.\nADDENDUM: Read with Dr. ___.",
            {"impression": "Normal.", "addendum": "Read with Dr. ___."},
        ),
        (
            "FINAL ADDENDUM\n A nodule.\n FINAL REPORT\n IMPRESSION: Normal.",
            {"addendum": "A nodule.", "impression": "Normal."},
        ),
        (
            "FINDINGS: THE LUNGS ARE CLEAR. IMPRESSION: NORMAL.",
            {"findings": "THE LUNGS ARE CLEAR.", "impression": "NORMAL."},
        ),
        ("Findings: Clear lungs. Impression: Normal.", {"findings": "Clear lungs.", "impression": "Normal."}),
        ("findings:\nclear\nimpression:\nnormal", {"findings": "clear", "impression": "normal"}),
        ("FINDINGS\nClear lungs.\n\nIMPRESSION\nNormal.", {"findings": "Clear lungs.", "impression": "Normal."}),
        ("The lungs are clear.", {"findings": "The lungs are clear."}),
        ("FINAL REPORT\n The lungs are clear.", {"findings": "The lungs are clear."}),
        ("IMPRESSION: 1. Edema.\nRECOMMENDATION: CT.", {"impression": "1. Edema."}),
        ("IMPRESSION: Edema.\r\nIMPRESSION: Effusion.", {"impression": "Edema. Effusion."}),
        ("FINDINGS: Her history of the findings is long.", {"findings": "Her history of the findings is long."}),
        ("IMPRESSION:", {}),
        ("", {}),
        (None, {}),
    ],
)
def test_shapes_of_reports(text, expected):
    assert parsed(text) == expected


def test_rows_stay_in_order():
    table = impressions.sections(pl.Series(["IMPRESSION: a", None, "IMPRESSION: b"]))
    assert table["impression"].to_list() == ["a", None, "b"]
    assert impressions.sections(pl.Series([], dtype=pl.String)).shape == (0, 6)


def cohort(rows: list[tuple]) -> pl.DataFrame:
    """Records (subject, study, view, impression) of mimic_cxr."""
    return records.validate(
        pl.DataFrame(
            [
                {
                    "image_id": f"mimic_cxr:{i}",
                    "source": "mimic_cxr",
                    "patient_id": f"mimic_cxr:{subject}",
                    "study_id": f"mimic_cxr:{study}",
                    "view": view,
                    "impression": impression,
                    "split": "test" if subject.startswith("19") else "train",
                }
                for i, (subject, study, view, impression) in enumerate(rows)
            ]
        )
    )


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_stage_two_selection():
    table = cohort(
        [
            ("10000032", 1, "PA", "No acute process."),
            ("10000032", 1, "PA", "No acute process."),  # second image of the study
            ("10000032", 2, "AP", "Edema."),
            ("11000000", 3, "PA", None),
            ("12000000", 4, "PA", "word " * 120),
            ("12000000", 5, "PA", "word " * 119),
            ("18000000", 6, "PA", "no  acute process"),  # same words as the first
            ("19000000", 7, "PA", "No acute process."),  # same words, but of the test folder
        ]
    )
    selected, funnel = impressions.impressions(table, words, max_tokens=120)
    assert selected["study_id"].to_list() == ["mimic_cxr:1", "mimic_cxr:5", "mimic_cxr:7"]
    assert selected["split"].to_list() == ["train", "train", "test"]
    assert funnel["n"].to_list() == [8, 7, 6, 5, 4, 3]
    assert funnel.row(-1) == ("one study per impression", 3, 2, 0, 1)


def test_stage_two_without_mimic():
    with pytest.raises(RecordError, match="no record of source 'mimic_cxr'"):
        impressions.impressions(pl.DataFrame(schema=records.SCHEMA), words)


def test_unknown_folder_is_an_error():
    with pytest.raises(RecordError, match="42"):
        impressions.impressions(cohort([("42", 1, "PA", "Edema.")]), words)


@pytest.mark.parametrize("split", [None, "test"])
def test_a_split_that_is_not_the_folder_s_is_an_error(split):
    table = cohort([("10000032", 1, "PA", "Edema.")]).with_columns(split=pl.lit(split, pl.String))
    with pytest.raises(RecordError, match="mimic_cxr:10000032.*p19 alone is tested on"):
        impressions.impressions(table, words)
