"""The adapter and the segmenter of the adherence experiment are kept, and read back as they were trained."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.experiments.adapter import changed_tensors, load_reader, train_adapter, train_reader
from chexgen_lib.experiments.shipped_adapter import keep_adapter, open_shipped
from chexgen_lib.kept import kept
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.segmenter import train_segmenter
from chexgen_lib.models import foundation
from chexgen_lib.models.autoencoder import new_autoencoder
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.loading import WeightsError
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools.annotations import Annotated, choose_requests
from chexgen_lib.training.config import TrainingConfig, TrainingError
from chexgen_lib.training.stages import read_training
from tests.builders import masked_discs, shipped_adapter, shipped_foundation


def annotated(n=6, size=32) -> Annotated:
    masks = np.zeros((n, 1, size, size), bool)
    masks[:, :, 8:24, 8:24] = True
    about = {"image_id": [f"i{k}" for k in range(n)], "patient_id": [f"p{k}" for k in range(n)]}
    table = pl.DataFrame(about | {"split": ["train"] * (n - 2) + ["val"] * 2, "prompt": "Clear lungs."})
    return Annotated(table, (masks[:, 0] * 200).astype(np.uint8), masks, ("lungs",))


def test_an_adapter_is_trained_beside_a_frozen_model_and_read_back(tmp_path):
    torch.manual_seed(0)
    base = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=384)
    data = annotated()
    folder = kept(
        train_adapter,
        tmp_path / "transformer",
        base=base,
        copied_blocks=1,
        data=data,
        requests={split: choose_requests(data, split, {"lungs": 2}) for split in ("train", "held out")},
        autoencoder=new_autoencoder((8, 8, 8)).eval(),
        text_encoder="minilm",
        config=TrainingConfig(steps=3, batch_size=2, learning_rate=1e-2, precision="fp32", ema_decay=0.5, log_every=1),
    )
    adapter = ControlledTransformer.from_pretrained(folder)
    history, error = read_training(folder)
    assert changed_tensors(base, adapter) == 0 and len(history) == 3 and error.keys() == {"before", "after"}
    torch.nn.init.ones_(adapter.base_model.pos_embed)
    assert changed_tensors(base, adapter) == 1


@pytest.mark.parametrize("own", [False, True])
def test_a_ready_adapter_is_kept_as_a_trained_one(tmp_path, monkeypatch, own):
    shipped_foundation(tmp_path / "foundation", monkeypatch)
    made, saved = shipped_adapter(tmp_path / "adapter", monkeypatch)
    if own:  # as `make adapter` with another destination leaves the package's
        monkeypatch.setattr(foundation, "ADAPTER", tmp_path / "none")
    weights = str(made) if own else "shipped"
    shipped, data = open_shipped(weights, "shipped", "minilm"), annotated()
    requests, autoencoder = choose_requests(data, "held out", {"lungs": 2}), new_autoencoder((8, 8, 8)).eval()
    given = {"adapter": shipped, "weights": weights, "data": data, "requests": requests, "autoencoder": autoencoder}
    folder = kept(keep_adapter, tmp_path / "transformer", **given, text_encoder="minilm")
    adapter = ControlledTransformer.from_pretrained(folder)
    assert changed_tensors(saved.base_model.half().float(), adapter) == 0 and len(adapter.controlnet) == 1
    history, error = read_training(folder)
    assert history["step"].to_list() == [0, 3] and error["before"] != error["after"]


def test_only_an_adapter_is_read_and_with_its_own_frozen_parts():
    assert open_shipped(None, "sd", "t5") is None
    with pytest.raises(WeightsError, match="mine is no adapter .*: give a folder that `make adapter` wrote"):
        open_shipped("mine", "shipped", "minilm")
    with pytest.raises(TrainingError, match="belongs to autoencoder=shipped and text_encoder=minilm, not sd and t5"):
        open_shipped("shipped", "sd", "t5")


def test_a_saved_segmenter_predicts_as_the_trained_one(tmp_path):
    (images, masks), classes = masked_discs(8), ("disc", "nothing")
    config = LearnerConfig(steps=3, size="ci", batch_size=4, checks=1)
    images = (images * 255).astype(np.uint8)
    trained = train_segmenter(images, masks, classes, config)
    data = Annotated(pl.DataFrame({"split": ["train"] * 8}), images, masks, classes)
    folder = kept(train_reader, tmp_path / "segmenter", data=data, config=config)
    read = load_reader(folder, classes, config)
    np.testing.assert_array_equal(read.predict(images), trained.predict(images))
