"""Does control work? One attribute is asked for at a time, and probes that learnt from real images read it.

An attribute has two poles (`poles`): women and men, PA and AP, a finding absent and present, two ages 40 years apart.
`pairs` takes real records and asks for each of them at both poles, with the same noise, so that the asked attribute is
balanced and the others are as in reality. `control_table` says how well the probes tell the poles apart, beside the
same probes on held-out real images; `off_target` how far they move for what was not asked to change.

What the probes cannot see on real images they cannot find on samples, and a generator may exaggerate what it is asked
for: a sample that a probe reads more easily than a real image is not a better image.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from skimage.feature import hog
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import rbf_kernel

from chexgen_lib import images as im
from chexgen_lib.estimates.resampling import Interval, correlation, interval_of, pair_sums, resample_counts
from chexgen_lib.experiments.augmentation import patient_counts
from chexgen_lib.learners.classifier import auroc
from chexgen_lib.models.metadata import ATTRIBUTES, SEXES
from chexgen_lib.records import FINDINGS

YOUNG, YEARS = (20, 50), 40  # a pair's lower age is in this range, its upper one so many years more
MACRO = "findings, macro"
BARS = {MACRO: 0.75, "sex": 0.9, "view": 0.9, "age": 0.5}  # AUROC, for age the correlation, that control should reach
LEAST = 5  # pairs, or real images of each pole, that an interval needs
SUMMARIES = ("No Finding", "Lung Opacity")  # findings that follow from others


class ControlError(ValueError):
    """Attributes, records or counts that control cannot be asked or measured with."""


def poles(sources: Sequence[str]) -> dict[str, tuple]:
    """The two values of each attribute that are told apart; `age` has a range of them instead (`asked_value`).

    sources: two, of different acquisition; any, where no one asks for them.
    """
    return {"sex": SEXES, "view": ("PA", "AP"), "source": tuple(sources), **dict.fromkeys(FINDINGS, (0, 1))}


def truth(table: pl.DataFrame, attributes: Sequence[str], sources: Sequence[str]) -> np.ndarray:
    """What records are: [N, A], age in years, else 0 or 1 for the poles, NaN for unknown or any other value.

    Raises ControlError for an attribute that does not exist.
    """
    if unknown := [name for name in attributes if name not in ATTRIBUTES]:
        raise ControlError(f"unknown attribute {unknown[0]!r}: use some of {', '.join(ATTRIBUTES)}")
    if "source" in attributes and len(set(sources)) != 2:
        raise ControlError(f"sources: needs two to tell apart, got {list(sources)}; or leave source out")
    ends = poles(sources)

    def column(name: str) -> np.ndarray:
        if name == "age":
            return table[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        low, high = (table[name] == end for end in ends[name])
        return pl.select(pl.when(high).then(1.0).when(low).then(0.0).otherwise(np.nan)).to_series().to_numpy()

    return np.stack([column(name) for name in attributes], axis=1)


def check_truth(values: np.ndarray, attributes: Sequence[str], which: str) -> None:
    """Raise ControlError unless both poles of every attribute have `LEAST` images; `which` says of what they are."""
    for name, known in zip(attributes, values.T, strict=True):
        known = known[~np.isnan(known)]
        levels, counts = np.unique(known, return_counts=True)
        if len(levels) < 2:
            shown = f"only {levels[0]:g}" if len(levels) else "no known value"
            raise ControlError(f"{name}: the {which} images have {shown}; leave it out of the attributes")
        if name != "age" and counts.min() < LEAST:
            raise ControlError(
                f"{name}: one pole has {counts.min()} of the {which} images, an interval needs {LEAST}; leave it out "
                "of the attributes or take a larger cohort"
            )


# ------------------------------------------------------------------------------------------------------ asking


def asked_value(name: str, pole: int, k: int, n: int, sources: Sequence[str]) -> object:
    """What the k-th of n pairs asks for at pole 0 or 1; ages are spread evenly."""
    if name == "age":
        return YOUNG[0] + (YOUNG[1] - YOUNG[0]) * k / max(1, n - 1) + YEARS * pole
    return poles(sources)[name][pole]


def metadata_of(table: pl.DataFrame) -> list[dict]:
    """What is known of records, as metadata."""
    return [{key: row[key] for key in ATTRIBUTES if row.get(key) is not None} for row in table.iter_rows(named=True)]


def ask(row: Mapping, name: str, value: object) -> dict:
    """Metadata of a record with one attribute changed; what the change would contradict is left unsaid.

    "No Finding" and "Lung Opacity" follow from other findings: they are unsaid where another is asked for, and the
    others are unsaid where one of these is (support devices can go with both).
    """
    said = {key: row[key] for key in ATTRIBUTES if row.get(key) is not None}
    if name in SUMMARIES:
        unsaid = set(FINDINGS) - {"Support Devices"}
    elif name in FINDINGS and name != "Support Devices":
        unsaid = set(SUMMARIES)
    else:
        unsaid = set()
    return {key: said[key] for key in said if key not in unsaid} | {name: value}


def pairs(
    table: pl.DataFrame, attributes: Sequence[str], n: int, sources: Sequence[str], seed: int = 0
) -> tuple[pl.DataFrame, list[dict], list[dict]]:
    """`n` records for each attribute, and what is asked for at its low and its high pole.

    table: real records that lend the other attributes. Returns the requests (image_id, attribute, k, record), rows of
    one attribute together, and the metadata of both poles in their order. Raises ControlError for fewer than `LEAST`.
    """
    if n < LEAST:
        raise ControlError(f"{n} pairs an attribute are asked for, an interval needs {LEAST}: raise `pairs`")
    if table.is_empty():
        raise ControlError("there are no real records to take the other attributes from")
    rng, requests, asked = np.random.default_rng(seed), [], ([], [])
    rows = table.to_dicts()
    for name in attributes:
        order = np.resize(rng.permutation(len(rows)), n)
        for k, row in enumerate(order):
            requests.append((f"{name}/{k}", name, k, rows[row]["image_id"]))
            for pole in (0, 1):
                asked[pole].append(ask(rows[row], name, asked_value(name, pole, k, n, sources)))
    return pl.DataFrame(requests, ["image_id", "attribute", "k", "record"], orient="row"), *asked


def walks(row: Mapping, attributes: Sequence[str], sources: Sequence[str]) -> list[tuple[str, list[str], list[dict]]]:
    """Attribute, values in words and metadata of a record in which it takes its poles, or five ages in turn."""
    found = []
    for name in attributes:
        values = [20, 35, 50, 65, 80] if name == "age" else poles(sources)[name]
        words = [f"{value} years" if name == "age" else str(value) for value in values]
        words = ["absent", "present"] if name in FINDINGS else words
        found.append((name, words, [ask(row, name, value) for value in values]))
    return found


# ----------------------------------------------------------------------------------------------------- probing


class Probes:
    """Kernel ridge regression of each attribute on what a small image shows: its pixels and its edges.

    Pixels and histograms of oriented gradients (Dalal & Triggs 2005), each as whitened principal components. On a few
    thousand images of 64 px this reads age, sex, view and findings better than a small network, in seconds, and is a
    function of the data alone.

    images: [N, H, W] in [0, 1] or uint8; values: [N, A] of `truth`, NaN unknown.
    """

    def __init__(self, images: np.ndarray, values: np.ndarray, components: int = 256, ridge: float = 0.1):
        self.parts = []
        for part in _looks(images):
            kept = min(components, part.shape[1], len(part) // 2)
            self.parts.append(PCA(kept, whiten=True, svd_solver="randomized", random_state=0).fit(part))
        self.features = self._features(images)
        self.gamma = 0.5 / self.features.shape[1]
        kernel = rbf_kernel(self.features, gamma=self.gamma)
        self.mean = np.nanmean(values, axis=0)  # [A]
        self.weights = np.zeros(values.shape)  # [N, A]
        known = ~np.isnan(values)
        for pattern in np.unique(known, axis=1).T:  # attributes that are known of the same images share a factorisation
            same = (known == pattern[:, None]).all(0)
            centred = values[np.ix_(pattern, same)] - self.mean[same]
            fitted = KernelRidge(alpha=ridge, kernel="precomputed").fit(kernel[np.ix_(pattern, pattern)], centred)
            self.weights[np.ix_(pattern, same)] = fitted.dual_coef_

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Answers [N, A]: age in years, else about 0 to 1."""
        return rbf_kernel(self._features(images), self.features, gamma=self.gamma) @ self.weights + self.mean

    def _features(self, images: np.ndarray) -> np.ndarray:
        return np.concatenate([pca.transform(x) for pca, x in zip(self.parts, _looks(images), strict=True)], axis=1)


