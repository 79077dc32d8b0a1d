"""Every arm as the instruments see it: features, scores of findings, answers of probes, similarity within a prompt.

Images are looked at once; all measures are functions of what is kept here. All arms are of the same prompts and are
resampled by the same patients, so that every difference between two of them is paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl

from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.judge.reference import Films, Reference
from chexgen_lib.experiments.rectified_flow.probes import Probes
from chexgen_lib.images import from_uint8, reduced, to_uint8
from chexgen_lib.pools.groups import age_group
from chexgen_lib.quality.arms import FLOOR, IGNORES, NOISE
from chexgen_lib.quality.bench import Scorer, gaussian_pixels
from chexgen_lib.quality.diversity import pairs_of_prompts, pairwise_similarity
from chexgen_lib.quality.embedders import Embedder
from chexgen_lib.quality.factuality import derangement, same_findings
from chexgen_lib.quality.spectrum import band_energy, bands_of

GENERATOR, LOWER, UPPER = "generator", "floor", "ceiling"  # roles of arms
ROUNDS = 3  # of pairs of prompts
PROBED = 64  # pixels that the probes read
GROUPED = ("sex", "age group", "view")
EVERYONE = "all"


@dataclass(frozen=True)
class Arm:
    """What is known of N prompts x S images; rows are prompts.

    Attributes:
        role: `GENERATOR`, `LOWER` or `UPPER`.
        features: embedder -> [N, S, D].
        scores: of the 14 findings, [N, S, 14].
        answers: of the probes, [N, S, A].
        similarity: "MS-SSIM" and "SSIM" within a prompt [N]; empty for one image of a prompt.
        between: the same of images of different prompts, for each of `Bench.pairs`.
        apart: whether `similarity` is `between`.
        energy: by spatial frequency (`spectrum.bands_of` their size), [N, S, bands].
    """

    role: str
    features: dict[str, np.ndarray]
    scores: np.ndarray
    answers: np.ndarray
    similarity: dict[str, np.ndarray]
    between: dict[str, np.ndarray]
    energy: np.ndarray
    apart: bool = False

    @property
    def samples(self) -> int:
        """S."""
        return self.scores.shape[1]

    def dealt(self, rows: np.ndarray, role: str) -> "Arm":
        """The same images dealt to other prompts: prompt k gets those of prompt rows[k]."""
        features = {name: x[rows] for name, x in self.features.items()}
        return replace(
            self,
            role=role,
            features=features,
            scores=self.scores[rows],
            answers=self.answers[rows],
            similarity=self.between,
            apart=True,
            energy=self.energy[rows],
        )


@dataclass(frozen=True)
class Instruments:
    """What images are looked at with, all trained on real images of other patients.

    Attributes:
        attributes: names of the probes' answers.
    """

    scorer: Scorer
    embedders: Sequence[Embedder]
    probes: Probes
    attributes: Sequence[str]

    def look(self, images: np.ndarray, role: str, seed: int = 0) -> Arm:
        """An arm of images uint8 [N, S, R, R]."""
        samples = np.moveaxis(images, 1, 0)  # one sample of every prompt at a time, to bound the memory
        seen = [from_uint8(sample) for sample in samples]
        features = {e.name: np.stack([e(x) for x in seen], 1) for e in self.embedders}
        scores = np.stack([self.scorer.predict(x) for x in seen], 1)
        answers = np.stack([self.probes(reduced(sample, PROBED)) for sample in samples], 1)
        energy = np.stack([band_energy(x, bands_of(x.shape[-1])) for x in seen], 1)
        return Arm(role, features, scores, answers, *_similarities(images, seed), energy)


def _similarities(images: np.ndarray, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Within and between prompts."""
    n, s = images.shape[:2]
    pairs = pairs_of_prompts(n, ROUNDS, seed)
    between = pairwise_similarity(from_uint8(images[pairs, np.arange(len(pairs))[:, None] % s]))
    return (pairwise_similarity(from_uint8(images)) if s > 1 else {}), between


@dataclass(frozen=True)
class Group:
    """Some of the patients: bool [N] of the prompts and of the reference images."""

    name: str
    prompted: np.ndarray
    others: np.ndarray

    def __len__(self) -> int:
        return int(min(self.prompted.sum(), self.others.sum()))


