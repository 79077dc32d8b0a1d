"""The instruments of a judging, trained on the reference's training patients: a classifier, embedders, probes."""

from collections.abc import Sequence
from pathlib import Path

from chexgen_lib.experiments.judge.asked_and_shown import ATTRIBUTES, measurable, requested
from chexgen_lib.experiments.judge.bench import PROBED, Instruments
from chexgen_lib.experiments.judge.reference import Films, Reference
from chexgen_lib.experiments.rectified_flow.probes import Probes
from chexgen_lib.images import from_uint8, reduced
from chexgen_lib.kept import kept
from chexgen_lib.learners.base import LearnerConfig
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.pools import labelled
from chexgen_lib.pools.labelled import LabelledSet
from chexgen_lib.quality import held_out
from chexgen_lib.quality.embedders import make
from chexgen_lib.quality.retrieval import ImageTextEncoder


def trained(
    reference: Reference,
    embedders: Sequence[str],
    folder: Path,
    config: LearnerConfig,
    reader: ImageTextEncoder | None = None,
) -> Instruments:
    """Train, or find again in `folder`, what generators are measured with.

    Args:
        embedders: names, as `quality.embedders.make` takes them; those with weights of others need them on this disk.
        reader: one more embedder, which finds a sample's prompt among all; None: retrieval is not measured.

    Raises:
        WeightsMissing, ValueError: for an embedder that cannot be made.
    """
    sets = {name: _labelled(getattr(reference, name)) for name in ("train", "val")}
    classifier = Classifier.load(kept(held_out.train_scorer, folder, config=config, **sets), config.device)
    made = make(embedders, classifier=classifier, reference=from_uint8(reference.train.images), device=config.device)
    made += [reader] if reader else []
    values = requested(reference.train.table)
    columns = measurable(values)
    probes = Probes(reduced(reference.train.images, PROBED), values[:, columns])
    return Instruments(classifier, made, probes, [ATTRIBUTES[a] for a in columns])


def _labelled(films: Films) -> LabelledSet:
    return labelled.real(films.table, films.images, films.images.shape[-1])
