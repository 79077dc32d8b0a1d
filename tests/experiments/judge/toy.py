"""A cohort of bright squares to judge on, and instruments that read them off."""

from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib.experiments.judge.asked_and_shown import ATTRIBUTES, measurable, requested
from chexgen_lib.experiments.judge.bench import Instruments
from chexgen_lib.images import from_uint8, to_uint8
from chexgen_lib.records import FINDINGS, SCHEMA
from tests.builders import finding_squares

SIZE = 64
RENDERED: list[dict[str, int]] = []  # what `render` was asked for


class Squares:
    """A scorer, an embedder and the probes of findings in one: the mean grey of each of the 16 squares."""

    name, dim = "squares", 16

    def __call__(self, images: np.ndarray) -> np.ndarray:
        cell = images.shape[-1] // 4
        return images.reshape(len(images), 4, cell, 4, cell).mean((2, 4)).reshape(len(images), 16).astype(np.float32)

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self(images)[:, :14]


class SquareProbes:
    """Findings as the squares show them; sex, and left or right, as the two squares that are left over."""

    def __init__(self, columns: list[int]):
        self.columns = columns

    def __call__(self, images: np.ndarray) -> np.ndarray:
        seen = Squares()(from_uint8(images))
        answers = np.concatenate(
            [seen[:, 14:15], seen[:, :1], seen[:, :1], seen[:, 1:2], seen[:, 15:], seen[:, :14]], 1
        )
        return answers[:, self.columns]


def records(n: int, split: str, seed: int) -> pl.DataFrame:
    """Frontal Records of as many patients, with prompts, details and random findings."""
    rng = np.random.default_rng(seed)
    states = (rng.random((n, 14)) < 0.4).astype(np.float32)
    ids = [f"toy:{split}{k}" for k in range(n)]
    sides = [("left", "right")[k % 2] for k in range(n)]
    details = [[{"finding": "Effusion", "side": s, "site": None, "severity": "mild"}] for s in sides]
    columns = {"image_id": ids, "patient_id": [f"{i}p" for i in ids], "split": [split] * n, "source": ["toy"] * n}
    columns |= {"view": ["PA", "AP"] * (n // 2), "sex": rng.choice(["F", "M"], n), "age": rng.uniform(20, 90, n)}
    columns |= {"race": [None] * n, "prompt": [f"Prompt {i}." for i in ids], "image": [f"{i}.png" for i in ids]}
    columns |= {finding: states[:, k] for k, finding in enumerate(FINDINGS)}
    table = pl.DataFrame(columns, schema_overrides={"race": pl.String})
    return table.with_columns(details=pl.Series(details, dtype=SCHEMA["details"]))


def films(table: pl.DataFrame, seed: int, obey: bool = True) -> np.ndarray:
    """uint8 images of what the records request, or of other findings."""
    rng = np.random.default_rng(seed)
    labels = table.select(FINDINGS).to_numpy()
    images = finding_squares(labels if obey else labels[rng.permutation(len(labels))], rng, SIZE)
    cell = SIZE // 4
    images[:, -cell:, 2 * cell : 3 * cell] = 0.2 + 0.5 * (table["sex"] == "M").to_numpy()[:, None, None]
    sides = np.array([d[0]["side"] == "left" for d in table["details"].to_list()])
    images[:, -cell:, 3 * cell :] = 0.2 + 0.5 * sides[:, None, None]
    return to_uint8(np.clip(images + rng.normal(0, 0.03, (len(images), 1, 1)), 0, 1).astype(np.float32))


def cohort(folder: Path, test: int = 120, train: int = 60, val: int = 30) -> Path:
    """A cohort's folder, as `load_reference` reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pl.concat(
        records(n, split, k) for k, (split, n) in enumerate({"test": test, "train": train, "val": val}.items())
    )
    table.write_parquet(folder / "cohort.parquet")
    np.save(folder / f"images_{SIZE}.npy", films(table, 5))
    return folder


def render(folder: Path, counts: dict[str, int], resolution: int, workers: int) -> None:
    """In place of `rendered.render_reference`."""
    RENDERED.append(counts)
    cohort(folder)


def instruments(train: pl.DataFrame) -> Instruments:
    """Instruments that need no training."""
    columns = measurable(requested(train))
    return Instruments(Squares(), [Squares()], SquareProbes(columns), [ATTRIBUTES[c] for c in columns])
