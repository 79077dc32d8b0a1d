"""A judging in words: one short Markdown page beside its tables and its figure."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from chexgen_lib.estimates import wording
from chexgen_lib.experiments.judge import asked_and_shown, metrics
from chexgen_lib.experiments.judge.bench import GENERATOR
from chexgen_lib.experiments.judge.entries import Entry
from chexgen_lib.experiments.judge.reference import Reference
from chexgen_lib.experiments.rectified_flow.control import MACRO
from chexgen_lib.quality.arms import FLOOR, IGNORES, NOISE, REAL

FIGURE = "metrics.png"  # what it plots is metrics.csv
SHOWN = ("sex", "age", "view", "severity", "side", MACRO)
EMBEDDED = (
    "The reference is the embedded cohort: one anatomy, rendered. A generator trained on radiographs of patients "
    "differs from it for that reason alone, so judge such a one on a cohort of patients (`--cohort`); no number here "
    "says anything about patients."
)


def page(
    reference: Reference,
    entries: Mapping[str, Entry],
    found: pl.DataFrame,
    shown: pl.DataFrame,
    minutes: float,
) -> str:
    """The report, Markdown.

    Args:
        found: of `metrics.table`; shown: of `asked_and_shown.table`.
        minutes: that the judging took.
    """
    n, pixels = len(reference.prompted), reference.resolution
    names = list(entries)
    parts = [
        f"# {', '.join(names)}: judged on {n} prompts",
        f"{n} held-out patients' prompts, as many other patients' radiographs to compare with, {pixels} px; "
        f"classifier and probes trained on {len(reference.train)} radiographs of others. {minutes:.1f} minutes. "
        "Intervals are 95 % bootstrap percentiles over patients; differences are paired.",
        *([EMBEDDED] if is_embedded(reference) else []),
        _entries(entries),
        f"![]({FIGURE})",
        "## In short",
        "\n".join(f"- {line}" for line in verdicts(found, shown)),
        "## Metrics",
        f"`{FLOOR}`: radiographs of other patients, what no generator should beat. `{NOISE}` and `{IGNORES}` (the "
        "generator's images dealt to other prompts): the other end. Subgroups and further metrics: `metrics.csv`.",
        _metrics(found, names),
        "## Asked and shown",
        "Probes trained on radiographs answer what the prompt asked for; `real images` are the prompts' own "
        "radiographs. Where a bar is missed, no cohort should be used, for fairness say, as if it showed what was "
        "asked. All findings: `asked_and_shown.csv`.",
        _shown(shown, names),
    ]
    if len(names) > 1:
        parts += [f"## Differences from {names[0]}", _differences(found, names)]
    return "\n\n".join(parts) + "\n"


def is_embedded(reference: Reference) -> bool:
    """Whether the reference's radiographs are rendered."""
    return bool(reference.prompted.table["image"].str.starts_with("phantom:").fill_null(False).all())


def verdicts(found: pl.DataFrame, shown: pl.DataFrame) -> list[str]:
    """What the intervals say of each generator: realism, prompts, attributes."""
    embedders = [m.removeprefix("KID-") for m in found["metric"].unique(maintain_order=True) if m.startswith("KID-")]
    near = {e: metrics.overlapping(found, f"KID-{e}") for e in embedders}
    at_n, infinite = (metrics.beside(found, f"{name}-{embedders[0]}") for name in ("FID", "FID infinity"))
    agreed = metrics.beside(found, "Pearson r, within findings")
    unfit = asked_and_shown.unfit(shown)
    lines = []
    for arm in (name for name, row in at_n.items() if row["role"] == GENERATOR):
        prompts = _followed(agreed[arm], agreed[f"{arm}, {IGNORES}"])
        missed, unknown = (", ".join(attributes) or "none" for attributes in unfit.get(arm, ((), ())))
        lines.append(
            f"**{arm}**: FID-{embedders[0]} {wording.estimate(at_n[arm])} at n = {at_n[arm]['n']}, "
            f"{wording.estimate(infinite[arm])} without the bias of that n. "
            f"By its KID it is {_told(FLOOR, arm, near)}; {_told(NOISE, arm, near)}. "
            f"Follows its prompts: {prompts}. Attributes asked and not shown: {missed}; not measurable here: {unknown}."
        )
    return lines


