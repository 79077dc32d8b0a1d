"""The stand-ins of weights lie where the loaders look, in layouts that they read."""

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from chexgen_lib.models.autoencoder import load_autoencoder
from chexgen_lib.models.text import count_tokens, load_text_encoder
from chexgen_lib.models.weights_catalogue import WeightsFileError, named
from chexgen_lib.models.weights_store import fault
from chexgen_lib.quality.embedders import XrvEmbedder
from chexgen_lib.rehearsal import weights
from chexgen_lib.sampling.baseline import GreyStableDiffusionPipeline
from tests.models.catalogue_stand_ins import stand_in

AUTOENCODER, T5 = "stable-diffusion-v1-5/stable-diffusion-v1-5", "google/t5-v1_1-xxl"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory in which the stand-ins of two settings lie."""
    found = weights.lay_out(tmp_path, {"cohort": {"autoencoder": AUTOENCODER, "text_encoder": T5}})
    tmp_path /= "home"
    assert [weight.name for weight in found] == ["sd-v1-5-vae", "t5-v1_1-xxl"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / ".cache/huggingface/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    return tmp_path


def test_loaders_find_them_where_they_keep_their_downloads(home):
    assert fault(stand_in("sd-v1-5-vae")) is None and fault(stand_in("t5-v1_1-xxl")) is None
    assert load_autoencoder(AUTOENCODER).config.latent_channels == 4


def test_the_vocabulary_of_t5_is_read_as_it_is_published(home):
    pytest.importorskip("google.protobuf", reason="T5's vocabulary is read with it: `make env`")
    tokenizer, encoder = load_text_encoder(T5, device=torch.device("cpu"))
    ids = tokenizer(["Moderate right pleural effusion."], return_tensors="pt")
    assert ids["input_ids"].max() < encoder.config.vocab_size and ids["input_ids"][0, -1] == 1  # the end
    assert encoder(**ids).last_hidden_state.shape[-1] == 16
    assert tokenizer.decode(ids["input_ids"][0], skip_special_tokens=True) == "Moderate right pleural effusion."
    short, long = count_tokens(tokenizer, ["effusion", "Moderate right pleural effusion."])
    assert short < long


def test_a_generator_of_ones_own_lies_in_the_folder_that_names_it(tmp_path):
    named = {"MINIM": "data/weights/minim", "other": "data/weights/other"}
    found = weights.lay_out(tmp_path, {"pools": {"generators": named}})
    assert [weight.source for weight in found] == list(named.values())
    one, other = (GreyStableDiffusionPipeline.from_pretrained(tmp_path / source).unet for source in named.values())
    assert not torch.equal(one.conv_in.weight, other.conv_in.weight)  # else a mix-up would go unseen


@pytest.mark.parametrize("source", ["/my/minim", "data/../../minim", "somebody/minim"])
def test_a_generator_elsewhere_is_refused(tmp_path, source):
    with pytest.raises(WeightsFileError, match="generators in a folder below the repository"):
        weights.lay_out(tmp_path, {"pools": {"generators": {"MINIM": source}}})


def test_weights_outside_the_catalogue_are_refused(tmp_path):
    with pytest.raises(WeightsFileError, match="knows the weights of the catalogue"):
        weights.lay_out(tmp_path, {"cohort": {"autoencoder": "/my/autoencoder"}})


@pytest.mark.parametrize("name", ["rad-dino", "imagenet-resnet34", "roentgen", "xrv-mimic"])
def test_weights_that_no_profile_names_yet_have_stand_ins(tmp_path, name):
    weight = named(name)
    path = weights.place(tmp_path, weight)
    weights._make(weight, path)
    assert path.exists()


def test_the_scores_of_a_random_xrv_tell_images_apart(tmp_path):
    weight = named("xrv-mimic")
    weights._make(weight, tmp_path / weight.files[0].path)
    images = np.random.default_rng(0).random((3, 32, 32), np.float32)
    scores = XrvEmbedder("mimic_ch", tmp_path).predict(images)
    known = scores[:, np.isfinite(scores[0])]
    assert known.std(0).min() > 1e-4 and 0.001 < known.min() and known.max() < 0.999
