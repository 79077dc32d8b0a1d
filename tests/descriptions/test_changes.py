"""Changes of a record: what is asked, what follows from it, and what cannot be asked."""

import pytest

from chexgen_lib.descriptions import changes
from chexgen_lib.descriptions.changes import ChangeError, changed, states
from chexgen_lib.phantom import acquisition
from chexgen_lib.records import FINDINGS, OPACITIES


def record(**given):
    """A woman's PA film of site A; a finding's name with underscores sets it."""
    base = {"image_id": "t:1", "patient_id": "t:p", "study_id": "t:s", "source": "t", "view": "PA", "age": 55.0}
    return base | {"sex": "F", "site": "A", "details": []} | {k.replace("_", " "): v for k, v in given.items()}


def shown(row):
    return {finding for finding, state in states(row).items() if state}


def test_the_shared_facts_are_the_renderers():
    assert changes.CHOICES["site"] == tuple(acquisition.SITES)


def test_a_person_or_the_beam_changes_and_nothing_else():
    for attribute, value in {"age": 80, "sex": "M", "view": "AP", "site": "B"}.items():
        before = record(Effusion=1)
        after = changed(before, {attribute: value})
        assert {key for key in after if after[key] != before.get(key)} == {attribute} and after[attribute] == value


@pytest.mark.parametrize("finding", [f for f in FINDINGS if f != "No Finding"])
def test_a_finding_comes_and_goes(finding):
    place = {"severity": "mild"}
    with_it = changed(record(), {finding: place})
    implied = {"Lung Opacity"} if finding in OPACITIES else set()
    healthy = {"No Finding"} if finding == "Support Devices" else set()
    assert shown(with_it) == {finding} | implied | healthy
    assert with_it["details"] == [{"finding": finding, "side": None, "site": None, "severity": "mild"}]
    without = changed(with_it, {finding: 0})
    assert shown(without) == {"No Finding"} and without["details"] == []


def test_an_opacity_stays_while_another_finding_is_one():
    row = record(Pneumonia=1, Edema=1, Lung_Opacity=1)
    assert shown(changed(row, {"Pneumonia": 0})) == {"Edema", "Lung Opacity"}
    assert shown(changed(row, {"Pneumonia": 0, "Edema": 0})) == {"No Finding"}
    assert shown(changed(record(Lung_Opacity=1), {"Lung Opacity": 0})) == {"No Finding"}


def test_no_finding_removes_all_but_devices():
    details = [dict(finding=f, side=None, site=None, severity="mild") for f in ("Effusion", "Support Devices")]
    row = changed(record(Effusion=1, Edema=1, Support_Devices=1, details=details), {"No Finding": 1})
    assert shown(row) == {"No Finding", "Support Devices"}
    assert [detail["finding"] for detail in row["details"]] == ["Support Devices"]


def test_another_place_replaces_the_old_one():
    row = changed(record(), {"Effusion": {"side": "left", "severity": "mild"}})
    row = changed(row, {"Effusion": {"side": "right", "severity": "severe"}})
    assert [(d["side"], d["severity"]) for d in row["details"]] == [("right", "severe")]


def test_labels_of_a_finding_go_with_it_and_texts_of_the_old_film_are_emptied():
    row = record(Effusion=1, labels=["Pleural Effusion", "Emphysema"], impression="Effusion.", boxes=[{"x": 0.1}])
    after = changed(row, {"Effusion": 0})
    assert after["labels"] == ["Emphysema"] and after["impression"] is None and after["boxes"] == []
    assert "Emphysema" in changed(row, {"age": 70})["labels"] and row["impression"] == "Effusion."


def test_what_is_unknown_stays_unknown():
    after = changed(record(Edema=None), {"Effusion": 1})
    assert after["Edema"] is None and "Fracture" not in after


def test_the_description_says_the_change():
    def text(row):
        return changes.prompts([row])[0].lower()

    row = record(Pneumothorax=1)
    assert "left pleural effusion" in text(changed(row, {"Effusion": {"side": "left"}}))
    assert "80-year" in text(changed(row, {"age": 80})) and "woman" in text(row)
    assert "woman" not in text(changed(row, {"sex": "M"}))
    assert "pneumothorax" not in text(changed(row, {"Pneumothorax": 0})).replace("no pneumothorax", "")
    assert text({"view": "AP", "Edema": 1}) == text({"view": "AP", "Edema": 1, "image_id": "film"})


@pytest.mark.parametrize(
    ("row", "change", "words"),
    [
        ({}, {}, "asks nothing"),
        ({}, "older", "asks nothing"),
        ({}, {"race": "White"}, "unknown attribute 'race'"),
        ({}, {"age": 55}, "age is 55 already"),
        ({}, {"age": 130}, "age 130 is no number"),
        ({}, {"age": "old"}, "age 'old' is no number"),
        ({}, {"sex": "X"}, "sex 'X' is none of M, F"),
        ({"sex": None}, {"sex": "M"}, "sex is not known"),
        ({"site": None}, {"site": "B"}, "site is not known"),
        ({}, {"Effusion": 0}, "Effusion is not present already"),
        ({"Effusion": 1}, {"Effusion": 1}, "Effusion is present already"),
        ({"Pneumonia": 1}, {"Lung Opacity": 1}, "Lung Opacity is present already"),
        ({"uncertain": ["Edema"]}, {"Edema": 1}, "Edema is uncertain"),
        ({}, {"Effusion": 2}, "Effusion 2 is none of 1, 0"),
        ({}, {"Effusion": {"place": "left"}}, "Effusion has no 'place'"),
        ({}, {"Effusion": {"side": "upper"}}, "side 'upper' is none of"),
        ({}, {"Cardiomegaly": {"side": "left"}}, "Cardiomegaly has no side"),
        ({"Effusion": 1}, {"No Finding": 0}, "No Finding is not present already"),
        ({}, {"No Finding": 0}, "No Finding can only end by a finding"),
        ({"Edema": 1}, {"No Finding": 1, "Effusion": 1}, "No Finding contradicts Effusion"),
        ({"Edema": 1}, {"Lung Opacity": 0}, "no Lung Opacity contradicts Edema"),
    ],
)
def test_what_cannot_be_asked_names_the_record_and_the_attribute(row, change, words):
    with pytest.raises(ChangeError, match=f"record t:1: .*{words}"):
        changed(record(**row), change)


def test_the_value_that_a_place_already_has_is_refused():
    row = changed(record(), {"Effusion": {"side": "left"}})
    with pytest.raises(ChangeError, match="already"):
        changed(row, {"Effusion": {"side": "left"}})
