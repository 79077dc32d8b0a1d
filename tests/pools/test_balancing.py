"""Who is trained and tested on has the shares asked for and no patient in common; every arm has what it says."""

import numpy as np
import polars as pl
import pytest

from chexgen_lib import records
from chexgen_lib.cohort.layout import CohortError
from chexgen_lib.pools import balancing as ba
from chexgen_lib.pools import labelled as pools
from chexgen_lib.pools.groups import age_group
from chexgen_lib.records import FINDINGS

ATTRIBUTES = ["sex", "age group", "view"]
SHARES = {"age group": {"19-40": 0.1, "41-65": 0.2, "66+": 0.7}, "view": {"AP": 0.75, "PA": 0.25}}


def cohort(n=600, seed=0):
    """Stage I's training and validation records, and test patients away from home; some ages are unknown."""
    rng = np.random.default_rng(seed)
    split = np.where(np.arange(n) < 400, "train", np.where(np.arange(n) < 500, "val", "test"))
    table = pl.DataFrame(
        {
            "image_id": [f"s:{i}" for i in range(n)],
            "patient_id": [f"s:p{i // 2}" for i in range(n)],
            "study_id": [f"s:{i}" for i in range(n)],
            "source": ["s"] * n,
            "view": rng.choice(["PA", "AP", "LATERAL"], n, p=[0.4, 0.5, 0.1]),
            "age": rng.choice([15, 30, 50, 70, None], n, p=[0.05, 0.25, 0.3, 0.35, 0.05]).tolist(),
            "sex": rng.choice(["F", "M"], n),
            "split": split,
            **{f: (rng.random(n) < 0.3).astype(np.float32) for f in FINDINGS},
        },
        schema_overrides={"age": pl.Float32},
    )
    flags = dict.fromkeys(ba.FLAGS, pl.lit(False))
    flags |= {"stage1": pl.col("split") != "test", "external": pl.col("split") == "test"}
    return records.validate(table).with_columns(**flags)


def choose(table, **changed):
    settings = {"trained_on": "stage1", "tested_on": "external", "records": 100, "shares": SHARES} | changed
    return ba.choose(table, ATTRIBUTES, **settings)


# ------------------------------------------------------------------------------------------------- patients


def test_the_training_records_have_the_shares_asked_for():
    chosen = choose(cohort())
    train = chosen.filter(role="train")
    assert 95 <= len(train) <= 100
    for name, values in SHARES.items():
        for value, share in values.items():
            assert (train[name].cast(pl.String) == value).mean() == pytest.approx(share, abs=0.03), value
    assert (choose(cohort()).equals(chosen), choose(cohort(), seed=1).equals(chosen)) == (True, False)
    most = choose(cohort(), records=10_000).filter(role="train")  # as many as the scarcest group allows
    old = cohort().filter(pl.col("age") == 70, pl.col("view") == "AP", pl.col("split") == "train")
    assert len(most.filter(pl.col("age group") == "66+", view="AP")) == len(old)


def test_roles_are_frontal_known_and_described():
    table = cohort()
    chosen = choose(table, shares=None, records=None)
    joined = chosen.join(table, on="image_id", suffix="_cohort")
    assert set(joined.select("role", "split").rows()) == {(s, s) for s in ("train", "val", "test")}
    assert set(joined["view"]) == {"PA", "AP"} and joined["age"].min() >= 19
    known = table.filter(pl.col("age") >= 19, pl.col("view") != "LATERAL")
    assert len(chosen) == len(known)  # without shares everybody is taken
    old_women = joined.filter(sex="F", age=70)["prompt"]
    assert len(old_women) and all("70-year-old woman" in prompt for prompt in old_women)


def test_descriptions_that_the_generator_cannot_read_are_left_out_and_counted(capsys):
    """Stage II's records are chosen by their impressions: with T5 in `paper`, some descriptions were longer."""
    longest = choose(cohort(), records=None, shares=None)["prompt"].str.len_chars().max()
    chosen = choose(cohort(), records=None, shares=None, fits=lambda prompts: [len(p) < longest for p in prompts])
    assert chosen["prompt"].str.len_chars().max() < longest
    assert "records left out: too long a description" in capsys.readouterr().out


