"""Autoencoders keep sizes, ranges and their folder; training one lowers its error."""

import math

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from chexgen_lib.models.autoencoder import (
    SHIPPED,
    CompactAutoencoderKL,
    decode,
    encode,
    latents_sha256,
    load_autoencoder,
    new_autoencoder,
)
from chexgen_lib.models.loading import WeightsError
from chexgen_lib.training.autoencoder import (
    DISCRIMINATOR_START,
    AutoencoderRecipe,
    Discriminator,
    _grain_error,
    read_recipe,
    reconstruct,
    save_half,
    train_autoencoder,
)


@pytest.fixture
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 32
    waves = [np.sin(6 * (a * x + b * y) + c) for a, b, c in rng.uniform(-1, 1, (24, 3))]
    return ((np.stack(waves) + 1) * 127).astype(np.uint8)


def test_latents_are_eight_times_smaller_and_images_stay_in_range(images):
    torch.manual_seed(0)
    model = new_autoencoder((8, 8, 8)).eval()
    mean, std = encode(model, images / np.float32(255), batch_size=7)
    assert mean.shape == std.shape == (24, 4, 4, 4) and (std > 0).all()
    restored = decode(model, mean, batch_size=5)
    assert restored.shape == (24, 32, 32) and restored.min() >= 0 and restored.max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_autoencoder_of_half_precision_encodes(images, dtype):
    torch.manual_seed(0)
    model = new_autoencoder((8, 8, 8)).eval()
    expected = encode(model, images)
    for half, whole in zip(encode(model.to(dtype), images), expected, strict=True):
        assert half.dtype == torch.float32 and torch.allclose(half, whole, atol=0.05)


def test_training_lowers_the_error_and_sets_the_scale(images, tmp_path):
    torch.manual_seed(0)
    model = new_autoencoder((8, 8, 8)).eval()
    before = reconstruct(model, images)[1].mean()
    recipe = AutoencoderRecipe(steps=150, batch_size=8, crop=32, learning_rate=5e-3)
    train_autoencoder(model, images, recipe)
    psnr = reconstruct(model, images)[1].mean()
    assert psnr > before + 3
    mean, std = encode(model, images / np.float32(255))
    assert abs((mean.var() + std.square().mean()).sqrt().item() - 1) < 0.05
    save_half(model, tmp_path / "ae", {"seed": 0})
    loaded = load_autoencoder(str(tmp_path / "ae"))
    assert type(loaded) is type(model) and loaded.config.scaling_factor == model.config.scaling_factor
    assert abs(reconstruct(loaded, images)[1].mean() - psnr) < 0.05


def test_training_is_a_function_of_its_seed(images):
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        model = new_autoencoder((8, 8, 8))
        train_autoencoder(model, images, AutoencoderRecipe(steps=3, batch_size=4, crop=16))
        weights.append(model.decoder.conv_out.weight.detach().clone())
    assert torch.equal(*weights)


def test_sharpening_trains_the_decoder_and_leaves_the_latents(images, tmp_path):
    plain, sharp = (AutoencoderRecipe(steps=3, sharpening_steps=n, batch_size=4, crop=16) for n in (0, 2))
    models = {}
    for recipe in (plain, sharp):
        torch.manual_seed(0)
        models[recipe] = new_autoencoder((8, 8, 8))
        train_autoencoder(models[recipe], images, recipe)
        save_half(models[recipe], tmp_path / str(recipe.sharpening_steps), {})
    before, after = (model.state_dict() for model in models.values())
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv", "grain"}
    assert latents_sha256(tmp_path / "0") == latents_sha256(tmp_path / "2")
    models[plain].encoder.conv_in.weight.data += 1
    save_half(models[plain], tmp_path / "0", {})
    assert latents_sha256(tmp_path / "0") != latents_sha256(tmp_path / "2")