class Bench:
    """All arms, and the resamples of patients that they share.

    Args:
        samples: generator -> uint8 [N, S, R, R], for the reference's prompts in their order.
        n_resamples: of the bootstrap.
        seed: of resamples, noise and permutations.

    Attributes:
        generators, ignoring: name -> `Arm`, the second with images dealt to other prompts.
        real, noise: the prompts' own radiographs; images of independent Gaussian pixels.
        others: features of the reference images by embedder, [N, D].
        energy_of_others: theirs by spatial frequency, [N, bands].
        texts, own_text: features of the distinct prompts by encoder of images and texts, [T, D]; each prompt's row.
        patients: resamples of the prompts' patients; of_others: of the reference images'.
    """

    def __init__(
        self,
        reference: Reference,
        samples: Mapping[str, np.ndarray],
        instruments: Instruments,
        n_resamples: int = 1000,
        seed: int = 0,
    ):
        self.reference, self.instruments, self.seed = reference, instruments, seed
        self.labels, self.n = reference.prompted.labels, len(reference.prompted)
        self.patients = Resampling(reference.prompted.table["patient_id"], n_resamples, seed)
        self.of_others = Resampling(reference.others.table["patient_id"], n_resamples, seed + 1)
        others = from_uint8(reference.others.images)
        self.others = {e.name: e(others) for e in instruments.embedders}
        self.energy_of_others = band_energy(others, bands_of(others.shape[-1]))
        prompts, own = np.unique(reference.prompted.table["prompt"].to_numpy(), return_inverse=True)
        readers = [e for e in instruments.embedders if hasattr(e, "texts")]
        self.texts, self.own_text = {e.name: e.texts(prompts.tolist()) for e in readers}, own
        self.real = instruments.look(reference.prompted.images[:, None], LOWER, seed)
        copies = max(images.shape[1] for images in samples.values())
        noise = gaussian_pixels(from_uint8(reference.train.images), (self.n * copies,), seed)
        shape = (self.n, copies, *noise.shape[1:])
        self.noise = instruments.look(to_uint8(noise).reshape(shape), UPPER, seed)
        self.generators = {name: instruments.look(images, GENERATOR, seed) for name, images in samples.items()}
        order = derangement(self.n, seed)
        self.ignoring = {f"{name}, {IGNORES}": arm.dealt(order, UPPER) for name, arm in self.generators.items()}

    @property
    def sets(self) -> dict[str, Arm]:
        """Arms of a measure of sets, whose order does not matter."""
        return {FLOOR: self.real, **self.generators, NOISE: self.noise}

    @property
    def prompts(self) -> dict[str, Arm]:
        """Arms of a measure of prompts: the floor is another patient's radiograph with the most similar labels."""
        return {FLOOR: self.real.dealt(self._twins, LOWER), **self.generators, **self.ignoring, NOISE: self.noise}

    @cached_property
    def pairs(self) -> np.ndarray:
        """Prompts that similarity between prompts is measured on [K, 2], the same in every arm."""
        return pairs_of_prompts(self.n, ROUNDS, self.seed)

    @cached_property
    def _twins(self) -> np.ndarray:
        return same_findings(self.labels, self.patients.patient_of, self.seed)

    @property
    def varieties(self) -> dict[str, Arm]:
        """Arms of a measure of how images of one prompt differ: the floor are radiographs of different patients."""
        floor = replace(self.real, similarity=self.real.between, apart=True)
        return {FLOOR: floor, **self.generators, **self.ignoring, NOISE: self.noise}

    def groups(self) -> list[Group]:
        """Everyone, and the groups of `GROUPED`."""
        sides = [_attributes(films) for films in (self.reference.prompted, self.reference.others)]
        found = [Group(EVERYONE, *(np.ones(len(side), bool) for side in sides))]
        for name in GROUPED:
            for value in sides[0][name].drop_nulls().unique().sort():
                members = ((side[name] == value).fill_null(False).to_numpy() for side in sides)
                found.append(Group(f"{name}: {value}", *members))
        return found


def _attributes(films: Films) -> pl.DataFrame:
    table = films.table
    return table.select("sex", "view").with_columns(age_group(table["age"]).cast(pl.String))
