"""The panel does what its controls say; it is driven here as a browser would, by values and clicks."""

import io

import numpy as np
import pytest
from PIL import Image

from chexgen_lib.studio import panel
from chexgen_lib.studio.request import Finding, Request


@pytest.fixture
def studio(session, monkeypatch):
    monkeypatch.setattr(panel, "Session", lambda weights: session)
    monkeypatch.setattr(panel, "Request", lambda **given: Request(**{"steps": 2, **given}))
    made = panel.Studio()
    for side in (made.a, made.b):
        side.controls.steps.value = 2
    return made


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_every_control_sets_its_part_of_the_request(studio):
    controls = studio.a.controls
    first, second, _ = controls.rows
    first.name.value, first.side.value, first.severity.value = "Effusion", "left", "severe"
    second.name.value = "Cardiomegaly"
    controls.sex.value, controls.aged.value, controls.age.value, controls.view.value = "F", True, 80, "AP"
    controls.seed.value, controls.steps.value, controls.guidance.value = 7, 3, 3.5
    assert controls.request == Request(
        (Finding("Effusion", "left", "severe"), Finding("Cardiomegaly")),
        sex="F",
        age=80,
        view="AP",
        seed=7,
        steps=3,
        guidance=3.5,
    )
    controls.words.value = "  Mine. "
    assert controls.request.prompt == "Mine."


def test_a_model_of_many_steps_keeps_its_own():
    controls = panel.Controls(lambda: None, Request(steps=100))
    assert controls.request.steps == 100


def test_a_side_is_locked_where_there_is_none(studio):
    row = studio.a.controls.rows[0]
    assert row.side.disabled and row.severity.disabled
    row.name.value = "Effusion"
    row.side.value = "left"
    assert not row.side.disabled
    row.name.value = "Cardiomegaly"
    assert row.side.disabled and row.finding == Finding("Cardiomegaly")


def test_a_change_shows_another_image_on_its_side_alone(studio, session):
    before = studio.a.picture.value, studio.b.picture.value
    studio.a.controls.seed.value = 3
    assert studio.a.picture.value != before[0] and studio.b.picture.value == before[1]
    expected = panel.png(session.sample(studio.a.controls.request), panel.LARGE)
    np.testing.assert_array_equal(pixels(studio.a.picture.value), pixels(expected))
    assert studio.a.controls.request.prompt in studio.a.text.value


def test_a_prompt_that_cannot_be_read_leaves_the_image_and_says_why(studio, session):
    before = studio.a.picture.value
    studio.a.controls.words.value = "word " * 300
    assert studio.a.picture.value == before and "tokens" in studio.a.text.value
    studio.a.children[-1].click()
    assert session.kept == [studio.a.shown] and studio.a.shown.words is None


def test_walk_keep_let_go_and_export(studio, session, tmp_path):
    studio.attribute.value = "severity"
    studio.go.click()
    assert "severity is that of a finding: choose one" in studio.message.value and not studio.strip.children
    studio.a.controls.rows[0].name.value = "Effusion"
    studio.go.click()
    assert len(studio.strip.children) == 4
    for tile in studio.strip.children[1:3]:
        tile.children[-1].click()
    studio.b.children[-1].click()
    assert [request.findings[0].severity for request in session.kept[:2]] == ["mild", "moderate"]
    assert session.kept[2] == studio.b.shown and len(studio.tray.children) == 3
    studio.tray.children[0].children[-1].click()
    assert len(session.kept) == len(studio.tray.children) == 2
    studio.folder.value, studio.kind.value = str(tmp_path / "kept"), "dicom"
    studio.save.click()
    assert "2 images and manifest.csv" in studio.message.value
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"000.dcm", "001.dcm", "manifest.csv"}
    studio.save.click()
    assert "exists: name a new folder" in studio.message.value


def test_prompts_are_shown_as_text(studio):
    studio.a.controls.words.value = "<b>Effusion</b>"
    assert "&lt;b>Effusion" in studio.a.text.value
