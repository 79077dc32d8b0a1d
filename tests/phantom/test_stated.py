"""What a record leaves open is stated as the renderer draws it: the radiograph stays the same to the bit."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.phantom.findings import RENDER
from chexgen_lib.phantom.render import render
from chexgen_lib.phantom.stated import SIDELESS, stated
from chexgen_lib.records import SCHEMA, SEVERITIES, conform

SIDED = [finding for finding in RENDER if finding not in (*SIDELESS, "Support Devices")]


def table(*rows):
    """Records of one patient's images, `i0`, `i1`, ..."""
    base = {"patient_id": "t:p", "study_id": "t:s", "source": "nih", "view": "PA", "age": 60.0, "sex": "F"}
    rows = [base | {"image_id": f"t:i{number}"} | row for number, row in enumerate(rows)]
    return conform(pl.DataFrame(rows, schema_overrides=SCHEMA))


def detail(finding, side=None, severity=None):
    return {"finding": finding, "side": side, "site": None, "severity": severity}


@pytest.mark.parametrize("finding", RENDER)
def test_the_radiograph_stays_as_it_was(finding):
    records = table({finding: 1.0}, {finding: 1.0, "details": [detail(finding, severity="severe")]})
    for before, after in zip(records.to_dicts(), stated(records).to_dicts(), strict=True):
        assert np.array_equal(render(before, 64).image, render(after, 64).image)
        (told,) = after["details"] or [detail("Support Devices")]
        assert told["severity"] in SEVERITIES or finding == "Support Devices"
        assert (told["side"] is None) == (finding not in SIDED)


def test_the_stated_side_is_where_the_mask_is():
    records = stated(table(*[{"Effusion": 1.0}] * 12))
    sides = [record["details"][0]["side"] for record in records.to_dicts()]
    for record, side in zip(records.to_dicts(), sides, strict=True):
        left = render(record, 64).masks["Effusion"][:, 32:].mean()  # the patient's left is the image's right
        right = render(record, 64).masks["Effusion"][:, :32].mean()
        assert {"left": left > 5 * right, "right": right > 5 * left, "bilateral": left > 0 < right}[side]
    assert {"left", "right"} < set(sides)


def test_what_is_given_stays():
    given = [detail("Effusion", "left", "mild"), detail("Lung Lesion", "left"), detail("Lung Lesion", "right", "mild")]
    (record,) = stated(table({"Effusion": 1.0, "Lung Lesion": 1.0, "details": given})).to_dicts()
    assert record["details"] == [given[1], given[2], given[0]], "those of one finding in their order"
    half = [detail("Effusion", "left")]
    (record,) = stated(table({"Effusion": 1.0, "details": half})).to_dicts()
    assert record["details"][0] == half[0] | {"severity": record["details"][0]["severity"]}


def test_nothing_is_stated_of_what_is_absent_uncertain_or_has_another_name():
    records = table(
        {"Effusion": 0.0},
        {"Effusion": None, "uncertain": ["Effusion"]},
        {"Lung Opacity": 1.0, "Consolidation": 1.0},
        {"Lung Opacity": 1.0, "uncertain": ["Consolidation"]},
        {"Support Devices": 1.0},
    )
    told = [[one["finding"] for one in record["details"] or []] for record in stated(records).to_dicts()]
    assert told == [[], [], ["Consolidation"], [], []]
