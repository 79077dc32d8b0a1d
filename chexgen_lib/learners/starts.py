"""Where a classifier's weights start: at random, from ImageNet, or from RAD-DINO (paper, Supervised pretraining).

The weights are others' (`chexgen weights`); nothing is downloaded here. ImageNet's network reads three standardised
channels, and a radiograph has one in -1..1: scale and offset of the channels are taken into its first layer and the
normalisation after it, so that it computes the same, but for the frame of three pixels that convolutions pad.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chexgen_lib.learners.classifier import SIZES, ClassifierSize
from chexgen_lib.models import weights_fetch, weights_store
from chexgen_lib.models.weights_catalogue import WeightsFileError, named

RANDOM, IMAGENET, RAD_DINO = "random", "imagenet", "rad-dino"
WEIGHTS = {IMAGENET: "imagenet-densenet121", RAD_DINO: "rad-dino"}  # names in the catalogue
MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, 0..1
_OLD_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")  # of torchvision's DenseNet files


@dataclass(frozen=True)
class ImageNetSize(ClassifierSize):
    """A DenseNet that starts from ImageNet's weights in a file of torchvision."""

    path: Path

    def network(self, labels: int) -> nn.Module:
        net = super().network(labels)
        state = grey_state(self.path) | {f"classifier.{k}": v for k, v in net.classifier.state_dict().items()}
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsFileError(
                f"{self.path} holds weights of another size than the classifier's (DenseNet121 is called paper): "
                f"{str(error).splitlines()[1].strip()}"
            ) from error
        return net


@dataclass(frozen=True)
class RadDinoSize:
    """RAD-DINO (Perez-Garcia et al. 2025) with a linear layer on its class token; `path` is the model's folder."""

    input_size: int
    path: Path

    def network(self, labels: int) -> nn.Module:
        return RadDino(self.path, labels)

    @staticmethod
    def pooled(net: nn.Module, x: Tensor) -> Tensor:
        return net.pooled(x)


class RadDino(nn.Module):
    """[N, 1, S, S] in -1..1 -> logits [N, L]."""

    def __init__(self, path: Path, labels: int):
        from transformers import Dinov2Model  # takes seconds to import: only where it is used

        super().__init__()
        self.backbone = Dinov2Model.from_pretrained(path, local_files_only=True, use_safetensors=True)
        self.classifier = nn.Linear(self.backbone.config.hidden_size, labels)
        standard = json.loads((path / "preprocessor_config.json").read_text())
        for name, key in (("mean", "image_mean"), ("sd", "image_std")):
            self.register_buffer(name, torch.tensor(standard[key])[:, None, None])

    def pooled(self, x: Tensor) -> Tensor:
        """[N, 1, S, S] -> the class token [N, D]."""
        pixels = ((x + 1) / 2 - self.mean) / self.sd  # [N, 3, S, S]
        return self.backbone(pixel_values=pixels).pooler_output

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pooled(x))


def size_of(size: str | Mapping[str, Any], start: str) -> Any:
    """What `LearnerConfig.size` is for a classifier of a size that starts so.

    Args:
        size: a name in `SIZES`, or the fields of `ClassifierSize`; RAD-DINO has a shape of its own.
        start: random, imagenet or rad-dino.

    Raises:
        ValueError: for an unknown start or size.
        WeightsFileError: if its weights are not there; the message has the command that gets them.
    """
    if start not in (RANDOM, *WEIGHTS):
        raise ValueError(f"start {start!r}: use one of {', '.join((RANDOM, *WEIGHTS))}")
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"size {size!r}: use one of {', '.join(SIZES)}")
    shape = SIZES[size] if isinstance(size, str) else ClassifierSize(**size)
    if start == RANDOM:
        return shape
    weight = named(WEIGHTS[start])
    path = weights_store.find(weight)
    if path is None:
        raise WeightsFileError(
            f"a classifier is to start from {start}, and {weight.name} is not there: {weights_fetch.remedy(weight)}, "
            f"or set its start to {RANDOM}"
        )
    if start == IMAGENET:
        return ImageNetSize(**asdict(shape), path=path)
    crop = json.loads((path / "preprocessor_config.json").read_text())["crop_size"]
    return RadDinoSize(crop["height"] if isinstance(crop, Mapping) else crop, path)


def grey_state(path: Path) -> dict[str, Tensor]:
    """torchvision's DenseNet weights for one channel in -1..1, without the last layer."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {_OLD_NAME.sub(r"\1\2", name): tensor for name, tensor in state.items()}
    mean, sd = (torch.tensor(values)[None, :, None, None] for values in (MEAN, SD))
    colour = state["features.conv0.weight"]  # [C, 3, 7, 7]
    state["features.conv0.weight"] = (colour / (2 * sd)).sum(1, keepdim=True)
    offset = (colour * (0.5 - mean) / sd).sum((1, 2, 3))  # what a grey of 0 adds
    state["features.norm0.running_mean"] = state["features.norm0.running_mean"] - offset
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
