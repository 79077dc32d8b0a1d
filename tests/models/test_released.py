"""Released checkpoints load and reproduce the released code's stored outputs; other files are refused clearly."""

import csv
import pickle
from pathlib import Path

import pytest
import torch

from benchmarks.released_parity import forwards, stored
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.released import CheckpointError, load_released
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="golden vectors are not here")
TINY = dict(sample_size=8, hidden_size=128, depth=4, num_heads=4, text_dim=64, text_tokens=24)


def checkpoint(path: Path, model: torch.nn.Module, prefix: str = "") -> Path:
    """A file laid out as the released ones; the raw weights differ from the averaged ones."""
    ema = model.state_dict()
    raw = {prefix + name: value + 1e-3 for name, value in ema.items()}
    torch.save({"state_dict": raw, "state_dict_ema": ema, "optimizer": {}, "epoch": 3, "step": 7}, path)
    return path


@needs_reference
@pytest.mark.parametrize("kind", ["t2i", "control"])
def test_forwards(kind):
    io, ours = stored(REFERENCE, kind), forwards(REFERENCE, kind)
    assert set(ours) == {name for name in io if name.startswith("fwd")}
    for name, output in ours.items():
        assert (output - io[name]).abs().max() < 1e-5, name


@needs_reference
def test_loaded_models_are_ready_to_sample():
    model = load_released(REFERENCE / "t2i_tiny.pth")
    assert not model.training and model.config.position_scale == 1.0
    control, io = load_released(REFERENCE / "control_tiny.pth"), stored(REFERENCE, "control")
    assert isinstance(control, ControlledTransformer) and len(control.controlnet) == 2
    x, t, y = io["x"], io["t"], io["y"][:, 0]
    with torch.no_grad():
        unweighted, free = (
            control(x, t, y, **c).sample for c in (dict(controlnet_cond=io["c"], control_scale=0.0), {})
        )
    assert torch.equal(unweighted, free)


@needs_reference
def test_control_xl2_has_the_released_names_and_shapes():
    with torch.device("meta"):
        base = ChexGenTransformer.of_size("xl2", sample_size=64, position_scale=2.0)
        model = ControlledTransformer({k: v for k, v in base.config.items() if not k.startswith("_")}, 13)
    with open(REFERENCE / "keys_control_xl2.csv") as file:
        expected = [(row["name"], row["shape"]) for row in csv.DictReader(file)]
    assert [(k, "x".join(map(str, v.shape))) for k, v in model.state_dict().items()] == expected
    assert sum(p.numel() for p in model.parameters()) == 907_445_024
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 294_917_760


@pytest.mark.parametrize("prefix", ["", "module."])
def test_sizes_are_read_off_the_tensors(tmp_path, prefix):
    model = ChexGenTransformer(**TINY, position_scale=2.0)
    path = checkpoint(tmp_path / "epoch_3_step_7.pth", model, prefix)
    loaded = load_released(path)
    assert dict(loaded.config) | {"_use_default_values": None} == dict(model.config) | {"_use_default_values": None}
    for name, value in load_released(path, "raw").state_dict().items():
        assert torch.equal(value, model.state_dict()[name] + 1e-3), name
    assert load_released(path, num_heads=2).config.num_heads == 2


def test_known_widths_have_their_heads(tmp_path):
    model = ChexGenTransformer(**TINY | dict(hidden_size=384, num_heads=6, depth=1))
    assert load_released(checkpoint(tmp_path / "s.pth", model)).config.num_heads == SIZES["s2"].num_heads


class Code:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_other_files_are_refused(tmp_path):
    model = ChexGenTransformer(**TINY)
    good = checkpoint(tmp_path / "good.pth", model)
    bad = tmp_path / "bad.pth"

    def refused(match: str, **options):
        with pytest.raises(CheckpointError, match=match) as caught:
            load_released(bad, **options)
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)

    refused("does not exist")
    bad.write_bytes(good.read_bytes()[:5000])
    refused("truncated.*: fetch it again")
    bad.write_bytes(b"")
    refused("truncated or no PyTorch checkpoint: fetch it again")
    bad.write_text("epoch,step\n")
    refused("no file of tensors|truncated")
    bad.write_bytes(pickle.dumps({"state_dict_ema": Code()}))
    refused("never executed: fetch it again")
    torch.save({"state_dict_ema": Code()}, bad)
    refused("never executed")
    torch.save([1, 2], bad)
    refused("found: list")
    torch.save({"model": {}}, bad)
    refused("has no 'state_dict_ema'; found: model")
    torch.save({"state_dict_ema": {"epoch": 3}}, bad)
    refused("holds no tensors, but epoch")
    torch.save({"state_dict_ema": {"conv.weight": torch.zeros(2)}}, bad)
    refused("no ChexGen model")
    state = model.state_dict()
    torch.save({"state_dict_ema": {k: v for k, v in state.items() if "blocks.1.mlp" not in k}}, bad)
    refused("do not form a ChexGen model.*blocks.1.mlp")
    torch.save({"state_dict_ema": state | {"pos_embed": torch.rand(1, 16, 128)}}, bad)
    refused("known scale")
    refused("weights must be one of ema, raw", weights="best")
