"""Segmentation of anatomy and findings: a U-Net, its training, and Dice.

The paper trains a U-Net with a ResNet34 encoder at 512 px, 40 epochs of AdamW at 1e-3 in batches of 32 (Methods,
"Training data augmentation experiments"); a small U-Net stands in where there is no GPU.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from chexgen_lib.learners.base import Check, Learner, LearnerConfig, fit, random_grids, random_rows, seeded
from chexgen_lib.stored_images import unread


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
SHARES = (0, 0.0025, 0.005, 0.01, 0.02, 0.04)  # of the image, candidates for a class's smallest mask


class Segmenter(Learner):
    """A U-Net for `classes`, which may overlap, with the history of its training; see `train_segmenter`.

    Attributes:
        smallest: of each class, share of the image; what is smaller is taken for no mask.
    """

    def __init__(self, size: SegmenterSize, classes: tuple[str, ...], *, device: str = "cpu"):
        super().__init__(_network(size, len(classes)), size, device)
        self.classes = classes
        self.smallest = np.zeros(len(classes))

    @torch.inference_mode()
    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Bool masks [N, C, H, W] of images [N, H, W], at the images' size."""
        masks, sides = [], np.shape(images)[1:]
        for pixels in self.batches(images, batch_size):
            logits = self.net(pixels)
            if logits.shape[2:] != sides:
                logits = F.interpolate(logits, size=sides, mode="bilinear", antialias=True)
            masks.append((logits > 0).cpu().numpy())
        return without_small(np.concatenate(masks), self.smallest)


def train_segmenter(
    images: np.ndarray,
    masks: np.ndarray,
    classes: tuple[str, ...],
    config: LearnerConfig,
    *,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    known: np.ndarray | None = None,
) -> Segmenter:
    """Train on images [N, H, W], float in [0, 1] or uint8, and bool masks [N, C, H, W], one channel a class.

    Dice plus cross-entropy; small random rotations, shifts and scalings. A class without a pixel is learnt as absent.

    Args:
        config: its `size` is a name in `SIZES` or a `SegmenterSize`.
        val: images and masks of the validation split: the checkpoint is the one with the best `pooled_dice` on it, the
            last of equals, and then each class's `Segmenter.smallest` the share of `SHARES` with the best. None keeps
            the last weights, and masks of any size.
        known: bool [N, C], which classes are annotated in each image; others do not count in the loss. None: all.

    Raises:
        ValueError: if images, masks and classes do not fit, or a class has no pixel in `val`: no checkpoint is best.
    """
    from monai.losses import DiceLoss  # takes seconds to import: only where a network is trained

    images, masks = _check(images, masks, classes, "train")
    config = config.over(len(images))
    check = None
    if val is not None:
        val = _check(*val, classes, "val")
        if empty := [name for c, name in enumerate(classes) if not val[1][:, c].any()]:
            raise ValueError(f"val: no image shows {empty}, so no weights can be chosen; give images that do, or None")
        check = Check(lambda: pooled_dice(segmenter.predict(val[0]), val[1]), "val_dice")
    segmenter = seeded(lambda: Segmenter(config.size_in(SIZES), classes, device=config.device), config.seed)
    rng, noise = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    dice_loss = DiceLoss(sigmoid=True, batch=True)

    def loss_of() -> torch.Tensor:
        rows = random_rows(len(images), config.batch_size, rng)
        pixels = segmenter.prepare(images[rows])
        target = torch.from_numpy(masks[rows]).to(pixels)
        target = F.interpolate(target, size=pixels.shape[2:], mode="nearest")
        grids = random_grids(pixels, noise)  # the image and its masks move alike
        pixels = F.grid_sample(pixels, grids, padding_mode="border", align_corners=False)
        target = F.grid_sample(target, grids, mode="nearest", padding_mode="border", align_corners=False)
        logits = segmenter.net(pixels)
        if known is not None:
            return _loss_of_known(logits, target, torch.from_numpy(known[rows]).to(pixels.device))
        # Classes may overlap, so each channel has a cross-entropy of its own.
        return dice_loss(logits, target) + F.binary_cross_entropy_with_logits(logits, target)

    fit(segmenter, loss_of, config, check)
    if val is not None:
        segmenter.smallest = _best_smallest(segmenter.predict(val[0]), val[1])
    return segmenter


def _loss_of_known(logits: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Dice plus cross-entropy of logits and targets [N, C, H, W] over the known classes, bool [N, C]."""
    from monai.losses import DiceLoss

    known = known[:, :, None, None].expand_as(logits)
    absent = torch.finfo(logits.dtype).min / 2  # as sure as can be: adds nothing to Dice, and has no gradient
    dice = DiceLoss(sigmoid=True, batch=True)(logits.masked_fill(~known, absent), target * known)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return dice + (entropy * known).sum() / known.sum().clamp(min=1)


def pooled_dice(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Dice of each class over the pixels of all images together, averaged over the classes: bool [N, C, H, W] twice.

    A false positive in an image without the class costs as much as a miss, however rare positive images are.
    """
    overlap = (predicted & truth).sum(axis=(0, 2, 3))
    return float(np.mean(2 * overlap / np.maximum(predicted.sum(axis=(0, 2, 3)) + truth.sum(axis=(0, 2, 3)), 1)))


def without_small(masks: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """Bool masks [N, C, H, W], those below a class's `smallest` share of the image emptied."""
    return masks & (masks.mean(axis=(2, 3)) >= smallest)[:, :, None, None]


def _best_smallest(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share [C] of `SHARES`, the smallest of equals, without whose smaller masks each class's Dice is best.

    Where most images are without a class, as pneumothorax, specks in them are most of what is predicted; winners of the
    SIIM-ACR challenge chose such a limit, too.
    """

    def best(c: int) -> float:
        one = slice(c, c + 1)
        return max(SHARES, key=lambda share: pooled_dice(without_small(predicted[:, one], share), truth[:, one]))

    return np.array([best(c) for c in range(truth.shape[1])])


def dice(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Dice coefficient of bool masks [..., H, W]: twice the overlap over both areas; 1 where both are empty."""
    overlap = (a & b).sum(axis=(-2, -1))
    areas = a.sum(axis=(-2, -1)) + b.sum(axis=(-2, -1))
    return np.where(areas == 0, 1.0, 2 * overlap / np.maximum(areas, 1))


def _check(images: np.ndarray, masks: np.ndarray, classes: tuple[str, ...], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks as arrays, or ValueError that names the split."""
    images, masks = unread(images), masks if hasattr(masks, "shape") else np.asarray(masks)
    if masks.shape != (len(images), len(classes), *images.shape[1:]) or masks.dtype != bool or len(images) < 2:
        raise ValueError(
            f"{name}: needs images [N, H, W] and bool masks [N, {len(classes)}, H, W] with N >= 2, got {images.shape} "
            f"and {masks.dtype} {masks.shape}"
        )
    return images, masks


def _network(size: SegmenterSize, classes: int) -> nn.Module:
    from monai.networks.nets import FlexibleUNet, UNet

    if size.channels is None:
        return FlexibleUNet(in_channels=1, out_channels=classes, backbone="resnet34", spatial_dims=2)
    strides = (2,) * (len(size.channels) - 1)
    return UNet(2, in_channels=1, out_channels=classes, channels=size.channels, strides=strides, norm="batch")
