"""Segmentation of anatomy and findings: a U-Net, its training, and Dice.

The paper trains a U-Net with a ResNet34 encoder at 512 px, 40 epochs of AdamW at 1e-3 in batches of 32 (Methods,
"Training data augmentation experiments"); a small U-Net stands in where there is no GPU.
"""

from dataclasses import dataclass

import numpy as np
import torch
from monai.losses import DiceLoss
from monai.networks.nets import FlexibleUNet, UNet
from torch import nn
from torch.nn import functional as F

from chexgen_lib import images as im
from chexgen_lib.learners.base import fit, network_input
from chexgen_lib.learners.classifier import random_places


@dataclass(frozen=True)
class SegmenterSize:
    """Shape of the U-Net; `input_size` is the side, in pixels, that images are resized to.

    channels: of each level, halving the side; None: the levels of a ResNet34 (the paper's).
    """

    input_size: int
    channels: tuple[int, ...] | None


SIZES = {
    "ci": SegmenterSize(64, (8, 16, 32)),
    "small": SegmenterSize(64, (16, 32, 64, 128)),  # for many trainings on a CPU
    "laptop": SegmenterSize(128, (16, 32, 64, 128)),
    "paper": SegmenterSize(512, None),
}


class Segmenter:
    """A trained U-Net for `classes`, which may overlap, with the history of its training; see `train_segmenter`."""

    def __init__(self, size: SegmenterSize, classes: tuple[str, ...], *, device: str = "cpu"):
        self.size, self.classes, self.device = size, classes, device
        self.history: list[dict] = []  # per check: step, loss, validation Dice
        self.net = _network(size, len(classes)).to(device)

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """[N, H, W], float in [0, 1] or uint8 -> [N, 1, size, size] in [-1, 1]."""
        return network_input(images, self.size.input_size, self.device)

    @torch.inference_mode()
    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Bool masks [N, C, H, W] of images [N, H, W], at the images' size."""
        images = np.asarray(images)
        if images.ndim != 3 or len(images) == 0:
            raise im.ImageError(f"needs at least one image as [N, H, W], got shape {images.shape}")
        self.net.eval()
        masks = []
        for start in range(0, len(images), batch_size):
            logits = self.net(self.prepare(images[start : start + batch_size]))
            if logits.shape[2:] != images.shape[1:]:
                logits = F.interpolate(logits, size=images.shape[1:], mode="bilinear", antialias=True)
            masks.append((logits > 0).cpu().numpy())
        return np.concatenate(masks)


def train_segmenter(
    images: np.ndarray,
    masks: np.ndarray,
    classes: tuple[str, ...],
    *,
    seed: int,
    steps: int,
    size: str = "laptop",
    batch_size: int = 16,
    learning_rate: float = 3e-3,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    check_every: int = 50,
    device: str = "cpu",
) -> Segmenter:
    """Train on images [N, H, W] and bool masks [N, C, H, W], one channel a class.

    AdamW, one-cycle learning rate, Dice plus cross-entropy, small random rotations, shifts and scalings. With `val`,
    images and masks of the validation split, the weights are those with the best `pooled_dice` on it, looked at every
    `check_every` steps and after the last; without, the last. The result is a function of the data and `seed` (on one
    device with one number of threads).

    A class without a pixel is learnt as absent.

    Raises:
        ValueError: if images, masks and classes do not fit, or a class has no pixel in `val`: no moment is best.
    """
    images, masks = _check(images, masks, classes, "train")
    if val is not None:
        val = _check(*val, classes, "val")
        if empty := [name for c, name in enumerate(classes) if not val[1][:, c].any()]:
            raise ValueError(f"val: no image shows {empty}, so no weights can be chosen; give images that do, or None")
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for the initial weights only; everything else has its own generator
        segmenter = Segmenter(SIZES[size], classes, device=device)
    net, rng, noise = segmenter.net, np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    dice_loss = DiceLoss(sigmoid=True, batch=True)

    def loss_of() -> torch.Tensor:
        rows = np.sort(rng.choice(len(images), min(batch_size, len(images)), replace=False))
        pixels = segmenter.prepare(images[rows])
        target = torch.from_numpy(masks[rows]).to(pixels)
        target = F.interpolate(target, size=pixels.shape[2:], mode="nearest")
        places = random_places(pixels, noise)  # the image and its masks move alike
        pixels = F.grid_sample(pixels, places, padding_mode="border", align_corners=False)
        target = F.grid_sample(target, places, mode="nearest", padding_mode="border", align_corners=False)
        logits = net(pixels)
        # Classes may overlap, so each channel has a cross-entropy of its own.
        return dice_loss(logits, target) + F.binary_cross_entropy_with_logits(logits, target)

    segmenter.history = fit(
        net,
        loss_of,
        steps=steps,
        learning_rate=learning_rate,
        name="segmenter",
        check=val and (lambda: pooled_dice(segmenter.predict(val[0]), val[1])),
        metric="val_dice",
        check_every=check_every,
    )
    return segmenter


def pooled_dice(found: np.ndarray, asked: np.ndarray) -> float:
    """Dice of each class over the pixels of all images together, averaged over the classes: bool [N, C, H, W] twice.

    What is found in an image that shows nothing costs as much as what is missed, however rare positive images are.
    """
    overlap = (found & asked).sum(axis=(0, 2, 3))
    return float(np.mean(2 * overlap / np.maximum(found.sum(axis=(0, 2, 3)) + asked.sum(axis=(0, 2, 3)), 1)))


def dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dice coefficient of bool masks [..., H, W]: twice the overlap over both areas; 1 where both are empty."""
    overlap = (a & b).sum(axis=(-2, -1))
    areas = a.sum(axis=(-2, -1)) + b.sum(axis=(-2, -1))
    return np.where(areas == 0, 1.0, 2 * overlap / np.maximum(areas, 1))


def _check(images: np.ndarray, masks: np.ndarray, classes: tuple[str, ...], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks as arrays, or ValueError that names the split."""
    images, masks = np.asarray(images), np.asarray(masks)
    if masks.shape != (len(images), len(classes), *images.shape[1:]) or masks.dtype != bool or len(images) < 2:
        raise ValueError(
            f"{name}: needs images [N, H, W] and bool masks [N, {len(classes)}, H, W] with N >= 2, got {images.shape} "
            f"and {masks.dtype} {masks.shape}"
        )
    return images, masks


def _network(size: SegmenterSize, classes: int) -> nn.Module:
    if size.channels is None:
        return FlexibleUNet(in_channels=1, out_channels=classes, backbone="resnet34", spatial_dims=2)
    strides = (2,) * (len(size.channels) - 1)
    return UNet(2, in_channels=1, out_channels=classes, channels=size.channels, strides=strides, norm="batch")
