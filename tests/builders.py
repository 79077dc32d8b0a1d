"""Small data sets that tests of several modules share."""

import struct
import zlib

import numpy as np
import polars as pl
import torch
from PIL import Image

from chexgen_lib.descriptions import check, grammar
from chexgen_lib.experiments.fairness.scores import evaluate
from chexgen_lib.models import foundation
from chexgen_lib.models.control import ControlledTransformer
from chexgen_lib.models.transformer import ChexGenTransformer
from chexgen_lib.pools import annotations
from chexgen_lib.pools.annotations import Annotated
from chexgen_lib.pools.groups import AGE_GROUPS, groups
from chexgen_lib.records import FINDINGS, assign_splits, conform
from chexgen_lib.sampling.conditions import CLASSES

BOX_CLASSES = ("bright", "dark")
BOX_SIDE = 64  # pixels of the images with boxes


def write_package(folder, files):
    """The files of a small `chexgen_lib` in a folder: name -> text."""
    for name, text in files.items():
        path = folder / "chexgen_lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def labelled_squares(n, seed, size=32):
    """Images [n, size, size] of random findings, and their labels [n, 14]."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 14)) < 0.4).astype(np.float32)
    return finding_squares(labels, rng, size), labels


def finding_squares(labels, rng, size=32):
    """An image for each row of labels: a bright square for each finding that is present."""
    n = len(labels)
    squares = np.concatenate([labels, np.zeros((n, 2))], 1).reshape(n, 4, 4)
    x = 0.2 + 0.5 * np.repeat(np.repeat(squares, size // 4, 1), size // 4, 2) + rng.normal(0, 0.05, (n, size, size))
    return np.clip(x, 0, 1).astype(np.float32)


def masked_discs(n, size=64, seed=0):
    """A bright disc in noise, its mask, and a class that is never there."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    centres = rng.uniform(20, 44, (n, 2))
    masks = np.stack([(y - cy) ** 2 + (x - cx) ** 2 < 100 for cy, cx in centres])
    images = np.clip(0.3 + 0.4 * masks + rng.normal(0, 0.1, masks.shape), 0, 1).astype(np.float32)
    return images, np.stack([masks, np.zeros_like(masks)], axis=1)


def graded_discs(n, seed=0, size=64):
    """uint8 images with a disc as bright as the score says, in noise."""
    rng = np.random.default_rng(seed)
    scores = rng.random(n)
    y, x = np.mgrid[:size, :size][:, None] - rng.uniform(24, 40, (n, 2)).T[..., None, None]
    images = 60 + 150 * scores[:, None, None] * (x**2 + y**2 < 200) + rng.normal(0, 12, (n, size, size))
    return np.clip(images, 0, 255).astype(np.uint8), scores


def boxed_squares(n, seed=0):
    """uint8 images: a bright or a dark square in noise, in every fourth none; and the boxes."""
    rng = np.random.default_rng(seed)
    images, boxes = rng.normal(120, 6, (n, BOX_SIDE, BOX_SIDE)), []
    for i, image in enumerate(images):
        kind, side, (top, left) = i % 2, int(rng.integers(18, 28)), rng.integers(2, 34, 2)
        boxes.append([])
        if i % 4 != 3:
            image[top : top + side, left : left + side] += 110 * (1 - 2 * kind)
            place = np.array([left, top, side, side]) / BOX_SIDE
            boxes[i] = [{"class": BOX_CLASSES[kind], **dict(zip("xywh", place.tolist(), strict=True))}]
    return np.clip(images, 0, 255).astype(np.uint8), boxes


def guessed_boxes(n, seed):
    """True boxes of two classes, and predicted ones: near, far or doubled, with scores that tie between images."""
    rng = np.random.default_rng(seed)
    truth = [[random_box(rng) for _ in range(rng.integers(4))] for _ in range(n)]
    predicted = []
    for boxes in truth:
        near = [{**box, "x": box["x"] + rng.normal(0, 0.04)} for box in boxes for _ in range(rng.integers(3))]
        boxes = [*near, *(random_box(rng) for _ in range(rng.integers(3)))]
        scores = rng.permutation(9)[: len(boxes)] / 10
        predicted.append([{**b, "x": np.clip(b["x"], 0, 0.8), "score": s} for b, s in zip(boxes, scores, strict=True)])
    return truth, predicted


def random_box(rng):
    """A box of one of two classes, all of one shape."""
    return {"class": BOX_CLASSES[rng.integers(2)], **{k: rng.uniform(0.1, 0.6) for k in "xy"}, "w": 0.2, "h": 0.15}


