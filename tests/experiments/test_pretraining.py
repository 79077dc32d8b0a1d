"""Fine-tuning starts where pretraining ended; shares are nested; attention of a random model is chance."""

import numpy as np
import polars as pl
import pytest
import torch

from chexgen_lib.experiments import pretraining as p
from chexgen_lib.experiments.pretraining import DEFAULT
from chexgen_lib.learners.classifier import Classifier, ClassifierSize, macro_auroc
from chexgen_lib.pools.labelled import ABOUT, Labelled, Sets
from chexgen_lib.records import FINDINGS
from tests.builders import labelled_squares

TINY = ClassifierSize(32, 8, 8, (2, 2))


def labelled(n=40):
    images, labels = labelled_squares(n, 0)
    about = {c: [f"{c}{i // 2}" for i in range(n)] for c in ABOUT if c != "age"} | {"age": [50.0] * n}
    states = dict(zip(FINDINGS, labels.T.tolist(), strict=True))
    return Labelled(pl.DataFrame(about | states | {"copy": [0] * n}), (images * 255).astype(np.uint8))


def test_shares_are_nested_whole_patients():
    train = labelled()
    found = p.fractions(train, [0.1, 0.5, 1], seed=3)
    assert list(found) == ["10 %", "50 %", "100 %"] and [len(rows) for rows in found.values()] == [4, 20, 40]
    assert set(found["10 %"]) < set(found["50 %"]) < set(found["100 %"])
    kept = set(train.table["patient_id"].gather(found["10 %"]))
    assert not kept & set(train.table["patient_id"].gather(np.setdiff1d(np.arange(40), found["10 %"])))
    assert found["50 %"].tolist() == p.fractions(train, [0.5], seed=3)["50 %"].tolist()
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 0"):
        p.fractions(train, [0.0], seed=0)


def test_shots_give_each_finding_its_images():
    train = labelled(200)
    rows = p.shots(train, 5, draw=0, seed=1)
    assert (train.labels[rows].sum(0) >= 5).all() and len(rows) <= 70
    assert rows.tolist() == p.shots(train, 5, 0, 1).tolist() != p.shots(train, 5, 1, 1).tolist()


def test_pretraining_on_right_labels_helps_few_images():
    images, labels = labelled_squares(460, 0)
    images = (images * 255).astype(np.uint8)
    rows = {"train": np.arange(300, 306), "val": np.arange(306, 346), "test": np.arange(346, 460)}
    few = {"few": rows | {"settings": {"steps": 6}, p.LOOKED_AT: True}}
    settings = {"size": TINY, "checks": 1, "batch_size": 16}
    auroc = {}
    for name, synthetic in (("none", np.arange(0)), ("synthetic", np.arange(300))):
        result = p.pretrain_and_fine_tune(
            images, labels, np.ones((1, 32, 32), bool), synthetic=synthetic, tunings=few, cases=np.array([[346, 2]]),
            val=rows["val"], seed=0, pretraining=settings | {"steps": 60, "learning_rate": 1e-2},
            fine_tuning=settings | {"learning_rate": 1e-4},
        )  # fmt: skip
        assert result["attention"] == pytest.approx([1.0])
        auroc[name] = macro_auroc(labels[346:], result["few"])
    assert auroc["synthetic"] > auroc["none"] + 0.1


