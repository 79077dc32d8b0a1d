"""True counterfactuals: one attribute changes, and nothing else is drawn anew."""

import dataclasses

import numpy as np
import pytest

from chexgen_lib.descriptions.changes import ChangeError
from chexgen_lib.phantom import acquisition, findings, patient
from chexgen_lib.phantom.counterfactual import VISIBLE, counterfactual, counterfactuals
from chexgen_lib.phantom.render import PhantomError
from chexgen_lib.records import FINDINGS

SHOWN = tuple(finding for finding in FINDINGS if finding != "No Finding")
MIDLINE = findings.MIDLINE


def record(**given):
    """A film of a patient with two findings, which changes of others must leave alone."""
    details = [dict(finding="Pleural Other", side="right", site=None, severity="moderate")]
    base = dict(image_id="t:i", patient_id="t:p", source="t", view="PA", age=55.0, sex="M", site="A", details=details)
    return base | {"Pleural Other": 1} | given


@pytest.fixture
def spied(monkeypatch):
    """What the renderer drew, film by film: bodies, and states of the generators of beam and noise; films are lines."""
    drawn = {"bodies": [], "beams": [], "noises": []}
    sample, aim = patient.sample, acquisition.aim

    def sampled(*arguments):
        drawn["bodies"].append(sample(*arguments))
        return drawn["bodies"][-1]

    def aimed(site, view, body, random):
        drawn["beams"].append(random.bit_generator.state)
        return aim(site, view, body, random)

    def developed(lines, exposure, site, random):
        drawn["noises"].append(random.bit_generator.state)
        return lines.astype(np.float32)

    for module, name, function in ((patient, "sample", sampled), (acquisition, "aim", aimed)):
        monkeypatch.setattr(module, name, function)
    monkeypatch.setattr(acquisition, "develop", developed)
    return drawn


def differing(before, after):
    """Names of the fields in which two bodies differ."""
    names = [field.name for field in dataclasses.fields(before)]
    return {name for name in names if not np.array_equal(getattr(before, name), getattr(after, name))}


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"age": 80}, {"aging", "heart", "scoliosis", "kyphosis"}),
        ({"sex": "F"}, {"scale", "breast"}),
        ({"view": "AP"}, {"inflation", "heart", "pose"}),
        ({"view": "LATERAL"}, set()),
        ({"site": "B"}, set()),
        *[({finding: 1}, set()) for finding in SHOWN if finding != "Pleural Other"],
    ],
)
def test_beam_and_noise_stay_and_the_body_changes_as_stated(change, moved, spied):
    counterfactual(record(), change, 32)
    assert differing(*spied["bodies"]) == moved
    for name in ("beams", "noises"):
        before, after = spied[name]
        assert before == after, f"{change} draws the {name} anew"


@pytest.fixture
def still(monkeypatch, spied):
    """Findings fill and darken, but displace nothing: their lines can be compared ray by ray."""
    to_canonical = patient.to_canonical

    def undisplaced(points, body):
        place = to_canonical(points, body)
        return lambda effects: place(patient.Effects())

    monkeypatch.setattr(patient, "to_canonical", undisplaced)


def lines_that_differ(row, change):
    pair = counterfactual(row, change)
    return pair.before.image != pair.after.image


@pytest.mark.parametrize("finding", [finding for finding in SHOWN if finding != "Pleural Other"])
def test_rays_that_miss_a_finding_are_equal_to_the_last_bit(finding, still):
    """Where the finding changes nothing in the same patient without another finding, it changes nothing with it."""
    change = {finding: {"severity": "severe"} | ({} if finding in MIDLINE else {"side": "left"})}
    alone = lines_that_differ(record(details=[]) | {"Pleural Other": 0}, change)
    beside = lines_that_differ(record(), change)
    assert not (beside & ~alone).any()
    assert alone.any() == (finding != "Cardiomegaly"), "a large heart only displaces"
    if finding not in (*MIDLINE, "Support Devices"):
        assert not alone[:, :30].any(), "the right lung is as it was"


@pytest.mark.parametrize("change", [{"severity": "mild"}, {"side": "left"}])
def test_side_and_severity_move_the_finding_alone(change, still, spied):
    row, asked = record(Fracture=1), {"side": "right", "severity": "severe"} | change
    either = lines_that_differ(record(details=[]) | {"Pleural Other": 0}, {"Pleural Other": asked})
    either |= lines_that_differ(row, {"Pleural Other": 0})
    moved = lines_that_differ(row, {"Pleural Other": asked})
    assert moved.any() and not (moved & ~either).any() and not differing(*spied["bodies"][:2])


def test_other_findings_keep_their_place():
    for change in ({"age": 80}, {"sex": "F"}, {"site": "B"}, {"Effusion": 1}):
        pair = counterfactual(record(Edema=1), change)
        for name in ("Edema", "Pleural Other"):
            plans = [findings.plan(row, name) for row in (pair.record, pair.target)]
            assert [(p["side"], p["extent"]) for p in plans[0]] == [(p["side"], p["extent"]) for p in plans[1]]
            draws = [[p["random"].random() for p in plan] for plan in plans]
            assert draws[0] == draws[1]


def test_truth_changes_by_what_was_asked_and_what_follows():
    pair = counterfactual(record(**{"Pleural Other": 0}), {"Pneumonia": {"side": "left"}}, 64)
    changed = {finding for finding in FINDINGS if pair.before.truth[finding] != pair.after.truth[finding]}
    assert changed == {"Pneumonia", "Lung Opacity", "No Finding"}
    removed = counterfactual(pair.target, {"Pneumonia": 0}, 64)
    assert np.array_equal(removed.after.image, pair.before.image), "there and back is the same film"


def test_the_region_is_where_the_films_differ():
    pair = counterfactual(record(), {"Lung Lesion": {"side": "left", "severity": "severe"}})
    difference = np.abs(pair.before.image - pair.after.image)
    assert 0 < pair.region.mean() < 0.2 and difference[~pair.region].max() <= VISIBLE < difference[pair.region].min()
    assert pair.region[pair.after.masks["Lung Lesion"]].mean() > 0.5


def test_many_pairs_are_those_of_one_each():
    pairs = [(record(), {"age": 80}), (record(image_id="t:j"), {"Effusion": 1})]
    for (row, change), pair in zip(pairs, counterfactuals(pairs, size=64, workers=2), strict=True):
        alone = counterfactual(row, change, 64)
        assert pair.change == change and pair.target == alone.target
        assert np.array_equal(pair.before.image, alone.before.image)
        assert np.array_equal(pair.after.image, alone.after.image)


def test_bad_changes_and_records_are_refused():
    with pytest.raises(ChangeError, match="record t:i: unknown attribute 'mood'"):
        counterfactual(record(), {"mood": "good"})
    with pytest.raises(PhantomError, match="record t:i: view 'OBLIQUE'"):
        counterfactual(record(), {"view": "OBLIQUE"}, 64)
