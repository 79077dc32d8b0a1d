"""A classifier that starts from others' weights computes what they compute, and says what is missing."""

import json
import re

import numpy as np
import pytest
import torch
from torchvision.models import DenseNet

from chexgen_lib.learners import starts
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import Classifier, train_classifier
from chexgen_lib.models.weights_catalogue import WeightsFileError
from tests.builders import labelled_squares

TINY = {"input_size": 32, "init_features": 8, "growth_rate": 8, "block_config": [2, 2]}


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """A file of torchvision's with a small DenseNet, and that network."""
    torch.manual_seed(0)
    net = DenseNet(8, (2, 2), 8, num_classes=1000).train()
    net(torch.randn(8, 3, 32, 32))  # so that the normalisations have statistics
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", k): v for k, v in net.state_dict().items()
    }
    path = tmp_path / "densenet121-a639ec97.pth"
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    monkeypatch.setattr(starts.weights_store, "find", lambda weight: path)
    return path, net.eval()


@pytest.fixture
def rad_dino(tmp_path, monkeypatch):
    """RAD-DINO's folder with a small network."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    standard = {"crop_size": {"height": 28, "width": 28}, "image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(standard))
    monkeypatch.setattr(starts.weights_store, "find", lambda weight: tmp_path)
    return tmp_path


def test_imagenets_network_computes_the_same_on_a_grey_image(imagenet):
    _, colour = imagenet
    grey = starts.size_of(TINY, "imagenet").network(14).eval()
    assert grey.classifier.out_features == 14
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    mean, sd = (torch.tensor(v)[:, None, None] for v in (starts.MEAN, starts.SD))
    with torch.no_grad():
        first = [n.features.norm0(n.features.conv0(i)) for n, i in ((grey, x), (colour, ((x + 1) / 2 - mean) / sd))]
        assert torch.allclose(first[0][..., 2:-2, 2:-2], first[1][..., 2:-2, 2:-2], atol=1e-4)
        assert not torch.allclose(first[0], torch.zeros(1), atol=1e-2)
    assert torch.equal(
        grey.features.denseblock1.denselayer1.conv1.weight, colour.features.denseblock1.denselayer1.conv1.weight
    )


def test_a_training_starts_from_the_weights(imagenet):
    size = starts.size_of(TINY, "imagenet")
    x, y = labelled_squares(12, 0)
    config = LearnerConfig(1, size=size, batch_size=4, learning_rate=1e-9, checks=1)
    trained = train_classifier(x, y, config, val=(x, y))
    conv = trained.net.features.denseblock1.denselayer1.conv1.weight
    assert torch.allclose(conv.cpu(), imagenet[1].features.denseblock1.denselayer1.conv1.weight, atol=1e-6)
    again = train_classifier(x, y[:, :3], config, val=(x, y[:, :3]), initial=trained, names=("a", "b", "c"))
    assert again.predict(x).shape == (12, 3)


def test_weights_of_another_size_or_none_are_refused(imagenet, monkeypatch):
    path, _ = imagenet
    with pytest.raises(WeightsFileError, match=f"{path.name} holds weights of another size .*: Missing|another size"):
        starts.size_of(TINY | {"block_config": [2, 3]}, "imagenet").network(14)
    monkeypatch.setattr(starts.weights_store, "find", lambda weight: None)
    with pytest.raises(
        WeightsFileError, match="imagenet-densenet121 is not there: chexgen weights fetch imagenet-densen"
    ):
        starts.size_of("paper", "imagenet")
    with pytest.raises(ValueError, match="start 'clip': use one of random, imagenet, rad-dino"):
        starts.size_of("paper", "clip")


def test_rad_dino_is_fine_tuned_on_grey_images(rad_dino):
    size = starts.size_of("paper", "rad-dino")
    assert size.input_size == 28
    x, y = labelled_squares(12, 0)
    before = Classifier(size).net.backbone.state_dict()
    trained = train_classifier(x, y, LearnerConfig(2, size=size, batch_size=4, checks=1), val=(x, y))
    assert trained.predict(x).shape == (12, 14) and trained.features(x).shape == (12, 16)
    assert any(not torch.equal(t, before[name]) for name, t in trained.net.backbone.state_dict().items())
    tensor = trained.prepare(x[:1])
    pixels = ((tensor + 1) / 2 - 0.5307) / 0.2583
    expected = trained.net.backbone(pixel_values=pixels.expand(-1, 3, -1, -1)).pooler_output
    np.testing.assert_allclose(trained.features(x[:1]), expected.detach().numpy(), atol=1e-5)


def test_random_is_the_named_size():
    assert starts.size_of("ci", "random") == starts.SIZES["ci"]
