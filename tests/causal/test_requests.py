"""A cohort of an intervention, as docs/counterfactuals.md writes it, is a file that `chexgen sample` takes."""

import numpy as np
import polars as pl

from chexgen_lib.causal.graph import make_graph
from chexgen_lib.causal.model import CausalModel
from chexgen_lib.descriptions.changes import prompts, states
from chexgen_lib.sampling.prompts import read_prompts

KINDS = {"age": "number", "sex": "choice", "view": "choice", "Effusion": "choice", "Edema": "choice"}
ARROWS = [{"from": ["age"], "to": ["Effusion"], "because": "simulated"}]


def test_a_drawn_cohort_can_be_sampled(tmp_path):
    random = np.random.default_rng(0)
    table = pl.DataFrame({"age": random.uniform(20, 95, 400), "sex": random.choice(["F", "M"], 400)}).with_columns(
        pl.Series("view", random.choice(["PA", "AP"], 400)),
        pl.Series("Effusion", random.integers(0, 2, 400)),
        pl.Series("Edema", random.integers(0, 2, 400)),
    )
    cohort = CausalModel.fit(table, make_graph(KINDS, ARROWS)).sample(20, do={"age": 80.0, "sex": "F"})
    rows = [row | states(row) for row in cohort.iter_rows(named=True)]
    asked = pl.DataFrame({"name": [f"p{k}" for k in range(len(rows))], "impression": prompts(rows)})
    asked.write_csv(tmp_path / "cohort.csv")
    texts = read_prompts(tmp_path / "cohort.csv")["prompt"]
    assert texts.str.contains("80-year-old woman").all()
    for row, text in zip(rows, texts, strict=True):
        assert ("effusion" in text.replace("No pleural effusion", "")) == row["Effusion"]
        assert ("No acute" in text) == row["No Finding"], "what follows by definition is said, too"
