"""Reader study: a blinded form for radiologists, and the analysis of their scores (paper, Figure 2c).

The paper shows two radiologists 150 impressions with one image of each model, in random order, and asks for a score
from -2 to 2. `export` writes the images under blind names, one form per reader and a key; the key stays with the
organiser of the study. `read` checks the filled forms and `summarise` gives mean, sd and the paired Wilcoxon test.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from chexgen_lib import images as im
from chexgen_lib.estimates.comparison import estimate, paired_wilcoxon
from chexgen_lib.estimates.measures import mean
from chexgen_lib.estimates.resampling import Resampling

ANCHORS = {  # paper, Methods, "Quality Assessment of Generated Images"
    -2: "complete mismatch between image and report",
    -1: "key pathological findings are missing",
    0: "major findings are present, details are missing",
    1: "good alignment with most aspects of the report",
    2: "perfect correspondence with all reported findings",
}


def export(
    folder: str | Path,
    prompts: Sequence[str],
    arms: dict[str, np.ndarray],
    *,
    readers: Sequence[str] = ("reader-1", "reader-2"),
    seed: int = 0,
) -> Path:
    """Write blinded images, one form per reader and the key (key.csv: blind name -> case and arm).

    arms: arm name -> images [P, H, W] in [0, 1], one per prompt. Each reader gets all images in another
    order. Raises FileExistsError rather than overwrite a form that may be filled.
    """
    folder = Path(folder)
    if sizes := {name: len(x) for name, x in arms.items() if len(x) != len(prompts)}:
        raise ValueError(f"each arm needs one image for each of the {len(prompts)} prompts, got {sizes}")
    if (folder / "key.csv").exists():
        raise FileExistsError(f"{folder} already holds a reader study; choose another folder")
    rng = np.random.default_rng(seed)
    cases = [(case, arm) for case in range(len(prompts)) for arm in arms]
    names = [f"{i:04d}.png" for i in rng.permutation(len(cases))]
    for name, (case, arm) in zip(names, cases, strict=True):
        im.write_png(folder / "images" / name, arms[arm][case])
    scale = "; ".join(f"{score:+d} {text}" for score, text in ANCHORS.items())
    form = pl.DataFrame({"image": names, "report": [prompts[case] for case, _ in cases]})
    form = form.with_columns(pl.lit("").alias("score"), pl.lit(scale).alias("scale"))
    for reader in readers:
        form[rng.permutation(form.height).tolist()].write_csv(folder / f"form-{reader}.csv")
    key = pl.DataFrame({"image": names, "case": [c for c, _ in cases], "arm": [a for _, a in cases]})
    key.write_csv(folder / "key.csv")
    return folder


def read(folder: str | Path) -> pl.DataFrame:
    """Filled forms of a study -> reader, case, arm, score (Int64). Unblinds with key.csv.

    Raises ValueError naming form and image for a score that is missing, repeated or not one of -2 to 2.
    """
    folder = Path(folder)
    if not (folder / "key.csv").is_file():
        raise FileNotFoundError(f"{folder / 'key.csv'} is missing; without it the forms cannot be unblinded")
    key = pl.read_csv(folder / "key.csv", schema_overrides={"image": pl.String})
    filled = []
    for path in sorted(folder.glob("form-*.csv")):
        form = pl.read_csv(path, infer_schema=False)
        if missing := {"image", "score"} - set(form.columns):
            raise ValueError(f"{path}: columns {sorted(missing)} are missing; fill in the form as exported")
        if sorted(form["image"]) != sorted(key["image"]):
            raise ValueError(f"{path}: its images are not those of key.csv, each once; fill in the form as exported")
        score = pl.col("score").str.strip_chars().str.strip_prefix("+").cast(pl.Int64, strict=False)
        form = form.with_columns(score.alias("value"))
        wrong = form.filter(~pl.col("value").is_in(list(ANCHORS)).fill_null(False))
        if wrong.height:
            image, text = wrong.select("image", "score").row(0)
            raise ValueError(f"{path}, {image}: score {text!r}; use -2, -1, 0, 1 or 2 ({wrong.height} to correct)")
        form = form.select("image", pl.col("value").alias("score"))
        filled.append(key.join(form, on="image").with_columns(pl.lit(path.stem[5:]).alias("reader")))
    if not filled:
        raise FileNotFoundError(f"{folder}: no form-*.csv; reader_study.export writes them")
    return pl.concat(filled).select("reader", "case", "arm", "score").sort("reader", "case", "arm")


def summarise(scores: pl.DataFrame, *, baseline: str, n_resamples: int = 1000, seed: int = 0) -> pl.DataFrame:
    """Each reader's mean of each arm with its interval over cases, and the paired test against `baseline`.

    Returns:
        reader, arm, value, sd (over cases), low, high, n (cases), p_wilcoxon (None for the baseline).
    """
    if baseline not in scores["arm"].to_list():
        raise ValueError(f"baseline {baseline!r} is not among the arms {sorted(set(scores['arm']))}")
    rows = []
    for (reader, arm), group in scores.sort("case").group_by("reader", "arm", maintain_order=True):
        own = group["score"].to_numpy()
        other = scores.filter(pl.col("reader") == reader, pl.col("arm") == baseline).sort("case")["score"].to_numpy()
        numbers = estimate(mean(own, Resampling(group["case"], n_resamples, seed).weights))
        p = None if arm == baseline else paired_wilcoxon(own, other)
        rows.append(
            {"reader": reader, "arm": arm} | numbers | {"sd": group["score"].std(), "n": len(own), "p_wilcoxon": p}
        )
    columns = ["reader", "arm", "value", "sd", "low", "high", "n", "p_wilcoxon"]
    return pl.DataFrame(rows, infer_schema_length=None).select(columns).sort("reader", "arm")