def test_more_steps_change_the_result():
    images, labels = labelled_squares(60, 0)
    rows = {"train": np.arange(20), "val": np.arange(20, 40), "test": np.arange(40, 60)}
    tuning = {"all": rows | {"settings": {"steps": 2}, p.LOOKED_AT: False}}
    own = {"size": TINY, "checks": 1, "batch_size": 16}
    common = dict(synthetic=np.arange(0), tunings=tuning, cases=np.zeros((0, 2)), val=rows["val"], seed=0)
    common |= dict(pretraining=own | {"steps": 1}, fine_tuning=own)
    a, b, c = (
        p.pretrain_and_fine_tune(images, labels, np.zeros((0, 8, 8), bool), **common, more_steps=more)["all"]
        for more in (0, 0, 3)
    )
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_tunings_of_each_seed():
    everything = labelled(120)
    rows = np.split(np.arange(120), [40, 50, 60, 100, 110])
    names = [prefix + name for prefix in ("", "external ") for name in ("train", "val", "test")]
    sets = Sets(everything, dict(zip(names, rows, strict=True)), np.arange(0))
    first, second = p.tunings(sets, [0.5, 1.0], [1, 2], 2, 2, 0, {"steps": 9}, {"steps": 3})
    shares = [f"{group} {share} %" for group in ("internal", "external") for share in (50, 100)]
    assert sorted(first) == sorted([*shares, "1-shot 0", "1-shot 1", "2-shot 0", "2-shot 1"])
    assert [name for name, t in first.items() if t[p.LOOKED_AT]] == ["internal 100 %"]
    assert set(first["external 50 %"]["train"]) <= set(range(60, 100)) and first["1-shot 0"]["settings"] == {"steps": 3}
    assert first["internal 50 %"]["train"].tolist() != second["internal 50 %"]["train"].tolist()
    alone = Sets(everything, sets.rows | {"external train": np.arange(0)}, np.arange(0))
    assert {t["group"] for t in p.tunings(alone, [1.0], [1], 1, 1, 0, {}, {})[0].values()} == {"internal"}


def test_a_control_has_the_first_and_the_last_set_of_each_group():
    sets = {"internal": ["3 %", "10 %", "100 %"], "external": ["100 %"], "few-shot": ["1-shot", "5-shot", "10-shot"]}
    all_of_them = {f"{g} {s} {d}": {"group": g, "set": s} for g, names in sets.items() for s in names for d in (0, 1)}
    assert {t["set"] for t in p.ends(all_of_them).values()} == {"3 %", "100 %", "1-shot", "10-shot"}
    assert len(p.ends(all_of_them)) == 10


def test_curves_average_the_draws_and_leave_out_what_a_start_lacks():
    everything, rng = labelled(120), np.random.default_rng(0)
    rows = {"test": np.arange(60), "external test": np.arange(60, 120), "train": np.arange(60, 120)}
    sets = Sets(everything, rows, np.arange(0))
    group = dict(internal={"group": "internal"}, few={"group": "few-shot"})
    seeds = [
        {"internal 100 %": group["internal"] | {"set": "100 %", "train": np.arange(9)}}
        | {f"1-shot {d}": group["few"] | {"set": "1-shot", "train": np.arange(10 + d + 2 * k)} for d in (0, 1)}
        for k in (0, 1)
    ]
    names, starts = list(seeds[0]), [f"{start} / seed {k}" for start in (DEFAULT, "5x") for k in (0, 1)]
    results = {job: {name: rng.random((60, 14)) for name in names} for job in starts}
    results |= {f"{p.LONGER} / seed {k}": {names[0]: results[starts[k]][names[0]]} for k in (0, 1)}
    found = p.curves(results, seeds, sets, n_resamples=50, seed=0)
    average = found.filter(finding="Average")
    assert average.select("set", "arm").rows() == [
        ("100 %", DEFAULT), ("100 %", "5x"), ("100 %", p.LONGER), ("1-shot", DEFAULT), ("1-shot", "5x")
    ]  # fmt: skip
    assert average["images"].to_list() == [9, 9, 9, 11.5, 11.5] and set(average["seeds"]) == {2}
    assert average["difference"].to_list()[2] == 0  # the same scores
    five = [
        macro_auroc(everything.labels[60:], results[f"5x / seed {k}"][f"1-shot {d}"]) for k in (0, 1) for d in (0, 1)
    ]
    assert average["value"].to_list()[-1] == pytest.approx(np.mean(five))


