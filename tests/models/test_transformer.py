"""The transformer reproduces the released code's stored forwards and keeps its names, shapes and contracts."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chexgen_lib.models.layers import SHORT, attention, position_embedding
from chexgen_lib.models.transformer import ChexGenTransformer

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="golden vectors are not here")
TINY = dict(sample_size=8, hidden_size=128, depth=4, num_heads=4, text_dim=64, text_tokens=24)


def tiny(**config) -> ChexGenTransformer:
    torch.manual_seed(0)
    model = ChexGenTransformer(**{**TINY, **config}).eval()
    for p in model.parameters():  # adaLN-zero starts at zero output: give every tensor a say
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    return model


def inputs(batch=3, length=24):
    g = torch.Generator().manual_seed(1)
    mask = torch.zeros(batch, length, dtype=torch.long)
    for row, valid in enumerate([length, 9, 1][:batch]):
        mask[row, :valid] = 1
    return (
        torch.randn(batch, 4, 8, 8, generator=g),
        torch.tensor([999, 500, 0])[:batch],
        torch.randn(batch, length, 64, generator=g),
        mask,
    )


@needs_reference
@pytest.mark.parametrize("key, weights", [("fwd", "state_dict_ema"), ("fwd_raw_weights", "state_dict")])
def test_matches_the_released_forward(key, weights):
    checkpoint = torch.load(REFERENCE / "t2i_tiny.pth", weights_only=True)
    state = {k.removeprefix("module."): v for k, v in checkpoint[weights].items()}
    model = ChexGenTransformer(**TINY).eval()
    model.load_state_dict(state, strict=True)
    io = load_file(REFERENCE / "t2i_tiny_io.safetensors")
    with torch.no_grad():
        out = model(io["x"], io["t"], io["y"][:, 0], io["mask"]).sample
    assert (out - io[key]).abs().max() < 1e-5


@needs_reference
def test_xl2_has_the_released_names_and_shapes():
    with torch.device("meta"):
        model = ChexGenTransformer.of_size("xl2", sample_size=64, position_scale=2.0)
    with open(REFERENCE / "keys_xl2.csv") as file:
        expected = [(row["name"], row["shape"]) for row in csv.DictReader(file)]
    found = [(k, "x".join(map(str, v.shape))) for k, v in model.state_dict().items()]
    assert found == expected
    assert sum(p.numel() for p in model.parameters()) == 612_527_264


def test_batch_equals_singles():
    model, (x, t, y, mask) = tiny(), inputs()
    with torch.no_grad():
        batch = model(x, t, y, mask).sample
        singles = torch.cat([model(*(a[i : i + 1] for a in (x, t, y, mask))).sample for i in range(3)])
    torch.testing.assert_close(batch, singles, atol=1e-5, rtol=1e-5)


def test_a_number_is_the_time_step_of_all():
    model, (latents, t, states, mask) = tiny(), inputs()
    with torch.no_grad():
        expected = model(latents, torch.full_like(t, 500), states, mask).sample
        for time in (500, 500.0, torch.tensor(500), torch.tensor([500])):
            assert torch.equal(model(latents, time, states, mask).sample, expected)


def test_padding_has_no_effect_and_every_input_has():
    model, (x, t, y, mask) = tiny(), inputs()
    with torch.no_grad():
        out = model(x, t, y, mask).sample
        padded = torch.where(mask[..., None].bool(), y, 1e3)
        torch.testing.assert_close(model(x, t, padded, mask).sample, out)
        for changed in [
            (x + 0.1, t, y, mask),
            (x, t.flip(0), y, mask),
            (x, t, y + 0.1, mask),
            (x, t, y, None),
        ]:
            assert not torch.allclose(model(*changed).sample, out)


def test_position_scale_keeps_a_place_its_embedding():
    low, high = position_embedding(64, 4), position_embedding(64, 8, scale=2.0)
    torch.testing.assert_close(low, high.view(8, 8, 64)[::2, ::2].reshape(16, 64))


def test_enlarged_keeps_the_weights_and_doubles_the_latent():
    model = tiny()
    larger = model.enlarged()
    assert larger.config.sample_size == 16 and larger.config.position_scale == 2.0
    for name, value in model.state_dict().items():
        if name != "pos_embed":
            assert torch.equal(value, larger.state_dict()[name]), name
    corner = larger.pos_embed.view(8, 8, -1)[::2, ::2].reshape(16, -1)
    torch.testing.assert_close(corner, model.pos_embed[0])
    _, t, y, mask = inputs()
    assert larger(torch.zeros(3, 4, 16, 16), t, y, mask).sample.shape == (3, 8, 16, 16)


def test_latents_of_the_models_size_or_of_twice_it():
    model = tiny()
    assert model.for_latents(8) is model and model.for_latents(16).config.position_scale == 2.0
    with pytest.raises(ValueError, match="the model is for latents of 8 or 16 pixels a side, not of 4"):
        model.for_latents(4)


def test_saves_and_loads(tmp_path):
    model, batch = tiny(), inputs()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    with torch.no_grad():
        loaded = ChexGenTransformer.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(loaded(*batch).sample, model(*batch).sample)


def test_the_objective_stays_with_the_weights(tmp_path):
    flow = tiny(objective="rectified_flow")
    assert flow.objective == flow.enlarged().objective == "rectified_flow" and tiny().objective == "ddpm"
    flow.save_pretrained(tmp_path)
    assert ChexGenTransformer.from_pretrained(tmp_path).objective == "rectified_flow"
    config = json.loads((tmp_path / "config.json").read_text())
    del config["objective"]  # as in weights saved before there was a choice
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ChexGenTransformer.from_pretrained(tmp_path).objective == "ddpm"


def test_gradient_checkpointing_changes_nothing():
    model, batch = tiny().train(), inputs()
    model(*batch).sample.square().mean().backward()
    expected = model.blocks[0].attn.qkv.weight.grad.clone()
    model.zero_grad()
    model.enable_gradient_checkpointing()
    model(*batch).sample.square().mean().backward()
    torch.testing.assert_close(model.blocks[0].attn.qkv.weight.grad, expected)


def test_clear_errors():
    with pytest.raises(ValueError, match="unknown model size 'huge'"):
        ChexGenTransformer.of_size("huge")
    with pytest.raises(ValueError, match="unknown objective 'velocity'"):
        ChexGenTransformer(objective="velocity")
    with pytest.raises(ValueError, match="multiple of patch_size"):
        ChexGenTransformer(sample_size=7)
    x, t, y, mask = inputs()
    with pytest.raises(ValueError, match="latents have shape"):
        tiny()(x[:, :, :4], t, y, mask)


@pytest.mark.parametrize("tokens, texts", [(64, 64), (64, 100), (SHORT, 7), (SHORT + 1, 7), (64, SHORT + 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_both_forms_of_attention_agree_in_values_and_gradients(tokens, texts, masked):
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 16, generator=g, requires_grad=True) for n in (tokens, texts, texts))
    lengths = torch.tensor([texts, texts // 2, 1])
    mask = (torch.arange(texts) < lengths[:, None])[:, None, None] if masked else None
    reference = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    expected = torch.autograd.grad(reference.square().sum(), (q, k, v))
    assert torch.equal(attention(q, k, v, mask), reference)  # in float32 it is torch's own
    half = attention(*(x.bfloat16() for x in (q, k, v)), mask)
    assert half.dtype == torch.bfloat16
    assert (half.float() - reference).abs().max() < 0.03
    found = torch.autograd.grad(half.float().square().sum(), (q, k, v))
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()


def test_short_attention_on_a_cpu_is_products(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("torch's fused kernel")

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
    short, long = (torch.zeros(1, 1, n, 8, dtype=torch.bfloat16) for n in (SHORT, SHORT + 1))
    attention(short, short, short)
    for q, k in ((short.float(), short.float()), (long, short), (short, long)):
        with pytest.raises(AssertionError, match="fused"):
            attention(q, k, k)
