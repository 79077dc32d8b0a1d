"""Every figure is legible at its printed size: drawn from the committed tables of real runs, with made-up images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from chexgen_lib.experiments.arms import CHEXGEN, DEFAULT, LONGER, pretrained
from chexgen_lib.figures import (
    adherence,
    cohort,
    contact_sheet,
    ed_fig1,
    ed_fig2,
    ed_fig6_8,
    ed_fig11_14,
    ed_fig15,
    fig1b,
    fig2,
    fig3,
    fig4,
    fig5,
    fig12_balanced,
    fig12_comparison,
    fig12_control,
    fig14_counterfactuals,
    gallery,
    lengths,
    reconstruction,
    report,
    samples,
    style,
    training,
)
from chexgen_lib.quality.spectrum import kept_energy
from chexgen_lib.sampling.conditions import LEGEND
from tests.figures.legibility import faults

FOLDER = Path(__file__).resolve().parents[2] / "figures"
MOST = pretrained(5)


def table(name: str) -> pl.DataFrame:
    return pl.read_csv(FOLDER / f"{name}.csv", infer_schema_length=None)


def augmentation(name: str = "fig3") -> Figure:
    return fig3.draw(with_oracles(table(name), r"^real \+ (\d)x$", "real + ${1}x new real", pl.lit(True)))


def pretraining(name: str, attention: pl.DataFrame) -> Figure:
    controlled = pl.col("set").is_in(["3 %", "100 %", "1-shot", "10-shot"]) & (pl.col("group") != "external")
    return fig4.draw(with_oracles(table(name), r"^([25])x synthetic$", "${1}x new real", controlled), attention)


def with_oracles(rows: pl.DataFrame, synthetic: str, real: str, held: pl.Expr) -> pl.DataFrame:
    """The table of a run before there were oracles with made-up ones, whose worth stands in the rows `held`."""
    if "oracle" in rows.columns:
        return rows
    held &= pl.col("arm").str.contains(synthetic)
    rows = rows.with_columns(oracle=pl.when(held).then(pl.col("arm").str.replace(synthetic, real)))
    known = pl.col("oracle").is_not_null() & (pl.int_range(pl.len()) % 5 > 0)  # some cannot be measured
    numbers = {"worth": 0.4, "worth_low": -0.2, "worth_high": 1.1}
    rows = rows.with_columns(pl.when(known).then(value).alias(name) for name, value in numbers.items())
    oracles = rows.filter(pl.col("oracle").is_not_null()).with_columns(arm="oracle", oracle=pl.lit(None, pl.String))
    return pl.concat([rows, oracles])


def images(*shape: int, size: int = 64) -> np.ndarray:
    """Smooth made-up images of this many rows and columns."""
    across = np.sin(np.linspace(0, 6, size)) ** 2
    return np.broadcast_to(np.outer(across[::-1], across), (*shape, size, size)).astype(np.float32)


def masks(*shape: int, size: int = 64) -> np.ndarray:
    return images(*shape, size=size) > 0.8


def loss_curves(name: str) -> Figure:
    return training.draw(table(name), "Stage I")


def prompts_and_samples(name: str) -> Figure:
    prompts = table(name)["prompt"].to_list()
    return samples.draw(prompts, images(len(prompts)))


def cohort_grid() -> Figure:
    rows = table("cohort").with_columns(boxes=pl.lit([{"x": 0.2, "y": 0.2, "w": 0.4, "h": 0.4}]))
    return cohort.draw(rows, images(len(rows)), masks(len(rows), 3))


def reconstructions() -> Figure:
    return reconstruction.draw(images(6), images(6), table("reconstruction"), kept_energy(images(6), images(6)))


def conditioned(name: str = "ed_fig11_14") -> Figure:
    prompts = table(name)["prompt"].to_list()
    drawn = np.zeros((len(prompts), 64, 64, 3), np.uint8)
    for k, colour in enumerate(LEGEND.values()):
        drawn[k % len(prompts), 4 * k : 4 * k + 8, 8:40] = colour
    return ed_fig11_14.draw(drawn, images(len(prompts), 3), prompts)


def severity() -> Figure:
    read = table("ed_fig15").with_columns(pl.col("set").fill_null("").replace("", CHEXGEN))
    estimate = {"metric": "Pearson r", "value": 0.42, "low": 0.26, "high": 0.6, "n": 240, "patients": 120}
    agreed = pl.DataFrame([{"set": name} | estimate for name in read["set"].unique(maintain_order=True)])
    return ed_fig15.draw(read, agreed, np.zeros((read["row"].max() + 1, 8, 8), np.uint8))


def quality(name: str = "fig2") -> Figure:
    logarithmic = pl.col("metric").str.starts_with("FID") & (pl.col("source") == style.THIS_RUN)
    axis = pl.when(logarithmic).then(pl.lit("log")).otherwise(pl.lit("linear"))
    return fig2.draw(table(name).with_columns(axis=axis, better=pl.lit("higher")))


def attention_maps() -> Figure:
    names = table("fig4_maps")["finding"].to_list()
    starts = dict.fromkeys((DEFAULT, LONGER, MOST), images(len(names)))
    return fig4.draw_maps(images(len(names)), masks(len(names)), names, starts)


def neighbours(name: str = "fig2d") -> Figure:
    rows = table(name)
    return gallery.draw(rows, images(len(rows)), images(len(rows), 4), images(len(rows)))


def findings(name: str, *groups: str) -> Figure:
    return ed_fig6_8.draw_findings(table(name), groups, MOST)


def objectives() -> Figure:
    return fig12_comparison.draw(table("fig12_comparison"), {"FID-classifier": 0.5, "Pearson r": 0.9})


def walks() -> Figure:
    rows = table("fig12_walks").group_by("attribute", maintain_order=True).agg(pl.exclude("attribute").alias("words"))
    return fig12_control.draw_walks([(name, words, images(len(words))) for name, words in rows.iter_rows()])


def balanced() -> Figure:
    single = table("fig12_balanced").filter(~pl.col("attribute").str.contains("×"))
    return fig12_balanced.draw(single, table("fig12_balanced_ranks"), table("fig12_balanced_stress"))


def by_attribute() -> Figure:
    rows = table("fig14_attributes")
    return fig14_counterfactuals.draw_attributes(rows, rows["arm"].unique(maintain_order=True).to_list())


def findings_sheet() -> Figure:
    """With made-up radiographs: rendering takes a minute."""
    pictures = {"images": images(13, 6), "masks": masks(13, 6), "without": images(13)}
    return contact_sheet.draw(pictures, table("contact_sheet"))


FIGURES: dict[str, Callable[[], Figure]] = {
    "adherence": lambda: adherence.draw(table("adherence")),
    "baseline_loss": lambda: loss_curves("baseline_loss"),
    "baseline_samples": lambda: prompts_and_samples("baseline_samples"),
    "cohort": cohort_grid,
    "contact_sheet": findings_sheet,
    "ed_fig1": lambda: ed_fig1.figure(table("ed_fig1")),
    "ed_fig2": lambda: ed_fig2.draw(table("ed_fig2"), table("ed_fig2_means"), table("ed_fig2_fits"),
                                    "n = 64 prompts x 4 samples, 3 seeds"),
    "ed_fig4_stage1": lambda: loss_curves("ed_fig4_stage1"),
    "ed_fig4_stage2": lambda: loss_curves("ed_fig4_stage2"),
    "ed_fig6": lambda: findings("ed_fig6", "internal"),
    "ed_fig7": lambda: findings("ed_fig7", "external", "few-shot"),
    "ed_fig8": lambda: ed_fig6_8.draw_attention(table("ed_fig8"), MOST),
    "ed_fig11_14": conditioned,
    "ed_fig15": severity,
    "fig1b": lambda: fig1b.figure(table("fig1b")),
    "fig2": quality,
    "fig2d": neighbours,
    "fig3": augmentation,
    "fig4": lambda: pretraining("fig4", table("fig4_attention")),
    "fig4_maps": attention_maps,
    "fig5": lambda: fig5.draw(table("fig5")),
    "fig12_balanced": balanced,
    "fig12_comparison": objectives,
    "fig12_control": lambda: fig12_control.draw(table("fig12_control")),
    "fig12_off_target": lambda: fig12_control.draw_off_target(table("fig12_off_target")),
    "fig12_walks": walks,
    "fig14_attributes": by_attribute,
    "fig14_editors": lambda: fig14_counterfactuals.draw_editors(table("fig14_editors")),
    "lengths": lambda: lengths.figure(table("lengths")),
    "pool": lambda: prompts_and_samples("pool"),
    "reconstruction": reconstructions,
    "report": lambda: report.draw(table("report")),
    "samples": lambda: prompts_and_samples("samples"),
    "stage1_samples": lambda: prompts_and_samples("stage1_samples"),
    "stage2_samples": lambda: prompts_and_samples("stage2_samples"),
    # of a run on real radiographs, which lacks some panels
    "nih-mini/adherence": lambda: adherence.draw(table("nih-mini/adherence")),
    "nih-mini/ed_fig11_14": lambda: conditioned("nih-mini/ed_fig11_14"),
    "nih-mini/fig3": lambda: augmentation("nih-mini/fig3"),
    "nih-mini/fig4": lambda: pretraining("nih-mini/fig4", pl.DataFrame()),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_type_is_large_enough_and_nothing_overlaps(name):
    figure = FIGURES[name]()
    assert faults(figure) == []
    assert figure.get_figwidth() in (style.COLUMN, style.PAGE) or name == "fig12_off_target"


def test_every_name_is_that_of_a_committed_figure():
    assert not [name for name in FIGURES if not (FOLDER / f"{name}.png").is_file()]


def test_faults_are_found():
    figure = Figure(figsize=(style.COLUMN, 2))
    ax = figure.subplots()
    ax.plot([0, 1], label="line")
    ax.text(0.5, 0.5, "tiny", fontsize=5)
    ax.text(0.2, 0.2, "one above", fontsize=8)
    ax.text(0.2, 0.2, "another", fontsize=8)
    figure.text(0.98, 0.98, "over the edge")
    ax.legend(loc="center")
    figure.legend(["line"], loc="center")
    found = " | ".join(faults(figure))
    for fault in ("'tiny': 5.0 pt", "'one above' overlaps 'another'", "'over the edge' is cut off", "legends of"):
        assert fault in found
