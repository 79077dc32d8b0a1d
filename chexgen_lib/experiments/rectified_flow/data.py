"""The images of the experiment, and the instruments that measure samples: probes, a classifier, embedders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.experiments.rectified_flow import requests
from chexgen_lib.experiments.rectified_flow.control import Answers
from chexgen_lib.experiments.rectified_flow.probes import Probes
from chexgen_lib.images import from_uint8
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.models.metadata import encode_records
from chexgen_lib.pools import labelled
from chexgen_lib.pools.labelled import LabelledSet
from chexgen_lib.quality.embedders import Embedder, make

TRAIN, PROBES, HELD_OUT, CLASSIFIER, VALIDATION = "train", "probes", "held out", "classifier", "validation"


@dataclass(frozen=True)
class Data:
    """Real images by purpose.

    Attributes:
        parts: `TRAIN` the generator's images (stage I), `PROBES` those of them that the probes are trained on,
            `HELD_OUT` test and validation images of the generator's sources, which are used for neither training nor
            selection; `CLASSIFIER` and `VALIDATION` those that a classifier is trained on and that select its
            checkpoint.
        generator_sources: of the generator's images.
        attributes: what is requested and measured.
        sources: two, distinguished as an attribute.
    """

    parts: dict[str, LabelledSet]
    generator_sources: list[str]
    attributes: list[str]
    sources: list[str]

    def truth(self, part: str) -> np.ndarray:
        """Known attributes of the images of a part, `requests.truth` [N, A]."""
        return requests.truth(self.parts[part].table, self.attributes, self.sources)

    def counts(self) -> pl.DataFrame:
        """part, images, patients."""
        rows = [(name, len(part), part.table["patient_id"].n_unique()) for name, part in self.parts.items()]
        return pl.DataFrame(rows, ["part", "images", "patients"], orient="row")


def load(
    root: str | Path, resolution: int, attributes: Sequence[str], sources: Sequence[str], probe_images: int, seed: int
) -> Data:
    """The parts of a run's cohort, `probe_images` of the generator's images as `PROBES`.

    Raises:
        ControlError: if probes or held-out images lack one of the poles of an attribute.
    """
    folder = Path(root, "cohort")
    table = cohort.load(folder)
    known = sorted(table.filter(pl.col("stage1"), split="train")["source"].unique())
    kept = table["stage1"] | table["external"]
    rows = {
        TRAIN: table["stage1"] & (table["split"] == "train"),
        HELD_OUT: (table["split"] != "train") & table["source"].is_in(known) & kept,
        CLASSIFIER: table["split"] == "train",
        VALIDATION: table["stage2"] & (table["split"] == "val"),
    }
    selected_by = table["patient_id"].filter(rows[VALIDATION]).unique().to_list()
    rows[HELD_OUT] &= ~table["patient_id"].is_in(selected_by)  # where both stages read one source
    places = {name: np.flatnonzero(mask.to_numpy()) for name, mask in rows.items()}
    places = {PROBES: np.sort(np.random.default_rng(seed).permutation(places[TRAIN])[:probe_images])} | places
    parts = {
        name: labelled.real(table[own], cohort.stored_images(folder, resolution)[own], resolution)
        for name, own in places.items()
    }
    data = Data(parts, known, list(attributes), list(sources))
    for name in (PROBES, HELD_OUT):
        requests.check_truth(data.truth(name), data.attributes, name)
    return data


def latents(root: str | Path, data: Data) -> dict[str, Path | np.ndarray]:
    """Latents and metadata codes of the generator's images, as `comparison.train_and_sample` takes them."""
    folder = Path(root, "cohort")
    records = cohort.load(folder).filter(pl.col("stage1"), split="train")  # with the details of their findings
    codes = encode_records(records, data.generator_sources)
    return {"pairs": folder / "pretraining_train", "metadata": codes.numpy()}


@dataclass(frozen=True)
class Instruments:
    """What measures images: probes of the attributes, a classifier of the findings, embedders."""

    probes: Probes
    classifier: Classifier
    embedders: Sequence[Embedder]


def instruments(data: Data, classifier: Classifier, embedders: Sequence[str]) -> Instruments:
    """Probes and embedders fitted to the part `PROBES`, with a trained classifier."""
    images = data.parts[PROBES].images
    probes = Probes(images, data.truth(PROBES))
    return Instruments(probes, classifier, make(embedders, classifier=classifier, reference=from_uint8(images)))


def answers(data: Data, tools: Instruments) -> Answers:
    """The probes' predictions on the held-out images, beside the true values."""
    part = data.parts[HELD_OUT]
    return Answers(tools.probes(from_uint8(part.images)), data.truth(HELD_OUT), part.table["patient_id"].to_list())


def held_out_subset(data: Data, n: int, seed: int) -> tuple[LabelledSet, np.ndarray]:
    """At most `n` held-out images, drawn at random, and their `truth`."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.parts[HELD_OUT]))[:n])
    return data.parts[HELD_OUT][rows], data.truth(HELD_OUT)[rows]
