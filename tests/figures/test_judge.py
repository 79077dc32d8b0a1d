"""The page of a judging is legible, with one generator or several, and with numbers that could not be measured."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.figures import judge
from chexgen_lib.quality.arms import FLOOR, IGNORES, NOISE, REAL
from tests.figures.legibility import faults

BARS = {"sex": 0.9, "age": 0.5, "view": 0.9, "severity": 0.3, "side": 0.75, "findings, macro": 0.75}


def tables(names):
    """metrics.csv and asked_and_shown.csv of made-up generators; the last was not measured by one metric."""
    ignoring = [f"{name}, {IGNORES}" for name in names]
    sets = [f"{m}-{e}" for e in ("classifier", "radiomics") for m in ("FID", "KID", *judge.SHARES)]
    rows = []
    for k, metric in enumerate([*sets, "MS-SSIM", "Pearson r, within findings"]):
        arms = [FLOOR, *names, *([] if metric in sets else ignoring), NOISE]
        for a, arm in enumerate(arms):
            value = None if metric == "MS-SSIM" and arm == names[-1] else 0.01 * 3**a + 0.1 * k * (metric not in sets)
            ends = (None, None) if value is None else (value - 0.01, value + 0.02)
            rows.append((metric, "all", arm, value, *ends))
    found = pl.DataFrame(rows, ["metric", "group", "arm", "value", "low", "high"], orient="row")
    rows = [(a, arm, 0.8, 0.7, 0.9, bar) for a, bar in BARS.items() for arm in (REAL, *names, *ignoring)]
    return found, pl.DataFrame(rows, ["attribute", "arm", "value", "low", "high", "bar"], orient="row")


@pytest.mark.parametrize("names", [["shipped"], ["shipped", "phantom-shuffled", "tiny-stable-diffusion"]], ids=len)
def test_a_page_is_legible(names):
    records = pl.DataFrame(
        {"prompt": ["PA chest radiograph of a 54-year-old woman. " + "There is an effusion. " * 8] * 3}
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    figure = judge.draw(*tables(names), records, images, dict.fromkeys(names, images))
    assert faults(figure) == []
    words = {text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))}
    assert {REAL, *judge.SHARES} <= words


def test_one_embedder_leaves_its_panel_empty():
    found, shown = tables(["shipped"])
    alone = found.filter(~pl.col("metric").str.ends_with("radiomics"))
    images = np.zeros((3, 32, 32), np.uint8)
    figure = judge.draw(alone, shown, pl.DataFrame({"prompt": ["Clear."] * 3}), images, {"shipped": images})
    assert any(text.get_text() == "no second embedder" for text in figure.findobj(lambda p: hasattr(p, "get_text")))
