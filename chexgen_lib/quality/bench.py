"""What the metrics of `quality.evaluate` share: images, features and scores of all arms, and resamples of patients."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import polars as pl

from chexgen_lib.estimates.comparison import auroc_table
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.quality.arms import FLOOR, GENERATOR, IGNORES, NOISE
from chexgen_lib.quality.diversity import pairs_of_prompts, pairwise_similarity
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.factuality import derangement
from chexgen_lib.quality.held_out import HeldOut
from chexgen_lib.quality.neighbours import Neighbours, memorisation, nearest
from chexgen_lib.quality.novelty import FEWEST
from chexgen_lib.stored_images import StoredImages, float_blocks


class Scorer(Protocol):
    """A classifier of the 14 findings: [N, H, W] in [0, 1] -> [N, 14], NaN where it does not know a finding."""

    def predict(self, images: np.ndarray) -> np.ndarray: ...


@dataclass
class Bench:
    """What the metrics share: the arms' images, features and scores, and the resamples of patients.

    Attributes:
        features: embedder -> arm ("real", "synthetic", "noise"; of the first embedder "train" too) -> features.
        scores, real_scores: the scorer's, of the samples [N, S, 14] and of the real images [N, 14].
        noise: images [N, S, H, W] of `gaussian_pixels`.
        with_bounds: measure what bounds the generator, too; not again for each other generator.
    """

    data: HeldOut
    embedders: Sequence[Embedder]
    features: dict[str, dict[str, np.ndarray]]
    scores: np.ndarray
    real_scores: np.ndarray
    noise: np.ndarray
    n_resamples: int
    seed: int
    with_bounds: bool = True

    def __post_init__(self):
        self.n, self.samples = self.data.synthetic.shape[:2]
        self.resampling = Resampling(self.data.patients, self.n_resamples, self.seed)
        self.permuted = derangement(self.n, self.seed)

    @classmethod
    def of(cls, data: HeldOut, scorer: Scorer, embedders: Sequence[Embedder], n_resamples: int, seed: int) -> "Bench":
        """Embed and score all images."""
        noise = gaussian_pixels(data.train, data.synthetic.shape[:2], seed)
        features = {
            e.name: {"real": e(data.real), "synthetic": per_prompt(e, data.synthetic), "noise": e(noise[:, 0])}
            for e in embedders
        }
        features[embedders[0].name]["train"] = np.concatenate([*map(embedders[0], float_blocks(data.train))])
        scores = per_prompt(scorer.predict, data.synthetic), scorer.predict(data.real)
        return cls(data, embedders, features, *scores, noise, n_resamples, seed)

    def of_rival(self, samples: np.ndarray, scorer: Scorer) -> "Bench":
        """The same with another generator's samples [N, S, H, W] of the same prompts."""
        features = {e.name: self.features[e.name] | {"synthetic": per_prompt(e, samples)} for e in self.embedders}
        data = replace(self.data, synthetic=samples, rivals={})
        scores = per_prompt(scorer.predict, samples)
        return replace(self, data=data, features=features, scores=scores, with_bounds=False)

    def measured(self, arms: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Those of some arms that are to be measured."""
        return arms if self.with_bounds else {GENERATOR: arms[GENERATOR]}

    @cached_property
    def new_texts(self) -> "Bench | None":
        """The bench of the prompts that stand nowhere in training, with draws of its own; None for too few."""
        rows = np.flatnonzero(~self.data.seen) if self.data.seen is not None else np.array([], int)
        patients = [self.data.patients[row] for row in rows]
        if len(rows) < FEWEST or len(set(patients)) < 2:
            return None
        d = self.data
        images = {"real": d.real[rows], "synthetic": d.synthetic[rows]}
        return replace(
            self,
            data=replace(d, **images, labels=d.labels[rows], patients=patients, seen=None, rivals={}),
            features={
                name: {arm: f if arm == "train" else f[rows] for arm, f in of.items()}
                for name, of in self.features.items()
            },
            scores=self.scores[rows],
            real_scores=self.real_scores[rows],
            noise=self.noise[rows],
        )

    @cached_property
    def judged(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels [N, 14], and scores of the samples [S, N, 14] and of the real images [1, N, 14].

        A finding that the scorer does not know (torchxrayvision's weights know some) has no label here and scores of 0.
        """
        known = np.isfinite(self.real_scores).all(0)
        labels = np.where(known, self.data.labels, np.nan)
        return labels, np.where(known, np.moveaxis(self.scores, 1, 0), 0), np.where(known, self.real_scores, 0)[None]

    @cached_property
    def per_finding(self) -> pl.DataFrame:
        """AUROC by finding on the samples (mean of those of each prompt's samples) and on the real images."""
        labels, samples, real = self.judged
        synthetic = auroc_table({"synthetic": samples}, labels, self.resampling, None, self.samples, 1)
        return pl.concat([synthetic, auroc_table({"real": real}, labels, self.resampling, fewest=1)])

    @cached_property
    def neighbours(self) -> Neighbours:
        """Nearest training image of every sample by the first embedder's features."""
        features = self.features[self.embedders[0].name]
        return nearest(features["synthetic"].reshape(self.n * self.samples, -1), features["train"])

    @cached_property
    def memorisation(self) -> dict[str, np.ndarray]:
        """Both measures of `neighbours.memorisation`."""
        features = self.features[self.embedders[0].name]
        away = nearest(features["real"], features["train"]).distance
        distances = self.neighbours.distance.reshape(self.n, self.samples)
        return memorisation(distances, away, self.resampling.rows())

    @cached_property
    def similarity(self) -> dict[str, dict[str, np.ndarray]]:
        """Similarity within a prompt, and as bounds that between prompts, between patients (`pairs`) and of noise."""
        arms = {
            GENERATOR: self.data.synthetic,
            IGNORES: self.data.synthetic[self.pairs, np.arange(len(self.pairs))[:, None] % self.samples],
            FLOOR: self.data.real[self.pairs],
            NOISE: self.noise,
        }
        return {arm: pairwise_similarity(images) for arm, images in self.measured(arms).items()}

    @cached_property
    def pairs(self) -> np.ndarray:
        """Prompts that similarity between prompts is measured on [K, 2]."""
        return pairs_of_prompts(self.n, self.samples - 1, self.seed)


def gaussian_pixels(train: np.ndarray | StoredImages, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Images [*shape, H, W] with each pixel sampled alone from the training images' mean and sd at that pixel.

    train: [M, H, W], as `HeldOut.train`.
    """
    noise = np.random.default_rng(seed).standard_normal((*shape, *train.shape[1:]), np.float32)
    mean = _mean(float_blocks(train), len(train))
    deviation = np.sqrt(_mean(((block - mean) ** 2 for block in float_blocks(train)), len(train)))
    return np.clip(noise * deviation + mean, 0, 1)


def _mean(blocks: Iterable[np.ndarray], n: int) -> np.ndarray:
    """Mean [H, W] of n images in blocks, to the bit NumPy's of one array, which adds them one after the other."""
    total = None
    for block in blocks:
        total = np.add.reduce(block if total is None else np.concatenate([total[None], block]), axis=0)
    return np.true_divide(total, np.intp(n), out=total, casting="unsafe")


def per_prompt(function: Callable[[np.ndarray], np.ndarray], samples: np.ndarray) -> np.ndarray:
    """A function of images on samples [N, S, H, W] -> [N, S, D]."""
    return function(samples.reshape(-1, *samples.shape[2:])).reshape(*samples.shape[:2], -1)
