"""The whole measurement on a toy cohort whose generator obeys, and on broken input."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from chexgen_lib import stored_images
from chexgen_lib.figures import fig2
from chexgen_lib.images import from_uint8, to_uint8
from chexgen_lib.kept import kept
from chexgen_lib.learners.classifier import SIZES, Classifier
from chexgen_lib.quality import evaluate as quality
from chexgen_lib.quality.arms import DIFFERENCE, FLOOR, GENERATOR, IGNORES, NOISE
from chexgen_lib.quality.bench import gaussian_pixels
from chexgen_lib.quality.embedders import RadiomicsEmbedder
from chexgen_lib.quality.held_out import HeldOut
from chexgen_lib.records import FINDINGS
from chexgen_lib.storage import digest
from chexgen_lib.stored_images import StoredImages


class Toy:
    """Findings are bright squares; this 'classifier' reads them off, this 'embedder' too."""

    name, dim = "toy", 16

    def __call__(self, images):
        return images.reshape(len(images), 4, 16, 4, 16).mean((2, 4)).reshape(len(images), 16).astype(np.float32)

    def predict(self, images):
        return self(images)[:, :14]


def cohort(n, seed, labels=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 14)) < np.linspace(0.1, 0.8, 14)).astype(float) if labels is None else labels
    squares = np.concatenate([labels, np.zeros((n, 2))], 1).reshape(n, 4, 4)
    x = 0.3 + 0.4 * np.repeat(np.repeat(squares, 16, 1), 16, 2) + rng.normal(0, 0.02, (n, 64, 64))
    return np.clip(x + rng.normal(0, 0.05, (n, 1, 1)), 0, 1).astype(np.float32), labels


@pytest.fixture(scope="module")
def arrays():
    real, labels = cohort(40, 0)
    synthetic = np.stack([0.95 * cohort(40, 10 + s, labels)[0] for s in range(4)], 1)
    return {
        "real": real,
        "synthetic": synthetic,
        "labels": labels,
        "train": cohort(60, 1)[0],
        "patients": [str(i // 2) for i in range(40)],
    }


@pytest.fixture(scope="module")
def found(arrays):
    embedders = [Toy(), RadiomicsEmbedder(arrays["train"])]
    return quality.evaluate(HeldOut(**arrays), Toy(), embedders, n_resamples=60, seed=1)


def test_training_images_on_the_disk_are_measured_as_an_array(arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(stored_images, "BLOCK", 32)  # a batch of embedders
    pixels = to_uint8(arrays["train"])
    np.save(tmp_path / "train.npy", pixels)
    stored, array = StoredImages.of(tmp_path / "train.npy"), from_uint8(pixels)
    noise = np.random.default_rng(3).standard_normal((5, 64, 64), np.float32)
    expected = np.clip(noise * array.std(0) + array.mean(0), 0, 1)
    for train in (stored, array):
        np.testing.assert_array_equal(gaussian_pixels(train, (5,), 3), expected)
    embedders = [RadiomicsEmbedder(stored), RadiomicsEmbedder(array)]
    np.testing.assert_array_equal(*(embed(arrays["real"]) for embed in embedders))
    rows = [
        quality.evaluate(HeldOut(**arrays | {"train": train}), Toy(), embedders[:1], n_resamples=20).table
        for train in (stored, array)
    ]
    assert rows[0].equals(rows[1])


def at(found, metric, arm):
    return found.row(metric, arm)


def test_every_number_has_n_and_an_interval_that_holds_it(found):
    t = found.table
    assert t.null_count().drop("p_wilcoxon", "axis", *DIFFERENCE).sum_horizontal().item() == 0
    assert t.filter(pl.col("arm") != GENERATOR)["difference_low"].null_count() == 0
    assert (t["low"] <= t["value"]).all() and (t["value"] <= t["high"]).all()
    assert t.select("metric", "arm").is_duplicated().sum() == 0


def test_the_arms_are_ordered(found):
    for fid in ("FID-toy", "FID-radiomics"):
        floor, ours, noise = (at(found, fid, arm) for arm in (FLOOR, GENERATOR, NOISE))
        assert floor["value"] < ours["value"] < noise["low"]
        assert floor["n"] == ours["n"] == noise["n"] == 20  # one n, one bias
    for metric in ("Pearson r", "Pearson r with labels"):
        for suffix in ("", ", within findings"):
            ours, ignores = (at(found, metric + suffix, arm) for arm in (GENERATOR, IGNORES))
            assert ours["low"] > ignores["high"] and ignores["p_wilcoxon"] < 0.01
    assert at(found, "Pearson r, within findings", IGNORES)["value"] < 0.2
    assert at(found, "MS-SSIM", GENERATOR)["value"] > at(found, "MS-SSIM", FLOOR)["value"]
    assert at(found, "AUROC of requested findings", GENERATOR)["value"] > 0.95


def test_features_and_neighbours_have_one_row_per_image(found):
    assert found.features["toy"]["synthetic"].shape == (40, 16)
    assert found.nearest.index.shape == (160,)
    assert set(found.per_finding["arm"]) == {"real", "synthetic"}


def test_it_is_a_function_of_its_input_and_seed(arrays, found):
    embedders = [Toy(), RadiomicsEmbedder(arrays["train"])]
    again = quality.evaluate(HeldOut(**arrays), Toy(), embedders, n_resamples=60, seed=1)
    assert again.table.equals(found.table)


def test_other_generators_are_measured_as_ours_and_apart_from_it_on_the_same_resamples(arrays, found):
    obeys, ignores = arrays["synthetic"], np.roll(arrays["synthetic"], 1, axis=0)
    rivals = {"twin": obeys, "deaf": ignores[:, :2]}
    embedders = [Toy(), RadiomicsEmbedder(arrays["train"])]
    beside = quality.evaluate(HeldOut(**arrays, rivals=rivals), Toy(), embedders, n_resamples=60, seed=1)
    assert beside.table.filter(~pl.col("arm").is_in(list(rivals))).equals(found.table)
    twin = beside.table.filter(arm="twin")
    ours = beside.table.filter(arm=GENERATOR)
    assert twin.select("metric", "value", "low", "high", "n").equals(ours.select("metric", "value", "low", "high", "n"))
    assert (twin["difference_high"] == 0).all()
    deaf = beside.row("Pearson r", "deaf")
    assert deaf["difference_high"] < 0 and deaf["samples"] == 2
    told = dict(quality.verdicts(beside).filter(metric="Pearson r").select("against", "this run is").iter_rows())
    assert told["deaf"] == "better" and told["twin"] == "not told apart"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rivals", {"deaf": np.zeros((39, 4, 64, 64), np.float32)}),
        ("real", np.zeros((2, 64, 64), np.float32)),
        ("real", np.full((40, 64, 64), np.nan, np.float32)),
        ("synthetic", np.zeros((39, 4, 64, 64), np.float32)),
        ("synthetic", np.zeros((40, 1, 64, 64), np.float32)),
        ("synthetic", np.zeros((40, 4, 64, 64), np.uint8)),
        ("labels", np.zeros((40, 13))),
        ("train", np.zeros((60, 32, 32), np.float32)),
        ("patients", ["a"]),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays, name, value):
    with pytest.raises(ValueError, match="deaf" if name == "rivals" else name):
        HeldOut(**{**arrays, name: value})


def test_what_was_measured_is_read_as_it_was_saved(found, tmp_path):
    found.save(tmp_path)
    again = quality.Evaluation.load(tmp_path)
    for name in quality.FRAMES:
        assert_frame_equal(getattr(again, name), getattr(found, name), check_exact=True)
    assert digest([again.features, again.nearest]) == digest([found.features, found.nearest])
    assert quality.verdicts(again).equals(quality.verdicts(found)) and len(quality.verdicts(found))


def test_a_run_is_measured_once_and_again_when_a_sample_changes(arrays, tmp_path, monkeypatch):
    classifier = Classifier(SIZES["ci"]).save(tmp_path / "classifier")
    by = {"embedders": ["radiomics"], "scorer": "classifier", "classifier": classifier, "n_resamples": 10, "seed": 1}

    def table(synthetic):
        data = HeldOut(**arrays | {"synthetic": synthetic})
        return quality.Evaluation.load(kept(quality.evaluate_run, tmp_path / "found", data=data, **by)).table

    first = table(arrays["synthetic"])
    with monkeypatch.context() as without:
        without.setattr(quality, "evaluate", None)
        assert table(arrays["synthetic"].copy()).equals(first)
    assert not table(arrays["synthetic"] * 0.9).equals(first)


def test_the_papers_numbers_stand_beside_the_metrics_that_name_them(found):
    table = quality.beside_paper(found)
    assert table["paper metric"].to_list() == ["FID-CLIP", "FID-XRV", "MS-SSIM", "Pearson r"]
    assert table["metric"].to_list() == ["FID-toy", "FID-radiomics", "MS-SSIM", "Pearson r"]
    assert table["paper"][0] == 0.89 and "[" in table["this run"][0]


def test_patients_are_resampled_not_prompts(arrays):
    twice = {k: v if k == "train" else np.repeat(v, 2, axis=0) for k, v in arrays.items() if k != "patients"}
    widths = []
    for patients in (np.repeat(np.arange(40), 2), np.arange(80)):
        found = quality.evaluate(HeldOut(**twice, patients=patients), Toy(), [Toy()], n_resamples=200)
        row = found.row("Pearson r", GENERATOR)
        widths.append(row["high"] - row["low"])
    assert widths[0] > 1.2 * widths[1]


def test_a_scorer_that_says_the_same_of_every_image_has_no_correlation(arrays):
    class Constant(Toy):
        def predict(self, images):
            return np.full((len(images), 14), 0.5, np.float32)

    found = quality.evaluate(HeldOut(**arrays), Constant(), [Toy()], n_resamples=10)
    row = at(found, "Pearson r", GENERATOR)
    assert row["value"] is None and "the scores or the targets are constant" in row["note"]
    table = quality.beside_paper(found)
    assert table.filter(metric="Pearson r")["this run"].to_list() == ["Pearson r is undefined, n = 40"]
    assert set(quality.verdicts(found)["metric"]) == {"FID-toy", "MS-SSIM"}
    fig2.draw(fig2.table(found.table, fig2.tsne(found.features["toy"], "toy", at_most=8)))


def test_a_finding_that_the_scorer_does_not_know_is_left_out(arrays):
    class Partial(Toy):
        def predict(self, images):
            scores = super().predict(images)
            scores[:, 3] = np.nan
            return scores

    found = quality.evaluate(HeldOut(**arrays), Partial(), [Toy()], n_resamples=20, seed=1)
    unknown = found.per_finding.filter(pl.col("value").is_null())
    assert set(unknown["finding"]) == {FINDINGS[3]}
    assert found.row("AUROC of requested findings", GENERATOR)["value"] > 0.9


def test_a_prompt_of_which_nothing_is_known_takes_no_part_in_a_comparison(arrays):
    labels = arrays["labels"].copy()
    labels[2] = np.nan
    found = quality.evaluate(HeldOut(**arrays | {"labels": labels}), Toy(), [Toy()], n_resamples=10)
    assert at(found, "Pearson r with labels", FLOOR)["p_wilcoxon"] is not None


def test_embedders_are_needed(arrays):
    with pytest.raises(ValueError, match="embedders"):
        quality.evaluate(HeldOut(**arrays), Toy(), [])
