"""`chexgen readers`: what it prints and refuses; the study itself is tested in tests/quality/readers."""

import json

import numpy as np
import polars as pl
import pytest

from chexgen_lib.cli import main as cli
from chexgen_lib.images import from_uint8, write_png
from chexgen_lib.quality import reader_study
from chexgen_lib.quality.readers import answers, design
from chexgen_lib.records import FINDINGS


@pytest.fixture
def run(tmp_path):
    """A cohort of 20 patients and another generator's images of them, 16 px."""
    ids = [f"src:{i}" for i in range(20)]
    table = {"image_id": ids, "patient_id": [f"src:p{i}" for i in range(20)], "prompt": ["Effusion."] * 20}
    table |= {finding: [float(i % 2)] * 20 for i, finding in enumerate(FINDINGS)}
    (tmp_path / "cohort").mkdir()
    pl.DataFrame(table).write_parquet(tmp_path / "cohort/cohort.parquet")
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 16, 16), np.uint8)
    np.save(tmp_path / "cohort/images_16.npy", images[0])
    for i, image in enumerate(images[1]):
        write_png(tmp_path / f"pool/{i}.png", from_uint8(image))
    rows = [f"{i}.png,{name}" for i, name in enumerate(ids)]
    (tmp_path / "pool/labels.csv").write_text("\n".join(["image,image_id", *rows]))
    return tmp_path


def make(run, *more) -> list[str]:
    arm = ["--arm", f"ours={run / 'pool'}"]
    return ["readers", "make", "--cohort", str(run / "cohort"), *arm, "--out", str(run / "study"), *more]


def fill(study, reader) -> None:
    key = answers.read_key(study)
    always = {"realism": "real", "agreement": "2", "assisted": "Edema"}
    rows = [{"item": i["item"], "answer": always[i["task"]], "seconds": 4} for i in key["readers"][reader]]
    for row in rows:
        row["check"] = answers.check(key["study"], reader, row["item"], row["answer"], 4)
    content = {"format": answers.FORMAT, "study": key["study"], "reader": reader, "answers": rows}
    (study / f"answers/{reader}.json").write_text(json.dumps(content))


def test_make_says_what_the_study_detects_and_score_writes_its_tables(run, capsys):
    assert cli.main(make(run, "--cases", "10", "--readers", "ann", "bob", "--seed", "7")) == 0
    printed = capsys.readouterr().out
    assert "20 cases of as many patients" in printed and f"detect {design.detectable(10):.2f} sd" in printed
    key = json.loads((run / "study/key.json").read_text())
    assert key["seed"] == 7 and key["size"] == 16 and key["folders"] == {"ours": str(run / "pool")}
    fill(run / "study", "ann")
    assert cli.main(["readers", "score", str(run / "study"), "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "no answers yet: bob" in printed and "median 4 s a film" in printed and "from alone" in printed
    assert set(reader_study.read(run / "study")["score"]) == {2}
    results = pl.read_csv(run / "study/results.csv")
    assert {"realism", "agreement", "assisted"} == set(results["task"])
    assert set(pl.read_csv(run / "study/fig2c.csv").filter(source="this run")["value"]) == {2}
    assert (run / "study/fig2c.png").stat().st_size > 10_000
    accuracy = results.filter(task="realism", measure="accuracy")
    assert accuracy["value"].to_list() == [0.5] and accuracy["difference"].to_list() == [0.0]
    assert len(pl.read_csv(run / "study/answers.csv")) == len(key["readers"]["ann"])


def test_a_study_without_a_seed_has_a_secret_one(run):
    seeds = []
    for name in ("one", "two"):
        assert cli.main(make(run, "--cases", "5", "--tasks", "realism", "--out", str(run / name))) == 0
        seeds.append(answers.read_key(run / name)["seed"])
    assert seeds[0] != seeds[1] and min(seeds) > 2**20


def test_without_cases_the_power_decides(run, capsys):
    assert cli.main(make(run, "--tasks", "realism", "--detect", "0.7")) == 0
    assert f"{design.cases_needed(0.7)} cases a task detect" in capsys.readouterr().out
    assert len(answers.read_key(run / "study")["cases"]) == design.cases_needed(0.7) == 17


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "88 cases for each of 2 groups of tasks (films, assisted) are wanted, and 20 patients"),
        (["--cases", "5", "--arm", "ours=elsewhere"], "--arm 'ours=elsewhere': give NAME=FOLDER, every name once"),
        (["--cases", "5", "--arm", "theirs"], "--arm 'theirs': give NAME=FOLDER"),
        (["--cases", "5", "--arm", "theirs=elsewhere"], "elsewhere"),
        (["--cases", "5", "--tasks", "taste"], "realism, pairs, agreement, assisted"),
        (["--cases", "5", "--size", "32"], "real: images of 16 px, fewer than size 32"),
        (["--cases", "1"], "at least 2 cases"),
        (["--detect", "0"], "an effect of 0.001 or more"),
        (["--cases", "5", "--power", "2"], "a power between 0.05 and 1"),
    ],
)
def test_one_clear_line_for_what_cannot_be_made(run, capsys, more, message):
    assert cli.main(make(run, *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (run / "study").exists()


def test_a_study_is_not_made_twice_nor_scored_without_answers(run, capsys):
    assert cli.main(make(run, "--cases", "5", "--tasks", "realism")) == 0
    assert cli.main(make(run, "--cases", "5", "--tasks", "realism")) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert cli.main(["readers", "score", str(run / "study")]) == 2
    assert "holds no file: put the readers' exported *.json there" in capsys.readouterr().err
    assert cli.main(["readers", "score", str(run)]) == 2
    assert "key.json is missing" in capsys.readouterr().err
