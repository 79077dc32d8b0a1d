"""The whole measurement on a toy cohort whose generator obeys, and on broken input."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.quality import evaluate as quality
from chexgen_lib.quality.embedders import RadiomicsEmbedder
from chexgen_lib.quality.evaluate import FLOOR, GENERATOR, IGNORES, NOISE


class Toy:
    """Findings are bright squares; this 'classifier' reads them off, this 'embedder' too."""

    name, dim = "toy", 16

    def __call__(self, images):
        return images.reshape(len(images), 4, 16, 4, 16).mean((2, 4)).reshape(len(images), 16).astype(np.float32)

    def predict(self, images):
        return self(images)[:, :14]


def cohort(n, seed, labels=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 14)) < np.linspace(0.1, 0.8, 14)).astype(float) if labels is None else labels
    squares = np.concatenate([labels, np.zeros((n, 2))], 1).reshape(n, 4, 4)
    x = 0.3 + 0.4 * np.repeat(np.repeat(squares, 16, 1), 16, 2) + rng.normal(0, 0.02, (n, 64, 64))
    return np.clip(x + rng.normal(0, 0.05, (n, 1, 1)), 0, 1).astype(np.float32), labels


@pytest.fixture(scope="module")
def arrays():
    real, labels = cohort(40, 0)
    synthetic = np.stack([0.95 * cohort(40, 10 + s, labels)[0] for s in range(4)], 1)
    return {"real": real, "synthetic": synthetic, "labels": labels, "train": cohort(60, 1)[0]}


@pytest.fixture(scope="module")
def found(arrays):
    embedders = [Toy(), RadiomicsEmbedder(arrays["train"])]
    return quality.evaluate(**arrays, classifier=Toy(), embedders=embedders, n_resamples=60, seed=1)


def at(found, metric, arm):
    return found.table.row(by_predicate=(pl.col("metric") == metric) & (pl.col("arm") == arm), named=True)


def test_every_number_has_n_and_an_interval_that_holds_it(found):
    t = found.table
    assert t.null_count().drop("p").sum_horizontal().item() == 0
    assert (t["low"] <= t["value"]).all() and (t["value"] <= t["high"]).all()
    assert t.select("metric", "arm").is_duplicated().sum() == 0


def test_the_arms_are_ordered(found):
    for fid in ("FID-toy", "FID-radiomics"):
        floor, ours, noise = (at(found, fid, arm) for arm in (FLOOR, GENERATOR, NOISE))
        assert floor["value"] < ours["value"] < noise["low"]
        assert floor["n"] == ours["n"] == noise["n"] == 20  # one n, one bias
    for metric in ("Pearson r", "Pearson r with labels"):
        for suffix in ("", ", within findings"):
            ours, ignores = (at(found, metric + suffix, arm) for arm in (GENERATOR, IGNORES))
            assert ours["low"] > ignores["high"] and ignores["p"] < 0.01
    assert at(found, "Pearson r, within findings", IGNORES)["value"] < 0.2
    assert at(found, "MS-SSIM", GENERATOR)["value"] > at(found, "MS-SSIM", FLOOR)["value"]
    assert at(found, "AUROC of asked findings", GENERATOR)["value"] > 0.95


def test_features_and_neighbours_have_one_row_per_image(found):
    assert found.features["toy"]["synthetic"].shape == (40, 16)
    assert found.nearest.index.shape == (160,)
    assert set(found.per_finding["images"]) == {"real", "synthetic"}


def test_it_is_a_function_of_its_input_and_seed(arrays, found):
    embedders = [Toy(), RadiomicsEmbedder(arrays["train"])]
    again = quality.evaluate(**arrays, classifier=Toy(), embedders=embedders, n_resamples=60, seed=1)
    assert again.table.equals(found.table)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("real", np.zeros((2, 64, 64), np.float32)),
        ("real", np.full((40, 64, 64), np.nan, np.float32)),
        ("synthetic", np.zeros((39, 4, 64, 64), np.float32)),
        ("synthetic", np.zeros((40, 1, 64, 64), np.float32)),
        ("synthetic", np.zeros((40, 4, 64, 64), np.uint8)),
        ("labels", np.zeros((40, 13))),
        ("train", np.zeros((60, 32, 32), np.float32)),
        ("patients", ["a"]),
        ("embedders", []),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays, name, value):
    options = {**arrays, "classifier": Toy(), "embedders": [Toy()], "n_resamples": 10, name: value}
    with pytest.raises(ValueError, match=name):
        quality.evaluate(**options)
