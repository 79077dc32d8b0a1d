"""The papers' training settings, and that profiles and sizing are derived from the same numbers."""

import math

import pytest

from chexgen_lib.models.sizing import PAPERS
from chexgen_lib.paper import published, training
from chexgen_lib.workflow import dag


def test_whole_numbers_are_integers_and_names_no_values():
    values = training.values(training.STAGE1)
    assert values["pairs"] == 959_206 and isinstance(values["pairs"], int)
    assert values["weight decay"] == 0.01 and "model" not in values


def test_a_run_stands_beside_the_paper_in_its_own_order():
    rows = training.beside(training.STAGE2, {"epochs": "2.5", "model": "ci", "schedule": "cosine"}).rows()
    assert rows == [("epochs", "300", "2.5"), ("model", "DiT-XL/2", "ci"), ("schedule", "not stated", "cosine")]


def test_an_unknown_training_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'stage 3'; choose one of ChexGen stage I, "):
        training.load("stage 3")


def test_counts_agree_with_the_tables_of_datasets():
    cases = published.load("table1").filter(metric="cases")
    cases = dict(cases.select("dataset", "value").iter_rows())
    assert training.values(training.STAGE1)["pairs"] == cases["OpenChest"]
    assert training.values(training.STAGE2)["pairs"] == cases["MIMIC-CXR PA"]
    masks = dict(published.load("table2").select("dataset", "value").iter_rows())
    assert training.values(training.ANNOTATION)["pairs"] == masks["SIIM-ACR-PTX"]


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("pretraining", training.STAGE1),
        ("alignment", training.STAGE2),
        ("annotation_to_image", training.ANNOTATION),
    ],
)
def test_the_paper_profile_trains_as_the_paper(section, name, tmp_path):
    settings = dag.compose("paper", tmp_path / "params.yaml")[section]
    settings = settings.get("training", settings)
    paper = training.values(name)
    assert settings["batch_size"] * settings["gradient_accumulation"] == paper["batch"]
    assert settings["steps"] == math.ceil(paper["epochs"] * paper["pairs"] / paper["batch"])
    assert settings["learning_rate"] == paper["learning rate"]


def test_sizing_counts_the_papers_trainings():
    assert PAPERS[training.STAGE1].batch_size == 6144 and PAPERS[training.STAGE2].resolution == 512
    assert PAPERS[training.FLOW].images == 1_200_000
