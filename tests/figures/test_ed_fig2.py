"""Extended Data Figure 2 draws every run, the fitted lines and what they are worth."""

import numpy as np
import polars as pl

from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.scaling import HELD_OUT, SEEN, measures, power_law
from chexgen_lib.figures import ed_fig2
from tests.builders import PAIRS_OF_RUNS as D
from tests.builders import RUN_JITTER as JITTER
from tests.builders import scaling_runs


def test_ed_figure_2():
    other = scaling_runs((2000,)).with_columns(model=pl.lit("other"), parameters=pl.lit(90, pl.Int64))
    about = pl.concat([scaling_runs(), other])
    falling = np.append(5 * D**-0.3 * JITTER, [0.4, 0.5, 0.6])
    values = {"FID-flat": falling, "MS-SSIM": np.ones(15), HELD_OUT: falling, SEEN: falling / 2}
    resampling = Resampling(np.arange(9), 20)
    measured = {name: np.tile(v, (21, 1)) for name, v in values.items()}
    runs, means = measures.tables(about, measured, resampling)
    figure = ed_fig2.draw(runs, means, power_law.fits(about, measured, resampling), "n = 7 prompts x 2 samples")
    above, below = figure.axes[:3], figure.axes[3:]
    assert {ax.get_xscale() for ax in figure.axes} == {"log"} and "n = 7" in figure.get_suptitle()
    assert above[0].get_ylabel() == "FID-flat" and above[0].get_xlabel() == "training pairs D"
    assert "b = -0.3" in above[0].texts[0].get_text() and "not supported" in above[1].texts[0].get_text()
    lines = [next(line for line in ax.lines if len(line.get_xdata()) == 50) for ax in above]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-"]
    assert below[0].containers[0].lines[0].get_xdata().tolist() == [10, 90]
    assert [len(ax.containers) for ax in below] == [1, 1, 2]  # the noise error also of seen pairs
    ticks, shown = above[0].get_yticks(), means.filter(measure="FID-flat", model=runs["model"][0])["value"]
    assert ticks.min() <= 1.05 * shown.min() and ticks.max() >= 0.95 * shown.max()  # every value can be read off