def _followed(own: Mapping, ignoring: Mapping) -> str:
    """Whether a generator agrees with its prompts, beside the same images dealt to other prompts."""
    if own["low"] is None or ignoring["low"] is None:
        return "undefined"
    if own["high"] < ignoring["low"]:
        return "no, less than dealt to other prompts: are images and prompts in one order?"
    return "yes" if own["low"] > ignoring["high"] else "no more than dealt to other prompts"


def _told(bound: str, arm: str, near: Mapping[str, Mapping[str, list[str]]]) -> str:
    """By which embedders an arm is told from a bound."""
    told = [e for e, arms in near.items() if arm in arms and bound not in arms[arm]]
    others = [e for e in near if e not in told]
    parts = [f"told from {bound} by {' and '.join(told)}"] * bool(told)
    return ", ".join([*parts, *([f"not told from {bound} by {' and '.join(others)}"] * bool(others))])


def _entries(entries: Mapping[str, Entry]) -> str:
    rows = []
    for name, entry in entries.items():
        sampled, sampling = entry.seconds is not None, entry.sampling
        settings = f"{sampling.num_inference_steps} steps, guidance {sampling.guidance_scale:g}" if sampled else ""
        images = " x ".join(map(str, entry.images.shape[:2]))
        remarks = [*entry.remarks, *([f"{len(entry.excluded)} excluded (excluded.csv)"] * bool(len(entry.excluded)))]
        rows.append(
            (name, entry.kind, images, settings, f"{entry.seconds:.0f} s" if sampled else "", "; ".join(remarks))
        )
    return _markdown(("generator", "what it is", "images", "sampling", "time", "remarks"), rows)


def _metrics(found: pl.DataFrame, names: Sequence[str]) -> str:
    rows = []
    for metric in found["metric"].unique(maintain_order=True):
        arms = metrics.beside(found, metric)
        ignoring = [arms.get(f"{name}, {IGNORES}") for name in names]
        cells = [arms.get(FLOOR), *(arms[name] for name in names), *ignoring, arms.get(NOISE)]
        rows.append((metric, arms[names[0]]["better"], *map(_cell, cells)))
    heads = ("metric", "better", FLOOR, *names, *(f"{name}, {IGNORES}" for name in names), NOISE)
    return _markdown(heads, rows)


def _shown(shown: pl.DataFrame, names: Sequence[str]) -> str:
    rows = []
    for attribute in SHOWN:
        arms = {row["arm"]: row for row in shown.filter(attribute=attribute).iter_rows(named=True)}
        if REAL in arms:
            real = arms[REAL]
            cells = [
                _cell(arms[name]) + (f" ({arms[name]['verdict']})" * bool(arms[name]["verdict"])) for name in names
            ]
            bar = "" if real["bar"] is None else f"{real['bar']:g}"
            rows.append((attribute, real["measure"], bar, str(real["n"]), _cell(real), *cells))
    return _markdown(("attribute", "measure", "bar", "n", REAL, *names), rows)


def _differences(found: pl.DataFrame, names: Sequence[str]) -> str:
    rows = []
    for metric in found["metric"].unique(maintain_order=True):
        arms = metrics.beside(found, metric)
        rows.append((metric, arms[names[0]]["better"], *(wording.verdict(arms[name]) or "-" for name in names[1:])))
    return _markdown(("metric", "better", *names[1:]), rows)


def _cell(row: Mapping | None) -> str:
    return "-" if row is None else wording.estimate(row)


def _markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
