"""Figures of a run draw what their tables hold, with labels, and refuse what they cannot draw."""

import numpy as np
import polars as pl
import pytest
from matplotlib.colors import to_rgb

from chexgen_lib.figures import cohort, ed_fig11_14, fig1b, lengths, reconstruction, samples, style, training
from chexgen_lib.quality.spectrum import kept_energy
from chexgen_lib.sampling.conditions import LEGEND
from chexgen_lib.sources.registry import ALL

IMAGES = np.random.default_rng(0).random((3, 16, 16), dtype=np.float32)


def test_training_curves_are_labelled_and_count_steps():
    history = pl.DataFrame({"step": [0, 10, 19], "loss": [1.0, 0.5, 0.4], "grad_norm": [3.0, 2.0, 1.0]})
    figure = training.draw(history, "Stage I")
    loss, norm = figure.axes
    assert loss.get_xlabel() == norm.get_xlabel() == "optimiser step" and loss.get_ylabel() and norm.get_ylabel()
    assert loss.lines[0].get_ydata().tolist() == [1.0, 0.5, 0.4]
    assert "20 steps" in figure.get_suptitle()
    with pytest.raises(ValueError, match="history is empty"):
        training.draw(history.head(0), "Stage I")


def test_samples_stand_with_their_prompts():
    figure = samples.draw(["Effusion.", "Normal.", "Edema."], IMAGES)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_xlabel() for ax in shown] == ["Effusion.", "Normal.", "Edema."]
    assert np.array_equal(shown[2].images[0].get_array(), IMAGES[2])
    with pytest.raises(ValueError, match="2 prompts and 3 images"):
        samples.draw(["a", "b"], IMAGES)


def test_reconstruction_shows_psnr_of_each_resolution():
    psnr = pl.DataFrame({"resolution": [64, 64, 32], "psnr": [30.0, 32.0, 28.0]})
    figure = reconstruction.draw(IMAGES, IMAGES, psnr, kept_energy(IMAGES, IMAGES))
    text = [label.get_text() for ax in figure.axes if ax.get_legend() for label in ax.get_legend().get_texts()]
    assert text == ["64 px: 31.0 dB, n = 2", "32 px: 28.0 dB, n = 1"]


def test_cohort_outlines_masks_and_boxes():
    box = {"finding": "Effusion", "x": 0.25, "y": 0.5, "w": 0.5, "h": 0.25}
    rows = pl.DataFrame({"prompt": ["a", "b", "c"], "boxes": [[box], [], []]}, schema_overrides={"prompt": pl.String})
    masks = np.zeros((3, 3, 16, 16), bool)
    masks[0, 0, 4:8, 4:8] = True
    figure = cohort.draw(rows, IMAGES, masks)
    (patch,) = figure.axes[3].patches
    assert (patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()) == (4, 8, 8, 4)
    assert figure.axes[3].collections and not figure.axes[4].collections
    assert len(cohort.draw(rows, IMAGES, None).axes) == 3


def test_requested_classes_have_colours_that_an_eye_can_tell_apart():
    """Lungs and ribs are two browns in the condition's own colours."""
    request = np.zeros((1, 16, 16, 3), np.uint8)
    request[0, 2:6, 2:14], request[0, 8:12, 2:14] = LEGEND["lungs"], LEGEND["ribs"]
    figure = ed_fig11_14.draw(request, IMAGES[None, :2], ["AP chest radiograph."])
    shown = figure.axes[0].get_images()[0].get_array()
    pixels = {tuple(p) for p in shown.reshape(-1, 3).tolist()}
    assert pixels == {(0, 0, 0), to_rgb(style.SKY), to_rgb(style.ORANGE)}
    legend = [p.get_facecolor()[:3] for p in figure.legends[0].get_patches()]
    assert legend == [to_rgb(style.SKY), to_rgb(style.ORANGE)]
    # Where there are more classes than house colours, no two share one.
    request = np.zeros((1, 38, 16, 3), np.uint8)
    for k, colour in enumerate(LEGEND.values()):
        request[0, 2 * k : 2 * k + 2] = colour
    many = ed_fig11_14.draw(request[:, :38], IMAGES[None, :2], ["AP chest radiograph."]).legends[0].get_patches()
    assert len({p.get_facecolor() for p in many}) == len(many) == len(LEGEND)


def test_all_datasets_at_once_can_be_told_apart():
    """A run of the profile `paper` curates all 17."""
    attributes = ["dataset", "finding", "sex", "view", "age"]
    rows = [(s, a, s if a == "dataset" else "0-17" if a == "age" else "F", 5) for s in ALL for a in attributes]
    legend = fig1b.figure(pl.DataFrame(rows, ["source", "attribute", "value", "n"], orient="row")).axes[0].get_legend()
    assert len({(p.get_facecolor(), p.get_hatch()) for p in legend.get_patches()}) == len(ALL)
    table = pl.DataFrame({"source": ALL, "words": 20, "n": 5, "vocabulary": 9})
    drawn = lengths.figure(table)
    drawn.draw_without_rendering()
    (below, above), (box, page) = drawn.axes[0].get_ylim(), (drawn.legends[0].get_window_extent(), drawn.bbox)
    assert above > below and box.ymin >= 0 and box.ymax <= page.ymax + 1
