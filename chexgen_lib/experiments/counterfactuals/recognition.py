"""Whose film it is, and how unlike two films look: one network that learns both from rendered films.

It sees two studies of each of some patients: the same body in another posture, breath, view, site of acquisition and
noise. From them it learns which embeddings belong together (NT-Xent, Chen et al. 2020), and what each film shows (age,
sex, view, site, findings). Then

- two films are of one patient if their embeddings are as alike as those of `RECOGNISED` of the two studies of further
  patients;
- the perceptual distance of two films is LPIPS (Zhang et al. 2018) on its features: of each block the squared
  difference of unit feature vectors, mean over places and blocks. LPIPS's own networks know photographs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from chexgen_lib.estimates.measures import auroc
from chexgen_lib.experiments.counterfactuals.films import ATTRIBUTES, Films, values
from chexgen_lib.images import to_uint8
from chexgen_lib.kept import kept
from chexgen_lib.learners.base import Learner, LearnerConfig, augment, fit, random_rows, seeded
from chexgen_lib.learners.classifier import SIZES, ClassifierSize, masked_bce
from chexgen_lib.phantom.counterfactual_benchmark import AGES, benchmark
from chexgen_lib.phantom.patient import rng
from chexgen_lib.phantom.render import render_many

RECOGNISED = 0.95  # share of patients whose second study passes the threshold
EMBEDDING = 64
TEMPERATURE = 0.1
NETWORK = "network.safetensors"


class Network(Learner):
    """A DenseNet with an embedding of the patient and a logit for each of `ATTRIBUTES`."""

    def __init__(self, size: ClassifierSize, device: str = "cpu"):
        super().__init__(size.network(EMBEDDING + len(ATTRIBUTES)), size, device)

    @torch.inference_mode()
    def embed(self, images: np.ndarray) -> np.ndarray:
        """Films uint8 [N, S, S] -> unit vectors [N, `EMBEDDING`]."""
        parts = [F.normalize(self.net(x)[:, :EMBEDDING]) for x in self.batches(images, 64)]
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def distance(self, images: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Perceptual distance of each film from the other, both uint8 [N, S, S]: [N], 0 for equal ones."""
        both = zip(self.batches(images, 64), self.batches(others, 64), strict=True)
        return torch.cat([_apart(self._blocks(x), self._blocks(y)) for x, y in both]).cpu().numpy()

    def _blocks(self, x: Tensor) -> list[Tensor]:
        """Unit feature vectors after each dense block, [N, C, H, W]."""
        found = []
        for name, layer in self.net.features.named_children():
            x = layer(x)
            if name.startswith("denseblock"):
                found.append(F.normalize(x))
        return found


def _apart(some: list[Tensor], others: list[Tensor]) -> Tensor:
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in zip(some, others, strict=True)]).mean(0)


class RecognisedFilms:
    """What the network says of edits of some films.

    Args:
        films: the pairs that are edited.
        network: trained on other patients.
        studies: uint8 [2, M, S, S], two studies of each of M further patients.

    Attributes:
        threshold: cosine from which two films are of one patient.
    """

    def __init__(self, films: Films, network: Network, studies: np.ndarray):
        self.films, self.network = films, network
        first, second = (network.embed(images) for images in studies)
        self._alike = first @ second.T  # [M, M]
        self.threshold = float(np.quantile(np.diag(self._alike), 1 - RECOGNISED))
        self._own = network.embed(films.before)

    def recognised(self, images: np.ndarray) -> np.ndarray:
        """Whether edited films uint8 [N, S, S] are still the patient's of the film that was edited: 0 or 1, [N]."""
        alike = (self.network.embed(images) * self._own).sum(1)
        return (alike >= self.threshold).astype(float)

    def distance(self, images: np.ndarray) -> np.ndarray:
        """Perceptual distance of edited films from the true counterfactuals, [N]."""
        return self.network.distance(images, self.films.after)

    def described(self) -> pl.DataFrame:
        """How well it tells patients apart, on studies that it did not learn from."""
        same, patients = np.eye(len(self._alike), dtype=bool), len(self._alike)
        told = auroc(same.ravel().astype(float), self._alike.ravel())[0]
        taken = (self._alike[~same] >= self.threshold).mean()
        names = ("patients", "AUROC, same patient or not", "second studies recognised", "others taken for the patient")
        numbers = (float(patients), told, float((self._alike[same] >= self.threshold).mean()), float(taken))
        return pl.DataFrame({"measure": names, "value": np.round(numbers, 3)})


