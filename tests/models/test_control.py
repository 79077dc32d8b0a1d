"""The adapter starts as the base model, leaves it alone, and follows its condition."""

import pytest
import torch
from diffusers.training_utils import EMAModel

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.transformer import ChexGenTransformer


@pytest.fixture
def base():
    torch.manual_seed(0)
    model = ChexGenTransformer(sample_size=8, hidden_size=64, depth=4, num_heads=2, text_dim=16, text_tokens=8)
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    return model.eval()


def inputs():
    g = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 8)
    mask[1, 3:] = 0
    return torch.randn(2, 4, 8, 8, generator=g), torch.tensor([900, 10]), torch.randn(2, 8, 16, generator=g), mask


def condition():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))


def test_starts_as_the_base_model(base):
    model = ControlledTransformer.on(base, 2)
    with torch.no_grad():
        assert torch.equal(model(*inputs(), controlnet_cond=condition()).sample, base(*inputs()).sample)


def test_training_moves_the_adapter_and_not_one_bit_of_the_base(base):
    model = ControlledTransformer.on(base, 2).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(*inputs(), controlnet_cond=condition()).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("base_model."), name
    with torch.no_grad():
        model.eval()
        one, other = (model(*inputs(), controlnet_cond=c).sample for c in (condition(), condition().flip(0)))
        half = model(*inputs(), controlnet_cond=condition(), control_scale=0.5).sample
    assert not torch.allclose(one, other) and not torch.allclose(one, half)


def test_gradient_checkpointing_changes_nothing(base):
    model = ControlledTransformer.on(base, 2).train()
    torch.nn.init.normal_(model.controlnet[1].after_proj.weight)

    def gradient():
        model.zero_grad()
        model(*inputs(), controlnet_cond=condition()).sample.square().mean().backward()
        return model.controlnet[1].copied_block.attn.qkv.weight.grad.clone()

    expected = gradient()
    model.enable_gradient_checkpointing()
    torch.testing.assert_close(gradient(), expected)


def test_a_condition_of_the_first_samples_leaves_the_others_free(base):
    model = ControlledTransformer.on(base, 2).eval()
    for parameter in model.controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t, text, mask = inputs()
    encoded = model.encode_text(text, mask), model.encode_time(t)
    with torch.no_grad():
        part = model.denoise(x, encoded[1], encoded[0], model.encode_condition(condition()[:1]))
        full = model.denoise(x, encoded[1], encoded[0], model.encode_condition(condition()))
        free = model.denoise(x, encoded[1], encoded[0])
    torch.testing.assert_close(part[:1], full[:1])
    torch.testing.assert_close(part[1:], free[1:])
    assert (full[1:] - free[1:]).abs().max() > 1e-3


def test_saves_and_loads(base, tmp_path):
    model = ControlledTransformer.on(base, 3)
    torch.nn.init.normal_(model.controlnet[2].after_proj.weight)
    model.save_pretrained(tmp_path)
    loaded = ControlledTransformer.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(*inputs(), controlnet_cond=condition()).sample
        torch.testing.assert_close(loaded(*inputs(), controlnet_cond=condition()).sample, expected)


def test_its_configuration_makes_another(base, tmp_path):
    model = ControlledTransformer.on(base, 2)
    assert len(ControlledTransformer.from_config(model.config).controlnet) == 2
    averaged = EMAModel(model.parameters(), model_cls=ControlledTransformer, model_config=model.config)
    averaged.save_pretrained(tmp_path)
    assert len(EMAModel.from_pretrained(tmp_path, ControlledTransformer).shadow_params) == len([*model.parameters()])


def test_clear_errors(base):
    with pytest.raises(ValueError, match="copied_blocks must be in 1..3"):
        ControlledTransformer.on(base, 4)
    with pytest.raises(ValueError, match="at the image's size"):
        ControlledTransformer.on(base, 1)(*inputs(), controlnet_cond=condition()[..., :4])
