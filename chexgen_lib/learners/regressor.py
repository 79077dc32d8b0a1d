"""Regression of a severity score in 0..1: a ResNet, its training, MAE, MSE and Pearson r.

The paper trains a ResNet50 at 224 px, 50 epochs of AdamW at 1e-3 in batches of 32 (Methods, "Training data augmentation
experiments"; ED Table 9); a small ResNet stands in where there is no GPU. The paper states no loss; here it is the
squared error. Its scores are RALO's, 0 to 8, which Records divide by 8: its MAE compares with 8 times the one here.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch.nn import functional as F

from chexgen_lib.cohort import layout
from chexgen_lib.learners.base import Check, Learner, LearnerConfig, augment, fit, random_rows, seeded
from chexgen_lib.records import OPACITIES, SEVERITIES
from chexgen_lib.stored_images import unread

OPAQUE = ("Lung Opacity", *OPACITIES)  # findings that fill lung
GRADES = ("none", *SEVERITIES)


@dataclass(frozen=True)
class RegressorSize:
    """Shape of the ResNet; `input_size` is the side, in pixels, that images are resized to."""

    input_size: int
    block: str
    layers: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]


SIZES = {
    "ci": RegressorSize(64, "basic", (1, 1, 1, 1), (8, 16, 32, 32)),
    "small": RegressorSize(64, "basic", (1, 1, 1, 1), (16, 32, 64, 128)),  # for many trainings on a CPU
    "laptop": RegressorSize(128, "basic", (1, 1, 1, 1), (16, 32, 64, 128)),
    "paper": RegressorSize(224, "bottleneck", (3, 4, 6, 3), (64, 128, 256, 512)),  # ResNet50
}


class Regressor(Learner):
    """A ResNet with the history of its training; see `train_regressor`."""

    def __init__(self, size: RegressorSize, *, device: str = "cpu"):
        from monai.networks.nets import ResNet  # takes seconds to import: only where there is a network

        net = ResNet(size.block, size.layers, size.channels, 2, n_input_channels=1, conv1_t_stride=2, num_classes=1)
        super().__init__(net, size, device)

    @torch.inference_mode()
    def predict(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """Scores in 0..1: [N, H, W] -> [N] float32."""
        return torch.cat([self.net(x).sigmoid() for x in self.batches(images, batch_size)]).flatten().cpu().numpy()


def train_regressor(
    images: np.ndarray,
    scores: np.ndarray,
    config: LearnerConfig,
    *,
    val: tuple[np.ndarray, np.ndarray] | None = None,
) -> Regressor:
    """Train on images [N, H, W], float in [0, 1] or uint8, and their scores [N] in 0..1.

    Squared error; small random rotations, shifts and scalings.

    Args:
        config: its `size` is a name in `SIZES` or a `RegressorSize`.
        val: images and scores of the validation split: the checkpoint is the one with the least squared error on it,
            the last of equals. None keeps the last weights.

    Raises:
        ValueError: if images and scores do not fit, or a score is NaN or outside 0..1; it names the row.
    """
    images, scores = unread(images), check_scores(scores, len(images), "train")
    config = config.over(len(images))
    if images.ndim != 3 or len(images) < 2:
        raise ValueError(f"train: needs images [N, H, W] with N >= 2, got {images.shape}")
    check = None
    if val is not None:
        truth = check_scores(val[1], len(val[0]), "val")
        check = Check(lambda: float(np.mean((regressor.predict(val[0]) - truth) ** 2)), "val_mse", lower_is_better=True)
    regressor = seeded(lambda: Regressor(config.size_in(SIZES), device=config.device), config.seed)
    rng, noise = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)

    def loss_of() -> torch.Tensor:
        rows = random_rows(len(images), config.batch_size, rng)
        predicted = regressor.net(augment(regressor.prepare(images[rows]), noise)).sigmoid().flatten()
        return F.mse_loss(predicted, torch.from_numpy(scores[rows]).to(predicted))

    fit(regressor, loss_of, config, check)
    return regressor


def opacity_scores(records: pl.DataFrame) -> np.ndarray:
    """The opaque share of the lungs, 0..1, from the `severity` of Records: float64 [N], NaN where it is unknown.

    The scores of findings that fill lung add up, to 1 at most: in the embedded cohort they are shares of the lungs'
    volume, none for an absent finding. RALO scores "Lung Opacity" alone; a real image without scores is unknown.
    """
    opaque = pl.element().struct.field("finding").is_in(OPAQUE)
    shares = pl.col("severity").list.eval(pl.when(opaque).then(pl.element().struct.field("score")).otherwise(0.0))
    total = shares.list.sum().clip(0, 1).abs()  # an empty sum is -0.0
    rendered = pl.col("image").str.starts_with("phantom:") if "image" in records.columns else pl.lit(True)
    unknown = pl.col("severity").is_null() | ((pl.col("severity").list.len() == 0) & ~rendered)
    score = pl.when(unknown).then(None).otherwise(total)
    return records.select(score.cast(pl.Float64).fill_null(np.nan)).to_series().to_numpy()


def scored_purpose(cohort: pl.DataFrame) -> str:
    """The flag of the images with scores: annotated datasets' where some have one, else stage II's."""
    annotated = cohort[layout.rows(cohort, "annotated")] if "annotated" in cohort.columns else cohort.head(0)
    return "annotated" if np.isfinite(opacity_scores(annotated)).any() else "stage2"


def cut_points(cohort: pl.DataFrame) -> np.ndarray | None:
    """The scores where mild ends and where severe begins: terciles of the training scores above 0.

    Scores come without grades, and their range differs between cohorts: in the embedded one few lungs are filled by
    more than a quarter. None where no such record has a score above 0.
    """
    scores = opacity_scores(cohort[layout.rows(cohort, scored_purpose(cohort), "train")])
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
