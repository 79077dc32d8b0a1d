"""Detection of findings and foreign objects: a Faster R-CNN, its training, mAP50 and mAR50.

The paper trains a Faster R-CNN with ResNet50 and feature pyramid at 1000 px for 70,000 steps with a base learning rate
of 1e-3 in batches of 8 (Methods, "Training data augmentation experiments"; ED Table 7); one with a small ResNet stands
in where there is no GPU. A box is a dict of `class` and x, y, w, h, its left, top, width and height as fractions of the
image; a predicted one also has a `score` in 0..1. An image without boxes shows none of the classes. A class without a
location (ED Table 7 lists No Finding) needs boxes from the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign, box_area, box_convert, box_iou

from chexgen_lib import images as im
from chexgen_lib.learners.base import Check, Learner, LearnerConfig, fit, random_rows
from chexgen_lib.stored_images import unread

Boxes = Sequence[Sequence[dict]]  # of each image, its boxes
IOU = 0.5  # intersection over union from which a predicted box is a hit: the 50 of mAP50
TOGETHER = 4_000_000  # counts of predicted boxes in resamples that are in memory at once
OVERALL = "Overall"  # the mean over the classes, as ED Table 7 calls it
SMALLEST_REST = 0.25  # share of a box's area that must remain in the augmented image, or the box is dropped


@dataclass(frozen=True)
class DetectorSize:
    """Shape of the Faster R-CNN; `input_size` is the side, in pixels, that images are resized to.

    channels: of each level of a small ResNet, the first at a quarter of the side; None: ResNet50 (the paper's).
    """

    input_size: int
    channels: tuple[int, int, int, int] | None


SIZES = {
    "ci": DetectorSize(64, (8, 16, 32, 32)),
    "small": DetectorSize(64, (16, 32, 64, 64)),  # for many trainings on a CPU
    "laptop": DetectorSize(128, (16, 32, 64, 64)),
    "paper": DetectorSize(1000, None),
}


class Detector(Learner):
    """A Faster R-CNN for `classes` with the history of its training; see `train_detector`."""

    def __init__(self, size: DetectorSize, classes: tuple[str, ...], *, device: str = "cpu"):
        super().__init__(_network(size, len(classes)), size, device)
        self.classes = classes

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """As `Learner.prepare`, of square images: [N, S, S] -> [N, 1, size, size].

        Raises:
            ImageError: if the images are not square: a crop would move the boxes.
        """
        if images.shape[1] != images.shape[2]:
            raise im.ImageError(f"needs square images [N, S, S], got shape {images.shape}")
        return super().prepare(images)

    @torch.inference_mode()
    def predict(self, images: np.ndarray, batch_size: int = 16) -> list[list[dict]]:
        """Predicted boxes of each of the images [N, S, S], the highest score first."""
        predictions = [one for pixels in self.batches(images, batch_size) for one in self.net(list(pixels))]
        return [self._named(**one) for one in predictions]

    def _named(self, boxes: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor) -> list[dict]:
        """torchvision's boxes [n, 4] (corners in pixels), labels [n] (0: background) and scores [n] as dicts."""
        fractions = box_convert(boxes / self.size.input_size, "xyxy", "xywh").tolist()
        return [
            {"class": self.classes[label - 1], **dict(zip("xywh", box, strict=True)), "score": score}
            for box, label, score in zip(fractions, labels.tolist(), scores.tolist(), strict=True)
        ]


@torch.random.fork_rng()
def train_detector(
    images: np.ndarray,
    boxes: Boxes,
    classes: tuple[str, ...],
    config: LearnerConfig,
    *,
    val: tuple[np.ndarray, Boxes] | None = None,
) -> Detector:
    """Train on images [N, S, S], float in [0, 1] or uint8, and the boxes of each, of which some may have none.

    Small random shifts and scalings.

    Args:
        config: its `size` is a name in `SIZES` or a `DetectorSize`.
        val: images and boxes of the validation split: the checkpoint is the one with the best mAP50 on it, the last of
            equals. None keeps the last weights.

    Raises:
        ValueError: if images and boxes do not fit, or a box is of no class or not inside its image; it names the row.
        ImageError: if the images are not square.
    """
    images, check = unread(images), None
    config = config.over(len(images))
    check_boxes(boxes, classes, len(images), "train")
    if val is not None:
        check_boxes(val[1], classes, len(val[0]), "val")
        if not any(val[1]):
            raise ValueError("val: no image has a box, so no weights can be chosen; give images with boxes, or None")
        check = Check(lambda: evaluate(val[1], detector.predict(val[0]), classes)["map"].item(), "val_map50")
    torch.manual_seed(config.seed)  # also for torchvision, which samples among anchors and proposals
    detector = Detector(config.size_in(SIZES), classes, device=config.device)
    rng, noise = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)

    def loss_of() -> torch.Tensor:
        rows = random_rows(len(images), config.batch_size, rng)
        pixels = detector.prepare(images[rows])
        pixels, targets = augment(pixels, [_tensors(boxes[row], classes) for row in rows], noise)
        return sum(detector.net(list(pixels), targets).values())

    fit(detector, loss_of, config, check)
    return detector


