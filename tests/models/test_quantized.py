"""Weights of 8 bits: nearly the same images, nothing to train or save, and errors that say so."""

import numpy as np
import pytest
import torch

from chexgen_lib.models.baseline import BaselineUNet
from chexgen_lib.models.layers import Block
from chexgen_lib.models.quantized import STEPS, Int8Block, Int8Linear, attend, int8_weights, quantized
from chexgen_lib.pools.generate import fingerprint
from chexgen_lib.storage import digest


def images(pipeline, **kwargs):
    generator = [torch.Generator().manual_seed(seed) for seed in range(2)]
    prompt = ["Cardiomegaly.", "Small left effusion."]
    return pipeline(prompt, num_inference_steps=4, generator=generator, output_type="np", **kwargs).images


@pytest.mark.parametrize("kind", ["pipeline", "controlled"])
def test_images_stay_within_40_db(request, kind):
    pipeline = request.getfixturevalue(kind)
    asked = {"condition_image": np.full((2, 32, 32, 3), 90, np.uint8)} if kind == "controlled" else {}
    exact, trained = images(pipeline, **asked), pipeline.transformer
    pipeline.transformer = int8_weights(trained)
    rounded = images(pipeline, **asked)
    pipeline.transformer = trained
    error = np.square(exact - rounded).mean()
    assert 0 < error < 1e-4  # 40 dB; 0 would mean that nothing was rounded
    assert np.array_equal(images(pipeline, **asked), exact)  # the original did not change


def test_every_product_of_the_blocks_is_int8(controlled):
    blocks = [m for m in int8_weights(controlled.transformer).modules() if isinstance(m, Block)]
    base, adapter = controlled.transformer.base_model.blocks, controlled.transformer.controlnet
    assert len(blocks) == len(base) + len(adapter)
    for block in blocks:
        linear = [name for name, m in block.named_modules() if isinstance(m, torch.nn.Linear)]
        assert linear == ["cross_attn.kv_linear"]  # used once for all steps


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match="a BaselineUNet has no blocks for int8 weights: sample without them"):
        int8_weights(BaselineUNet.of_size("ci", (4, 4, 4), text_dim=16))


def test_numbers_are_rounded_to_the_nearest_step():
    x = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    rounded, scale, zero = quantized(x)
    assert scale.item() == pytest.approx(3 / STEPS) and rounded.max() - rounded.min() == STEPS
    assert ((scale * (rounded.float() - zero) - x).abs() <= scale / 2 * 1.001).all()
    assert (quantized(torch.zeros(2, 3))[0] == 0).all()
    assert quantized(torch.full((2, 3), 5.0))[0].unique().tolist() == [STEPS]  # zero is always a step


@pytest.mark.parametrize("steps", [254, 126])
def test_no_number_wraps_around(steps, monkeypatch):
    """The ends lie half a step off the zero point here, where a rounding too many would leave 0..255."""
    monkeypatch.setattr("chexgen_lib.models.quantized.STEPS", steps)
    for off in torch.linspace(-1, 1, 2001) * 2**-16:
        x = torch.tensor([-(steps / 2 - 0.5) + off, steps / 2 + 0.5 + off])
        rounded, scale, zero = quantized(x)
        assert ((scale * (rounded.float() - zero) - x).abs() <= scale / 2 * 1.001).all() and rounded.max() <= steps + 1


@pytest.mark.parametrize("gelu", ["", "none", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_near_that_in_float32(gelu, dtype):
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(96, 80).requires_grad_(False), torch.randn(3, 20, 96)
    exact = linear(x)
    exact = torch.nn.functional.gelu(exact, approximate=gelu) if gelu else exact
    near = Int8Linear(linear, dtype, gelu)(x)
    assert near.dtype == dtype and (near.float() - exact).std() < 0.02 * exact.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("long", [512, 5])
def test_attention_is_torchs(dtype, long, monkeypatch):
    monkeypatch.setattr("chexgen_lib.models.quantized.LONG", long)
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16, dtype=dtype) for n in (20, 7, 7))
    mask = torch.arange(7) < torch.tensor([7, 4])[:, None, None, None]  # [B, 1, 1, L]
    for seen in (None, mask):
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        torch.testing.assert_close(attend(q, k, v, seen), exact, atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)


def test_pieces_of_a_batch_are_put_together_in_order(pipeline, monkeypatch):
    """Five samples in pieces of two: the images are those of one piece but for the scales, which are a piece's own."""
    block = Int8Block(pipeline.transformer.blocks[0])
    torch.manual_seed(0)
    x, table = torch.randn(5, 16, 64), torch.randn(5, 6, 64)
    k, v = torch.randn(2, 5, 2, 9, 32)
    mask = torch.arange(9) < torch.tensor([9, 3, 5, 9, 1])[:, None, None, None]
    rounding = 0.05 * 254 / STEPS  # without VNNI a step is twice as long
    with torch.inference_mode():
        for seen in (None, mask[:1], mask):
            monkeypatch.setattr("chexgen_lib.models.quantized.AT_A_TIME", 10**9)
            whole = block(x, table, k, v, seen)
            monkeypatch.setattr("chexgen_lib.models.quantized.AT_A_TIME", 2 * 16 * 64)
            for one, same, other in zip(block(x, table, k, v, seen), whole, whole.roll(1, 0), strict=True):
                assert (one - same).std() < rounding < 0.5 < (one - other).std()


def test_it_counts_as_another_generator(pipeline):
    before, trained = fingerprint(pipeline), pipeline.transformer
    pipeline.transformer = int8_weights(trained)
    after = fingerprint(pipeline)
    pipeline.transformer = trained
    assert before != after and fingerprint(pipeline) == before


def test_its_weights_are_told_apart_by_more_than_their_scales():
    layer = torch.nn.Linear(4, 3)
    before = digest(Int8Linear(layer))
    assert digest(Int8Linear(layer)) == before
    with torch.no_grad():
        layer.weight.copy_(layer.weight.flip(1))
    assert digest(Int8Linear(layer)) != before


def test_without_onednn_it_says_so(pipeline, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(ValueError, match="need a torch with oneDNN"):
        int8_weights(pipeline.transformer)


def test_what_cannot_be_made_or_saved_says_so(pipeline, tmp_path):
    rounded = int8_weights(pipeline.transformer)
    with pytest.raises(ValueError, match="int8 already"):
        int8_weights(rounded)
    with pytest.raises(ValueError, match="save the transformer that they were made from"):
        rounded.save_pretrained(tmp_path / "x")
    with pytest.raises(ValueError, match="float32 on a CPU, not torch.bfloat16"):
        int8_weights(rounded.__class__.from_config(rounded.config).to(torch.bfloat16))
