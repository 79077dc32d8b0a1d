"""Regression of a severity score in 0..1: a ResNet, its training, MAE, MSE and Pearson r.

The paper trains a ResNet50 at 224 px, 50 epochs of AdamW at 1e-3 in batches of 32 (Methods, "Training data augmentation
experiments"; ED Table 9); a small ResNet stands in where there is no GPU. The paper states no loss; here it is the
squared error. Its scores are RALO's, 0 to 8, which Records divide by 8: its MAE compares with 8 times the one here.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from monai.networks.nets import ResNet
from torch.nn import functional as F

from chexgen_lib import images as im
from chexgen_lib.learners.base import fit, network_input
from chexgen_lib.learners.classifier import augment
from chexgen_lib.phantom.findings import OPACITIES
from chexgen_lib.records import SEVERITIES

OPAQUE = ("Lung Opacity", *OPACITIES)  # findings that fill lung
GRADES = ("none", *SEVERITIES)


@dataclass(frozen=True)
class SeveritySize:
    """Shape of the ResNet; `input_size` is the side, in pixels, that images are resized to."""

    input_size: int
    block: str
    layers: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]


SIZES = {
    "ci": SeveritySize(64, "basic", (1, 1, 1, 1), (8, 16, 32, 32)),
    "small": SeveritySize(64, "basic", (1, 1, 1, 1), (16, 32, 64, 128)),  # for many trainings on a CPU
    "laptop": SeveritySize(128, "basic", (1, 1, 1, 1), (16, 32, 64, 128)),
    "paper": SeveritySize(224, "bottleneck", (3, 4, 6, 3), (64, 128, 256, 512)),  # ResNet50
}


class Severity:
    """A trained ResNet with the history of its training; see `train_severity`."""

    def __init__(self, size: SeveritySize, *, device: str = "cpu"):
        self.size, self.device = size, device
        self.history: list[dict] = []  # per check: step, loss, validation MSE
        net = ResNet(size.block, size.layers, size.channels, 2, n_input_channels=1, conv1_t_stride=2, num_classes=1)
        self.net = net.to(device)

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """[N, H, W], float in [0, 1] or uint8 -> [N, 1, size, size] in [-1, 1]."""
        return network_input(images, self.size.input_size, self.device)

    @torch.inference_mode()
    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Scores in 0..1: [N, H, W] -> [N] float32."""
        images = np.asarray(images)
        if images.ndim != 3 or len(images) == 0:
            raise im.ImageError(f"needs at least one image as [N, H, W], got shape {images.shape}")
        self.net.eval()
        batches = (self.prepare(images[i : i + batch_size]) for i in range(0, len(images), batch_size))
        return torch.cat([self.net(x).sigmoid() for x in batches]).flatten().cpu().numpy()


def train_severity(
    images: np.ndarray,
    scores: np.ndarray,
    *,
    seed: int,
    steps: int,
    size: str = "laptop",
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    val: tuple[np.ndarray, np.ndarray] | None = None,
    check_every: int = 50,
    device: str = "cpu",
) -> Severity:
    """Train on images [N, H, W], float in [0, 1] or uint8, and their scores [N] in 0..1.

    AdamW, one-cycle learning rate, small random rotations, shifts and scalings, squared error. With `val`, images and
    scores of the validation split, the weights are those with the least squared error on it, looked at every
    `check_every` steps and after the last; without, the last. The result is a function of the data and `seed` (on one
    device with one number of threads).

    Raises:
        ValueError: if images and scores do not fit, or a score is NaN or outside 0..1; it names the row.
    """
    images, scores = np.asarray(images), check_scores(scores, len(images), "train")
    if images.ndim != 3 or len(images) < 2:
        raise ValueError(f"train: needs images [N, H, W] with N >= 2, got {images.shape}")
    if val is not None:
        val = val[0], check_scores(val[1], len(val[0]), "val")
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # for the initial weights only; everything else has its own generator
        model = Severity(SIZES[size], device=device)
    net, rng, noise = model.net, np.random.default_rng(seed), torch.Generator().manual_seed(seed)

    def loss_of() -> torch.Tensor:
        rows = np.sort(rng.choice(len(images), min(batch_size, len(images)), replace=False))
        predicted = net(augment(model.prepare(images[rows]), noise)).sigmoid().flatten()
        return F.mse_loss(predicted, torch.from_numpy(scores[rows]).to(predicted))

    model.history = fit(
        net,
        loss_of,
        steps=steps,
        learning_rate=learning_rate,
        name="severity",
        check=val and (lambda: float(np.mean((model.predict(val[0]) - val[1]) ** 2))),
        metric="val_mse",
        lower_is_better=True,
        check_every=check_every,
    )
    return model


def opacity_scores(records: pl.DataFrame) -> np.ndarray:
    """How much of the lungs is opaque, 0..1, as Records state it in `severity`: float64 [N], NaN where they do not.

    Findings that fill lung add up, to 1 at most: the embedded cohort's scores are shares of the lungs' volume, and none
    of a finding that is not there. RALO scores "Lung Opacity" alone.
    """
    opaque = pl.element().struct.field("finding").is_in(OPAQUE)
    shares = pl.col("severity").list.eval(pl.when(opaque).then(pl.element().struct.field("score")).otherwise(0.0))
    score = (
        pl.when(pl.col("severity").is_null()).then(None).otherwise(shares.list.sum().clip(0, 1).abs())
    )  # nothing adds up to -0.0
    return records.select(score.cast(pl.Float64).fill_null(np.nan)).to_series().to_numpy()


def cut_points(cohort: pl.DataFrame) -> np.ndarray | None:
    """Where mild ends and where severe begins: terciles of the scores above 0 of stage II's training records.

    A score has no grades of its own, and what is much differs from cohort to cohort: in the embedded one few lungs are
    filled by more than a quarter. None where no such record has a score above 0.
    """
    scores = opacity_scores(cohort.filter(pl.col("stage2"), pl.col("split") == "train"))
    return np.quantile(scores[scores > 0], [1 / 3, 2 / 3]) if (scores > 0).any() else None


def grades(scores: np.ndarray, cuts: np.ndarray) -> list[str]:
    """The grade of each score, one of `GRADES`; "none" is a score of 0."""
    scores = np.asarray(scores)
    return [GRADES[k] for k in np.where(scores > 0, 1 + np.searchsorted(cuts, scores), 0)]


def check_scores(scores: np.ndarray, n: int, name: str) -> np.ndarray:
    """Scores as float64 [n], or ValueError that names the list and the row."""
    scores = np.asarray(scores, np.float64)
    if scores.shape != (n,):
        raise ValueError(f"{name}: needs one score for each of {n} rows, got shape {scores.shape}")
    wrong = ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        row = np.flatnonzero(wrong)[0]
        raise ValueError(f"{name} row {row}: score {scores[row]}; needs 0..1, leave out rows without a score")
    return scores