def _looks(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, H * W] and oriented gradients [N, D]."""
    images = im.check(im.from_uint8(images) if images.dtype == np.uint8 else images)
    edges = [hog(image, orientations=6, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in images]
    return images.reshape(len(images), -1), np.stack(edges)


# --------------------------------------------------------------------------------------------------- measuring


def control_table(
    requests: pl.DataFrame,
    answers: np.ndarray,
    real: np.ndarray,
    real_truth: np.ndarray,
    attributes: Sequence[str],
    patients: Sequence[str],
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """How well the probes tell what was asked for, beside the same probes on held-out real images.

    answers: [2, R, A] of the probes on the samples of both poles, in the order of `requests`; real: [N, A] on real
    images, which are `real_truth` [N, A] and of `patients` [N].

    Columns: attribute, measure, images ("samples" or "real"), value, low, high, n. Measures: "AUROC" of the poles; for
    age "correlation" of asked and read years, and "mean error (years)". Pairs, or real patients, are resampled. The
    rows of the attribute "findings, macro" average the findings' AUROC.
    """
    rows, macro = [], {"samples": [], "real": []}
    drawn = patient_counts(patients, n_resamples, np.random.default_rng(seed))  # [B, N]
    for a, name in enumerate(attributes):
        of = (requests["attribute"] == name).to_numpy()
        n, read = int(of.sum()), answers[:, of, a]  # [2, n]
        asked = np.zeros(read.shape) + [[0.0], [1.0]]
        if name == "age":
            asked = np.array([[asked_value(name, pole, k, n, ()) for k in range(n)] for pole in (0, 1)])
        known = ~np.isnan(real_truth[:, a])
        sides = {"samples": (asked.T, read.T), "real": (real_truth[known, a, None], real[known, a, None])}
        counts = {"samples": resample_counts(n, n_resamples, np.random.default_rng(seed)), "real": drawn[:, known]}
        for images, (want, have) in sides.items():
            counted = np.concatenate([np.ones((1, len(want)), int), counts[images]])
            measured = _age(want, have, counted) if name == "age" else {"AUROC": _auroc(want, have, counted)}
            if name in FINDINGS:
                macro[images].append(measured["AUROC"])
            for measure, values in measured.items():
                rows.append(_row(name, measure, images, values, want.size))
    for images, values in macro.items():
        if values:
            size = 2 * int(requests["attribute"].is_in(FINDINGS).sum()) if images == "samples" else len(real)
            rows.append(_row(MACRO, "AUROC", images, np.mean(values, axis=0), size))
    return pl.DataFrame(rows)


def _row(name: str, measure: str, images: str, values: np.ndarray, n: int) -> dict:
    interval = interval_of(values[0], values[1:], n)
    about = {"attribute": name, "measure": measure, "images": images}
    return about | {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}


def _auroc(want: np.ndarray, have: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[n, k] labels and scores, rows resampled -> [1 + B]."""
    return auroc(want.ravel(), have.ravel(), counts.repeat(want.shape[1], axis=1))


