"""Reading the checkpoints that the authors of ChexGen released (`epoch_*_step_*.pth`, text-to-image or control)."""

import math
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.layers import position_embedding
from chexgen_lib.models.transformer import SIZES, ChexGenTransformer

WEIGHTS = {"ema": "state_dict_ema", "raw": "state_dict"}


class CheckpointError(ValueError):
    """A file that is not a complete ChexGen checkpoint."""


def load_released(
    path: str | Path, weights: str = "ema", num_heads: int | None = None
) -> ChexGenTransformer | ControlledTransformer:
    """The model of a released checkpoint, in eval mode; sizes are read off its tensors.

    No code in the file is executed. The prefix `module.`, which training on several GPUs leaves on the names, is
    removed.

    Args:
        weights: "ema" (what the authors sample with) or "raw".
        num_heads: attention heads, which no tensor reveals. By default those of the named size (`SIZES`) with this
            width, else one for every 32 channels.

    Raises:
        CheckpointError: the file is missing, truncated, holds code or something else, or lacks tensors.
    """
    path = Path(path)
    if weights not in WEIGHTS:
        raise CheckpointError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    state = _read(path, WEIGHTS[weights])
    try:
        if any(name.startswith("base_model.") for name in state):
            base = {k.removeprefix("base_model."): v for k, v in state.items() if k.startswith("base_model.")}
            copied = 1 + max(int(m[1]) for k in state if (m := re.match(r"controlnet\.(\d+)\.", k)))
            model = _on_meta(ControlledTransformer, _config(base, num_heads), copied)
        else:
            model = _on_meta(ChexGenTransformer, **_config(state, num_heads))
        model.load_state_dict(state, strict=True, assign=True)
    except KeyError as error:
        raise CheckpointError(f"{path}: no ChexGen model, tensor {error} is missing from {WEIGHTS[weights]}") from error
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: its tensors do not form a ChexGen model: {reason}") from error
    return model.float().eval().requires_grad_(False)


def _read(path: Path, key: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist: name a released .pth") from error
    except pickle.UnpicklingError as error:  # torch's message tells how to execute the code
        raise CheckpointError(
            f"{path} is no file of tensors, or holds code, which is never executed: fetch it again"
        ) from error
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # on a damaged pickle torch's reader raises nearly anything
        said = f" ({' '.join(str(error).split())})" if str(error) else ""
        raise CheckpointError(f"{path} is truncated or no PyTorch checkpoint{said}: fetch it again") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} has no {key!r}; found: {found[:200] or 'an empty dict'}")
    state = {name.removeprefix("module."): value for name, value in content[key].items()}
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange or not state:
        raise CheckpointError(f"{path}: {key} holds no tensors, but {', '.join(strange[:5]) or 'nothing'}")
    return state


def _on_meta(model_class: type, *args, **kwargs) -> ChexGenTransformer | ControlledTransformer:
    with torch.device("meta"):
        return model_class(*args, **kwargs)


def _config(state: dict[str, Tensor], num_heads: int | None) -> dict:
    """The constructor's arguments that a text-to-image state dict implies."""
    hidden, in_channels, patch, _ = state["x_embedder.proj.weight"].shape
    grid = math.isqrt(state["pos_embed"].shape[1])
    text_tokens, text_dim = state["y_embedder.y_embedding"].shape
    named = [size.num_heads for size in SIZES.values() if size.hidden_size == hidden]
    return dict(
        sample_size=grid * patch,
        in_channels=in_channels,
        out_channels=state["final_layer.linear.weight"].shape[0] // patch**2,
        patch_size=patch,
        hidden_size=hidden,
        depth=1 + max(int(m[1]) for k in state if (m := re.match(r"blocks\.(\d+)\.", k))),
        num_heads=num_heads or (named[0] if named else hidden // 32),
        text_dim=text_dim,
        text_tokens=text_tokens,
        position_scale=_position_scale(state["pos_embed"], hidden, grid),
    )


def _position_scale(stored: Tensor, hidden: int, grid: int) -> float:
    """Which scale the stored embedding was made with; averaging has moved it by a few 1e-4 at most."""
    scales = [2.0**k for k in range(-2, 5)]
    errors = [(position_embedding(hidden, grid, scale) - stored[0]).abs().max().item() for scale in scales]
    if min(errors) > 1e-2:
        raise ValueError("pos_embed is not the sine-cosine embedding at any known scale")
    return scales[errors.index(min(errors))]