def test_no_test_patient_is_in_a_training_split():
    """Generators, pools and classifiers learn from training splits only, whatever the flag."""
    table = cohort()
    seen = table.filter(external=True, view="PA").drop_nulls("age").filter(pl.col("age") > 18)["patient_id"][0]
    first = table.filter(split="train", view="LATERAL")["image_id"][0]  # not even one that is not trained on here
    moved = pl.when(image_id=first).then(pl.lit(seen)).otherwise("patient_id")
    for flag in ba.FLAGS:
        flags = [pl.when(image_id=first).then(pl.lit(flag == f)).otherwise(f).alias(f) for f in ba.FLAGS]
        with pytest.raises(CohortError, match=f"1 patients of validation or test .* first '{seen}'"):
            choose(table.with_columns(*flags, patient_id=moved))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"trained_on": "stage9"}, ValueError, "'stage9' is no flag"),
        ({"tested_on": "stage2"}, CohortError, "nobody for 'test'"),
        ({"shares": {"view": {"AP": 0.5}}}, ValueError, "shares of 'view'"),
        ({"shares": {"height": {"tall": 1.0}}}, ValueError, "shares of 'height'"),
        ({"shares": {"sex": {"F": 0.5, "X": 0.5}}}, CohortError, "no training record of X"),
    ],
)
def test_bad_settings_are_named(change, error, message):
    with pytest.raises(error, match=message):
        choose(cohort(), **change)


# ----------------------------------------------------------------------------------------------- image lists


@pytest.fixture
def run(tmp_path):
    """A run of 8 px whose images have the brightness of their row; synthetic ones 200, 201, ..."""
    table = cohort(300 * 2)
    chosen = choose(table)
    (tmp_path / "cohort").mkdir()
    table.write_parquet(tmp_path / "cohort/cohort.parquet")
    np.save(
        tmp_path / "cohort/images_8.npy",
        (np.arange(600) % 200).astype(np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2),
    )
    (tmp_path / "pools").mkdir()
    chosen.write_parquet(tmp_path / "pools/fairness.parquet")
    train, test = chosen.filter(role="train"), chosen.filter(role="test")
    wanted = ba.images_wanted(train, ba.additions(train, ATTRIBUTES, seed=0))
    for name, rows in (("matched", test[::-1]), ("balancing", wanted)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "samples.npy", np.full((len(rows), 1, 8, 8), 200, np.uint8))
        rows.select("image_id", pl.col("^record$"), "prompt").write_parquet(tmp_path / name / "manifest.parquet")
    return tmp_path


def assemble(run):
    matched, pool = ({"ChexGen": run / name, "RoentGen": run / name} for name in ("matched", "balancing"))
    return ba.assemble(run, matched, pool, 8, 8)


def test_copies_are_beside_their_originals(run):
    sets = assemble(run)
    ids = {name: sets.everything.table["image_id"].gather(rows) for name, rows in sets.rows.items()}
    assert ids["matched"].equals(ids["test"]) and ids["matched RoentGen"].equals(ids["test"])
    assert not set(sets.rows["matched"]) & set(sets.rows["matched RoentGen"])
    assert (sets.everything.images[sets.rows["matched"]] == 200).all()
    assert (sets.everything.images[sets.rows["test"]] < 200).all()
    assert ids["train"].equals(ba.load_chosen(run).filter(role="train")["image_id"])


def test_arms_differ_in_what_their_names_say(run):
    sets, train = assemble(run), ba.load_chosen(run).filter(role="train")
    arms = ba.arms(sets, train, ATTRIBUTES, seed=0)
    groups = train.select("image_id", group=pl.concat_str(pl.col(ATTRIBUTES).cast(pl.String), separator=" "))

    def counts(arm, weights=1.0):
        ids = sets.everything.table["image_id"].gather(arms[arm][0]).to_frame().with_columns(w=weights)
        return ids.join(groups, on="image_id").group_by("group").agg(pl.col("w").sum())["w"].sort().to_list()

    largest = max(counts(ba.REAL))
    assert counts(ba.SYNTHETIC) == counts(ba.REPEATED) == [largest] * 12
    assert len(arms[ba.UNBALANCED][0]) == 12 * largest
    assert max(counts(ba.UNBALANCED)) / largest == pytest.approx(12 * largest / len(train), rel=0.15)
    assert counts(ba.WEIGHTED, arms[ba.WEIGHTED][1]) == pytest.approx([len(train) / 12] * 12)
    for arm in (ba.SYNTHETIC, ba.UNBALANCED):  # each image once, real ones first, synthetic ones from the pool
        rows = arms[arm][0]
        assert len(set(rows)) == len(rows) and set(rows[len(train) :]) <= set(sets.synthetic)
    alike = (ba.SYNTHETIC, ba.REPEATED, "balanced, RoentGen")
    ids = [sets.everything.table["image_id"].gather(arms[arm][0]) for arm in alike]
    assert set(arms["balanced, RoentGen"][0][len(train) :]) <= set(sets.rows["balancing RoentGen"])
    assert ids[0].equals(ids[1]) and ids[0].equals(ids[2]), (
        "the control repeats the records that the synthetic images were drawn from"
    )


