"""A request is a description in the generator's style, and a walk changes one thing of it."""

import json

import pytest

from chexgen_lib.studio.request import WALKS, Finding, Request, walk

EFFUSION = Finding("Effusion", "left", "severe")


def test_every_setting_is_in_the_prompt():
    request = Request((EFFUSION, Finding("Cardiomegaly")), sex="F", age=71, view="AP")
    for words in ("large left pleural effusion", "71-year-old", "woman", "AP"):
        assert words in request.prompt
    assert "cardi" in request.prompt.lower() and request.prompt != Request((EFFUSION,)).prompt
    assert "effusion" not in Request().prompt and Request(words="My words.").prompt == "My words."


def test_a_changed_value_changes_its_word_alone():
    first, second = (Request((EFFUSION,), sex="M", age=age, view="PA").prompt for age in (40, 41))
    assert first.replace("40", "41") == second


@pytest.mark.parametrize("finding", [("Effusion", "up"), ("Cold",), ("Effusion", None, "awful"), ("No Finding",)])
def test_an_unknown_finding_side_or_severity(finding):
    with pytest.raises(ValueError, match="is none of"):
        Finding(*finding)


def test_a_finding_without_a_side():
    with pytest.raises(ValueError, match="Cardiomegaly has no side"):
        Finding("Cardiomegaly", "left")


@pytest.mark.parametrize("attribute", WALKS)
def test_a_walk_goes_through_all_values_and_keeps_the_rest(attribute):
    start = Request((EFFUSION, Finding("Edema")), sex="M", age=50)
    requests = walk(start, attribute)
    assert len(set(requests)) == len(WALKS[attribute]) == len(requests)
    if attribute not in ("seed", "steps", "guidance"):
        assert len({request.prompt for request in requests}) == len(requests)
    else:
        assert {request.prompt for request in requests} == {start.prompt}
    assert all(request.findings[1] == Finding("Edema") for request in requests)


def test_walks_that_cannot_be():
    with pytest.raises(ValueError, match="severity is that of a finding: choose one"):
        walk(Request(), "severity")
    with pytest.raises(ValueError, match="own words, which age does not change: clear them"):
        walk(Request(words="Mine."), "age")
    assert len(walk(Request(words="Mine."), "seed")) == 6
    with pytest.raises(ValueError, match="'size' is none of age, sex"):
        walk(Request(), "size")


def test_a_recipe_is_json_and_whole():
    recipe = Request((EFFUSION,), sex="F", seed=3, guidance=1.5).recipe()
    assert json.loads(json.dumps(recipe)) == recipe
    assert (recipe["seed"], recipe["steps"], recipe["guidance"]) == (3, 20, 1.5)
    controls = json.loads(recipe["controls"])
    assert controls["findings"] == [{"name": "Effusion", "side": "left", "severity": "severe"}]
    assert controls["sex"] == "F" and "seed" not in controls
