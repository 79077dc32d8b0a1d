"""Two objectives are trained on the same pairs, and what is measured of them is what was planted."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.experiments.rectified_flow import comparison as flow_comparison
from chexgen_lib.images import to_uint8
from chexgen_lib.models.metadata import CODES, encode_metadata
from chexgen_lib.records import FINDINGS

TRAINING = dict(batch_size=4, learning_rate=1e-3, ema_decay=0.9, noisy_weight=10.0, precision="fp32", steps=2)


@pytest.fixture
def settings(tmp_path):
    folders = (tmp_path / str(k) for k in range(9))
    return lambda objective, **changes: _settings(objective, folder=next(folders), **changes)


def _settings(objective: str, **changes) -> dict:
    people = [{"sex": "F"}, {"sex": "M", "age": 50.0}]
    fixed = dict(size="ci", width=16, sources=["here"], training=TRAINING, sampling_steps=[2, 3], guidance_scale=2.0)
    return fixed | {"objective": objective, "requests": people, "autoencoder": "shipped", "seed": 0} | changes


@pytest.fixture
def latents() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((8, 4, 4, 4)).astype(np.float16)
    codes = encode_metadata([{"sex": "FM"[k % 2]} for k in range(8)], ["here"])
    return {"mean": mean, "std": np.full_like(mean, 0.1), "metadata": codes.numpy()}


@pytest.mark.parametrize("objective", ["ddpm", "rectified_flow"])
def test_a_run_samples_every_request_at_every_number_of_steps(latents, settings, objective):
    run = flow_comparison.train_and_sample(**latents, **settings(objective))
    again = flow_comparison.train_and_sample(**latents, **settings(objective))
    assert run["steps 2"].shape == run["steps 3"].shape == (2, 32, 32) and run["steps 2"].dtype == np.uint8
    assert run["seconds"].shape == (2,) and (run["seconds"] > 0).all() and np.isfinite(run["loss"]).all()
    np.testing.assert_array_equal(run["steps 3"], again["steps 3"])
    other = flow_comparison.train_and_sample(**latents, **settings(objective, seed=1))
    assert (run["steps 3"] != other["steps 3"]).any()


def test_kept_weights_give_the_trained_model_back(latents, settings):
    run = flow_comparison.train_and_sample(**latents, **settings("rectified_flow", keep_weights=True))
    model = flow_comparison.restore(flow_comparison.new_model("rectified_flow", "ci", 4, 16, ["here"]), run)
    drawn = flow_comparison.sampler(model, "shipped")(
        metadata=[{"sex": "F"}, {"sex": "M", "age": 50.0}],
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    np.testing.assert_array_equal(to_uint8(drawn), run["steps 2"])
    assert not [name for name in flow_comparison.train_and_sample(**latents, **settings("ddpm")) if "weight" in name]


def test_the_text_is_one_empty_token():
    latents = torch.zeros(3, 4, 4, 4, dtype=torch.float16)
    cache = flow_comparison.textless(latents, latents, torch.zeros(3, CODES), 16)
    _, states, mask, _ = cache.batch(torch.arange(3), torch.Generator())
    assert states.shape == (3, 1, 16) and not states.any() and mask.all()


class Planted:
    """An embedder, a classifier and probes in one: they read the images' mean brightness."""

    name, dim = "mean", 1

    def __call__(self, images):
        return images.mean((1, 2))[:, None]

    def predict(self, images):
        return np.repeat(self(images), len(FINDINGS), axis=1)


def test_the_better_arm_is_found():
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, 40)
    real = np.full((40, 8, 8), 0.2, np.float32) + 0.4 * bright[:, None, None]

    def run(images: np.ndarray, seconds: float) -> dict:
        pixels = (255 * images).astype(np.uint8)
        return {"steps 5": pixels, "steps 9": pixels, "seconds": np.array([seconds, 2 * seconds])}

    runs = {"ddpm / seed 0": run(rng.permutation(real) * 0.5, 1.0), "rectified_flow / seed 0": run(real, 2.0)}
    tool = Planted()
    found = flow_comparison.compare(runs, [5, 9], real, bright[:, None] * 1.0, ["sex"], [tool], tool, tool, 50)
    assert len(found) == 2 * 2 * 4 and found["seeds"].unique().to_list() == [1]

    def value(objective, metric, steps=5):
        return found.filter(objective=objective, metric=metric, steps=steps)["value"].item()

    assert value("rectified_flow", "FID-mean") < 1e-4 < value("ddpm", "FID-mean")
    assert value("rectified_flow", "AUROC sex") == 1 and value("rectified_flow", "Pearson r") > 0.99
    assert value("ddpm", "AUROC sex") < 0.8 and value("ddpm", flow_comparison.SECONDS, 9) == 2.0
    assert flow_comparison.verdict(found, 5, 9)[0].endswith("no worse")
    with pytest.raises(ValueError, match="7 steps were not compared: use two of .5, 9."):
        flow_comparison.verdict(found, 7, 9)
    turned = found.with_columns(pl.col("objective").replace({"ddpm": "rectified_flow", "rectified_flow": "ddpm"}))
    assert "worse by 0.0" in flow_comparison.verdict(turned, 5, 9)[0]
