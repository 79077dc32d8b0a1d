"""Editors at equal cost: what they call, what no change does, and that batches do not matter."""

from dataclasses import replace

import numpy as np
import pytest

from chexgen_lib.experiments.counterfactuals import editors
from chexgen_lib.experiments.counterfactuals.editors import DECODED, EDITORS, INVERSION, PLAIN, EditSettings

RECORDS = [{"image_id": f"t:{k}", "view": "PA", "age": 50.0, "sex": "F", "Effusion": 1.0} for k in range(3)]
OLDER = [record | {"age": 80.0} for record in RECORDS]
SETTINGS = EditSettings(2, 0.8, 1.5, 2.0, batch_size=3)


@pytest.fixture(scope="module")
def films():
    return np.random.default_rng(0).integers(50, 200, (3, 32, 32), np.uint8)


@pytest.mark.parametrize("editor", EDITORS)
def test_calls_are_counted_and_an_edit_does_not_depend_on_its_batch(flow, films, editor, tmp_path, monkeypatch):
    rows, denoise = [], flow.transformer.denoise
    monkeypatch.setattr(flow.transformer, "denoise", lambda x, *a, **k: rows.append(len(x)) or denoise(x, *a, **k))
    edited = editors.edit(flow, editor, films, RECORDS, OLDER, SETTINGS, tmp_path / "a")
    assert sum(rows) == len(films) * editors.calls(editor, SETTINGS)
    assert edited.shape == films.shape and edited.dtype == np.uint8 and not np.array_equal(edited, films)
    alone = EditSettings(2, 0.8, 1.5, 2.0, batch_size=1)
    others = editors.edit(flow, editor, films, RECORDS, OLDER, alone, tmp_path / "b")
    assert np.abs(edited.astype(int) - others).max() <= 1
    calls = len(rows)
    editors.edit(flow, editor, films, RECORDS, OLDER, SETTINGS, tmp_path / "a")
    assert len(rows) == calls, "the edit was not kept"


def test_films_of_a_batch_can_be_guided_each_by_its_own_weight(flow, films, tmp_path):
    def by(weight, name):
        return editors.edit(
            flow, INVERSION, films, RECORDS, OLDER, replace(SETTINGS, guidance_scale=weight), tmp_path / name
        )

    mixed = by((1.5, 4.0, 1.5), "mixed").astype(int)
    assert np.abs(mixed - by(1.5, "one"))[[0, 2]].max() <= 1 < np.abs(mixed - by(1.5, "one"))[1].max()
    assert np.abs(mixed - by(4.0, "four"))[1].max() <= 1
    one_by_one = replace(SETTINGS, guidance_scale=(1.5, 4.0, 1.5), batch_size=1)
    assert np.abs(editors.edit(flow, INVERSION, films, RECORDS, OLDER, one_by_one, tmp_path / "c") - mixed).max() <= 1


def test_no_change_is_the_same_film_for_the_recorded_path_alone(flow, films, tmp_path):
    edited = {e: editors.edit(flow, e, films, RECORDS, RECORDS, SETTINGS, tmp_path / e) for e in EDITORS}
    assert np.abs(edited[INVERSION].astype(int) - films).max() <= 1
    through = editors.through_autoencoder(flow, films)
    for name in (DECODED, "FlowEdit"):
        assert np.abs(edited[name].astype(int) - through).max() <= 1, name
    for name in (PLAIN, "SDEdit", "fresh sample"):
        assert np.abs(edited[name].astype(int) - through).max() > 1, name
