"""Multi-label classification of radiographs: a DenseNet and its training.

The paper trains DenseNet121 at 256 px (Methods, "Training data augmentation experiments"; ED Table 6), and the released
training runs keep the epoch that is best on the test set. Here the checkpoint is selected on the validation split, and
a small DenseNet of the same family stands in where there is no GPU. What is predicted are the 14 CheXpert findings, or
the label set of a dataset (`records.label_set`). Labels follow the Record contract: 1 present, 0 absent, NaN unknown;
unknown labels count neither in the loss nor in the AUROC.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from chexgen_lib.estimates.measures import macro_auroc
from chexgen_lib.learners.base import Check, Learner, LearnerConfig, augment, fit, seeded
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import replacing
from chexgen_lib.stored_images import unread


@dataclass(frozen=True)
class ClassifierSize:
    """Shape of the DenseNet; `input_size` is the side, in pixels, that images are resized to."""

    input_size: int
    init_features: int
    growth_rate: int
    block_config: tuple[int, ...]

    def network(self, labels: int) -> torch.nn.Module:
        """The network for so many labels, with random weights."""
        from torchvision.models import DenseNet  # takes seconds to import: only where there is a network

        net = DenseNet(self.growth_rate, self.block_config, self.init_features, num_classes=labels)
        net.features.conv0 = torch.nn.Conv2d(1, self.init_features, 7, stride=2, padding=3, bias=False)  # grey
        return net

    @staticmethod
    def pooled(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        """What the last layer reads: [N, 1, S, S] -> [N, dim]."""
        return F.relu(net.features(x)).mean((2, 3))


SIZES = {
    "ci": ClassifierSize(64, 16, 8, (2, 2, 2)),
    "laptop": ClassifierSize(128, 16, 8, (2, 4, 4, 4)),
    "small": ClassifierSize(64, 16, 8, (2, 4, 4)),  # for many trainings on a CPU
    "paper": ClassifierSize(256, 64, 32, (6, 12, 24, 16)),  # DenseNet121
}


HEAD = "classifier."  # how the weights of the last layer are named


class Classifier(Learner):
    """A network for `labels` with the history of its training; see `train_classifier`.

    Its `size` is a `ClassifierSize` or one of `starts`, which makes the network.
    """

    def __init__(self, size: ClassifierSize, labels: tuple[str, ...] = FINDINGS, *, device: str = "cpu"):
        net = size.network(len(labels))
        super().__init__(net, size, device)
        self.dim, self.labels = net.classifier.in_features, labels

    @torch.inference_mode()
    def _pooled(self, images: np.ndarray, batch_size: int = 64) -> torch.Tensor:
        """[N, H, W] -> [N, dim] after the final average pooling."""
        return torch.cat([self.size.pooled(self.net, x) for x in self.batches(images, batch_size)])

    @torch.inference_mode()
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probability of each label: [N, H, W] -> [N, L] float32, in the order of `labels`."""
        return self.net.classifier(self._pooled(images)).sigmoid().cpu().numpy()

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features after the final average pooling: [N, H, W] -> [N, dim] float32."""
        return self._pooled(images).cpu().numpy()

    def with_labels(self, labels: tuple[str, ...], device: str = "cpu") -> "Classifier":
        """A network of the same shape for other labels, with random weights."""
        return Classifier(self.size, labels, device=device)

    def save(self, folder: str | Path) -> Path:
        """Write classifier.safetensors and classifier.json; the whole `folder` is replaced."""
        config = {"size": asdict(self.size), "findings": self.labels, "history": self.history}
        with replacing(folder) as partial:
            partial.mkdir()
            save_file({k: v.contiguous() for k, v in self.net.state_dict().items()}, partial / "classifier.safetensors")
            (partial / "classifier.json").write_text(json.dumps(config, indent=1))
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> "Classifier":
        """Read what `save` wrote. Raises FileNotFoundError naming the file and the stage that makes it."""
        folder = Path(folder)
        for name in ("classifier.json", "classifier.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name} is missing; train_classifier(...).save({folder}) makes it")
        config = json.loads((folder / "classifier.json").read_text())
        size = ClassifierSize(**config["size"] | {"block_config": tuple(config["size"]["block_config"])})
        labels, state = tuple(config["findings"]), load_file(folder / "classifier.safetensors")
        if len(state[f"{HEAD}bias"]) != len(labels):
            raise ValueError(f"{folder / 'classifier.json'}: trained on other findings; retrain it")
        classifier = cls(size, labels, device=device)
        classifier.history = config["history"]
        classifier.net.load_state_dict(state)
        return classifier


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    config: LearnerConfig,
    *,
    val: tuple[np.ndarray, np.ndarray],
    weights: np.ndarray | None = None,
    initial: Classifier | None = None,
    names: tuple[str, ...] = FINDINGS,
) -> Classifier:
    """Train on images [N, H, W], float in [0, 1] or uint8, and labels [N, L], 1, 0 or NaN.

    Small random rotations, shifts and scalings; binary cross-entropy over the known labels. The checkpoint is the one
    with the best macro AUROC on `val`, the first among equals.

    Args:
        config: its `size` is a name in `SIZES` or a `ClassifierSize`.
        val: images and labels of the validation split.
        weights: [N], how often an image is sampled, see `balanced_weights`; None goes through all images in turn.
        initial: start from a copy of this classifier's weights (its size is taken too) instead of random ones; where
            it predicts other labels, the last layer starts from random weights.
        names: of the L labels.

    Raises:
        ValueError: if images and labels do not fit or hold other values, or a setting is out of range.
    """
    images, labels = check_data(images, labels, "train", names)
    val, config = check_data(*val, "val", names), config.over(len(images))
    if weights is not None and (np.shape(weights) != (len(images),) or not np.min(weights) >= 0):
        raise ValueError(f"weights: needs {len(images)} numbers of at least 0, one an image")
    classifier = seeded(lambda: _new(config, names, initial), config.seed)
    noise = torch.Generator().manual_seed(config.seed)
    batches = _batches(len(images), config.batch_size, weights, np.random.default_rng(config.seed))

    def loss_of() -> torch.Tensor:
        rows = next(batches)
        logits = classifier.net(augment(classifier.prepare(images[rows]), noise))
        return masked_bce(logits, torch.from_numpy(labels[rows]).to(config.device))

    def measure() -> float:
        return macro_auroc(val[1], classifier.predict(val[0]))

    fit(classifier, loss_of, config, Check(measure, "val_auroc", keep_first=True))
    return classifier


def _new(config: LearnerConfig, labels: tuple[str, ...], initial: Classifier | None) -> Classifier:
    """A classifier with random weights, or with those of `initial` as far as the labels are the same."""
    if initial is None:
        return Classifier(config.size_in(SIZES), labels, device=config.device)
    classifier = initial.with_labels(labels, config.device)
    state = initial.net.state_dict()
    if labels != initial.labels:
        state |= {name: t for name, t in classifier.net.state_dict().items() if name.startswith(HEAD)}
    classifier.net.load_state_dict(state)
    return classifier


def _batches(n: int, size: int, weights: np.ndarray | None, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of one batch after the other, each sorted: permutations of all rows, or samples with `weights`."""
    waiting = np.zeros(0, np.int64)
    while True:
        while len(waiting) < min(size, n):
            waiting = np.concatenate([waiting, rng.permutation(n)])
        if weights is None:
            rows, waiting = waiting[:size], waiting[size:]
        else:
            rows = rng.choice(n, size, p=weights / np.sum(weights))
        yield np.sort(rows)


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """How often to sample each image so that findings are seen alike (paper, Methods: class-balanced sampling), [N].

    An image's weight is the rarity of its rarest present finding; without a known positive, that of the most common
    one.
    """
    present = np.nan_to_num(np.asarray(labels, np.float64)) == 1  # [N, L]
    rarity = len(present) / np.maximum(present.sum(0), 1)
    weight = np.where(present, rarity, 0).max(1)
    return np.where(weight > 0, weight, rarity.min())


def check_data(
    images: np.ndarray, labels: np.ndarray, name: str, names: tuple[str, ...] = FINDINGS
) -> tuple[np.ndarray, np.ndarray]:
    """Images and float32 labels, or ValueError that names the split, the row and the label of `names`."""
    images, labels = unread(images), np.asarray(labels, np.float32)
    if images.ndim != 3 or labels.shape != (len(images), len(names)) or len(images) < 2:
        raise ValueError(
            f"{name}: needs images [N, H, W] and labels [N, {len(names)}] with N >= 2, "
            f"got {images.shape} and {labels.shape}"
        )
    wrong = ~(np.isnan(labels) | (labels == 0) | (labels == 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"{name} row {row}, {names[column]}: label {labels[row, column]}; use 1, 0 or NaN (unknown)")
    return images, labels


def masked_bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy [N, L] averaged over the labels that are known (0 when none is)."""
    known = ~labels.isnan()
    loss = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)
