"""Weights as people have them: in a subfolder, as a variant, in another precision, or damaged."""

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5EncoderModel

from chexgen_lib.models.autoencoder import load_autoencoder, new_autoencoder
from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.loading import WeightsError, variant_in, weights_sha256
from chexgen_lib.models.text import TextError, load_text_encoder
from chexgen_lib.models.transformer import ChexGenTransformer


def stable_diffusion() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )


def test_the_autoencoder_of_a_whole_pipeline_is_in_its_subfolder(tmp_path):
    stable_diffusion().save_pretrained(tmp_path / "vae")
    assert load_autoencoder(str(tmp_path)).config.block_out_channels == [8, 8]


@pytest.mark.parametrize("form", [{}, {"safe_serialization": False}, {"max_shard_size": "10KB"}], ids=str)
@pytest.mark.parametrize("place", ["", "vae"])
def test_a_variant_alone_is_taken_and_read_in_float32(tmp_path, place, form):
    model = stable_diffusion().half()
    model.save_pretrained(tmp_path / place, variant="fp16", **form)
    loaded = load_autoencoder(str(tmp_path))
    assert variant_in(tmp_path) == "fp16" and loaded.dtype == torch.float32
    torch.testing.assert_close(loaded.encoder.conv_in.weight, model.encoder.conv_in.weight.float())


def test_whole_weights_are_preferred_to_a_variant(tmp_path):
    new_autoencoder((8, 8, 8)).save_pretrained(tmp_path)
    new_autoencoder((8, 8, 8)).half().save_pretrained(tmp_path, variant="fp16")
    assert variant_in(tmp_path) is None


def test_parts_of_a_pipeline_behind_links_are_seen(tmp_path):
    stable_diffusion().save_pretrained(tmp_path / "elsewhere", variant="fp16")
    folder = tmp_path / "pipeline"
    folder.mkdir()
    (folder / "vae").symlink_to(tmp_path / "elsewhere")
    assert variant_in(folder) == "fp16"
    before, weights = weights_sha256(folder), next((tmp_path / "elsewhere").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    after = weights_sha256(folder)
    assert after != before
    (folder / ".kept").mkdir()
    (tmp_path / "elsewhere").rename(folder / ".kept" / "vae")
    (folder / "vae").unlink()
    (folder / "vae").symlink_to(folder / ".kept" / "vae")  # hidden itself, and not what links to it
    assert weights_sha256(folder) == after


def test_damaged_weights_are_named(tmp_path):
    new_autoencoder((8, 8, 8)).save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=f"{tmp_path} cannot be read as CompactAutoencoderKL: download or save them"):
        load_autoencoder(str(tmp_path))
    new_autoencoder((16, 16, 16)).save_pretrained(tmp_path / "other")
    save_file(load_file(tmp_path / "other/diffusion_pytorch_model.safetensors"), path)
    with pytest.raises(WeightsError, match="cannot be read as CompactAutoencoderKL"):
        load_autoencoder(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ('{"_class_name": "UNet2DModel"}', "a UNet2DModel"),
        ("{}", "a configuration without a class"),
        ("[]", "a configuration without a class"),
    ],
)
def test_a_folder_of_another_model_is_no_autoencoder(tmp_path, config, found):
    new_autoencoder((8, 8, 8)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=f"{tmp_path} holds no autoencoder but {found}: give 'shipped'"):
        load_autoencoder(str(tmp_path))


@pytest.mark.parametrize("depth", [1, 3])
def test_no_model_is_loaded_in_part(tmp_path, depth):
    base = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=8)
    for model in (base, ControlledTransformer.on(base, 1)):
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        assert type(model).from_pretrained(folder, output_loading_info=True)[1]["missing_keys"] == []
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(config.replace('"depth": 2', f'"depth": {depth}'))
        with pytest.raises((WeightsError, ValueError), match="another version: .*blocks|copied_blocks must be in"):
            type(model).from_pretrained(folder)


def test_models_take_the_name_of_the_librarys_argument(tmp_path):
    base = ChexGenTransformer.of_size("ci", sample_size=4, text_dim=8)
    unet = BaselineUNet.of_size("ci", (4, 4, 4), text_dim=8)
    for model in (base, ControlledTransformer.on(base, 1), unet, new_autoencoder((8, 8, 8))):
        model.save_pretrained(tmp_path / type(model).__name__)
        loaded = type(model).from_pretrained(pretrained_model_name_or_path=tmp_path / type(model).__name__)
        assert type(loaded) is type(model)


@pytest.fixture
def t5(tmp_path):
    """A tiny T5 saved in half precision, with a tokenizer."""
    tokenizer, _ = load_text_encoder("minilm")
    config = T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5EncoderModel(config).half().save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def test_a_text_encoder_saved_in_half_precision_is_read_in_the_one_that_is_stated(t5):
    assert load_text_encoder(str(t5))[1].dtype == torch.float32  # on a CPU
    assert load_text_encoder(str(t5), torch.bfloat16)[1].dtype == torch.bfloat16


def test_a_damaged_text_encoder_is_named(t5):
    path = t5 / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TextError, match="t5 cannot be read as T5EncoderModel: download or save them again"):
        load_text_encoder(str(t5))
