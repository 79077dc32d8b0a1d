"""How right edits are: errors against the true counterfactual, and what probes see.

| measure | meaning | best |
|---|---|---|
| PSNR inside, outside (dB) | error where the true films differ visibly, and elsewhere | high |
| SSIM inside, outside | likewise, structural similarity | 1 |
| effectiveness | how far the asked attribute's probe moves, as a share of how far it moves on the truth | 1 |
| drift (sd) | mean distance of all other probes' answers from those on the true counterfactual | 0 |
| identity kept | share of films that a network still takes for the same patient's (`recognition`) | 1 |
| perceptual distance | from the true counterfactual, on that network's features | 0 |
| composition (dB) | PSNR of the film after an edit that asks for no change | high |
| reversibility (dB) | PSNR of the film after an edit there and back | high |

PSNR is cut off at `MOST`, that of rounding to 8 bits. Each film is measured on its own, and pairs are resampled.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from chexgen_lib.estimates.comparison import compare
from chexgen_lib.estimates.measures import LEAST, pearson
from chexgen_lib.estimates.resampling import Resampling
from chexgen_lib.experiments.counterfactuals.films import ATTRIBUTES, Films, values
from chexgen_lib.experiments.counterfactuals.recognition import RECOGNISED, RecognisedFilms
from chexgen_lib.experiments.rectified_flow.probes import Probes
from chexgen_lib.images import from_uint8, reduced

MOST = float(10 * np.log10(12 * 255**2))  # dB, 58.9
SMALLEST = 16  # pixels of a region that has an error of its own
PROBED = 64  # pixels of a side that probes read
ALL, BOUND = "all", "truth, autoencoder"
ERRORS = ("PSNR inside (dB)", "PSNR outside (dB)", "SSIM inside", "SSIM outside")
EFFECTIVENESS, DRIFT = "effectiveness", "drift (sd)"
IDENTITY, PERCEPTUAL = "identity kept", "perceptual distance"
COMPOSITION, REVERSIBILITY = "composition (dB)", "reversibility (dB)"


def psnr(images: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """PSNR of each of N films, uint8 [N, S, S], over all pixels or those of `where`: [N], NaN for a tiny region."""
    where = np.ones(images.shape, bool) if where is None else where
    return np.array([_psnr(*one) for one in zip(images, truth, where, strict=True)])


def _psnr(image: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    if where.sum() < SMALLEST:
        return np.nan
    if np.array_equal(image[where], truth[where]):
        return MOST
    ours, true = (torch.from_numpy(from_uint8(x[where])) for x in (image, truth))
    return min(float(peak_signal_noise_ratio(ours, true, data_range=1.0)), MOST)


def ssim(images: np.ndarray, truth: np.ndarray, *where: np.ndarray) -> list[np.ndarray]:
    """Mean of each film's map of structural similarity over the pixels of each `where`, [N]; NaN for a tiny region."""
    ours, true = (torch.from_numpy(from_uint8(x))[:, None] for x in (images, truth))
    maps = structural_similarity_index_measure(ours, true, data_range=1.0, reduction="none", return_full_image=True)[1]
    maps = maps[:, 0].numpy()
    return [
        np.array([m[w].mean() if w.sum() >= SMALLEST else np.nan for m, w in zip(maps, own, strict=True)])
        for own in where
    ]


def errors(images: np.ndarray, films: Films) -> np.ndarray:
    """`ERRORS` of edited films against their true counterfactuals, [N, 4]."""
    both = films.region, ~films.region
    ratios = [psnr(images, films.after, where) for where in both]
    return np.stack([*ratios, *ssim(images, films.after, *both)], axis=1)


