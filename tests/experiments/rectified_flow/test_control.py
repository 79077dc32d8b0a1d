"""Tables of control find what was planted in the answers of the probes."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.experiments.rectified_flow import control, requests
from chexgen_lib.experiments.rectified_flow.control import MACRO
from tests.builders import attributed_records

SOURCES = ("here", "there")


@pytest.fixture
def table() -> pl.DataFrame:
    return attributed_records()


def test_tables_find_what_was_planted(table):
    names = ["age", "sex", "Effusion"]
    listed, low, high = requests.pairs(table, names, 20, SOURCES)
    real_truth = requests.truth(table, names, SOURCES)
    rng = np.random.default_rng(0)
    asked = np.array([[m.get("age"), m["sex"] == "M", m["Effusion"]] for m in low + high], float).reshape(2, -1, 3)
    answers = asked + [20, 0.1, 0.1] * rng.standard_normal(asked.shape) * [0.1, 1, 1]
    answers[:, :, 1] = rng.standard_normal(answers.shape[1])  # the requested sex never shows
    real = real_truth + 0.05 * rng.standard_normal(real_truth.shape)
    held_out = control.Answers(real, real_truth, [str(k) for k in range(len(real))])
    found = control.control_table(listed, answers, held_out, names, 100)

    def value(attribute, measure="AUROC", images="samples"):
        row = found.filter(attribute=attribute, measure=measure, images=images).row(0, named=True)
        assert row["low"] <= row["value"] <= row["high"]
        return row["value"]

    assert value("age", "correlation") > 0.95 and 0.5 < value("age", "mean error (years)") < 3
    assert value("sex") == 0.5 and value("sex", images="real") > 0.95
    assert value("Effusion") > 0.95 and value(MACRO) == pytest.approx(value("Effusion"))
    assert found.filter(attribute="sex", images="samples")["n"].item() == 40
    assert control.against_bars(found)["verdict"].to_list() == ["reached", "missed by 0.40", "reached"]
    moved = control.off_target(listed, answers, held_out, names, 100)
    assert len(moved) == 9
    own = {(r["asked"], r["measured"]): r for r in moved.to_dicts()}
    assert own["age", "age"]["value"] == pytest.approx(40 / real[:, 0].std(), rel=0.1)
    assert own["age", "sex"]["value"] == 0 and abs(own["age", "Effusion"]["value"]) < 0.2
    assert own["Effusion", "Effusion"]["low"] > 1 and own["Effusion", "Effusion"]["real"] > 1
