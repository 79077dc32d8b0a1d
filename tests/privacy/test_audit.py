"""A copier is caught, an innocent pool passes, and every measure says which of them it looks at."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib.figures import privacy as page
from chexgen_lib.privacy import identity, membership, planted, proximity
from chexgen_lib.privacy.audit import COPIES, DETECTION, LEAK, NOTHING, audit
from chexgen_lib.privacy.copies import COPY, INNOCENT
from chexgen_lib.privacy.folders import HELD_OUT, POOL, TRAINING
from chexgen_lib.privacy.likeness import Reference
from tests.figures.legibility import faults
from tests.privacy.films import films, named

TRAINED, UNSEEN = films(60, 0, studies=2), films(100, 1)


def audited(pixels):
    sets = {TRAINING: named(TRAINED, "t", 2), HELD_OUT: named(UNSEEN, "h"), POOL: named(pixels, "p")}
    return audit(sets)


@pytest.fixture(scope="module", autouse=True)
def fewer_planted_copies():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("chexgen_lib.privacy.audit.PLANTED", 30)
        yield


@pytest.fixture(scope="module")
def innocent():
    return audited(films(60, 2))


@pytest.fixture(scope="module")
def half_copied():
    copied = planted.copies(TRAINED[::4], planted.ALL, np.random.default_rng(0))
    return audited(np.concatenate([films(30, 2), copied]))


def value(found, measure):
    return found.measures.row(by_predicate=pl.col("measure") == measure, named=True)


def test_a_copier_is_caught_image_by_image(half_copied):
    assert half_copied.verdict == COPIES and "p < 0.001" in half_copied.reasons[0]
    calls = dict(half_copied.images.select("image_id", "call").iter_rows())
    assert sum(calls[f"p:{i}"] != INNOCENT for i in range(30, 60)) >= 29
    assert sum(calls[f"p:{i}"] != INNOCENT for i in range(30)) <= 1
    first = half_copied.images.row(0, named=True)
    assert first["nearest_image_id"] == f"t:{4 * (int(first['image_id'][2:]) - 30)}"


def test_an_innocent_pool_passes_and_the_audit_says_what_it_would_have_seen(innocent):
    assert innocent.verdict == NOTHING and "80 % power" in innocent.reasons[-1]
    assert (innocent.images["call"] == COPY).sum() <= 1
    for kind in planted.KINDS:
        assert value(innocent, f"planted copies found: {kind}")["value"] >= 0.95


def test_every_measure_tells_the_copier_from_the_innocent(innocent, half_copied):
    for name, bar in (
        (proximity.CLOSER, 0.6),
        (f"density ratio, {membership.AUROC}", 0.6),
        (f"nearest pool image, {membership.CAUGHT}", 0.15),
        (identity.LINKED, 0.3),
    ):
        own, copied = value(innocent, name), value(half_copied, name)
        assert own["low"] <= own["expected"] <= own["high"] or own["value"] < own["expected"], name
        assert copied["value"] > bar and copied["low"] > copied["expected"], name
    assert value(half_copied, identity.CEILING)["value"] > 0.5


def test_alarms_are_counted_for_training_prompts_and_others():
    table = named(TRAINED, "t", 2).table
    pool = named(np.concatenate([films(2, 2), TRAINED[:2]]), "p")
    prompts = ["Unheard of.", "Unheard of.", "Effusion.", "Effusion."]
    sets = {POOL: type(pool)(pool.table.with_columns(prompt=pl.Series(prompts)), pool.pixels)}
    found = audit(sets | {TRAINING: type(pool)(table, TRAINED), HELD_OUT: named(UNSEEN, "h")})
    assert value(found, "with an alarm, training prompts")["value"] == 1
    assert value(found, "with an alarm, other prompts")["value"] == 0


def test_an_attack_that_tells_training_images_is_a_leak_without_copies():
    sets = {TRAINING: named(TRAINED, "t", 2), HELD_OUT: named(UNSEEN, "h"), POOL: named(films(30, 2), "p")}
    attacks = {
        "oracle": lambda targets: np.array([name.startswith("t") for name in targets.table["image_id"]], float),
        "chance": lambda targets: np.random.default_rng(0).random(len(targets)),
    }
    found = audit(sets, attacks)
    assert found.verdict == LEAK and "oracle, AUROC 1.00" in found.reasons[-1] and len(found.reasons) == 2


def test_a_pool_of_one_image(innocent):
    one = audited(films(1, 2))
    assert one.verdict == NOTHING and "80 % power" in one.reasons[-1]
    others = one.measures.filter(pl.col("check") != DETECTION)
    assert others["note"].str.contains("not measured: 1 requests in the pool").all()
    assert audited(TRAINED[:1]).verdict == COPIES


def test_proximity_is_one_half_for_exchangeable_images():
    rng = np.random.default_rng(0)
    pool, training, held_out = (named(np.zeros((n, 64, 64), np.uint8), name) for n, name in ((80, "p"), (400, "t"), (100, "h")))  # fmt: skip  # noqa: E501
    points = {n: rng.normal(size=(n, 5)) for n in (80, 400, 100)}
    alike = [-np.linalg.norm(points[80][:, None] - points[n], axis=2) for n in (400, 100)]
    found = proximity.proximity(*alike, pool, training, held_out)
    assert found[proximity.CLOSER].low < 0.5 < found[proximity.CLOSER].high
    assert found[proximity.RATIO].value == pytest.approx(1, abs=0.15)


def test_the_share_of_copies_that_are_closer_to_training_is_at_most_1():
    training, held_out = named(films(30, 0), "training"), named(films(99, 1), "held")
    alike = (Reference(images.pixels).coarse(training.pixels) for images in (training, held_out))
    found = proximity.proximity(*alike, training, training, held_out)
    assert found[proximity.CLOSER].value > 0.95 and found[proximity.CLOSER].high <= 1
    assert 0 <= found[proximity.RATIO].low <= found[proximity.RATIO].value


def test_true_positives_at_a_false_positive_rate():
    members, others = np.arange(50, 150.0), np.arange(100.0)
    found = membership.measure(members, others, np.arange(200), n_resamples=50)
    assert found[membership.CAUGHT].value == pytest.approx(0.51)  # above 98, that only 99 exceeds
    assert found[membership.AUROC].low < found[membership.AUROC].value == pytest.approx(0.875, abs=0.005)
    tied = membership.measure(np.zeros(50), np.zeros(50), np.arange(100), n_resamples=50)
    assert tied[membership.CAUGHT].value == 0 and tied[membership.AUROC].value == 0.5


def test_the_page_shows_what_it_plots(innocent, half_copied):
    table = page.plotted(innocent)
    assert set(table.filter(part="likeness")["name"]) == {page.POOL, page.UNSEEN, page.SAME}
    assert {proximity.CLOSER, identity.LINKED} <= set(table.filter(part="measure")["name"])
    figure = page.draw(innocent, excluded=3)
    texts = " ".join(text.get_text() for ax in figure.axes for text in ax.texts)
    assert "Privacy audit: nothing found" in texts and "3 excluded" in texts and "differential privacy" in texts
    assert faults(figure) == [] and faults(page.draw(half_copied)) == []


def test_the_density_ratio_leaves_out_the_targets_own_patient():
    real = named(TRAINED[:40], "t", 2)
    scores = membership.pool_scores(real, Reference(UNSEEN[:30]), real, Reference(real.pixels))
    assert np.abs(scores["density ratio"]).max() < 0.5  # with the second study it would be below -0.4 for all