def curated_records(n=120, source="nih", findings=("Effusion", "Cardiomegaly")) -> pl.DataFrame:
    """Described and checked records with a split: every second shows `findings[0]`, every thirtieth `findings[1]`."""
    rows = []
    for i in range(n):
        state = dict.fromkeys(FINDINGS, 0.0)
        positive = findings[0] if i % 2 else "No Finding"
        state[findings[1] if i % 30 == 0 else positive] = 1.0
        rows.append(
            dict(
                image_id=f"{source}:{i}",
                source=source,
                patient_id=f"{source}:p{i // 2}",
                study_id=f"{source}:s{i}",
                image=f"{i}.png",
                view="PA" if i % 3 else "LATERAL",
                age=30.0 + i % 50,
                sex="MF"[i % 2],
                impression="Small effusion." if source == "openi" else None,
                **state,
            )
        )
    table = grammar.describe(assign_splits(conform(pl.DataFrame(rows)), seed=0))
    return check.check(table)


def scaling_runs(pairs=(20, 200, 1000, 2000), seeds=3):
    """The table of the trainings of a scaling experiment."""
    columns = {"model": "m", "parameters": 10, "steps": 5, "flops": 1.0}
    rows = [columns | {"share": str(d), "pairs": d, "seed": k} for d in pairs for k in range(seeds)]
    return pl.DataFrame(rows)


PAIRS_OF_RUNS = scaling_runs()["pairs"].to_numpy()
RUN_JITTER = np.exp(np.random.default_rng(3).normal(0, 0.02, len(PAIRS_OF_RUNS)))  # as repeated trainings differ


def square_mask(top, left, side=8, size=32):
    """Bool [size, size], True in a square."""
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def annotated_images(n=6, size=32) -> Annotated:
    """Each image has lungs and an effusion; even ones a pneumothorax and two clips, of which one is a speck."""
    masks = np.zeros((n, len(CLASSES), size, size), bool)
    for row in range(n):
        masks[row, CLASSES.index("lungs")] = square_mask(4 + row, 4, 20)
        masks[row, CLASSES.index("Effusion")] = square_mask(16, 2 + row)
        if row % 2 == 0:
            masks[row, CLASSES.index("Pneumothorax")] = square_mask(2, 2 + row)
            masks[row, CLASSES.index("Support Devices")] = (
                square_mask(1, 1, 3) | square_mask(20, 20, 4) | square_mask(30, 30, 1)
            )
    table = pl.DataFrame(
        {
            "image_id": [f"a:{i}" for i in range(n)],
            "patient_id": [f"a:{i}" for i in range(n)],
            "split": ["train", "train", "val", "test", "test", "test"],
            "prompt": [f"Prompt {i}." for i in range(n)],
        }
    )
    return Annotated(table, np.zeros((n, size, size), np.uint8), masks, CLASSES)


# Patients in groups, for fairness

FAIRNESS_ATTRIBUTES = ["sex", "race", "age group"]
RACES = ("Asian", "Black", "White")


def grouped_cohort(patients=150, seed=0, most=3, unknown=0.0):
    """Rows of patients with one to `most` images, and labels [N, 14], of which the share `unknown` is NaN."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
    table = pl.DataFrame(
        {
            "patient_id": [f"a:{i}" for i in patient],
            "sex": rng.choice(["F", "M"], patients)[patient],
            "race": rng.choice(RACES, patients, p=[0.2, 0.3, 0.5])[patient],
            "age group": pl.Series(rng.choice(list(AGE_GROUPS), patients)[patient], dtype=pl.Enum(list(AGE_GROUPS))),
        }
    )
    labels = (rng.random((len(table), 14)) < np.linspace(0.2, 0.5, 14)).astype(float)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return table, labels


def scores_around(labels, seed=0, noise=0.5):
    """Scores around the label; `noise`: a number, or one for each row."""
    random = np.random.default_rng(seed).normal(size=labels.shape)
    return np.nan_to_num(labels, nan=0.5) + np.broadcast_to(noise, len(labels))[:, None] * random


def scored(table, labels, scores, *, attributes=FAIRNESS_ATTRIBUTES, min_n=10, n_resamples=100, seed=0, **options):
    formed = groups(table, attributes, min_n=min_n, **options)
    return evaluate(formed, labels, scores, np.full(14, 0.5), n_resamples=n_resamples, seed=seed)


def harder(table, race="Black"):
    """Noise with which a classifier does badly in one group."""
    return np.where(table["race"] == race, 2.0, 0.5)


def few(labels, n=3):
    """The labels of the first n findings; the others are unknown, which makes fairlearn's work small."""
    return np.where(np.arange(14) < n, labels, np.nan)


