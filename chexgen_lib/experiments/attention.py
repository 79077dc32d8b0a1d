"""Where classifiers look: Grad-CAM, and its share inside a finding's true mask (paper, Figure 4b; ED Figure 8)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from chexgen_lib.cohort import layout as cohort
from chexgen_lib.estimates.comparison import compare
from chexgen_lib.estimates.measures import LEAST, mean
from chexgen_lib.estimates.wording import readable
from chexgen_lib.experiments.repeats import Repeats
from chexgen_lib.learners.classifier import Classifier
from chexgen_lib.records import FINDINGS

LARGEST = 0.5  # share of the image that a mask may fill
NUMBERS = ("value", "low", "high", "difference", "difference_low", "difference_high")


def maps(model: Classifier, images: np.ndarray, findings: np.ndarray) -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017; MONAI's) of a finding in each image, [K, h, w], at least 0: evidence for it.

    Args:
        images: [K, H, W].
        findings: [K], index in FINDINGS.

    Returns:
        Maps of the size of the network's last feature maps.
    """
    from monai.visualize import GradCAM  # takes seconds to import: only where a map is drawn

    model.net.eval()
    # Not the norm after it: torchvision's forward changes its output in place.
    cam = GradCAM(model.net, target_layers=f"features.denseblock{len(model.size.block_config)}")
    # `compute_map` returns the raw map; calling `cam` would invert it and scale it to 0..1.
    by_row: dict[int, np.ndarray] = {}
    for finding in np.unique(findings):
        rows = np.flatnonzero(findings == finding)
        own = cam.compute_map(model.prepare(images[rows]), class_idx=int(finding))[:, 0].detach().cpu().numpy()
        by_row |= dict(zip(rows.tolist(), own, strict=True))
    return np.stack([by_row[row] for row in range(len(images))]) if by_row else np.zeros((0, 1, 1), np.float32)


def inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of the attention [K, h, w] that lies inside the masks, bool [K, H, W]: [K].

    By chance it is the mask's share of the image (`masks.mean((1, 2))`), which is also the share of a map that is zero
    everywhere.
    """
    heat = enlarged(maps, masks.shape[1:])
    total, within = heat.sum((1, 2)), (heat * masks).sum((1, 2))
    return np.where(total > 0, within / np.where(total > 0, total, 1), masks.mean((1, 2)))


def enlarged(maps: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Attention [K, h, w] on the image's pixels, [K, *shape]."""
    return torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], shape, mode="bilinear")[:, 0].numpy()


@dataclass(frozen=True)
class Cases:
    """Findings in images whose attention is measured.

    Attributes:
        rows: [K], of the images.
        findings: [K], index in FINDINGS.
        masks: bool [K, H, W], where each finding is.
    """

    rows: np.ndarray
    findings: np.ndarray
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def cases(folder: Path, rows: np.ndarray, n: int, seed: int) -> Cases:
    """A seeded random sample of at most `n` findings with a mask among cohort rows.

    Excluded are findings that fill most of the image, or none of it, and No Finding, which has no location. Real
    radiographs have no masks, so there K = 0.
    """
    if not cohort.has_masks(folder):
        return Cases(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 1, 1), bool))
    masks = cohort.load_finding_masks(folder, rows.tolist())  # [R, 14, H, W]
    filled = np.count_nonzero(masks, axis=(2, 3)) / masks[0, 0].size
    places = np.argwhere((filled > 0) & (filled < LARGEST))
    image, finding = places[np.sort(np.random.default_rng(seed).permutation(len(places))[:n])].T
    return Cases(rows[image], finding, masks[image, finding])


def table(shares: Mapping[str, np.ndarray], cases: Cases, patients: Sequence[str], repeats: Repeats) -> pl.DataFrame:
    """Mean share of the attention inside the masks over seeds and cases, overall ("Average") and by finding.

    A finding with fewer than `LEAST` cases, or cases of one patient, has no estimate; without cases the table is empty.

    Args:
        shares: initialisation -> [S, K]; the first is the reference of the differences.
        patients: of each case; whole patients are resampled, and seeds.

    Returns:
        finding, start (the initialisation), value, low, high, difference, difference_low, difference_high, n (cases),
        seeds, chance (the masks' mean share of the image).
    """
    columns = dict.fromkeys(("finding", "start"), pl.String) | dict.fromkeys(NUMBERS, pl.Float64)
    columns |= {"n": pl.Int64, "seeds": pl.Int64, "chance": pl.Float64}
    groups = {"Average": np.arange(len(cases))}
    groups |= {FINDINGS[f]: np.flatnonzero(cases.findings == f) for f in np.unique(cases.findings)}
    tables = [pl.DataFrame(schema=columns)]
    for name, rows in groups.items() if len(cases) else ():
        about = {"finding": name, "metric": "share", "n": len(rows), "chance": float(cases.masks[rows].mean())}
        tested = [patients[row] for row in rows]
        if len(rows) < LEAST or len(set(tested)) < 2:
            tables.append(pl.DataFrame([about | {"start": start, "seeds": len(s)} for start, s in shares.items()]))
            continue
        resampling = repeats.resampling(tested)
        values = {
            start: np.stack([mean(one[rows], resampling.weights)[:, None] for one in own])
            for start, own in shares.items()
        }
        tables.append(compare(values, [about], resampling, next(iter(shares))).rename({"arm": "start"}))
    return pl.concat(tables, how="diagonal_relaxed").select(list(columns))


def examples(
    cases: Cases, seeds: Mapping[str, Mapping[str, np.ndarray]], n: int = 8
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first case of each finding, at most n, and the attention of some networks on them, at the masks' resolution.

    Args:
        seeds: initialisation -> the result of a training, with `maps`.
    """
    chosen = np.unique(cases.findings, return_index=True)[1][:n]
    return chosen, {name: enlarged(run["maps"][chosen], cases.masks.shape[1:]) for name, run in seeds.items()}


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """For display: the share of all cases together, beside chance."""
    shown = table.filter(finding="Average").rename({"start": "initialisation"})
    return readable(shown.select("initialisation", "value", "low", "high", pl.col("chance").round(3), "n", "seeds"))