def test_a_pool_of_other_patients_is_refused(run):
    manifest = pl.read_parquet(run / "balancing/manifest.parquet")
    test = ba.load_chosen(run).filter(role="test")["image_id"][0]
    stranger = pl.when(pl.int_range(pl.len()) == 3).then(pl.lit(test)).otherwise("record").alias("record")
    manifest.with_columns(stranger).write_parquet(run / "balancing/manifest.parquet")
    with pytest.raises(CohortError, match=f"1 records are not trained on, first '{test}'"):
        assemble(run)
    (run / "pools/fairness.parquet").unlink()
    with pytest.raises(CohortError, match="run the stage 06_pools first"):
        assemble(run)


def test_too_few_copies_are_named(run):
    pool = pools.load(run / "balancing", pl.read_parquet(run / "cohort/cohort.parquet"), 8)
    held = pool.table.group_by("image_id").len().sort("len", "image_id").row(-1)
    assert pool.table["copy"].to_numpy()[pools.copies_of(pool.table, [held[0]] * held[1])].tolist() == list(
        range(held[1])
    )
    with pytest.raises(CohortError, match=f"lacks 1 images, first of record '{held[0]}'"):
        pools.copies_of(pool.table, [held[0]] * (held[1] + 1))


# ------------------------------------------------------------------------------------------------- balancing


def training(n=800, seed=0):
    rng = np.random.default_rng(seed)
    race = rng.choice(["Asian", "Black", "White"], n, p=[0.2, 0.3, 0.5])
    ages = pl.Series(rng.choice([20, 50, 80], n))
    table = pl.DataFrame({"sex": rng.choice(["F", "M"], n), "race": race}).with_columns(age_group(ages))
    return table.with_columns(race=pl.when(pl.int_range(pl.len()) < 5).then(None).otherwise("race"))


def test_weights_make_groups_equal():
    table = training()
    weights = ba.resampling_weights(table, ["sex", "race"])
    sums = table.with_columns(w=weights).drop_nulls("race").group_by("sex", "race").agg(pl.col("w").sum())["w"]
    assert sums.len() == 6 and sums.to_list() == pytest.approx([sums[0]] * 6)
    assert weights.mean() == pytest.approx(1)
    assert set(weights[table["race"].is_null().to_numpy()]) == {1.0}
    assert (ba.resampling_weights(table.with_columns(race=pl.lit(None, pl.String)), ["race"]) == 1).all()


def test_oversampling_brings_every_group_to_the_largest():
    table, groups = training(), ["sex", "race"]
    rows = ba.oversample(table, groups, seed=1)
    before, after = (dict(t.drop_nulls().group_by(groups).len().rows_by_key(groups)) for t in (table, table[rows]))
    assert len(after) == 6 and {n for ((n,),) in after.values()} == {max(n for ((n,),) in before.values())}
    assert table[rows]["race"].null_count() == table["race"].null_count()  # nothing is added to an unknown group
    assert (rows[: len(table)] == np.arange(len(table))).all()  # each real image once, then the repeats
    times = pl.DataFrame({"times": np.bincount(rows)}).with_columns(table["sex", "race"])
    spread = times.group_by("sex", "race").agg(pl.col("times").max() - pl.col("times").min())
    assert spread["times"].max() <= 1
    again, other = (ba.oversample(table, groups, seed=s) for s in (1, 2))
    assert (rows == again).all() and not (rows == other).all()


def test_oversampling_leaves_an_empty_group_empty():
    table = training().filter(pl.col("age group") != "66+")
    rows = ba.oversample(table, ["age group"], seed=0)
    assert set(table["age group"][rows]) == {"19-40", "41-65"}


@pytest.mark.parametrize("call", [ba.resampling_weights, lambda t, a: ba.oversample(t, a, seed=0)])
def test_mitigation_refuses_what_it_cannot_group(call):
    with pytest.raises(ValueError, match="'height' is not a column"):
        call(training(), ["height"])
    with pytest.raises(ValueError, match="needs a list"):
        call(training(), [])
