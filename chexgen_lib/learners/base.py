"""What the networks of the experiments share: their settings, how images enter them, and the loop that trains them."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from chexgen_lib import images as im
from chexgen_lib.models.loading import fastest_device
from chexgen_lib.stored_images import unread


@dataclass(frozen=True)
class LearnerConfig:
    """How a network is trained; the result is a function of the data and these settings.

    (For a given device and number of threads.)

    Attributes:
        steps: of the optimiser, however many images there are; None if `epochs` are given.
        seed: of initial weights, batches and augmentation.
        size: a name in the learner's `SIZES`, or a size itself.
        learning_rate: the maximum of a one-cycle schedule.
        checks: how often the validation split is evaluated, evenly spread, the last time after the last step; after
            every step, if `epochs` are fewer.
        epochs: in place of `steps`: as many images as so many passes over the training images have (`over`), which a
            learner may draw at random.
    """

    steps: int | None
    seed: int = 0
    size: Any = "laptop"
    batch_size: int = 32
    learning_rate: float = 3e-3
    checks: int = 8
    device: str = "cpu"
    epochs: float | None = None

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs of a training, got steps {self.steps}, epochs {self.epochs}")

    def over(self, images: int) -> "LearnerConfig":
        """These settings in steps, for a training set of so many images."""
        if self.epochs is None:
            return self
        steps = math.ceil(self.epochs * images / self.batch_size)
        return replace(self, steps=steps, checks=min(self.checks, steps), epochs=None)

    def size_in(self, sizes: Mapping[str, Any]) -> Any:
        """The size, looked up by its name. Raises ValueError for an unknown name."""
        if not isinstance(self.size, str):
            return self.size
        if self.size not in sizes:
            raise ValueError(f"size {self.size!r}: use one of {', '.join(sizes)}")
        return sizes[self.size]

    def check_steps(self) -> set[int]:
        """The steps after which the validation split is evaluated. Raises ValueError if there are too few."""
        if not 1 <= self.checks <= self.steps:
            raise ValueError(
                f"steps and checks must be at least 1, and steps at least checks; got {self.steps} and {self.checks}"
            )
        return {round(self.steps * (k + 1) / self.checks) for k in range(self.checks)}


class Learner:
    """A network that reads images, trained or not.

    Attributes:
        size: its shape; `size.input_size` is the side, in pixels, that images are resized to.
        history: of its training, see `fit`.
    """

    def __init__(self, net: nn.Module, size: Any, device: str):
        self.net = net.to(device, memory_format=torch.channels_last)  # convolutions are faster so
        self.size, self.device = size, device
        self.history: list[dict] = []

    def prepare(self, images: np.ndarray) -> Tensor:
        """[N, H, W], float in [0, 1] or uint8 -> [N, 1, size, size] in [-1, 1]."""
        x = im.from_uint8(images) if images.dtype == np.uint8 else images
        pixels = im.to_xrv(im.resize(x, self.size.input_size)) / 1024
        return pixels.to(self.device, memory_format=torch.channels_last)

    def batches(self, images: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        """Prepared batches to predict on, with the network in evaluation mode.

        Raises:
            ImageError: if there is no image, or the array is not [N, H, W].
        """
        images = unread(images)
        if images.ndim != 3 or len(images) == 0:
            raise im.ImageError(f"needs at least one image as [N, H, W], got shape {images.shape}")
        self.net.eval()
        return (self.prepare(images[i : i + batch_size]) for i in range(0, len(images), batch_size))

    def predict(self, images: np.ndarray) -> Sequence:
        """The network's prediction for each image."""
        raise NotImplementedError

    def predict_sets(self, images: np.ndarray, sets: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Predictions for several sets of rows of `images`, by name; all rows go through the network in one series."""
        predictions = self.predict(images[np.concatenate(list(sets.values()))])
        ends = np.cumsum([len(rows) for rows in sets.values()])
        return {name: predictions[end - len(rows) : end] for (name, rows), end in zip(sets.items(), ends, strict=True)}


@dataclass(frozen=True)
class Check:
    """How the weights to keep are chosen on a validation split.

    Attributes:
        measure: evaluates the network on the validation split.
        name: of the measure, in the history.
        lower_is_better: of the measure.
        keep_first: among equal checkpoints, keep the first; else the one trained longest, which matters for a measure
            that is 0 at the start.
    """

    measure: Callable[[], float]
    name: str
    lower_is_better: bool = False
    keep_first: bool = False

    def is_better(self, value: float, best: float | None) -> bool:
        if best is None or np.isnan(value):
            return not np.isnan(value)
        gain = best - value if self.lower_is_better else value - best
        return gain > 0 or (gain == 0 and not self.keep_first)


def fit(
    learner: Learner,
    loss_of: Callable[[], Tensor],
    config: LearnerConfig,
    check: Check | None = None,
) -> None:
    """Train a network by AdamW with a one-cycle learning rate, and leave it with the weights of its best checkpoint.

    `learner.history` gets, for each check, the step, the mean loss since the last one, and the measure.

    Args:
        loss_of: computes the loss of the next batch.
        check: chooses the checkpoint; None keeps the last weights.
    """
    net, rate = learner.net, config.learning_rate
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=config.steps)
    check_at = config.check_steps() if check else ()
    best, best_weights, losses = None, None, []
    with tqdm(range(1, config.steps + 1), desc=type(learner).__name__.lower(), unit="step") as bar:
        for step in bar:
            net.train()
            loss = loss_of()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.4f}")
            if step in check_at:
                value = check.measure()
                learner.history.append({"step": step, "loss": float(np.mean(losses)), check.name: value})
                losses = []
                if check.is_better(value, best):
                    best, best_weights = value, copy.deepcopy(net.state_dict())
    if best_weights is not None:
        net.load_state_dict(best_weights)


def seeded(make: Callable[[], Learner], seed: int) -> Learner:
    """A learner with the initial weights of a seed; torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def random_rows(n: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of one batch, drawn without replacement and sorted; all n if they are fewer than a batch."""
    return np.sort(rng.choice(n, min(batch_size, n), replace=False))


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """[N, 1, S, S], each slightly rotated, shifted and scaled (`random_grids`); the border is repeated."""
    return F.grid_sample(pixels, random_grids(pixels, generator), padding_mode="border", align_corners=False)


def random_grids(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Grids [N, S, S, 2] for `grid_sample`: rotations (sd 3 degrees), shifts (sd 2 %) and scalings (sd 3 %)."""
    spread = torch.tensor([[0.05], [0.04], [0.04], [0.03]])  # radians, half sides, half sides, share
    angle, dx, dy, scale = torch.randn(4, len(pixels), generator=generator) * spread
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    matrix = torch.stack([cos, -sin, dx, sin, cos, dy], 1).reshape(-1, 2, 3).to(pixels)
    return F.affine_grid(matrix, list(pixels.shape), align_corners=False)


def device_for(workers: int) -> str:
    """The device of trainings that `workers` processes run in parallel: a GPU only for a single process."""
    return "cpu" if workers else str(fastest_device())
