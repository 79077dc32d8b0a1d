"""Two objectives are trained on the same pairs, and what is measured of them is what was planted."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.rectified_flow import comparison as flow
from chexgen_lib.experiments.rectified_flow.data import Instruments
from chexgen_lib.images import to_uint8
from chexgen_lib.models.metadata import CODES, encode_metadata
from chexgen_lib.pools.labelled import ABOUT, LabelledSet
from chexgen_lib.records import FINDINGS
from chexgen_lib.training.config import TrainingConfig
from chexgen_lib.training.latent_cache import LatentCache

FIELDS = dict(batch_size=4, learning_rate=1e-3, ema_decay=0.9, precision="fp32", steps=2, caption_dropout=0.5)
MODEL = flow.FlowModel("ci", 16, ["here"], "shipped")
FEW = flow.FewSteps([{"sex": "F"}, {"sex": "M", "age": 50.0}], [2, 3], 2.0)


@pytest.fixture
def run(tmp_path, latents):
    folders = (tmp_path / str(k) for k in range(9))

    def run(objective: str, sampling=FEW, seed: int = 0) -> dict[str, np.ndarray]:
        training = TrainingConfig(objective=objective, seed=seed, **FIELDS)
        return flow.train_and_sample(**latents, model=MODEL, training=training, sampling=sampling, folder=next(folders))

    return run


@pytest.fixture
def latents(tmp_path) -> dict:
    mean = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    LatentCache(mean, torch.full_like(mean, 0.1), torch.zeros(8, 3).half(), torch.arange(9)).save(tmp_path / "pairs")
    codes = encode_metadata([{"sex": "FM"[k % 2]} for k in range(8)], ["here"])
    return {"pairs": tmp_path / "pairs", "metadata": codes.numpy()}


@pytest.mark.parametrize("objective", ["ddpm", "rectified_flow"])
def test_a_run_samples_every_request_at_every_number_of_steps(run, objective):
    first, again, other = run(objective), run(objective), run(objective, seed=1)
    assert first["steps 2"].shape == first["steps 3"].shape == (2, 32, 32) and first["steps 2"].dtype == np.uint8
    assert first["seconds"].shape == (2,) and (first["seconds"] > 0).all() and np.isfinite(first["loss"]).all()
    np.testing.assert_array_equal(first["steps 3"], again["steps 3"])
    assert (first["steps 3"] != other["steps 3"]).any()
    assert not [name for name in first if "weight" in name]


def test_a_run_without_requests_returns_the_trained_model(run):
    model = MODEL.restored(run("rectified_flow", sampling=None), (4, 4, 4))
    samples = flow.sampler(model, "shipped")(
        metadata=FEW.requests,
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[..., 0]
    np.testing.assert_array_equal(to_uint8(samples), run("rectified_flow")["steps 2"])


def test_both_objectives_are_trained_with_the_same_settings_and_seeds():
    jobs = flow.jobs(MODEL, FIELDS | {"noisy_weight": 10.0}, 5, FEW, seeds=2, seed=3)
    assert list(jobs) == [flow.LONG, *(f"{o} / seed {k}" for k in range(2) for o in ("ddpm", "rectified_flow"))]
    assert jobs[flow.LONG]["training"].steps == 5 and jobs[flow.LONG]["sampling"] is None
    one, other = (vars(jobs[f"{o} / seed 1"]["training"]) for o in ("ddpm", "rectified_flow"))
    assert {k for k in one if one[k] != other[k]} == {"objective", "noisy_weight"} and one["seed"] == 3001


def test_the_text_is_one_empty_token():
    latents = torch.zeros(3, 4, 4, 4, dtype=torch.float16)
    pairs = LatentCache(latents, latents, torch.ones(3, 2).half(), torch.arange(4))
    cache = flow.textless(pairs, torch.zeros(3, CODES), 16)
    _, states, mask, _ = cache.batch(torch.arange(3), torch.Generator())
    assert states.shape == (3, 1, 16) and not states.any() and mask.all()


class Planted:
    """An embedder, a classifier and probes in one: they read the images' mean brightness."""

    name, dim = "mean", 1

    def __call__(self, images):
        return images.mean((1, 2))[:, None]

    def predict(self, images):
        return np.repeat(self(images), len(FINDINGS), axis=1)


def test_the_better_objective_is_found():
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, 40)
    real = np.full((40, 8, 8), 51, np.uint8) + (102 * bright[:, None, None]).astype(np.uint8)

    def run(images: np.ndarray, seconds: float) -> dict:
        pixels = images.astype(np.uint8)
        return {"steps 5": pixels, "steps 9": pixels, "seconds": np.array([seconds, 2 * seconds])}

    runs = {"ddpm / seed 0": run(rng.permutation(real) * 0.5, 1.0), "rectified_flow / seed 0": run(real, 2.0)}
    images = LabelledSet(pl.DataFrame({name: ["x"] * 40 for name in ABOUT}), real)
    tool, resampling = Planted(), Resampling(np.arange(40), 50)
    tools = Instruments(tool, tool, [tool])
    found = flow.compare(runs, [5, 9], images, bright[:, None] * 1.0, ["sex"], tools, resampling)
    assert len(found) == 2 * 2 * 3 and found["seeds"].unique().to_list() == [1] and set(found["n"]) == {40}

    def row(objective, metric, steps=5):
        return found.filter(objective=objective, metric=metric, steps=steps).row(0, named=True)

    assert row("rectified_flow", "FID-mean")["value"] < 1e-4 < row("ddpm", "FID-mean")["value"]
    assert row("rectified_flow", "AUROC sex")["value"] == 1 and row("rectified_flow", "Pearson r")["value"] > 0.99
    assert row("ddpm", "AUROC sex")["value"] < 0.8 and row("rectified_flow", "AUROC sex")["difference_low"] > 0
    assert flow.seconds(runs, [5, 9]).filter(objective="ddpm", steps=9)["ms an image"].item() == 2000
    assert flow.closer(found, 5, 9)["verdict"].to_list() == ["closer"]
    with pytest.raises(ValueError, match="7 steps were not compared: use two of .5, 9."):
        flow.closer(found, 7, 9)
    turned = found.with_columns(pl.col("objective").replace({"ddpm": "rectified_flow", "rectified_flow": "ddpm"}))
    assert flow.closer(turned, 5, 9)["verdict"].to_list() == ["further"]
    wide = found.with_columns(high=pl.lit(9.0))
    assert flow.closer(wide, 5, 9)["verdict"].to_list() == ["not told apart"]


def test_seeds_are_resampled_with_the_patients():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 255, (30, 8, 8)).astype(np.uint8)
    seeds = [np.clip(real * share, 0, 255).astype(np.uint8) for share in (0.2, 1.0)]
    runs = {f"{o} / seed {k}": {"steps 5": x} for o in ("ddpm", "rectified_flow") for k, x in enumerate(seeds)}
    tools = Instruments(Planted(), Planted(), [Planted()])
    images = LabelledSet(pl.DataFrame({name: ["x"] * 30 for name in ABOUT}), real)
    found = flow.compare(runs, [5], images, np.full((30, 1), np.nan), ["sex"], tools, Resampling(np.arange(30), 200))
    row = found.filter(metric="FID-mean").row(0, named=True)
    assert row["low"] < 0.05 * row["value"] and row["high"] > 1.5 * row["value"]
