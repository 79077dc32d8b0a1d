"""What the experiments train on images and measure images with, each on a device: its numbers."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import polars as pl
import torch

from chexgen_lib.experiments.adapter import load_reader, train_reader
from chexgen_lib.experiments.attention import Cases
from chexgen_lib.experiments.counterfactuals import recognition
from chexgen_lib.experiments.counterfactuals.films import Films
from chexgen_lib.experiments.fine_tuning import INTERNAL, Labels, Tuning
from chexgen_lib.experiments.pretraining import pretrain_and_fine_tune
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners import starts
from chexgen_lib.learners.base import LearnerConfig, device_for
from chexgen_lib.learners.classifier import Classifier, ClassifierSize, train_classifier
from chexgen_lib.learners.detector import train_detector
from chexgen_lib.learners.regressor import train_regressor
from chexgen_lib.phantom.counterfactual_benchmark import benchmark
from chexgen_lib.pools.annotations import Annotated
from chexgen_lib.privacy import model_error
from chexgen_lib.quality import embedders, retrieval
from chexgen_lib.quality.held_out import train_scorer
from chexgen_lib.records import FINDINGS
from chexgen_lib.rehearsal import weights
from chexgen_lib.rehearsal.sizes import SMALL
from tests.builders import BOX_CLASSES, boxed_squares, graded_discs, labelled_squares, masked_discs
from tests.devices.sampling_cases import flow, pictures, pipeline
from tests.privacy.films import named
from tests.quality.test_retrieval import tiny_clip

TINY = ClassifierSize(32, 8, 8, (2, 2))


def config(**changes) -> LearnerConfig:
    """Settings of a training, on the device where an experiment trains without other processes."""
    return Repeats(1).configs(LearnerConfig(**dict(steps=2, batch_size=4, checks=1) | changes))[0]


def scorer(device: torch.device) -> np.ndarray:
    """A classifier that is trained, saved, loaded and used for features."""
    images, labels = labelled_squares(12, 0)
    part = SimpleNamespace(images=images, labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        train_scorer(Path(folder) / "scorer", part, part, config(size=TINY))
        classifier = Classifier.load(Path(folder) / "scorer", device_for(0))
    features = embedders.make(["classifier"], classifier=classifier)[0](images)
    return np.concatenate([features.flatten(), classifier.predict(images).flatten()])


def fine_tuned(device: torch.device) -> np.ndarray:
    """A classifier that is pretrained, one that starts from it, and where that one looks."""
    images, labels = labelled_squares(12, 0)
    rows = np.arange(12)
    tuning = Tuning(INTERNAL, "all", rows, rows, rows, config(size=TINY), measure_attention=True)
    cases = Cases(rows[:2], np.array([0, 3]), np.ones((2, 32, 32), bool))
    given = (images * 255).astype(np.uint8), {INTERNAL: Labels(FINDINGS, labels)}, rows, cases
    tunings = {"all": tuning, "again": replace(tuning, measure_attention=False)}
    with tempfile.TemporaryDirectory() as folder:
        options = dict(pretrained_on=rows, pretraining=config(size=TINY), tunings=tunings)
        made = pretrain_and_fine_tune(*given, **options, folder=Path(folder))
    return np.concatenate([values.flatten() for values in made.values()])


def started(start: str, device: torch.device) -> np.ndarray:
    """A classifier from the weights of others."""
    images, labels = labelled_squares(8, 0, 64)
    with tempfile.TemporaryDirectory() as folder:
        if start == starts.IMAGENET:
            path = weights.torchvision(Path(folder) / "densenet121-a.pth")
        else:
            path = weights.rad_dino(Path(folder) / "dino")
        with patch.object(starts.weights_store, "find", lambda weight: path):
            chosen = config(size=starts.size_of(SMALL, start), steps=1)
            return train_classifier(images, labels, chosen, val=(images, labels)).predict(images)


def segmented(device: torch.device) -> np.ndarray:
    """A segmenter that is trained where some masks are unknown, saved, and read back."""
    images, masks = masked_discs(6)
    known, classes = np.array([[True, k % 2 == 0] for k in range(6)]), ("disc", "nothing")
    table = pl.DataFrame({"split": ["train"] * 6})
    data, settings = Annotated(table, (images * 255).astype(np.uint8), masks, classes, known), config(size="ci")
    with tempfile.TemporaryDirectory() as folder:
        train_reader(Path(folder), data, settings)
        return load_reader(Path(folder), classes, settings).predict(data.images)


def graded(device: torch.device) -> np.ndarray:
    images, scores = graded_discs(6)
    return train_regressor(images, scores, config(size="ci"), val=(images, scores)).predict(images)


def detected(device: torch.device) -> np.ndarray:
    images, boxes = boxed_squares(6)
    detector = train_detector(images, boxes, BOX_CLASSES, config(size="ci"), val=(images, boxes))
    return np.array([[box["x"], box["w"], box["score"]] for one in detector.predict(images[:2]) for box in one[:5]])


def clip(device: torch.device) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return embedders.ClipEmbedder(weights.clip(Path(folder)), device_for(0))(pictures(2) / np.float32(255))


def image_text(device: torch.device) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        encoder = retrieval.ImageTextEncoder(tiny_clip(Path(folder)), device_for(0))
        return np.concatenate([encoder(pictures(2) / np.float32(255)), encoder.texts(["a", "b"])])


def xrv(device: torch.device) -> np.ndarray:
    """torchxrayvision's features and scores."""
    import torchxrayvision

    make = torchxrayvision.models.DenseNet.__init__
    small = 4, (1, 1, 1, 1), 8, *make.__defaults__[3:]  # growth, layers and first width of a far smaller DenseNet
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(make, "__defaults__", small),
    ):
        name = torchxrayvision.models.model_urls["mimic_ch"]["weights_url"].rsplit("/", 1)[1]
        weights.xrv(Path(folder) / name)
        embedder = embedders.XrvEmbedder("mimic_ch", folder, device_for(0))
    images = pictures(2) / np.float32(255)
    return np.concatenate([embedder(images).flatten(), np.nan_to_num(embedder.predict(images)).flatten()])


def membership(device: torch.device) -> np.ndarray:
    """The error by which the audit tells what a generator was trained on."""
    return model_error.scores(named(pictures(4), "film"), pipeline(flow().to(device)))


def recognised(device: torch.device) -> np.ndarray:
    """The network that tells patients apart, trained, loaded and used for likeness and distance."""
    films = Films(benchmark(4, 1), pictures(4), pictures(4, seed=1))
    with tempfile.TemporaryDirectory() as folder:
        recognition.train(Path(folder), films, pictures(4, seed=2), config(size=TINY))
        network = recognition.load(Path(folder), config(size=TINY))
    return np.concatenate([network.embed(films.before).flatten(), network.distance(films.before, films.after)])


CASES: dict[str, Callable[[torch.device], np.ndarray]] = {
    "an encoder of images and texts": image_text,
    "a scorer": scorer,
    "pretraining and fine-tuning": fine_tuned,
    "a start from ImageNet": lambda device: started(starts.IMAGENET, device),
    "a start from RAD-DINO": lambda device: started(starts.RAD_DINO, device),
    "a segmenter": segmented,
    "a regressor": graded,
    "a detector": detected,
    "CLIP": clip,
    "torchxrayvision": xrv,
    "membership": membership,
    "recognition of patients": recognised,
}
