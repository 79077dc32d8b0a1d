"""Stress tests of a classifier: a shortcut that is planted is found, by the truth and by edits that are right."""

import numpy as np
import pytest

from chexgen_lib.experiments.counterfactuals.stress import TRUTH, responses, verdicts
from tests.experiments.counterfactuals.drawn import CELL, COLUMNS, drawn_films

LABELS = ("Effusion", "Edema")
COLUMN = {"Effusion": 4 + 10, "Edema": 4 + 5, "view": 2}  # numbers of the squares, `films.ATTRIBUTES`


@pytest.fixture(scope="module")
def bench():
    return drawn_films(34 * 6)


def square(images, name):
    top, left = CELL * (COLUMN[name] // COLUMNS), CELL * (COLUMN[name] % COLUMNS)
    return images[:, top : top + CELL, left : left + CELL].mean((1, 2))


def biased(images):
    """Answers whose Effusion rises with an AP view."""
    return np.stack([square(images, "Effusion") + 0.5 * square(images, "view"), square(images, "Edema")], 1)


def row(table, attribute, label, arm):
    return table.filter(attribute=attribute, label=label, arm=arm).row(0, named=True)


def test_a_planted_shortcut_is_found_and_no_other(bench):
    arms = {"right": bench.after, "nothing": bench.before}
    table = responses(biased, bench, arms, 200, labels=LABELS)
    view = row(table, "view", "Effusion", "right")
    assert view["low"] > 0.1 and view["difference"] == pytest.approx(0)
    assert view["patients"] == (bench.attributes == "view").sum() < len(bench.attributes)
    assert row(table, "view", "Edema", TRUTH)["value"] == pytest.approx(0, abs=0.02)
    assert row(table, "view", "Effusion", "nothing")["value"] == 0
    assert row(table, "Edema", "Edema", TRUTH)["low"] > 0.1, "coming and going count in one direction"
    assert not {"side", "device"} & set(table["attribute"]) and "severity" in set(table["attribute"])


def test_verdicts_count_what_edits_find_miss_and_make_up(bench):
    table = responses(biased, bench, {"right": bench.after, "nothing": bench.before}, 200, labels=LABELS)
    right, nothing = (
        {r["attribute"]: r for r in verdicts(table, arm).iter_rows(named=True)} for arm in ("right", "nothing")
    )
    assert right["view"] == {"attribute": "view", "n": 2, "moves": 1, "found": 1, "false": 0}
    assert nothing["view"] == {"attribute": "view", "n": 2, "moves": 1, "found": 0, "false": 0}
    swapped = responses(biased, bench, {"wrong": 255 - bench.after}, 200, labels=LABELS)
    wrong = {r["attribute"]: r for r in verdicts(swapped, "wrong").iter_rows(named=True)}
    assert sum(r["false"] for r in wrong.values()) > 0


@pytest.mark.parametrize("answers", [lambda x: np.zeros((len(x), 3)), lambda x: np.full((len(x), 2), np.nan)])
def test_answers_that_do_not_fit_are_refused(bench, answers):
    with pytest.raises(ValueError, match="2 labels"):
        responses(answers, bench, {}, 20, labels=LABELS)