def recognise(
    bench: Films, trained: Films, further: Films, folder: Path, config: LearnerConfig, workers: int = 2
) -> RecognisedFilms:
    """Train the network on `trained` and a second study of each of its patients, and set its threshold on `further`.

    Args:
        bench: the pairs that are edited, of the benchmark's seed 0; `trained` and `further` of its seeds 1 and 2.
        folder: where the studies and the network are kept.
        config: of the training; its size a name in `classifier.SIZES`.
        workers: processes that render.
    """
    size = bench.before.shape[-1]
    studies = [
        np.load(
            kept(_render, folder / f"studies_{seed}", {"workers": workers}, n=n, size=size, seed=seed) / "films.npy"
        )
        for seed, n in ((1, len(trained.pairs)), (2, len(further.pairs)))
    ]
    made = kept(train, folder / "network", films=trained, studies=studies[0], config=config)
    return RecognisedFilms(bench, load(made, config), np.stack([further.before, studies[1]]))


def another_study(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the same patient on another day: view and site drawn anew, and all that an `image_id` decides."""
    name = f"{record['image_id']}:again"
    random = rng("another study", record["image_id"])
    return dict(record) | {
        "image_id": name,
        "view": str(random.choice(["PA", "AP"])),
        "site": str(random.choice(["A", "B"])),
    }


def _render(folder: Path, n: int, size: int, seed: int, workers: int) -> None:
    records = [another_study(pair.record) for pair in benchmark(n, seed)]
    np.save(folder / "films.npy", np.stack([to_uint8(film.image) for film in render_many(records, size, workers)]))


def train(folder: Path, films: Films, studies: np.ndarray, config: LearnerConfig) -> None:
    """Train on pairs of films and a further study of each of their patients, uint8 [N, S, S]; writes `NETWORK`."""
    network = seeded(lambda: Network(config.size_in(SIZES), config.device), config.seed)
    noise, random = torch.Generator().manual_seed(config.seed), np.random.default_rng(config.seed)
    first, n = np.stack([films.before, films.after]), len(studies)
    shown = [_scaled(values(own)) for own in (films.records, films.targets, [another_study(r) for r in films.records])]

    def loss_of() -> Tensor:
        rows = random_rows(n, config.batch_size, random)
        which = random.integers(0, 2, len(rows))
        images = np.concatenate([first[which, rows], studies[rows]])
        known = np.concatenate([np.stack(shown[:2])[which, rows], shown[2][rows]])
        out = network.net(augment(network.prepare(images), noise))
        read = masked_bce(out[:, EMBEDDING:], torch.from_numpy(known).to(out))
        return contrast(out[:, :EMBEDDING]) + read

    fit(network, loss_of, config)
    save_file({name: value.contiguous() for name, value in network.net.state_dict().items()}, folder / NETWORK)


def load(folder: Path, config: LearnerConfig) -> Network:
    """The network that `train` left, on the device of its training."""
    network = Network(config.size_in(SIZES), config.device)
    network.net.load_state_dict(load_file(folder / NETWORK))
    return network


def contrast(embedded: Tensor) -> Tensor:
    """NT-Xent of [2 B, D]: row k and row B + k belong together, all others apart."""
    x = F.normalize(embedded)
    alike = (x @ x.T / TEMPERATURE).masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), -torch.inf)
    return F.cross_entropy(alike, torch.arange(len(x), device=x.device).roll(len(x) // 2))


def _scaled(shown: np.ndarray) -> np.ndarray:
    """Values of `ATTRIBUTES` [N, A] from 0 to 1: age over the benchmark's range."""
    scaled = shown.copy()
    scaled[:, 0] = ((shown[:, 0] - AGES[0]) / (AGES[1] - AGES[0])).clip(0, 1)
    return scaled
