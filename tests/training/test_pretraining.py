"""Stage I is trained on the run's own pairs, or taken from weights that were trained before; later stages see no
difference."""

import json

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.descriptions import grammar
from chexgen_lib.models import foundation
from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.loading import WeightsError
from chexgen_lib.models.text import load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.training import pretraining
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.latent_cache import LatentCache
from chexgen_lib.training.pretraining import keep_pretraining
from chexgen_lib.training.trainer import noise_error
from tests.builders import curated_records, shipped_foundation

CONFIG = TrainingConfig(steps=3, batch_size=2, precision="fp32", objective="rectified_flow", log_every=1)
FROZEN = "shipped", "minilm"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two training and two validation records of stage I at 16 and 32 px, with the caches of 16 px."""
    folder, rng = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    split = pl.Series(["train", "val", "train", "val"])
    table = curated_records(4).with_columns(split=split, stage1=True)
    table.with_columns(grammar.prompt(table)).write_parquet(folder / "cohort.parquet")
    for size in (16, 32):
        np.save(folder / f"images_{size}.npy", rng.integers(0, 255, (4, size, size), np.uint8))
    for split, rows in (("train", [0, 2]), ("val", [1, 3])):
        held(folder, 16, rows).save(folder / f"pretraining_{split}")
    return folder


def held(cohort, size, rows):
    images = np.load(cohort / f"images_{size}.npy")[rows]
    prompts = grammar.prompt(pl.read_parquet(cohort / "cohort.parquet"))
    return LatentCache.of(images, prompts.gather(rows).to_list(), load_autoencoder(), load_text_encoder())


def keep(folder, weights, cohort, frozen=FROZEN):
    return keep_pretraining(folder, weights, cohort, "ci", 120, *frozen, CONFIG)


def test_without_weights_a_model_of_the_objective_is_trained(tmp_path, cohort):
    history, numbers, about = keep(tmp_path / "stage/transformer", None, cohort)
    model = ChexGenTransformer.from_pretrained(tmp_path / "stage/transformer")
    assert (model.objective, model.latent_shape) == ("rectified_flow", (4, 2, 2)) and len(history) == 3
    assert numbers["noise_error"] == pytest.approx(noise_error(model, held(cohort, 16, [1, 3])), rel=1e-6)
    assert numbers["noise_error"] != numbers["noise_error_untrained"]
    assert (numbers["steps"], about["pairs"], about["resolution"]) == (3, "2", "16 px")


def test_a_checkpoint_of_the_command_is_taken_over(tmp_path, cohort, monkeypatch):
    places = []
    monkeypatch.setattr(pretraining, "kept", lambda function, folder, uncounted, **_: places.append(uncounted))
    with pytest.raises(FileNotFoundError):
        keep(tmp_path / "stage/transformer", None, cohort)
    assert places == [{"launched": tmp_path / "stage"}]


@pytest.mark.parametrize("size", [2, 4])
def test_with_weights_nothing_is_trained_and_the_error_is_that_at_their_resolution(tmp_path, cohort, monkeypatch, size):
    _, shipped = shipped_foundation(tmp_path / "foundation", monkeypatch, sample_size=size)
    monkeypatch.setattr(pretraining, "train_model", None)
    history, numbers, about = keep(tmp_path / "transformer", "shipped", cohort)
    model = ChexGenTransformer.from_pretrained(tmp_path / "transformer")
    assert torch.equal(model.x_embedder.proj.weight, shipped.x_embedder.proj.weight.half().float())
    assert numbers["noise_error"] == pytest.approx(noise_error(model, held(cohort, 8 * size, [1, 3])), rel=1e-6)
    assert numbers["noise_error_untrained"] != numbers["noise_error"] and numbers["steps"] == 7
    assert history.equals(foundation.read_history())
    wanted = {"pairs": "12", "epochs": "2.3", "hours": "0.1", "resolution": f"{8 * size} px", "patients": "11"}
    assert wanted.items() <= about.items()


def test_weights_are_read_once_and_again_only_if_they_change(tmp_path, cohort, monkeypatch):
    folder, _ = shipped_foundation(tmp_path / "foundation", monkeypatch)
    keep(tmp_path / "transformer", "shipped", cohort)
    before = (tmp_path / "transformer/kept.json").stat().st_mtime_ns
    keep(tmp_path / "transformer", "shipped", cohort)
    assert (tmp_path / "transformer/kept.json").stat().st_mtime_ns == before
    other = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384, objective="rectified_flow")
    foundation.save_transformer(folder, other, foundation.read_recipe(), foundation.read_history())
    keep(tmp_path / "transformer", "shipped", cohort)
    assert (tmp_path / "transformer/kept.json").stat().st_mtime_ns > before


def test_weights_of_a_folder_have_no_history(tmp_path, cohort):
    ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384).save_pretrained(tmp_path / "mine")
    history, numbers, about = keep(tmp_path / "transformer", str(tmp_path / "mine"), cohort)
    assert history.is_empty() and numbers["steps"] == 0 and about["model"].startswith(str(tmp_path / "mine"))


def test_shipped_weights_need_the_frozen_parts_they_were_trained_with(tmp_path, cohort, monkeypatch):
    folder, _ = shipped_foundation(tmp_path / "foundation", monkeypatch)
    with pytest.raises(TrainingError, match="belong to autoencoder=shipped .* not runs/x/autoencoder and minilm"):
        keep(tmp_path / "transformer", "shipped", cohort, ("runs/x/autoencoder", "minilm"))
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps({**recipe, "training": {"pace": 1}}))
    with pytest.raises(WeightsError, match="recipe is of another version .*pace.*`make foundation`"):
        keep(tmp_path / "other", "shipped", cohort)
    (folder / "recipe.json").unlink()
    with pytest.raises(WeightsError, match="`make foundation`"):
        keep(tmp_path / "transformer", "shipped", cohort)
    assert not (tmp_path / "transformer").exists()
