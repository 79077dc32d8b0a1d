"""What a generator is measured on."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.quality import held_out
from chexgen_lib.records import FINDINGS
from tests.builders import labelled_squares


def test_findings_that_a_scorer_does_not_know_have_no_estimate():
    """torchxrayvision's weights know 11 of the 14; all of `gpu` and `paper` stopped there."""
    _, labels = labelled_squares(60, seed=0)
    patients = pl.Series([f"p{i}" for i in range(60)])
    scores = labels + np.random.default_rng(0).normal(0, 0.1, labels.shape)
    scores[:, FINDINGS.index("Pleural Other")] = np.nan
    found = held_out.scorer_table("xrv", scores, labels, Resampling(patients, 20, 0))
    values = dict(found.select("finding", "value").iter_rows())
    assert values["Pleural Other"] is None and values["Effusion"] == pytest.approx(1, abs=0.05)
    assert values["Average"] == pytest.approx(1, abs=0.05)


def test_a_finding_of_which_prompt_and_record_differ_is_not_requested():
    states = {finding: [0.0, 0.0, None] for finding in FINDINGS}
    states |= {"Effusion": [1.0, 1.0, 1.0], "Edema": [1.0, 0.0, None], "No Finding": [0.0, 1.0, None]}
    prompts = ["Right pleural effusion. No edema. Rib fracture.", "No acute disease.", "Effusion."]
    found = dict(zip(FINDINGS, held_out.requested_labels(pl.DataFrame(states), prompts).T, strict=True))
    np.testing.assert_array_equal(found["Effusion"], [1, np.nan, 1])
    np.testing.assert_array_equal(found["Edema"], [np.nan, 0, np.nan])
    np.testing.assert_array_equal(found["No Finding"], [0, 1, np.nan])
    np.testing.assert_array_equal(found["Fracture"], [np.nan, 0, np.nan])