def _age(want: np.ndarray, have: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    sums = pair_sums(want, have).sum(1)  # [n, 6]
    error = np.abs(want - have).mean(1)  # [n]
    return {"correlation": correlation(counts @ sums), "mean error (years)": counts @ error / counts.sum(1)}


def against_bars(table: pl.DataFrame) -> list[str]:
    """What of `BARS` the samples of a `control_table` reach; one line each."""
    lines = []
    for name, bar in BARS.items():
        own = table.filter(pl.col("measure") != "mean error (years)", attribute=name, images="samples")
        for r in own.iter_rows(named=True):
            said = "reached" if r["value"] >= bar else f"missed by {bar - r['value']:.2f}"
            lines.append(f"{name}: {r['measure']} {r['value']:.2f}, bar {bar:g}: {said}")
    return lines


def off_target(
    requests: pl.DataFrame,
    answers: np.ndarray,
    real: np.ndarray,
    real_truth: np.ndarray,
    attributes: Sequence[str],
    n_resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """How far the probe of `measured` moves, at a fixed seed, where `asked` goes from its low pole to its high one.

    Arguments as for `control_table`. In standard deviations of the probe's answers on the real images, mean over the
    pairs. Columns: asked, measured, value, low, high, n (pairs), and `real`: the same difference between real images of
    the two poles (ages: at least 55 against under 55), of which some is cause and some is company.
    """
    spread, rows = real.std(0), []
    for a, asked in enumerate(attributes):
        of = (requests["attribute"] == asked).to_numpy()
        moved = (answers[1, of] - answers[0, of]) / spread  # [n, A]
        counts = resample_counts(len(moved), n_resamples, np.random.default_rng(seed))
        resampled = counts @ moved / len(moved)  # [B, A]
        is_high = real_truth[:, a] >= (55 if asked == "age" else 1)
        known = ~np.isnan(real_truth[:, a])
        company = (real[known & is_high].mean(0) - real[known & ~is_high].mean(0)) / spread
        for b, measured in enumerate(attributes):
            found: Interval = interval_of(moved[:, b].mean(), resampled[:, b], len(moved))
            about = {"asked": asked, "measured": measured, "value": found.value, "low": found.low, "high": found.high}
            rows.append(about | {"n": found.n, "real": float(company[b])})
    return pl.DataFrame(rows)