class ProbedFilms:
    """Probes trained on films with known attributes, and their answers on pairs and on edits of them.

    Args:
        films: the pairs that are edited.
        trained: pairs of other patients, both of whose films the probes learn from.
    """

    def __init__(self, films: Films, trained: Films):
        images, records = trained.everything()
        truth = values(records)
        varied = np.ptp(truth, axis=0) > 0
        self.names = [name for name, known in zip(ATTRIBUTES, varied, strict=True) if known]
        self.probes = Probes(reduced(images, PROBED), truth[:, varied])
        self.films = films
        self.before, self.after = self(films.before), self(films.after)
        change = values(films.targets)[:, varied] - values(films.records)[:, varied]
        self.asked = np.sign(change)  # [N, A]
        self.spread = np.concatenate([self.before, self.after]).std(axis=0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Answers [N, A]."""
        return self.probes(reduced(images, PROBED))

    def answered(self) -> pl.DataFrame:
        """Correlation of each probe's answers with the truth, on both films of all pairs: attribute, r."""
        truth = values([*self.films.records, *self.films.targets])[:, [ATTRIBUTES.index(name) for name in self.names]]
        answers = np.concatenate([self.before, self.after])
        r = [pearson(x, y, np.ones((1, len(x))))[0] for x, y in zip(answers.T, truth.T, strict=True)]
        return pl.DataFrame({"attribute": self.names, "r": np.round(r, 2)}).fill_nan(None)

    def movement(self, answers: np.ndarray) -> np.ndarray:
        """How far the asked attribute's answer moves from the film's in the asked direction, in sd, [N].

        NaN where what is changed has no probe (a side, a severity, a device).
        """
        column = [self.names.index(a) if a in self.names else -1 for a in self.films.attributes]
        rows = np.arange(len(column))
        moved = ((answers - self.before) * self.asked / self.spread)[rows, column]
        return np.where((np.array(column) >= 0) & (self.asked[rows, column] != 0), moved, np.nan)

    def drift(self, answers: np.ndarray) -> np.ndarray:
        """Mean distance of the answers on attributes that do not change from those on the truth, in sd, [N]."""
        distance = np.abs(answers - self.after) / self.spread
        return np.nanmean(np.where(self.asked == 0, distance, np.nan), axis=1)


def table(
    arms: Mapping[str, np.ndarray],
    films: Films,
    probed: ProbedFilms,
    recognised: RecognisedFilms,
    reference: str,
    n_bootstrap: int,
    seed: int = 0,
) -> pl.DataFrame:
    """Every measure of each arm's edited films, uint8 [N, S, S], for all pairs and by what is changed.

    Returns:
        attribute, metric, arm, `comparison.ESTIMATE` (differences from the arm `reference`), patients (the pairs of
        that attribute), seeds.
    """
    resampling = Resampling([pair.name for pair in films.pairs], n_bootstrap, seed)
    groups = {ALL: np.ones(len(films.pairs), bool)}
    groups |= {name: films.attributes == name for name in dict.fromkeys(films.attributes)}
    metrics_ = (*ERRORS, EFFECTIVENESS, DRIFT, IDENTITY, PERCEPTUAL)
    about = [{"attribute": group, "metric": metric} for group in groups for metric in metrics_]
    true = probed.movement(probed.after)
    measured = {}
    for arm, images in arms.items():
        answers = probed(images)
        others = (probed.drift(answers), recognised.recognised(images), recognised.distance(images))
        single = np.column_stack([errors(images, films), *others])  # [N, 7]
        moved = probed.movement(answers)
        columns = []
        for rows in groups.values():
            own = [weighted_mean(x, rows, resampling.weights) for x in single.T]
            ratio = weighted_mean(moved, rows, resampling.weights) / weighted_mean(true, rows, resampling.weights)
            columns += [*own[:4], ratio, *own[4:]]
        measured[arm] = np.stack(columns, axis=1)[None]  # [1, 1 + B, M]
    return with_own_pairs(compare(measured, about, resampling, reference), groups)


def with_own_pairs(table: pl.DataFrame, groups: Mapping[str, np.ndarray]) -> pl.DataFrame:
    """`patients` of each attribute's own pairs, bool [N]; `compare` counts all that are resampled."""
    own = {name: int(rows.sum()) for name, rows in groups.items()}
    return table.with_columns(patients=pl.col("attribute").replace_strict(own, return_dtype=pl.Int64))


def same_films(
    arms: Mapping[tuple[str, str], np.ndarray], films: np.ndarray, n_bootstrap: int, seed: int = 0
) -> pl.DataFrame:
    """PSNR of films that should be those they were, by metric and arm: the columns of `table` without differences."""
    resampling = Resampling(range(len(films)), n_bootstrap, seed)
    every, parts = np.ones(len(films), bool), []
    for (metric, arm), images in arms.items():
        values_ = weighted_mean(psnr(images, films), every, resampling.weights)[None, :, None]
        parts.append(compare({arm: values_}, [{"attribute": ALL, "metric": metric}], resampling))
    return pl.concat(parts)


def step_table(
    arms: Mapping[tuple[str, int, int], np.ndarray], films: Films, n_bootstrap: int, seed: int = 0
) -> pl.DataFrame:
    """Errors inside and outside by editor, steps and calls of the model, which are columns before those of `table`."""
    resampling = Resampling([pair.name for pair in films.pairs], n_bootstrap, seed)
    every, parts = np.ones(len(films.pairs), bool), []
    for (arm, steps, calls), images in arms.items():
        means = [weighted_mean(x, every, resampling.weights) for x in errors(images, films)[:, :2].T]
        about = [{"attribute": ALL, "metric": m, "steps": steps, "calls": calls} for m in ERRORS[:2]]
        parts.append(compare({arm: np.stack(means, axis=1)[None]}, about, resampling))
    return pl.concat(parts).sort("metric", "arm", "steps", maintain_order=True)


def weighted_mean(values_: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the known values of some films for each row of weights, [1 + B]; NaN for fewer than `LEAST`."""
    known = rows & np.isfinite(values_)
    if known.sum() < LEAST:
        return np.full(len(weights), np.nan)
    own = weights[:, known]
    with np.errstate(invalid="ignore"):
        return own @ values_[known] / own.sum(axis=1)


def goals(measured: pl.DataFrame, same: pl.DataFrame, editor: str, findings: Sequence[str]) -> pl.DataFrame:
    """What an editor should reach, beside what it does: goal, value, needed, reached (null: not measured).

    Args:
        measured, same: of `table`, with the arms "identity" and "truth, autoencoder", and of `same_films`.
        findings: those whose effectiveness counts, beside sex and view.
    """
    every = pl.concat([measured, same])

    def of(metric: str, arm: str, attribute: str = ALL) -> float | None:
        rows = every.filter(metric=metric, arm=arm, attribute=attribute)
        return rows["value"][0] if len(rows) else None

    asked = [(f"effectiveness, {name}", of(EFFECTIVENESS, editor, name), 0.9) for name in ("sex", "view", *findings)]
    asked.append((f"{IDENTITY}, share of films", of(IDENTITY, editor), RECOGNISED))
    better = (
        ("squared error inside: half of the identity's (dB gained)", ERRORS[0], "identity", 10 * np.log10(2)),
        ("squared error outside: 1.5 of the autoencoder's (dB gained)", ERRORS[1], BOUND, -10 * np.log10(1.5)),
        ("there and back: 2 dB below the autoencoder (dB gained)", REVERSIBILITY, BOUND, -2.0),
    )
    gained = [(name, _difference(of(metric, editor), of(metric, arm)), least) for name, metric, arm, least in better]
    rows = [(goal, value, need, None if value is None else value >= need) for goal, value, need in asked + gained]
    schema = {"goal": pl.String, "value": pl.Float64, "needed": pl.Float64, "reached": pl.Boolean}
    return pl.DataFrame(rows, schema, orient="row")


def metrics(measured: pl.DataFrame, same: pl.DataFrame, reached: pl.DataFrame) -> dict:
    """The numbers of all pairs for `dvc metrics`: metric -> arm -> value with its interval; and the goals reached."""
    found: dict = {}
    for row in pl.concat([measured, same]).filter(attribute=ALL).drop_nulls("value").iter_rows(named=True):
        own = {key: round(row[key], 4) for key in ("value", "low", "high")}
        found.setdefault(row["metric"], {})[row["arm"]] = own
    return found | {"goals reached": int(reached["reached"].sum()), "goals": len(reached)}


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def largest_findings(films: Films, n: int = 5) -> list[str]:
    """The findings whose coming or going changes most pixels, on average over their pairs."""
    share = {
        name: films.region[films.attributes == name].mean()
        for name in dict.fromkeys(films.attributes)
        if name in ATTRIBUTES[4:]
    }
    share.pop("No Finding", None)
    return sorted(share, key=share.get, reverse=True)[:n]