def test_attention_of_untrained_models_is_chance():
    rng = np.random.default_rng(0)
    images = (rng.random((24, 32, 32)) * 255).astype(np.uint8)
    masks = np.zeros((24, 32, 32), bool)
    for k, (y, x) in enumerate(rng.integers(0, 20, (24, 2))):
        masks[k, y : y + 12, x : x + 12] = True
    findings = rng.integers(0, 14, 24)
    torch.manual_seed(0)
    shares = [p.inside(p.attention_maps(Classifier(TINY), images, findings), masks) for _ in range(3)]
    assert np.mean(shares) == pytest.approx(masks.mean(), abs=0.04)


def test_the_share_of_attention_inside_a_mask():
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0, 0, 0], maps[1] = 1, 1  # one corner, everywhere, nowhere
    masks = np.zeros((3, 8, 8), bool)
    masks[:, :4, :4] = True
    corner, even, none = p.inside(maps, masks)
    assert corner > 0.75 and even == none == pytest.approx(0.25)
    assert p.enlarged(maps, (8, 8)).shape == (3, 8, 8)
    assert p.inside(np.zeros((0, 1, 1), np.float32), np.zeros((0, 8, 8), bool)).shape == (0,)


def test_attention_cases_have_a_mask_that_says_something(tmp_path):
    masks = np.zeros((3, 64, 64), bool)
    masks[0, :20], masks[1, 5:9, 5:9], masks[2] = True, True, True  # the last fills the image
    packed = dict(findings=np.packbits(masks, axis=-1), finding_row=[4, 7, 7], finding_index=[9, 5, 2], anatomy=[0])
    np.savez(tmp_path / "masks.npz", **packed)
    cases, own = p.attention_cases(tmp_path, np.array([4, 6, 7]), 10, seed=0)
    assert cases.tolist() == [[4, 9], [7, 5]] and own.sum((1, 2)).tolist() == [20 * 64, 16]
    assert len(p.attention_cases(tmp_path, np.array([4, 6, 7]), 1, seed=0)[0]) == 1
    np.savez(tmp_path / "masks.npz")  # real radiographs
    cases, own = p.attention_cases(tmp_path, np.array([4]), 10, seed=0)
    assert len(cases) == 0 and p.attention_table({DEFAULT: np.zeros((2, 0))}, cases[:, 1], own, [], 50, 0).is_empty()


def test_attention_of_all_findings_and_of_each_that_has_cases():
    findings, masks = np.array([2] * 6 + [5] * 3), np.zeros((9, 8, 8), bool)
    masks[:6, :4], masks[6:, :2] = True, True
    default = np.stack([np.linspace(0.1, 0.9, 9), np.linspace(0.2, 1.0, 9)])
    people = [str(k) for k in range(9)]
    table = p.attention_table({DEFAULT: default, "5x": default + 0.1}, findings, masks, people, 50, 0)
    assert table["finding"].to_list() == ["Average"] * 2 + ["Cardiomegaly"] * 2 + ["Edema"] * 2
    assert table["n"].to_list() == [9, 9, 6, 6, 3, 3] and table["value"].null_count() == 2  # three cases: no estimate
    assert table["value"].to_list()[:3] == pytest.approx([0.55, 0.65, default[:, :6].mean()])
    assert table["chance"].to_list()[::2] == pytest.approx([masks.mean(), 0.5, 0.25])
    assert table["difference"].to_list()[1::2] == [pytest.approx(0.1), pytest.approx(0.1), None]
    assert (table["low"] < table["value"]).drop_nulls().all()
    one = p.attention_table({DEFAULT: default[:1]}, findings, masks, ["a"] * 9, 50, 0)
    assert one["low"][0] == one["high"][0] == pytest.approx(0.5)  # one patient: nothing to resample


def test_attention_does_not_depend_on_what_else_is_asked():
    """Images of one finding go through the network together, in evaluation mode."""
    images = (np.random.default_rng(0).random((4, 32, 32)) * 255).astype(np.uint8)
    torch.manual_seed(0)
    model, findings = Classifier(TINY), np.array([7, 2, 7, 2])
    together = p.attention_maps(model, images, findings)
    alone = [p.attention_maps(model, images[k : k + 1], findings[k : k + 1])[0] for k in range(4)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-4
