"""An encoder of images and texts finds its own prompts, and what is none is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer, CLIPVisionConfig
from transformers import CLIPVisionModelWithProjection as VisionAlone

from chexgen_lib.quality.embedders import WeightsMissing
from chexgen_lib.quality.retrieval import ImageTextEncoder, ranks

SIZE = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)


def tiny_clip(path: Path) -> Path:
    """A CLIP with random weights, as transformers saves one with its processor."""
    torch.manual_seed(0)
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdef", *(f"{letter}</w>" for letter in "abcdef")]
    text = SIZE | dict(vocab_size=len(words), max_position_embeddings=16, bos_token_id=0, eos_token_id=1)
    vision = SIZE | dict(image_size=28, patch_size=14)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=6))
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, model_max_length=16)
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    model.save_pretrained(path)
    CLIPProcessor(images, tokenizer).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def test_features_are_of_unit_length_and_do_not_depend_on_the_batch(folder):
    encoder = ImageTextEncoder(folder)
    images = np.random.default_rng(0).random((40, 32, 32), np.float32)
    texts = [f"a{'b' * k}" for k in range(40)]  # the last ones are longer than the encoder reads
    for encode, inputs in ((encoder, images), (encoder.texts, texts)):
        found = encode(inputs)
        assert found.shape == (40, encoder.dim) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        assert np.allclose(encode(inputs[35:36]), found[35:36], atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 1e-4


def test_a_rank_is_how_many_other_texts_are_nearer():
    texts = np.eye(4, dtype=np.float32)
    images = np.array([[[0.9, 0.5, 0.1, 0]], [[0.9, 0.5, 0.1, 0]], [[0.5, 0.5, 0.5, 0.5]]], np.float32)
    assert ranks(images, texts, np.array([0, 2, 3])).tolist() == [[0], [2], [1.5]]
    with pytest.raises(ValueError, match="not finite"):  # it counted as found, at a rank below 0
        ranks(np.full_like(images, np.nan), texts, np.array([0, 2, 3]))


def test_what_encodes_no_texts_is_refused(tmp_path):
    with pytest.raises(WeightsMissing, match="no encoder of images and texts at .*nowhere: give a folder"):
        ImageTextEncoder(tmp_path / "nowhere")
    alone = VisionAlone(CLIPVisionConfig(**SIZE, image_size=28, patch_size=14, projection_dim=6))
    alone.save_pretrained(tmp_path)
    CLIPImageProcessor().save_pretrained(tmp_path)
    with pytest.raises((ValueError, WeightsMissing), match="encode both images and|no encoder of images"):
        ImageTextEncoder(tmp_path)
