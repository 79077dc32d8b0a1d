"""A generator that has learned its training images by heart has a smaller error on them."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.images import from_uint8
from chexgen_lib.models.autoencoder import encode, load_autoencoder
from chexgen_lib.privacy import membership, model_error
from chexgen_lib.privacy.folders import AuditError, Images
from tests.privacy.films import films, named


class ByHeart:
    """A rectified flow's perfect memory: of any noisy latent it says the way to the nearest remembered one."""

    objective, device = "rectified_flow", torch.device("cpu")

    def __init__(self, latents):
        self.latents = latents

    def __call__(self, noisy, t, states, mask):
        time = (t / 1000)[:, None, None, None]
        away = (noisy[:, None] - (1 - time)[:, None] * self.latents[None]).pow(2).sum((2, 3, 4))
        return SimpleNamespace(sample=(noisy - self.latents[away.argmin(1)]) / time)


@pytest.fixture(scope="module")
def pipeline():
    vae = load_autoencoder()
    described = []

    def encode_prompt(prompt, metadata=None):
        described.append(prompt)
        return torch.zeros(len(prompt or metadata), 1, 8), torch.ones(len(prompt or metadata), 1, dtype=torch.bool)

    transformer = ByHeart(encode(vae, from_uint8(films(20, 0)))[0])
    parts = dict(transformer=transformer, vae=vae, text_encoder="a text encoder")
    return SimpleNamespace(**parts, encode_prompt=encode_prompt, image_size=64, described=described)


def test_training_images_are_given_away_and_a_batch_changes_nothing(pipeline):
    targets = named(np.concatenate([films(20, 0), films(20, 1)]), "x")
    scores = model_error.scores(targets, pipeline, batch_size=16)
    found = membership.measure(scores[:20], scores[20:], targets.patients, n_resamples=20)
    assert found[membership.AUROC].value == found[membership.CAUGHT].value == 1
    one = model_error.scores(targets.take(np.array([7])), pipeline)
    np.testing.assert_allclose(one, scores[7:8], rtol=1e-4, atol=1e-6)


def test_prompts_are_used_where_all_images_have_one(pipeline):
    targets = named(films(2, 0), "x")
    model_error.scores(targets, pipeline)
    assert pipeline.described[-1] == ["Effusion.", "Effusion."]
    textless = SimpleNamespace(**{**vars(pipeline), "text_encoder": None})
    model_error.scores(targets, textless)
    assert pipeline.described[-1] is None
    model_error.scores(targets, pipeline)
    half = Images(targets.table.with_columns(prompt=pl.Series(["Effusion.", None])), targets.pixels)
    model_error.scores(half, pipeline)
    assert pipeline.described[-1] is None


def test_images_of_another_size_are_refused(pipeline):
    with pytest.raises(AuditError, match="images of 64 px, but the generator makes 128: leave out --weights"):
        model_error.scores(named(films(2, 0), "x"), SimpleNamespace(**{**vars(pipeline), "image_size": 128}))