def check_boxes(boxes: Boxes, classes: tuple[str, ...], n: int, name: str) -> None:
    """Raise ValueError that names the list and the row unless there are `n` lists of valid boxes."""
    if len(boxes) != n:
        raise ValueError(f"{name}: {n} images need as many lists of boxes (empty ones for none), got {len(boxes)}")
    for row, box in ((row, box) for row, own in enumerate(boxes) for box in own):
        if missing := [key for key in ("class", *"xywh") if key not in box]:
            raise ValueError(f"{name} row {row}: box {box} lacks {missing}")
        if box["class"] not in classes:
            raise ValueError(f"{name} row {row}: box of {box['class']!r}; leave it out, or use one of {list(classes)}")
        x, y, w, h = (box[key] for key in "xywh")
        if not (w > 0 and h > 0 and min(x, y) >= 0 and max(x + w, y + h) <= 1 + 1e-5):
            raise ValueError(
                f"{name} row {row}: box {box} needs w, h > 0 and must lie in the image (fractions 0..1 of its sides)"
            )


def augment(
    pixels: torch.Tensor, boxes: list[dict[str, torch.Tensor]], generator: torch.Generator
) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Images [N, 1, S, S] and their boxes (`_tensors`), shifted (sd 2 %) and scaled (sd 3 %) alike.

    No rotation, which would loosen the boxes, and no flip, since a finding's side matters. Boxes are cut off at the
    image's edge. Returned as torchvision takes them: corners in pixels.
    """
    dx, dy, zoom = torch.randn(3, len(pixels), generator=generator) * torch.tensor([[0.04], [0.04], [0.03]])
    zero, zoom = torch.zeros(len(pixels)), 1 + zoom
    matrix = torch.stack([zoom, zero, dx, zero, zoom, dy], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(matrix.to(pixels), list(pixels.shape), align_corners=False)
    shift = torch.stack([dx, dy, dx, dy], 1)  # [N, 4]
    targets = []
    for i, one in enumerate(boxes):
        corners = box_convert(one["boxes"], "xywh", "xyxy")  # [n, 4]
        # affine_grid maps pixels of the result to their origin, in -1..1; boxes need the inverse
        moved = ((2 * corners - 1 - shift[i]) / zoom[i] + 1) / 2
        inside = moved.clamp(0, 1)
        kept = box_area(inside) >= SMALLEST_REST * box_area(moved)
        labels = one["labels"][kept] + 1  # 0 is torchvision's background
        targets.append({"boxes": (inside[kept] * pixels.shape[-1]).to(pixels), "labels": labels.to(pixels.device)})
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False), targets


# Measures


def evaluate(truth: Boxes, predicted: Boxes, classes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """What torchmetrics' MeanAveragePrecision computes at `IOU`, overall and of each class (-1: no true box)."""
    metric = _metric()
    metric.update(*([_tensors(one, classes) for one in boxes] for boxes in (predicted, truth)))
    return metric.compute()