def trainings(table, labels, noise, seeds=(0,), **options):
    """Evaluations of a training arm, one for each seed."""
    runs = (scores_around(labels, seed, noise) for seed in seeds)
    return [scored(table, labels, scores, attributes=["sex", "race"], **options) for scores in runs]


def attributed_records(n=60):
    """Records of two sources with age, sex, view, and effusion in half of them."""
    rng = np.random.default_rng(0)
    sick = rng.integers(0, 2, n)
    states = {f: np.zeros(n) for f in FINDINGS} | {"Effusion": sick, "Lung Opacity": sick, "No Finding": 1 - sick}
    about = {
        "patient_id": [f"p{k}" for k in range(n)],
        "image_id": [f"i{k}" for k in range(n)],
        "age": rng.uniform(20, 90, n),
        "sex": rng.choice(["F", "M"], n).tolist(),
        "view": (["PA", "AP", "LATERAL"] * n)[:n],
        "source": rng.choice(("here", "there"), n).tolist(),
    }
    return pl.DataFrame(about | states)


def lung_folder(folder, patients=10):
    """Patients with one to three images each, two bright lungs on a dark ground."""
    for name in ("images", "masks"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    for name in (f"patient{i}-{k}" for i in range(patients) for k in range(1 + i % 3)):
        mask = np.zeros((32, 32), bool)
        top = rng.integers(2, 10)
        mask[top : top + 16, 4:12] = mask[top : top + 16, 20:28] = True
        Image.fromarray((40 + 150 * mask + rng.integers(0, 30, mask.shape)).astype(np.uint8)).save(
            folder / "images" / f"{name}.png"
        )
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


def lung_pool(folder, size):
    """What stage 06 leaves: two images for each mask of a training patient; the pixels do not matter."""
    data = annotations.load_lung_masks(folder, size)
    requests = annotations.choose_requests(data, "train", {"lungs": 100})
    hashes = [annotations.condition_hash(image) for image in annotations.condition_images(data, requests)]
    manifest = requests.with_columns(
        record=data.table["image_id"].gather(requests["row"]), condition_hash=pl.Series(hashes)
    )
    (folder / "pool").mkdir()
    manifest.drop("row").write_parquet(folder / "pool/manifest.parquet")
    rng = np.random.default_rng(1)
    np.save(folder / "pool/samples.npy", rng.integers(0, 255, (len(requests), 2, size, size), np.uint8))
    return folder / "pool"


def shipped_foundation(folder, monkeypatch, sample_size=4, **config):
    """A small random rectified flow, saved in `folder` as the package ships it and taken for what it ships."""
    torch.manual_seed(0)
    model = ChexGenTransformer.of_size(
        "ci", **{"sample_size": sample_size, "text_dim": 384, "objective": "rectified_flow", **config}
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    history = pl.DataFrame({"step": [0, 6], "loss": [1.0, 0.5], "grad_norm": [2.0, 1.0], "learning_rate": [1e-3, 0.0]})
    recipe = {"images": 12, "patients": 11, "hours": 0.1, "machine": "any", "commit": "none"}
    recipe["training"] = {"steps": 7, "batch_size": 4, "objective": "rectified_flow"}
    foundation.save_transformer(folder, model.eval(), recipe, history)
    monkeypatch.setattr(foundation, "FOLDER", folder)
    return folder, model


def shipped_adapter(folder, monkeypatch):
    """A small random adapter of the foundation that is taken for the shipped one, saved and taken for shipped, too."""
    torch.manual_seed(1)
    model = ControlledTransformer.on(foundation.load_transformer(), copied_blocks=1)
    for parameter in model.controlnet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    history = pl.DataFrame({"step": [0, 3], "loss": [1.0, 0.5], "grad_norm": [2.0, 1.0], "learning_rate": [1e-3, 0.0]})
    foundation.save_adapter(folder, model.eval(), {"images": 8}, history)
    monkeypatch.setattr(foundation, "ADAPTER", folder)
    return folder, model


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits in grey, grey and alpha, RGB or RGBA, from [H, W] or [H, W, C]; Pillow writes only the first."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    size = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