def test_what_follows_the_latents_can_be_trained_alone(images, tmp_path):
    torch.manual_seed(0)
    model = new_autoencoder((8, 8, 8))
    model.register_to_config(scaling_factor=0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_autoencoder(model, images, AutoencoderRecipe(0, DISCRIMINATOR_START + 2, batch_size=4, crop=16))
    kept = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert {name for name in before if name.startswith(("encoder", "quant_conv"))} == kept
    assert model.config.scaling_factor == 0.5
    save_half(model, tmp_path / "again", {"steps": 0})
    model = load_autoencoder(str(tmp_path / "again"))
    save_half(model, tmp_path / "and again", {"encoder": read_recipe(str(tmp_path / "again"))})
    assert read_recipe(str(tmp_path / "and again")) == {"encoder": {"steps": 0}}
    assert str(tmp_path) not in (tmp_path / "and again/config.json").read_text()


def grainy(strength: float) -> CompactAutoencoderKL:
    """An untrained autoencoder whose noise is white and everywhere of this standard deviation."""
    torch.manual_seed(0)
    model = new_autoencoder((8, 8, 8)).eval()
    for parameter in model.grain.parameters():
        torch.nn.init.zeros_(parameter)
    for channel in range(4):
        model.grain.texture.weight.data[channel, channel, 1, 1] = strength / math.log(2)  # softplus of zero
    return model


def test_noise_comes_from_the_generators_alone(images):
    model = grainy(0.1)
    latents = torch.randn(10, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = decode(model, latents)
    assert np.array_equal(plain, decode(model, latents)), "without a generator there is none"

    def with_seeds(rows, *seeds):
        return decode(model, latents[rows], [torch.Generator().manual_seed(seed) for seed in seeds])

    whole = with_seeds(slice(None), *range(10))
    np.testing.assert_allclose(with_seeds(slice(9, 10), 9), whole[9:], atol=1e-5)  # whatever its batch
    assert np.abs(with_seeds(slice(9, 10), 8) - whole[9:]).max() > 0.01
    inside = (plain > 0.2) & (plain < 0.8)  # nothing was clipped
    assert inside.sum() > 1000 and np.std((whole - plain)[inside]) == pytest.approx(0.05, rel=0.05)  # of -1..1
    once = decode(new_autoencoder((8, 8, 8)).eval(), latents, torch.Generator())
    assert once.shape == plain.shape and model.grain.texture.weight.any()


def test_untrained_noise_is_none():
    model = new_autoencoder((8, 8, 8)).eval()
    latents = torch.randn(2, 4, 4, 4)
    assert np.array_equal(decode(model, latents), decode(model, latents, torch.Generator()))


def test_the_error_of_noise_is_least_for_the_right_strength():
    g = torch.Generator().manual_seed(1)
    image = torch.zeros(16, 1, 64, 64)
    batch = image + 0.1 * torch.randn(image.shape, generator=g)
    found = {s: _grain_error(grainy(s), image, batch, g).item() for s in (0.0, 0.05, 0.08, 0.1, 0.12, 0.2)}
    assert min(found, key=found.get) == 0.1, found


def test_an_autoencoder_of_before_is_named(tmp_path):
    new_autoencoder((8, 8, 8)).save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(weights).items() if not k.startswith("grain")}, weights)
    for load in (load_autoencoder, CompactAutoencoderKL.from_pretrained):  # pipelines load by the latter
        with pytest.raises(WeightsError, match="of another version: 'grain.*train it again"):
            load(str(tmp_path))


def test_the_discriminator_sees_fine_detail(images):
    torch.manual_seed(0)
    judge = Discriminator(1)
    smooth = torch.from_numpy(images[:4, None] / np.float32(127.5) - 1)
    detail = 0.02 * (torch.arange(32) % 2 * 2 - 1)
    assert judge(smooth).shape == (4, 1, 8, 8)
    change = (judge(smooth + detail) - judge(smooth)).abs().mean() / (judge(smooth + 0.02) - judge(smooth)).abs().mean()
    assert change > 2, "a fine wave moves the score more than as much of plain grey"


def test_stable_diffusions_layout_loads_and_takes_three_channels(images, tmp_path):
    AutoencoderKL(block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
                  up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4).save_pretrained(tmp_path)  # fmt: skip
    model = load_autoencoder(str(tmp_path))
    mean, _ = encode(model, images[:2] / np.float32(255))
    assert mean.shape == (2, 4, 4, 4) and decode(model, mean).shape == (2, 32, 32)


def test_the_shipped_weights_are_small_and_carry_their_recipe():
    model = load_autoencoder("shipped")
    weights = SHIPPED / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size < 5e6 and (SHIPPED / "recipe.json").exists()
    assert model.config.scaling_factor != 0.18215


def test_clear_errors(images, tmp_path):
    with pytest.raises(ValueError, match="no autoencoder at"):
        load_autoencoder(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="too few or too small"):
        train_autoencoder(new_autoencoder((8, 8, 8)), images[:0], AutoencoderRecipe(steps=1))
    with pytest.raises(ValueError, match="AutoencoderKL has no noise to train: set sharpening_steps=0"):
        train_autoencoder(AutoencoderKL(), images, AutoencoderRecipe(steps=0, sharpening_steps=1, crop=16))