def resampled(truth: Boxes, predicted: Boxes, classes: tuple[str, ...], counts: np.ndarray) -> np.ndarray:
    """AP and AR of each class, then their means, where image i counts counts[b, i] times: [B, C + 1, 2].

    counts: [B, n]. NaN for a class without a true box, which is left out of the means.
    """
    from monai.apps.detection.metrics.matching import matching_batch  # takes seconds to import: only where it is used

    true, guess = ([_arrays(one, classes) for one in boxes] for boxes in (truth, predicted))
    matches = matching_batch(
        lambda a, b: box_iou(torch.from_numpy(a).double(), torch.from_numpy(b).double(), fmt="xywh").numpy(),
        [IOU],
        *([one[key] for one in guess] for key in ("boxes", "labels", "scores")),
        *([one[key] for one in true] for key in ("boxes", "labels")),
    )
    recalls = _metric().rec_thresholds
    values = np.full((len(counts), len(classes), 2), np.nan)
    for c in range(len(classes)):
        here = [(i, match[c]) for i, match in enumerate(matches) if c in match]
        image = np.array([i for i, match in here for _ in match["dtScores"]], np.int64)  # [D]: of each predicted box
        score = np.concatenate([match["dtScores"] for _, match in here] or [[]])
        hit = np.concatenate([match["dtMatches"][0] for _, match in here] or [[]])
        order = np.argsort(-score, kind="stable")
        total = counts @ np.array([(one["labels"] == c).sum() for one in true])  # [B]
        shown = np.flatnonzero(total)
        for rows in np.array_split(shown, 1 + len(shown) * len(hit) // TOGETHER) if len(shown) else ():
            values[rows, c] = average_precision(hit[order], counts[rows][:, image[order]], total[rows], recalls)
    mean = np.ma.masked_invalid(values).mean(axis=1, keepdims=True).filled(np.nan)
    return np.concatenate([values, mean], axis=1)


def average_precision(hit: np.ndarray, count: np.ndarray, total: np.ndarray, recalls: Sequence[float]) -> np.ndarray:
    """COCO's average precision, interpolated at `recalls`, and the recall of all predicted boxes together: [B, 2].

    hit: [D], whether each box, the highest score first, hits a true one; count: [B, D], how often it counts in each
    resample; total: [B], number of true boxes.
    """
    if not len(hit):
        return np.zeros((len(total), 2))
    hits = (hit * count).cumsum(axis=1)
    precision = hits / np.maximum(count.cumsum(axis=1), 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[
        :, ::-1
    ]  # the best precision at this recall or a larger one
    recall = hits / total[:, None]
    reached = np.stack([np.searchsorted(own, recalls) for own in recall])
    at = np.take_along_axis(np.pad(best, ((0, 0), (0, 1))), reached, axis=1)
    return np.column_stack([at.mean(axis=1), recall[:, -1]])


def to_arrays(boxes: Boxes, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Boxes of many images as arrays: image and label [D], place [D, 4], and score [D] of predicted ones."""
    arrays = [_arrays(one, tuple(classes)) for one in boxes]
    stored = {"image": np.repeat(np.arange(len(boxes)), [len(one) for one in boxes])}
    stored["label"] = np.concatenate([one["labels"] for one in arrays])
    stored["place"] = np.concatenate([one["boxes"] for one in arrays])
    if all("scores" in one for one in arrays):
        stored["score"] = np.concatenate([one["scores"] for one in arrays])
    return stored


def from_arrays(stored: dict[str, np.ndarray], n: int, classes: Sequence[str]) -> list[list[dict]]:
    """The boxes of n images that `to_arrays` stored."""
    boxes: list[list[dict]] = [[] for _ in range(n)]
    for k, (image, label) in enumerate(zip(stored["image"].tolist(), stored["label"].tolist(), strict=True)):
        box = {"class": classes[label], **dict(zip("xywh", stored["place"][k].tolist(), strict=True))}
        boxes[image].append(box | {"score": float(stored["score"][k])} if "score" in stored else box)
    return boxes


def _metric() -> nn.Module:
    from torchmetrics.detection import MeanAveragePrecision

    return MeanAveragePrecision("xywh", iou_thresholds=[IOU], class_metrics=True)


def _arrays(boxes: Sequence[dict], classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Boxes of one image as float32 [n, 4] (x, y, w, h), labels int64 [n] and, if predicted, scores float32 [n]."""
    arrays = {
        "boxes": np.array([[box[k] for k in "xywh"] for box in boxes], np.float32).reshape(-1, 4),
        "labels": np.array([classes.index(box["class"]) for box in boxes], np.int64),
    }
    if all("score" in box for box in boxes):
        arrays["scores"] = np.array([box["score"] for box in boxes], np.float32)
    return arrays


def _tensors(boxes: Sequence[dict], classes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(values) for key, values in _arrays(boxes, classes).items()}


def _network(size: DetectorSize, classes: int) -> nn.Module:
    side = {"min_size": size.input_size, "max_size": size.input_size}
    if size.channels is None:
        # pixels are in -1..1 already; three zeros also make three channels of the grey one
        plain = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
        return fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes + 1, **side, **plain)
    from monai.networks.nets import ResNet

    resnet = ResNet("basic", (1, 1, 1, 1), size.channels, 2, n_input_channels=1, conv1_t_stride=2, feed_forward=False)
    levels = {f"layer{i + 1}": str(i) for i in range(4)}
    width, pooled = size.channels[-1], 5
    # an anchor size for each level and the pool on top: 1/16 of the side, then doubled
    sizes = tuple((size.input_size * 2**i // 16,) for i in range(5))
    pool = MultiScaleRoIAlign(
        list(levels.values()),
        output_size=pooled,
        sampling_ratio=1,
        canonical_scale=size.input_size // 4,  # boxes of this side are pooled from the second level
        canonical_level=3,
    )
    return FasterRCNN(
        BackboneWithFPN(resnet, levels, list(size.channels), width),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5),
        # a small image needs far fewer proposals than torchvision's defaults, which would take most of the time
        rpn_pre_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=100,
        rpn_batch_size_per_image=32,
        box_roi_pool=pool,
        box_head=TwoMLPHead(width * pooled**2, 2 * width),
        box_predictor=FastRCNNPredictor(2 * width, classes + 1),
        box_batch_size_per_image=16,
        image_mean=[0.0],
        image_std=[1.0],
        **side,
    )
